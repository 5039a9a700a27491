//! `flashsale-server`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use flashsale_server::{App, Config, connect, listen, router, run, shutdown_on_signal};

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    config.logs.init();
    match start(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flashsale-server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn start(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let policy = config.policy()?;
    // Every buyer who waits for an answer is an open file.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let stores = config.stores.clone().resolve_stores()?;
    let shutdown = shutdown_on_signal()?;
    let engine = tokio::select! {
        engine = connect(&stores, config.store_wait()) => engine?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let mut listeners = Vec::new();
    let mut out = io::stdout().lock();
    for &address in &config.listen {
        let listener = listen(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
        writeln!(out, "listening on http://{}", listener.local_addr()?)?;
        listeners.push(listener);
    }
    out.flush()?;
    drop(out);
    let app = router(App::new(engine.clone(), policy, shutdown.clone()));
    run(engine, app, listeners, config.drainers, shutdown).await?;
    Ok(())
}
