//! The result of the rounds, for people.

use std::{collections::BTreeSet, time::Duration};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::{
    fault::{Expected, Fault},
    judge::Verdict,
    report::seconds,
};

/// What all rounds of one fault came to.
pub(crate) struct Row {
    pub(crate) fault: &'static Fault,
    rounds: u32,
    failed: u32,
    /// Rounds that the machine could not play to their end.
    unplayed: u32,
    orders: usize,
    unknown: usize,
    resolved: usize,
    lost: usize,
    parked: usize,
    slowest: Option<Duration>,
    taken_over: Option<Duration>,
    /// Rounds in which all invariants were computed.
    computed: u32,
    /// Those that did not hold in one round or another.
    broken: BTreeSet<String>,
}

impl Row {
    pub(crate) fn new(fault: &'static Fault) -> Self {
        Self {
            fault,
            rounds: 0,
            failed: 0,
            unplayed: 0,
            orders: 0,
            unknown: 0,
            resolved: 0,
            lost: 0,
            parked: 0,
            slowest: None,
            taken_over: None,
            computed: 0,
            broken: BTreeSet::new(),
        }
    }

    pub(crate) fn add(&mut self, verdict: &Verdict) {
        self.rounds += 1;
        self.failed += u32::from(!self.fault.expected.is_met(&verdict.problems));
        self.orders += verdict.orders;
        self.unknown += verdict.unknown;
        self.resolved += verdict.resolved;
        self.lost += verdict.lost;
        self.parked += verdict.parked;
        self.slowest = self.slowest.max(verdict.healthy_after);
        self.taken_over = self.taken_over.max(verdict.taken_over);
        if let Some(broken) = &verdict.broken {
            self.computed += 1;
            self.broken.extend(broken.iter().cloned());
        }
    }

    /// A round that the machine could not play to its end is no pass.
    pub(crate) fn add_unplayed(&mut self) {
        self.rounds += 1;
        self.unplayed += 1;
    }

    pub(crate) fn passed(&self) -> bool {
        self.rounds > 0 && self.failed + self.unplayed == 0
    }

    fn invariants(&self) -> String {
        match (self.rounds - self.computed, self.broken.is_empty()) {
            (0, true) if self.rounds > 0 => "I1–I8 hold".to_owned(),
            (0, false) => format!("not {}", self.broken.iter().cloned().collect::<Vec<_>>().join(" ")),
            _ => "not computed".to_owned(),
        }
    }

    fn verdict(&self) -> String {
        if self.rounds == 0 {
            return "not played".to_owned();
        }
        if self.unplayed > 0 {
            return format!("BROKEN MACHINE {}", self.unplayed);
        }
        match (self.fault.expected, self.failed) {
            (Expected::Survived, 0) => "survived".to_owned(),
            (Expected::Caught(_), 0) => "caught".to_owned(),
            (Expected::Survived, failed) => format!("FAILED {failed}"),
            (Expected::Caught(_), failed) => format!("NOT CAUGHT {failed}"),
        }
    }
}

pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "fault",
        "rounds",
        "orders",
        "unknown, resolved",
        "lost (allowed)",
        "parked",
        "healthy after",
        "taken over in",
        "invariants",
        "verdict",
    ]);
    for row in rows {
        let healthy = row.slowest.map_or("never".to_owned(), seconds);
        let figures = [
            row.rounds.to_string(),
            row.orders.to_string(),
            format!("{}, {}", row.unknown, row.resolved),
            row.lost.to_string(),
            row.parked.to_string(),
            healthy,
            row.taken_over.map_or(String::new(), seconds),
        ];
        let figures = figures.map(|figure| Cell::new(figure).set_alignment(CellAlignment::Right));
        let mut cells = vec![Cell::new(row.fault.name)];
        cells.extend(figures);
        cells.extend([Cell::new(row.invariants()), Cell::new(row.verdict())]);
        table.add_row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use flashsale_core::Invariant;

    use super::*;
    use crate::chaos::{fault, judge::Problem};

    fn verdict(problem: Option<&str>, broken: Option<&[Invariant]>) -> Verdict {
        let problem = problem.map(|what| Problem { what: what.to_owned(), of: None });
        Verdict {
            orders: 3,
            unknown: 2,
            resolved: 1,
            lost: 0,
            parked: 0,
            healthy_after: Some(Duration::from_secs(2)),
            taken_over: None,
            broken: broken.map(|broken| broken.iter().map(Invariant::to_string).collect()),
            problems: problem.into_iter().collect(),
        }
    }

    /// The row of a fault after these rounds, as text.
    fn shown(name: &str, verdicts: &[Verdict], unplayed: u32) -> (Row, String) {
        let mut row = Row::new(fault::named(&[name.to_owned()]).unwrap()[0]);
        for verdict in verdicts {
            row.add(verdict);
        }
        for _ in 0..unplayed {
            row.add_unplayed();
        }
        let text = format!("{} | {}", row.invariants(), row.verdict());
        (row, text)
    }

    #[test]
    fn a_row_says_what_its_rounds_came_to() {
        let sound = || verdict(None, Some(&[]));
        let failed = || verdict(Some("an order is lost"), Some(&[Invariant::I5, Invariant::I4]));
        let (row, text) = shown("flushall", &[sound(), sound()], 0);
        assert_eq!((row.passed(), &*text), (true, "I1–I8 hold | survived"));
        let text_of_all = table(&[row]).to_string();
        assert!(text_of_all.contains("4, 2") && text_of_all.contains("2.0 s"), "{text_of_all}");
        let (row, text) = shown("flushall", &[sound(), failed()], 0);
        assert_eq!((row.passed(), &*text), (false, "not I4 I5 | FAILED 1"));
        let (row, text) = shown("flushall", &[sound(), verdict(Some("no audit"), None)], 0);
        assert_eq!((row.passed(), &*text), (false, "not computed | FAILED 1"));
    }

    #[test]
    fn a_round_that_was_not_played_is_no_pass() {
        let (row, text) = shown("flushall", &[verdict(None, Some(&[]))], 1);
        assert_eq!((row.passed(), &*text), (false, "not computed | BROKEN MACHINE 1"));
        let (row, text) = shown("flushall", &[], 0);
        assert_eq!((row.passed(), &*text), (false, "not computed | not played"));
    }

    #[test]
    fn a_control_passes_if_it_is_caught() {
        let (row, text) = shown("control-entry-removed", &[verdict(Some("it is lost"), Some(&[]))], 0);
        assert_eq!((row.passed(), &*text), (true, "I1–I8 hold | caught"));
        let (row, text) = shown("control-entry-removed", &[verdict(None, Some(&[]))], 0);
        assert_eq!((row.passed(), &*text), (false, "I1–I8 hold | NOT CAUGHT 1"));
    }
}
