//! The engine beside its rivals and its physical limits, measured in one run.
//!
//! | module | |
//! |---|---|
//! | `admission`, `replay`, `latency` | `Engine::reserve`: beside a rival, the bare script, its own repeats, a PING |
//! | `http` | the server, beside one without an engine |
//! | `drain` | the drainer, beside a rival's worker and COPY |
//! | `memory` | bytes per order; whether an admission costs more in a large sale |
//! | `raw`, `reference` | the script without the engine; the rival |
//! | `shop`, `crowd`, `child`, `client`, `bare` | stores, buyers and processes that the contenders use |
//! | `rounds`, `report` | A B A B, medians; the table and the file |
//!
//! Every round asserts what came of it in both stores: a wrong answer ends the run, however fast it was.

mod admission;
mod bare;
mod child;
mod client;
mod crowd;
mod drain;
mod http;
mod latency;
mod memory;
mod raw;
mod reference;
mod replay;
mod report;
mod rounds;
mod shop;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::Parser;
use mimalloc::MiMalloc;
use tokio::runtime;
use tracing_subscriber::EnvFilter;

use crate::{
    report::{Reach, Row},
    rounds::Rounds,
    shop::Bench,
};

/// Every figure, in the order in which they are measured.
const NAMES: [&str; 14] = [
    "admission_vs_reference",
    "admission2_vs_reference",
    "admission_vs_ceiling",
    "admission_vs_single",
    "replay_vs_admission",
    "latency_half_load",
    "http_vs_bare",
    "http_limited_vs_bare",
    "refusal_vs_bare",
    "drain_vs_one_by_one",
    "drain_vs_copy",
    "growth",
    "memory_queued",
    "memory_settled",
];

/// The engine beside its rivals and its physical limits, on private stores
///
/// Exit code 0 if every answer was right, whatever was reached.
#[derive(Debug, Parser)]
#[command(name = "flashsale-bench", args_conflicts_with_subcommands = true)]
struct Args {
    /// Measure only these
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NAMES)]
    only: Vec<String>,
    /// How often each contender has its turn, after a warm-up that does not count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Little of everything: shows that it works, and measures nothing
    #[arg(long)]
    quick: bool,
    /// Where the figures of this run go
    #[arg(long, value_name = "FILE", default_value = "target/bench/side_by_side.json")]
    json: PathBuf,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is as a child of itself.
#[derive(Debug, clap::Subcommand)]
#[command(hide = true)]
enum Role {
    #[command(hide = true)]
    Client(client::Args),
    #[command(hide = true)]
    Bare { answer: bare::Answer },
}

/// The server's: what stands beside it is to lack nothing that it has.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // An engine on a new database says that its tables are missing; they are made right after. That PostgreSQL
    // is slow to remove the last one is not what is measured either.
    let unless_told = |_| EnvFilter::new("warn,flashsale_core::catalog=error,sqlx=error");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(unless_told);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    lines.with_ansi(io::stderr().is_terminal()).init();
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flashsale-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let mut runtime = match &args.role {
        // On one thread it takes as little as possible of the machine that it measures.
        Some(Role::Client(_)) => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        match args.role {
            Some(Role::Client(client)) => client::run(&client).await,
            Some(Role::Bare { answer }) => bare::run(answer).await,
            None => measure_and_report(&args).await,
        }
    })
}

async fn measure_and_report(args: &Args) -> Result<()> {
    let rounds = Rounds { warm_up: usize::from(!args.quick), counted: args.rounds.into() };
    let bench = Bench::start(rounds, args.quick).await?;
    let measured = measure(&bench, &args.only).await;
    bench.stop().await;
    let rows = measured?;
    println!("{}", report::table(&rows, args.quick));
    report::write_json(&rows, &args.json)
}

async fn measure(bench: &Bench, only: &[String]) -> Result<Vec<Row>> {
    let wanted = |name: &&str| only.is_empty() || only.iter().any(|only| only == name);
    let mut rows: Vec<Row> = Vec::new();
    for name in NAMES.into_iter().filter(wanted) {
        // Two of them come from one measurement.
        if !rows.iter().any(|row| row.name == name) {
            rows.extend(measure_one(bench, name).await?);
        }
    }
    rows.retain(|row| wanted(&row.name));
    Ok(rows)
}

async fn measure_one(bench: &Bench, name: &'static str) -> Result<Vec<Row>> {
    Ok(vec![match name {
        "admission_vs_reference" => admission::vs_reference(bench, name, 1).await?,
        "admission2_vs_reference" => admission::vs_reference(bench, name, 2).await?,
        "admission_vs_ceiling" => admission::vs_ceiling(bench, name).await?,
        "admission_vs_single" => admission::vs_single(bench, name).await?,
        "replay_vs_admission" => replay::vs_admission(bench, name).await?,
        "latency_half_load" => latency::half_load(bench, name).await?,
        "http_vs_bare" => http::vs_bare(bench, name, Reach::AtLeast(0.7), "off").await?,
        "http_limited_vs_bare" => http::vs_bare(bench, name, Reach::Seen, "10/10s").await?,
        "refusal_vs_bare" => http::refusal_vs_bare(bench, name).await?,
        "drain_vs_one_by_one" => drain::vs_one_by_one(bench, name).await?,
        "drain_vs_copy" => drain::vs_copy(bench, name).await?,
        "growth" => memory::growth(bench, name).await?,
        "memory_queued" | "memory_settled" => {
            return Ok(memory::per_order(bench, "memory_queued", "memory_settled").await?.into());
        }
        other => unreachable!("{other} is not one of NAMES"),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
        assert!(Args::try_parse_from(["bench", "--only", "growth,memory_queued", "--quick"]).is_ok());
        for bad in [["--only", "all"], ["--rounds", "0"]] {
            assert!(Args::try_parse_from(["bench", bad[0], bad[1]]).is_err(), "{bad:?}");
        }
    }
}
