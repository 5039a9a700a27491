//! The result of the rounds, for people.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::{
    fault::{Expected, Fault},
    judge::Verdict,
};

/// What all rounds of one fault came to.
pub(crate) struct Row {
    pub(crate) fault: &'static Fault,
    rounds: u32,
    failed: u32,
    orders: usize,
    unknown: usize,
    resolved: usize,
    lost: usize,
    parked: usize,
    slowest: Option<Duration>,
}

impl Row {
    pub(crate) fn new(fault: &'static Fault) -> Self {
        Self {
            fault,
            rounds: 0,
            failed: 0,
            orders: 0,
            unknown: 0,
            resolved: 0,
            lost: 0,
            parked: 0,
            slowest: None,
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
    }

    /// A round that the machine could not play to its end is no pass.
    pub(crate) fn add_broken(&mut self) {
        self.rounds += 1;
        self.failed += 1;
    }

    pub(crate) fn passed(&self) -> bool {
        self.failed == 0
    }

    fn verdict(&self) -> String {
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
        "verdict",
    ]);
    for row in rows {
        let healthy = row.slowest.map_or("never".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
        let figures = [
            row.rounds.to_string(),
            row.orders.to_string(),
            format!("{}, {}", row.unknown, row.resolved),
            row.lost.to_string(),
            row.parked.to_string(),
            healthy,
        ];
        let figures = figures.map(|figure| Cell::new(figure).set_alignment(CellAlignment::Right));
        let mut cells = vec![Cell::new(row.fault.name)];
        cells.extend(figures);
        cells.push(Cell::new(row.verdict()));
        table.add_row(cells);
    }
    table
}
