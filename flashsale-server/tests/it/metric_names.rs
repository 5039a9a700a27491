//! Which metrics there are: what their names promise, and that what watches them names no other.

use std::collections::BTreeMap;

/// The names of the families that are shown.
pub(crate) fn names(metrics: &BTreeMap<String, f64>) -> Vec<String> {
    let name = |series: &String| {
        let name = series.split('{').next().unwrap();
        let of_histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
        of_histogram.unwrap_or(name).to_owned()
    };
    let mut names: Vec<_> = metrics.keys().map(name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// All families, as README and OPERATIONS have them.
pub(crate) fn documented() -> Vec<String> {
    let mut names = Vec::new();
    let all = "admission_duration_seconds admissions_total build_info compensated_orders_total dead_letters \
               deliveries_waiting dependency_up drain_batch_duration_seconds drain_batch_size drain_claimed_total \
               drain_failures_total event_streams fenced_sales guard_refusals_total \
               http_request_duration_seconds http_requests_in_flight http_requests_total \
               invariant_check_duration_seconds invariant_checks_total invariant_holds \
               invariant_last_check_timestamp_seconds \
               lane_batch_duration_seconds lane_batch_size load_duration_seconds loads_total \
               orders_final_total orders_parked_total queue_length queue_oldest_age_seconds queue_pending \
               rate_limited_total sale_fenced sale_info setting_fit stock_left units_sold";
    names.extend(all.split_whitespace().map(|name| format!("flashsale_{name}")));
    names
}

/// What is counted ends in `_total`, what is timed in `_seconds`, and all of it is in base units and snake case.
#[test]
fn names_are_as_prometheus_wants_them() {
    for name in documented() {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        for wrong in ["_ms", "_millis", "_us", "_count", "_sum", "_bucket", "__"] {
            assert!(!name.contains(wrong), "{name} has {wrong}");
        }
        let is_time = ["duration", "age", "timestamp"].iter().any(|what| name.contains(what));
        assert_eq!(is_time, name.ends_with("_seconds"), "{name}");
    }
}

/// An alert on a metric that nobody exports never fires.
#[test]
fn the_alerts_and_the_dashboard_name_what_is_there() {
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
    let documented = documented();
    let mut named = Vec::new();
    for file in ["alerts.yml", "grafana-dashboard.json"] {
        let text = std::fs::read_to_string(format!("{deploy}/{file}")).expect(file);
        let of_names = |c: char| !(c.is_ascii_lowercase() || c == '_');
        for word in text.split(of_names).filter(|word| word.starts_with("flashsale_")) {
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            let name = of_histogram.unwrap_or(word).to_owned();
            assert!(documented.contains(&name), "{file} names {word}, which is not exported");
            named.push(name);
        }
    }
    // What OPERATIONS tells to watch is watched.
    let operations = include_str!("../../../docs/OPERATIONS.md");
    let (_, alarms) = operations.split_once("| alert on | because |").expect("the table of alerts");
    let alarms = alarms.lines().skip(2).take_while(|line| line.starts_with('|'));
    for line in alarms {
        let name =
            line.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).find(|w| w.starts_with("flashsale_"));
        let name = name.expect("an alarm is about a metric").to_owned();
        assert!(named.contains(&name), "nothing under deploy/ watches {name}");
    }
}
