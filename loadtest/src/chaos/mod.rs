//! The fault machine: real programs on real stores, one of which is being broken while a herd is buying.
//!
//! - `fault`: what a fault is, and what it may cost; `faults`: all of them, one file per family
//! - `stage`: the stores, servers and workers of a round; `programs` the processes; `proxy` the broken network, `trap`
//!   what holds one message of it; `relay` a proxy that hides which Redis is behind it
//! - `buyers`: the herd; `journal`: what they did and saw; `queue_watch`: how long orders waited
//! - `round`: break, mend, wait until all is well; `jobs`: rounds side by side
//! - `judge`: the judgement, pure; `report` `table`: the result, in words and figures
//! - `dice`: chance that can be repeated from a seed

mod args;
mod buyers;
mod dice;
mod fault;
mod faults;
mod jobs;
mod journal;
mod judge;
mod programs;
mod proxy;
mod queue_watch;
mod relay;
mod report;
mod round;
mod stage;
mod table;
mod trap;

use std::io::Write;

use anyhow::Result;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

pub use args::ChaosArgs;
use jobs::Jobs;
use table::Row;

/// Runs the faults and prints what they came to; whether all were survived.
///
/// To be awaited by the main thread, as [`run`](crate::run).
pub async fn run(args: &ChaosArgs) -> Result<bool> {
    if args.list {
        let width = fault::all().map(|fault| fault.name.len()).max().unwrap_or_default();
        let lines: Vec<_> =
            fault::all().map(|fault| format!("{:<width$} {}", fault.name, fault.what)).collect();
        // Whoever reads it may have read enough: `println!` would panic.
        return Ok(writeln!(std::io::stdout(), "{}", lines.join("\n")).is_ok());
    }
    let faults = args.faults().map_err(anyhow::Error::msg)?;
    let seed = args.seed();
    println!("seed {seed}");
    let interrupted = interrupted()?;
    let jobs = Jobs::new(&faults, seed, args.rounds(), args.buyers(), interrupted.clone());
    let rows = jobs.play(args.jobs()).await?;
    println!("\n{}\n", table::table(&rows));
    let interrupted = *interrupted.borrow();
    let passed = rows.iter().all(Row::passed) && !interrupted;
    println!(
        "{}",
        if interrupted {
            "INTERRUPTED"
        } else if passed {
            "PASS"
        } else {
            "FAIL"
        }
    );
    Ok(passed)
}

/// Becomes true when we are told to end: then the programs and the data of all rounds have to go first.
fn interrupted() -> Result<watch::Receiver<bool>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (told, interrupted) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        told.send_replace(true);
        // So that nobody who asks later finds the other end gone.
        told.closed().await;
    });
    Ok(interrupted)
}
