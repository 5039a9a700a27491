//! The fault machine: real programs on real stores, one of which is being broken while a herd is buying.
//!
//! - `fault`: what a fault is, and what it may cost; `faults`: all of them, one file per family
//! - `stage`: the stores, servers and workers of a round; `programs` the processes; `proxy` the broken network
//! - `buyers`: the herd; `journal`: what they did and saw
//! - `round`: break, mend, wait until all is well; `judge`: the judgement, pure; `table`: the result
//! - `dice`: chance that can be repeated from a seed

mod args;
mod buyers;
mod dice;
mod fault;
mod faults;
mod journal;
mod judge;
mod programs;
mod proxy;
mod round;
mod stage;
mod table;

use std::{io::Write, sync::Arc, time::Instant};

use anyhow::Result;

pub use args::ChaosArgs;
use fault::{Expected, Fault};
use flashsale_stack::Stack;
use judge::Problem;
use round::Outcome;
use table::Row;

/// Problems of one round that are shown with their history.
const SHOWN: usize = 3;
/// Events at the beginning and at the end of a history that are shown.
const EVENTS: usize = 20;
/// Further ones that are named.
const NAMED: usize = 10;

/// Runs the faults and prints what they came to; whether all were survived.
///
/// To be awaited by the main thread, as [`run`](crate::run).
pub async fn run(args: &ChaosArgs) -> Result<bool> {
    if args.list {
        let lines: Vec<_> = fault::all().map(|fault| format!("{:<22} {}", fault.name, fault.what)).collect();
        // Whoever reads it may have read enough: `println!` would panic.
        return Ok(writeln!(std::io::stdout(), "{}", lines.join("\n")).is_ok());
    }
    let faults = args.faults().map_err(anyhow::Error::msg)?;
    let (seed, mut rounds) = (args.seed(), 0);
    println!("seed {seed}");
    let mut stack = Arc::new(stage::start_stack().await?);
    let mut rows = Vec::new();
    for fault in faults {
        let mut row = Row::new(fault);
        for seed in (seed..).take(args.rounds() as usize) {
            rounds += 1;
            let sound = play(&stack, fault, seed, rounds, args.buyers(), &mut row).await;
            if !sound {
                // Whatever state the stores are in now, the next round must not suffer from it.
                stack = Arc::new(stage::start_stack().await?);
            }
        }
        rows.push(row);
    }
    if let Some(stack) = Arc::into_inner(stack) {
        Stack::stop(stack).await;
    }
    println!("\n{}\n", table::table(&rows));
    let passed = rows.iter().all(Row::passed);
    println!("{}", if passed { "PASS" } else { "FAIL" });
    Ok(passed)
}

/// Plays a round and prints what it came to; whether the stores are sound afterwards.
async fn play(
    stack: &Arc<Stack>,
    fault: &'static Fault,
    seed: u64,
    round: usize,
    buyers: usize,
    row: &mut Row,
) -> bool {
    let began = Instant::now();
    let outcome = match Box::pin(round::play(stack, fault, seed, round, buyers)).await {
        Ok(outcome) => outcome,
        Err(error) => {
            println!("{}: broken machine: {error:#}", title(fault, seed));
            row.add_broken();
            return false;
        }
    };
    let verdict = &outcome.verdict;
    row.add(verdict);
    let word = match (fault.expected, fault.expected.is_met(&verdict.problems)) {
        (Expected::Survived, true) => "survived",
        (Expected::Survived, false) => "FAILED",
        (Expected::Caught(_), true) => "caught",
        (Expected::Caught(_), false) => "NOT CAUGHT",
    };
    println!(
        "{}: {word}, {} orders, {} unknown, {} lost, healthy after {}, {:.0} s in all",
        title(fault, seed),
        verdict.orders,
        verdict.unknown,
        verdict.lost,
        verdict.healthy_after.map_or("never".to_owned(), |time| format!("{:.1} s", time.as_secs_f64())),
        began.elapsed().as_secs_f64(),
    );
    if !fault.expected.is_met(&verdict.problems) {
        explain(&outcome, fault, seed);
    }
    verdict.problems.is_empty()
}

fn title(fault: &Fault, seed: u64) -> String {
    format!("{} (seed {seed})", fault.name)
}

/// What was wrong, with the history of the orders concerned.
fn explain(outcome: &Outcome, fault: &Fault, seed: u64) {
    let problems = &outcome.verdict.problems;
    if let Expected::Caught(words) = fault.expected {
        println!("  nothing says: {words}");
    }
    println!(
        "  struck at {:.3} s, over at {:.3} s",
        outcome.struck_at.as_secs_f64(),
        outcome.healed_at.as_secs_f64()
    );
    for problem in problems.iter().take(SHOWN) {
        println!("  * {}", problem.what);
        history(outcome, problem);
    }
    for problem in problems.iter().skip(SHOWN).take(NAMED) {
        println!("  * {}", problem.what);
    }
    if problems.len() > SHOWN + NAMED {
        println!("  * and {} more", problems.len() - SHOWN - NAMED);
    }
    if let Some(logs) = &outcome.logs {
        println!("  logs of the programs: {}", logs.display());
    }
    println!("  again: flashsale-loadtest chaos --fault {} --seed {seed}", fault.name);
}

fn history(outcome: &Outcome, problem: &Problem) {
    let Some((user, key)) = &problem.of else { return };
    let its = outcome.events.iter().filter(|event| &event.user == user && &event.key == key);
    let its: Vec<_> = its.collect();
    for (number, event) in its.iter().enumerate() {
        // The middle of a long wait is always the same.
        if number < EVENTS || number + EVENTS >= its.len() {
            println!("      {event}");
        } else if number == EVENTS {
            println!("      … {} events …", its.len() - 2 * EVENTS);
        }
    }
    let is_its = |key_of: Option<&str>| key_of.is_none_or(|of| of == key);
    for order in outcome.orders.iter().filter(|order| &order.user == user && is_its(order.key.as_deref())) {
        let state = if order.confirmed { "Confirmed" } else { order.failure.unwrap_or("Failed") };
        println!(
            "      recorded: order {} {state}, admitted at {}, {:?}",
            order.id, order.admitted_at, order.units
        );
    }
}
