//! What a round came to, in words.

use std::{fmt::Write, time::Duration};

use super::{
    fault::{Expected, Fault},
    judge::Problem,
    round::Outcome,
};

/// Problems of one round that are shown with their history.
const SHOWN: usize = 3;
/// Events at the beginning and at the end of a history that are shown.
const EVENTS: usize = 20;
/// Further ones that are named.
const NAMED: usize = 10;

/// A line, and below it what was wrong if the round is not what it had to be.
pub(crate) fn round(outcome: &Outcome, fault: &Fault, seed: u64, took: Duration) -> String {
    let verdict = &outcome.verdict;
    let is_met = fault.expected.is_met(&verdict.problems);
    let word = match (fault.expected, is_met) {
        (Expected::Survived, true) => "survived",
        (Expected::Survived, false) => "FAILED",
        (Expected::Caught(_), true) => "caught",
        (Expected::Caught(_), false) => "NOT CAUGHT",
    };
    let mut text = format!(
        "{}: {word}, {} orders, {} unknown, {} lost, healthy after {}",
        title(fault, seed),
        verdict.orders,
        verdict.unknown,
        verdict.lost,
        verdict.healthy_after.map_or("never".to_owned(), seconds),
    );
    if let Some(time) = verdict.taken_over {
        let _ = write!(text, ", taken over in {}", seconds(time));
    }
    let _ = write!(text, ", {:.0} s in all", took.as_secs_f64());
    if !is_met {
        explain(&mut text, outcome, fault, seed);
    }
    text
}

pub(crate) fn title(fault: &Fault, seed: u64) -> String {
    format!("{} (seed {seed})", fault.name)
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// What was wrong, with the history of the orders concerned.
fn explain(text: &mut String, outcome: &Outcome, fault: &Fault, seed: u64) {
    let mut line = |line: String| {
        text.push('\n');
        text.push_str(&line);
    };
    let problems = &outcome.verdict.problems;
    if let Expected::Caught(words) = fault.expected {
        line(format!("  nothing says: {words}"));
    }
    let (struck_at, healed_at) = (outcome.struck_at.as_secs_f64(), outcome.healed_at.as_secs_f64());
    line(format!("  struck at {struck_at:.3} s, over at {healed_at:.3} s"));
    for problem in problems.iter().take(SHOWN) {
        line(format!("  * {}", problem.what));
        history(outcome, problem).into_iter().for_each(&mut line);
    }
    for problem in problems.iter().skip(SHOWN).take(NAMED) {
        line(format!("  * {}", problem.what));
    }
    if problems.len() > SHOWN + NAMED {
        line(format!("  * and {} more", problems.len() - SHOWN - NAMED));
    }
    if let Some(logs) = &outcome.logs {
        line(format!("  logs of the programs: {}", logs.display()));
    }
    line(format!("  again: flashsale-loadtest chaos --fault {} --seed {seed}", fault.name));
}

fn history(outcome: &Outcome, problem: &Problem) -> Vec<String> {
    let Some((user, key)) = &problem.of else { return Vec::new() };
    let its = outcome.events.iter().filter(|event| &event.user == user && &event.key == key);
    let its: Vec<_> = its.collect();
    let mut lines = Vec::new();
    for (number, event) in its.iter().enumerate() {
        // The middle of a long wait is always the same.
        if number < EVENTS || number + EVENTS >= its.len() {
            lines.push(format!("      {event}"));
        } else if number == EVENTS {
            lines.push(format!("      … {} events …", its.len() - 2 * EVENTS));
        }
    }
    let is_its = |key_of: Option<&str>| key_of.is_none_or(|of| of == key);
    for order in outcome.orders.iter().filter(|order| &order.user == user && is_its(order.key.as_deref())) {
        let state = if order.confirmed { "Confirmed" } else { order.failure.unwrap_or("Failed") };
        lines.push(format!(
            "      recorded: order {} {state}, admitted at {}, {:?}",
            order.id, order.admitted_at, order.units
        ));
    }
    lines
}
