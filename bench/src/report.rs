//! The result: a table for people, and a file for programs.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::rounds::{Duel, Figures};

/// What a figure has to come to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reach {
    AtLeast(f64),
    AtMost(f64),
    /// It is there to be seen beside another one.
    Seen,
}

impl Reach {
    /// Whether it is reached; `None` if there is nothing to reach.
    fn met(self, median: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(median >= least),
            Self::AtMost(most) => Some(median <= most),
            Self::Seen => None,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::Seen => Ok(()),
        }
    }
}

/// One line of the result.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) reach: Reach,
    pub(crate) figures: Figures,
    /// What the figure was made of, in the contenders' own unit.
    pub(crate) of: String,
}

impl Row {
    /// The ratio of two contenders.
    pub(crate) fn of_duel(name: &'static str, reach: Reach, duel: &Duel, labels: [&str; 3]) -> Self {
        let [a, b, unit] = labels;
        let (of_a, of_b) = (Figures::of(&duel.a).median, Figures::of(&duel.b).median);
        let of = format!("{a} {}, {b} {} {unit}", grouped(of_a), grouped(of_b));
        Self { name, unit: "ratio", reach, figures: Figures::of(&duel.ratios()), of }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    figures: &'a Figures,
    unit: &'a str,
}

pub(crate) fn write_json(rows: &[Row], path: &Path) -> Result<()> {
    let named = |row| -> (&str, Json<'_>) {
        let Row { name, figures, unit, .. }: &Row = row;
        (name, Json { figures, unit })
    };
    let text = serde_json::to_string_pretty(&rows.iter().map(named).collect::<BTreeMap<_, _>>())? + "\n";
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The table. What a quick run measures is no performance, so nothing is said of what it reaches.
pub(crate) fn table(rows: &[Row], quick: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "median", "min – max", "reach", "", "medians of"]);
    for row in rows {
        let Figures { median, min, max, .. } = row.figures;
        let met = match row.reach.met(median) {
            _ if quick => "",
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(row.name),
            right(shown(median)),
            right(format!("{} – {}", shown(min), shown(max))),
            right(row.reach.to_string()),
            Cell::new(met),
            Cell::new(&row.of),
        ]);
    }
    table
}

/// Three digits that say something.
fn shown(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { grouped(value) }
}

/// `12 345.6` is read as 12346; `12 346` as what it is.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(reach: Reach) -> Row {
        let duel = Duel { a: vec![300_000.0, 200_000.0], b: vec![100_000.0, 100_000.0] };
        Row::of_duel("admission_vs_reference", reach, &duel, ["engine", "reference", "orders/s"])
    }

    #[test]
    fn the_file_has_the_figures_under_their_names() {
        let directory = std::env::temp_dir().join(format!("flashsale-bench-{}", std::process::id()));
        let path = directory.join("deep/side_by_side.json");
        write_json(&[row(Reach::Seen)], &path).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        fs::remove_dir_all(directory).unwrap();
        let expected = serde_json::json!({
            "admission_vs_reference": {"median": 2.5, "min": 2.0, "max": 3.0, "rounds": 2, "unit": "ratio"},
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn the_table_says_what_is_not_reached_unless_the_run_was_a_quick_one() {
        let missed = [row(Reach::AtLeast(3.0))];
        assert!(table(&missed, false).to_string().contains("NO"));
        assert!(!table(&missed, true).to_string().contains("NO"));
        assert!(table(&[row(Reach::AtMost(2.5))], false).to_string().contains("yes"));
        assert!(table(&missed, false).to_string().contains("engine 250,000, reference 100,000 orders/s"));
    }

    #[test]
    fn numbers_are_grouped() {
        let table = [(0.0, "0"), (999.4, "999"), (1_000.0, "1,000"), (123_456.0, "123,456")];
        for (value, text) in table.into_iter().chain([(12_345_678.0, "12,345,678")]) {
            assert_eq!(grouped(value), text);
        }
    }
}
