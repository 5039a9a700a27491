//! A herd of simulated buyers falls on one sale; then the stores prove, beside what the buyers saw, that
//! nothing was oversold, duplicated or lost.
//!
//! - `mix`: what each buyer is up to; `buyer`: how it does it; `shop`: the server as one buyer sees it
//! - `herd`: all of them at once, run by goose; `opening`: the sale they wait for
//! - `history`: what the buyers saw; `evidence`: what the stores say
//! - `verify`: the judgement over both, pure; `report`: the table and the JSON
//! - `server`: a flashsale-server of our own, when no other is named
//! - `chaos`: the fault machine, a program of its own beside the herd; `broken`: what it has to see through

mod args;
mod broken;
mod buyer;
mod chaos;
mod evidence;
mod herd;
mod history;
mod mix;
mod opening;
mod progress;
mod report;
mod server;
mod shop;
mod verify;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use flashsale_core::{Engine, EngineConfig, Operator, SaleState};

pub use args::{Args, Task};
pub use broken::{BrokenArgs, run as run_broken};
pub use chaos::{ChaosArgs, run as run_chaos};
use herd::Ground;
use progress::Progress;
use server::Server;
use verify::Report;

/// Runs the load test and prints its result; whether it passed.
///
/// To be awaited by the main thread (`#[tokio::main]`, not `tokio::spawn`): the server that it may start
/// is killed by the kernel when the thread that started it ends.
pub async fn run(args: &Args) -> Result<bool> {
    let max_in_flight = herd::raise_file_limit(args.max_in_flight);
    let stores = args.stores()?;
    let (server, bases) = if let Some(target) = args.target() {
        server::must_answer(&target).await?;
        (None, vec![target])
    } else {
        let server = Server::start(&stores.redis_url, &stores.database_url).await?;
        let bases = server.addresses().to_vec();
        (Some(server), bases)
    };
    let mut config = EngineConfig::new(&stores.redis_url, &stores.database_url);
    config.lanes = 1;
    // A busy machine may answer the operator's large reads late; that is not what is being tested.
    config.redis_deadline = Duration::from_secs(10);
    config.postgres_deadline = Duration::from_secs(30);
    let engine = Engine::connect(config).await.context("cannot reach the stores")?;

    let ground = Ground::new(bases, max_in_flight, server.is_some());
    let outcome = fall_on_a_sale(args, ground, &engine.operator()).await;
    engine.close().await;
    let mut report = match (outcome, server) {
        (Ok(report), None) => report,
        (Ok(mut report), Some(server)) => {
            if let Err(problem) = server.stop().await {
                report.failures.push(format!("{problem:#}"));
            }
            report
        }
        (Err(error), server) => {
            let log = server.map(Server::abandon);
            return Err(match log {
                Some(log) => anyhow!("{error:#} (the server's log is in {})", log.display()),
                None => error,
            });
        }
    };
    if let Some(path) = &args.report_json
        && let Err(error) = report::write_json(&report, path)
    {
        report.failures.push(format!("{error:#}"));
    }
    report::print(&report);
    Ok(report.passed())
}

async fn fall_on_a_sale(args: &Args, ground: Ground, operator: &Operator) -> Result<Report> {
    let progress = Progress::new();
    let ground = std::sync::Arc::new(ground);
    let goods = herd::run(&ground, args, operator, &progress).await?;
    let evidence = evidence::collect(operator, &goods, args.users, ground.take_history(), &progress).await?;
    // Nobody else is to buy from it, for whom the servers may go on.
    operator.set_state(goods.sale, SaleState::Closed).await?;
    progress.done();
    Ok(verify::verify(&evidence))
}
