//! What a fault is, and the list of all.

use std::{future::Future, pin::Pin, time::Duration};

use anyhow::Result;

use super::{
    dice::Dice,
    faults::{
        controls, crash_points, keys, large, late_settle, network, poison, postgres, processes, recovery,
        redis, replaced, stock,
    },
    judge::Problem,
    stage::Stage,
};

/// What a fault may cost; everything else is a failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Accepted orders that were not recorded yet: Redis lost what it had acknowledged.
    pub(crate) loses: bool,
    /// Of these, some may come back: an operator recovers the Redis that has them.
    pub(crate) returns: bool,
    /// Queue entries that an operator has to end.
    pub(crate) parks: bool,
    /// The time from the end of the fault until all is well again.
    pub(crate) within: Duration,
}

/// A time that is promised. The promise is for programs that are built for use: those of a debug build, whose start
/// alone takes seconds on a machine that compiles beside it, are given six times as long.
pub(crate) const fn promised(seconds: u64) -> Duration {
    Duration::from_secs(if cfg!(debug_assertions) { 6 * seconds } else { seconds })
}

/// Within this time what a killed or stopped worker had in hand is final.
pub(crate) const TAKEN_OVER_WITHIN: Duration = promised(10);

/// Nothing is lost.
pub(crate) const NOTHING: Cost = Cost { loses: false, returns: false, parks: false, within: promised(30) };
/// Nothing is lost, and what a dead or stopped process had in hand is taken over as soon as is promised.
pub(crate) const TAKEN_OVER: Cost = Cost { within: TAKEN_OVER_WITHIN, ..NOTHING };
/// Redis lost acknowledged writes. Orders may be left without a state then, and are parked.
pub(crate) const UNRECORDED: Cost = Cost { loses: true, parks: true, ..NOTHING };
/// The same, and an operator then brings the Redis back that has them still.
pub(crate) const RETURNED: Cost = Cost { returns: true, ..UNRECORDED };
/// Damaged entries are parked.
pub(crate) const PARKED: Cost = Cost { parks: true, ..NOTHING };

/// What the machine has to find.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// Nothing that the fault may not cost.
    Survived,
    /// A problem that holds these words: this is a negative control.
    Caught(&'static str),
}

impl Expected {
    /// Whether these problems are what had to be found.
    pub(crate) fn is_met(self, problems: &[Problem]) -> bool {
        match self {
            Self::Survived => problems.is_empty(),
            Self::Caught(words) => problems.iter().any(|problem| problem.what.contains(words)),
        }
    }
}

/// A fault under way.
pub(crate) type Strike<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Something that breaks, and is mended again.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What happens, in a line.
    pub(crate) what: &'static str,
    pub(crate) cost: Cost,
    pub(crate) expected: Expected,
    /// Breaks it, waits, and mends it: the fault is over when this returns. An error is one of the machine.
    pub(crate) strike: for<'a> fn(&'a mut Stage, &'a mut Dice) -> Strike<'a>,
}

/// All faults, by family; the negative controls last.
pub(crate) fn all() -> impl Iterator<Item = &'static Fault> {
    let survived = [
        processes::FAULTS,
        crash_points::FAULTS,
        late_settle::FAULTS,
        redis::FAULTS,
        keys::FAULTS,
        replaced::FAULTS,
        postgres::FAULTS,
        network::FAULTS,
        poison::FAULTS,
        recovery::FAULTS,
        stock::FAULTS,
        large::FAULTS,
    ];
    survived.into_iter().chain([controls::FAULTS]).flatten()
}

/// One or two of each family that do not take long.
const SMOKE: &[&str] = &[
    "worker-killed",
    "server-killed",
    "redis-frozen",
    "flushall",
    "redis-rolled-back",
    "redis-swapped-unseen",
    "late-batch",
    "postgres-killed",
    "commit-lost",
    "net-reset",
    "poison-nul",
    "recover-killed",
    "restock-repeated",
    "reduce-under-load",
];

/// Faults whose time is a promise about the machine's speed: nothing else may run beside them.
pub(crate) fn is_played_alone(fault: &Fault) -> bool {
    fault.name == "redis-empty-large"
}

/// The faults of these names; `smoke` is a short one of each family, `controls` are all controls, `all` is
/// everything. An unknown name is an error that lists the known ones.
pub(crate) fn named(names: &[String]) -> Result<Vec<&'static Fault>, String> {
    let mut found = Vec::new();
    for name in names {
        let before = found.len();
        found.extend(all().filter(|fault| match name.as_str() {
            "all" => true,
            "smoke" => SMOKE.contains(&fault.name),
            "controls" => matches!(fault.expected, Expected::Caught(_)),
            name => fault.name == name,
        }));
        if found.len() == before {
            let known: Vec<_> = all().map(|fault| fault.name).collect();
            return Err(format!("there is no fault {name:?}; there are: {}", known.join(", ")));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_plain() {
        let names: Vec<_> = all().map(|fault| fault.name).collect();
        for name in &names {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn a_control_is_met_only_by_what_it_is_to_show() {
        let problem = |what: &str| Problem { what: what.to_owned(), of: None };
        assert!(Expected::Survived.is_met(&[]) && !Expected::Survived.is_met(&[problem("lost")]));
        let caught = Expected::Caught("lost");
        assert!(
            !caught.is_met(&[]) && !caught.is_met(&[problem("late")]) && caught.is_met(&[problem("is lost")])
        );
    }

    #[test]
    fn faults_are_found_by_name() {
        let found = named(&["flushall".to_owned(), "worker-killed".to_owned()]).unwrap();
        assert_eq!(found.iter().map(|fault| fault.name).collect::<Vec<_>>(), ["flushall", "worker-killed"]);
        assert_eq!(named(&["all".to_owned()]).unwrap().len(), all().count());
        assert_eq!(named(&["controls".to_owned()]).unwrap().len(), controls::FAULTS.len());
        assert_eq!(named(&["smoke".to_owned()]).unwrap().len(), SMOKE.len());
        assert!(named(&["earthquake".to_owned()]).err().unwrap().contains("flushall"));
    }
}
