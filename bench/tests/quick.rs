//! The whole benchmark, as small as it can be: every contender still does what it says, and every figure is there.

use std::{fs, path::Path, process::Command};

const NAMES: [&str; 14] = [
    "admission2_vs_reference",
    "admission_vs_ceiling",
    "admission_vs_reference",
    "admission_vs_single",
    "drain_vs_copy",
    "drain_vs_one_by_one",
    "growth",
    "http_limited_vs_bare",
    "http_vs_bare",
    "latency_half_load",
    "memory_queued",
    "memory_settled",
    "refusal_vs_bare",
    "replay_vs_admission",
];

#[test]
fn every_contender_has_its_turn_and_gives_right_answers() {
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quick/side_by_side.json");
    let _ = fs::remove_file(&json);
    let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale-bench"));
    let output =
        command.args(["--quick", "--rounds", "1", "--json"]).arg(&json).output().expect("the program");
    let (table, progress) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{progress}\n{table}");

    let figures: serde_json::Map<_, _> = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(figures.keys().collect::<Vec<_>>(), NAMES);
    for (name, figure) in figures {
        assert!(table.contains(&name), "{table}");
        assert_eq!(figure["rounds"], 1, "{name}");
        let [median, min, max] = ["median", "min", "max"].map(|member| figure[member].as_f64().unwrap());
        assert!(min > 0.0 && min <= median && median <= max, "{name}: {figure}");
    }
}
