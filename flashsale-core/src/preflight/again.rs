//! The same look again while the engine runs: settings of a store can be changed at any time.

use std::collections::BTreeMap;

use super::{Finding, Verdict};

/// What was last found, by what was looked at.
#[derive(Debug, Default)]
pub(crate) struct Standing(BTreeMap<&'static str, Finding>);

impl Standing {
    /// Notes what was found now and says what has changed since it was last known. At first nothing has: what was
    /// found when the program started, it has told itself. A store that does not answer says nothing.
    pub(crate) fn note(&mut self, findings: Vec<Finding>) -> Vec<Finding> {
        let mut changed = Vec::new();
        for finding in findings.into_iter().filter(|finding| finding.verdict != Verdict::Away) {
            let before = self.0.insert(finding.check, finding.clone());
            if before.is_some_and(|before| before.verdict != finding.verdict) {
                changed.push(finding);
            }
        }
        changed
    }

    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.0.values()
    }
}

/// Logs a change.
pub(crate) fn tell(changed: &Finding) {
    let Finding { check, verdict, found, remedy } = changed;
    let remedy = remedy.as_deref().unwrap_or_default();
    match verdict {
        Verdict::Ok => tracing::info!("{check} is as it should be again: {found}"),
        Verdict::Warning => tracing::warn!("{check} has changed: {found}; {remedy}"),
        _ => tracing::error!("{check} has changed: {found}; {remedy}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let lru = || Finding::new("redis eviction", Verdict::Unsafe, "allkeys-lru", "set noeviction");
        let good = || Finding::ok("redis eviction", "noeviction");
        let away = || Finding::new("redis", Verdict::Away, "no answer", "start it");
        let mut standing = Standing::default();
        let mut told = |finding: Finding| standing.note(vec![finding]).len();
        let table = [(good(), 0), (good(), 0), (lru(), 1), (lru(), 0), (away(), 0), (lru(), 0), (good(), 1)];
        for (row, (finding, expected)) in table.into_iter().enumerate() {
            assert_eq!(told(finding), expected, "row {row}");
        }
        assert_eq!(standing.findings().cloned().collect::<Vec<_>>(), [good()]);
    }
}
