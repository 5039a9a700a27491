use super::*;

/// What is changed on sound stores, as `name=value` words, and how the one finding begins that this is about.
pub(super) type Row = (&'static str, &'static str);

/// Judges one row. Everything but its own check must be as it should be.
pub(super) fn judged((change, expected): Row, judge: impl Fn(Vec<(&str, &'static str)>) -> Vec<Finding>) {
    let changes = change.split(' ').filter_map(|word| word.split_once('=')).collect();
    let findings = judge(changes);
    let lines: Vec<_> = findings.iter().map(line).collect();
    assert!(lines.iter().any(|line| line.starts_with(expected)), "{change}: no {expected:?} in {lines:#?}");
    for finding in &findings {
        let is_ok = finding.verdict == Verdict::Ok;
        assert_eq!(finding.remedy.is_none(), is_ok, "{change}: what is wrong has a remedy: {finding:?}");
        assert!(is_ok || line(finding).starts_with(expected), "{change}: {finding:?}");
    }
}

fn line(finding: &Finding) -> String {
    let verdict = format!("{:?}", finding.verdict).to_lowercase();
    format!("{verdict} {}: {}", finding.check, finding.found)
}

#[test]
fn clocks_are_judged() {
    for (redis, postgres, wrong) in [
        (0, 0, None),
        (5_000, 0, None),
        (-2_500, 2_500, None),
        (5_001, 0, Some("Redis's machine")),
        (-60_000, 1, Some("Redis's machine")),
        (1, 60_000, Some("PostgreSQL's machine")),
        (60_000, 61_000, Some("this machine")),
        (-60_000, 60_000, Some("all three")),
        (-3_000, 3_000, Some("all three")),
        (i64::MAX, i64::MIN, Some("all three")),
    ] {
        let finding = clocks(redis, postgres);
        let verdict = if wrong.is_some() { Verdict::Warning } else { Verdict::Ok };
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        let names = |wrong: &str| finding.remedy.as_deref().is_some_and(|remedy| remedy.contains(wrong));
        assert!(wrong.is_none_or(names), "{finding:?}");
    }
    assert_eq!(clocks(60_000, -100).found, "Redis 60.0 s ahead, PostgreSQL 0.1 s behind of this machine");
}
