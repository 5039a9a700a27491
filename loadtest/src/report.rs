//! The result, as a table for people and as JSON for programs.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::verify::Report;

#[derive(Serialize)]
struct Json<'a> {
    users: u32,
    stock: u64,
    sold: u64,
    admitted: usize,
    confirmed: usize,
    failed: usize,
    refused: &'a BTreeMap<String, u64>,
    unknown: usize,
    oversold: u64,
    duplicates: usize,
    lost: usize,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    p999_ms: Option<f64>,
    p99_from_opening_ms: Option<f64>,
    seconds: Option<f64>,
    invariants: BTreeMap<&'a str, bool>,
}

fn json(report: &Report) -> Json<'_> {
    Json {
        users: report.users,
        stock: report.stock,
        sold: report.sold,
        admitted: report.admitted,
        confirmed: report.confirmed,
        failed: report.failed,
        refused: &report.refused,
        unknown: report.unknown,
        oversold: report.oversold,
        duplicates: report.duplicates,
        lost: report.lost,
        p50_ms: report.p50_ms,
        p99_ms: report.p99_ms,
        p999_ms: report.p999_ms,
        p99_from_opening_ms: report.p99_from_opening_ms,
        seconds: report.seconds,
        invariants: report.checks.iter().map(|check| (&*check.name, check.holds)).collect(),
    }
}

pub(crate) fn write_json(report: &Report, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&json(report))? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn print(report: &Report) {
    println!("\n{}\n", table(report));
    for check in &report.checks {
        println!("{} {}  {}", if check.holds { "holds" } else { "FAILS" }, check.name, check.title);
    }
    println!();
    if report.failed > 0 {
        // Not a failure of this run, whose promises hold, but nothing that a healthy Redis brings about.
        println!("note: PostgreSQL refused {} orders that Redis had let in", report.failed);
    }
    match &report.failures[..] {
        [] => println!("PASS"),
        failures => println!("FAIL: {}", failures.join("; ")),
    }
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    for (name, value) in rows(report) {
        table.add_row([Cell::new(name), Cell::new(value).set_alignment(CellAlignment::Right)]);
    }
    table
}

fn rows(report: &Report) -> Vec<(String, String)> {
    let plain = |name: &str, value: &dyn ToString| (name.to_owned(), value.to_string());
    let figure = |figure: Option<f64>| figure.map_or("missing".to_owned(), |figure| format!("{figure:.1}"));
    let mut rows = vec![
        plain("users", &report.users),
        plain("stock", &report.stock),
        plain("sold", &report.sold),
        plain("admitted (202)", &report.admitted),
        plain("confirmed", &report.confirmed),
        plain("failed", &report.failed),
    ];
    rows.extend(report.failed_for.iter().map(|(reason, count)| plain(&format!("  {reason}"), count)));
    rows.push(plain("answers other than 202", &report.refused.values().sum::<u64>()));
    rows.extend(report.refused.iter().map(|(code, count)| plain(&format!("  {code}"), count)));
    rows.extend([
        plain("never answered", &report.unknown),
        plain("  found recorded", &report.unknown_recorded),
        plain("  never admitted", &(report.unknown - report.unknown_recorded)),
        plain("oversold", &report.oversold),
        plain("duplicates", &report.duplicates),
        plain("lost", &report.lost),
        plain("p50 of an order, ms", &figure(report.p50_ms)),
        plain("p99 of an order, ms", &figure(report.p99_ms)),
        plain("p999 of an order, ms", &figure(report.p999_ms)),
        plain("p99 from the opening, ms", &figure(report.p99_from_opening_ms)),
        plain("seconds", &figure(report.seconds)),
        plain("orders answered/s", &per_second(report)),
    ]);
    rows
}

fn per_second(report: &Report) -> String {
    match report.seconds {
        #[expect(clippy::cast_precision_loss, reason = "a rate to show, of far fewer than 2^52 orders")]
        Some(seconds) if seconds > 0.0 => format!("{:.0}", report.answered as f64 / seconds),
        _ => "missing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Check;

    fn report() -> Report {
        Report {
            users: 1_000,
            stock: 5,
            sold: 5,
            admitted: 4,
            confirmed: 5,
            failed: 1,
            failed_for: [("sold-out", 1)].into(),
            refused: [("sold-out".to_owned(), 990)].into(),
            unknown: 3,
            unknown_recorded: 1,
            oversold: 0,
            duplicates: 0,
            lost: 0,
            p50_ms: Some(1.5),
            p99_ms: Some(9.25),
            p999_ms: None,
            p99_from_opening_ms: Some(120.0),
            seconds: Some(2.0),
            answered: 1_200,
            checks: vec![Check {
                name: "I1".to_owned(),
                title: "units".to_owned(),
                holds: false,
                why: Vec::new(),
            }],
            failures: Vec::new(),
        }
    }

    #[test]
    fn the_json_has_every_field_and_null_for_a_missing_figure() {
        let json = serde_json::to_value(json(&report())).unwrap();
        let expected = serde_json::json!({
            "users": 1000, "stock": 5, "sold": 5, "admitted": 4, "confirmed": 5, "failed": 1,
            "refused": {"sold-out": 990}, "unknown": 3, "oversold": 0, "duplicates": 0, "lost": 0,
            "p50_ms": 1.5, "p99_ms": 9.25, "p999_ms": null, "p99_from_opening_ms": 120.0,
            "seconds": 2.0, "invariants": {"I1": false},
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn the_table_shows_reasons_rates_and_what_is_missing() {
        let rows = rows(&report());
        let value = |name: &str| rows.iter().find(|row| row.0.trim() == name).map(|row| row.1.as_str());
        assert_eq!(value("p999 of an order, ms"), Some("missing"));
        assert_eq!(value("orders answered/s"), Some("600"));
        assert_eq!((value("never answered"), value("never admitted")), (Some("3"), Some("2")));
        assert_eq!(rows.iter().filter(|row| row.0 == "  sold-out").count(), 2);
        assert!(table(&report()).to_string().contains("990"));
    }
}
