//! Rounds side by side: each job has stores of its own and plays the next round that nobody has taken yet.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::Arc,
    time::Instant,
};

use anyhow::Result;
use flashsale_stack::Stack;
use futures::future;
use tokio::sync::watch;

use super::{
    fault::{self, Fault},
    report, round, stage,
    table::Row,
};

/// A round that waits to be played.
#[derive(Clone, Copy)]
struct Turn {
    /// Of which row of the table.
    row: usize,
    seed: u64,
}

/// All rounds, and what they came to.
pub(crate) struct Jobs {
    waiting: RefCell<VecDeque<Turn>>,
    rows: RefCell<Vec<Row>>,
    played: Cell<usize>,
    buyers: usize,
    /// True once everything is to end.
    interrupted: watch::Receiver<bool>,
}

impl Jobs {
    /// Each fault gets so many rounds, the first one with this seed, each further one with the next.
    pub(crate) fn new(
        faults: &[&'static Fault],
        seed: u64,
        rounds: u32,
        buyers: usize,
        interrupted: watch::Receiver<bool>,
    ) -> Self {
        let turns = |row| (seed..).take(rounds as usize).map(move |seed| Turn { row, seed });
        Self {
            waiting: RefCell::new((0..faults.len()).flat_map(turns).collect()),
            rows: RefCell::new(faults.iter().map(|fault| Row::new(fault)).collect()),
            played: Cell::new(0),
            buyers,
            interrupted,
        }
    }

    /// Plays the rounds, so many at once, and returns what they came to. An interrupted one is in no row.
    ///
    /// To be awaited by the main thread: see [`Program::start`](super::programs::Program::start).
    pub(crate) async fn play(self, at_once: usize) -> Result<Vec<Row>> {
        let measured = |turn: &Turn| fault::is_played_alone(self.rows.borrow()[turn.row].fault);
        let (alone, together) = self.waiting.take().into_iter().partition::<VecDeque<_>, _>(measured);
        for (turns, at_once) in [(together, at_once), (alone, 1)] {
            let jobs = at_once.min(turns.len());
            self.waiting.replace(turns);
            future::try_join_all((0..jobs).map(|_| self.job())).await?;
        }
        Ok(self.rows.into_inner())
    }

    async fn job(&self) -> Result<()> {
        let mut stack = None;
        while let Some(turn) = self.next() {
            // Never given up half way: what had been started by then would have to be found and removed.
            let on = match stack.take() {
                Some(stack) => stack,
                None => Arc::new(stage::start_stack().await?),
            };
            let mut interrupted = self.interrupted.clone();
            let sound = tokio::select! {
                sound = self.round(&on, turn) => sound,
                _ = interrupted.wait_for(|interrupted| *interrupted) => false,
            };
            // Whatever state unsound stores are in, the next round must not suffer from it.
            if sound { stack = Some(on) } else { stop(on).await }
        }
        if let Some(stack) = stack {
            stop(stack).await;
        }
        Ok(())
    }

    fn next(&self) -> Option<Turn> {
        if *self.interrupted.borrow() {
            return None;
        }
        self.waiting.borrow_mut().pop_front()
    }

    /// Plays a round and prints what it came to; whether the stores are sound afterwards.
    async fn round(&self, stack: &Arc<Stack>, turn: Turn) -> bool {
        let began = Instant::now();
        self.played.set(self.played.get() + 1);
        let fault = self.rows.borrow()[turn.row].fault;
        let outcome = Box::pin(round::play(stack, fault, turn.seed, self.played.get(), self.buyers)).await;
        let row = &mut self.rows.borrow_mut()[turn.row];
        // In one piece: other rounds print as well.
        match outcome {
            Ok(outcome) => {
                row.add(&outcome.verdict);
                println!("{}", report::round(&outcome, fault, turn.seed, began.elapsed()));
                fault.expected.is_met(&outcome.verdict.problems)
            }
            Err(error) => {
                row.add_unplayed();
                println!("{}: broken machine: {error:#}", report::title(fault, turn.seed));
                false
            }
        }
    }
}

/// In good order, unless the round that was given up still has something of it.
async fn stop(stack: Arc<Stack>) {
    if let Some(stack) = Arc::into_inner(stack) {
        stack.stop().await;
    }
}
