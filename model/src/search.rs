//! A breadth-first search through every state, and what it found.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::explain::explain;
use crate::{Protocol, properties};

/// What one search found.
#[derive(Debug)]
pub struct Found {
    /// Broken promises: the property and its counterexample, ready to print.
    pub broken: BTreeMap<&'static str, String>,
    /// Reachable: the property and an example of how.
    pub reached: BTreeMap<&'static str, String>,
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
    pub took: Duration,
}

/// Figures first, then every broken promise with its counterexample.
impl Display for Found {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { states, steps, depth, took, .. } = self;
        writeln!(f, "{states} states, {steps} steps, depth {depth}, {:.1} s", took.as_secs_f64())?;
        self.broken.iter().try_for_each(|(name, path)| writeln!(f, "BROKEN: {name}\n{path}"))
    }
}

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Every state, whatever is found.
    Exhaustive,
    /// Until a promise is broken.
    UntilBroken,
}

impl Search {
    /// One thread: then the first counterexample is the shortest or nearly so.
    pub fn run(self, protocol: &Protocol) -> Found {
        let started = Instant::now();
        let checker = protocol.clone().checker();
        let checker = match self {
            Self::Exhaustive => checker,
            Self::UntilBroken => checker.finish_when(HasDiscoveries::AnyFailures),
        };
        let checker = checker.spawn_bfs().join();
        let mut found = Found {
            broken: BTreeMap::new(),
            reached: BTreeMap::new(),
            states: checker.unique_state_count(),
            steps: checker.state_count(),
            depth: checker.max_depth(),
            took: started.elapsed(),
        };
        for (name, path) in checker.discoveries() {
            let reached = properties::is_reachability(protocol, name);
            let side = if reached { &mut found.reached } else { &mut found.broken };
            side.insert(name, explain(&path.into_vec()));
        }
        found
    }
}
