//! A process without routes: it makes orders final that others have admitted, and keeps sales loaded. Several may
//! run; what a killed one had in hand is taken over within ten seconds.
//!
//! ```sh
//! REDIS_URL=… DATABASE_URL=… cargo run --example worker_only
//! ```

use std::{env, time::Duration};

use anyhow::Context;
use flashsale_core::{Engine, EngineConfig, Verdict};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut config = EngineConfig::new(
        env::var("REDIS_URL").context("REDIS_URL")?,
        env::var("DATABASE_URL").context("DATABASE_URL")?,
    );
    // It reserves nothing.
    config.lanes = 1;
    let engine = Engine::connect(config).await?;
    engine.migrate().await?;

    // Stores on which the promises do not hold are not worked on.
    let findings = engine.preflight().await;
    for finding in findings.iter().filter(|finding| finding.verdict != Verdict::Ok) {
        eprintln!("{}: {}; {}", finding.check, finding.found, finding.remedy.as_deref().unwrap_or("-"));
    }
    if findings.iter().any(|finding| finding.verdict == Verdict::Refused) {
        anyhow::bail!("the stores are not fit for it");
    }

    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(engine.keeper().run(shutdown.clone()));
    // Of all processes, one at a time does this.
    tasks.spawn(engine.auditor(Duration::from_secs(30)).run(shutdown.clone()));
    let drainer = engine.drainer();
    println!("draining as {}", drainer.name());
    tasks.spawn(drainer.run(shutdown.clone()));

    tokio::signal::ctrl_c().await?;
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    engine.close().await;
    println!("stopped");
    Ok(())
}
