//! What needs no stores: help, completions, wrong usage.

use crate::program::{Ran, alone, folder, program};

const COMMANDS: &[&[&str]] = &[
    &[],
    &["up"],
    &["migrate"],
    &["doctor"],
    &["seed"],
    &["sales"],
    &["sales", "list"],
    &["sales", "show"],
    &["sales", "pause"],
    &["sales", "resume"],
    &["sales", "close"],
    &["sales", "watch"],
    &["sales", "window"],
    &["sales", "restock"],
    &["sales", "reduce"],
    &["orders"],
    &["orders", "list"],
    &["orders", "show"],
    &["orders", "watch"],
    &["orders", "export"],
    &["queue"],
    &["log"],
    &["dead-letters"],
    &["dead-letters", "list"],
    &["dead-letters", "show"],
    &["dead-letters", "replay"],
    &["dead-letters", "discard"],
    &["subscribers"],
    &["subscribers", "list"],
    &["subscribers", "remove"],
    &["worker"],
    &["audit"],
    &["recover"],
    &["demo"],
    &["completions"],
];

#[test]
fn every_command_has_help_with_an_example() {
    for command in COMMANDS {
        let help = alone(&[command, &["--help"][..]].concat()).expect(0);
        assert!(help.contains("Example") && help.contains("Usage: flashsale"), "{command:?}: {help}");
    }
}

#[test]
fn wrong_usage_is_2_and_says_what_is_right() {
    const ORDER: &str = "00000000-0000-0000-0000-000000000000";
    for (arguments, said) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["sales", "show", "0"], "between 1 and"),
        (&["sales", "show", "X y"], "whole number, or its slug"),
        (&["sales", "window", "1"], "--ends-at"),
        (&["sales", "restock", "1", "1", "-5"], "1..="),
        (&["dead-letters", "show", "x"], "dead-letters list"),
        (&["sales", "restock", "1", "x", "5"], "whole number"),
        (&["sales", "window", "1", "--ends-at", "noon"], "+2h"),
        (&["orders", "export", "--format", "xlsx"], "jsonl"),
        (&["log", "--as", ""], "1-100 bytes"),
        (&["orders", "show", "x"], "not a UUID"),
        (&["orders", "watch", ORDER], "not an order id"),
        (&["orders", "list", "--user", "a/b"], "letters, digits"),
        (&["orders", "list", "--status", "lost"], "confirmed, failed"),
        (&["orders", "list", "--limit", "0"], "1..="),
        (&["dead-letters", "show", "0"], "0 is not in"),
        (&["worker", "--drainers", "0"], "1..="),
        (&["audit", "--patience", "soon"], "invalid digit"),
        (&["demo", "--users", "0"], "1..="),
        (&["completions", "tcsh"], "bash"),
        (&["--output", "yaml", "queue"], "json"),
        (&["up", "--redis-url", "redis://x/"], "--redis-url means nothing"),
        (&["--output", "json", "demo"], "--output means nothing"),
        (&["worker", "--output", "json"], "--output means nothing"),
        (&["demo", "--as", "ann"], "--as means nothing"),
    ] {
        let ran = alone(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:#?}");
        assert!(ran.stderr.contains(said), "{arguments:?}: {ran:#?}");
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
}

#[test]
fn without_stores_it_says_how_to_get_some() {
    for arguments in [&["audit"][..], &["sales", "list"], &["seed"], &["queue"]] {
        let ran = alone(arguments);
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert!(ran.stderr.contains("flashsale up") && ran.stderr.contains("DATABASE_URL"), "{ran:#?}");
    }
    let folder = folder();
    std::fs::create_dir(folder.path().join(".flashsale")).expect("a folder");
    std::fs::write(folder.path().join(".flashsale/stack.env"), "REDIS_URL=redis://").expect("a file");
    let ran = Ran::of(&mut program(folder.path(), &["audit"]));
    assert!(ran.code == Some(2) && ran.stderr.contains("stack.env is there, but"), "{ran:#?}");
    let ran = alone(&["audit", "--redis-url", "redis://127.0.0.1:1/"]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stderr.contains("--database-url (DATABASE_URL) is not"), "{ran:#?}");
}

#[test]
fn a_url_that_cannot_be_read_is_wrong_usage_and_a_store_that_is_away_is_not() {
    let ran =
        alone(&["queue", "--redis-url", "redis://127.0.0.1:1/", "--database-url", "mysql://x@127.0.0.1/x"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("postgres://"), "{ran:#?}");
    for (redis_url, code, said) in [
        ("nonsense", 2, "URL"),
        ("redis://:secret@127.0.0.1:1/", 1, "URLs right (redis://127.0.0.1:1/ and postgres://x@"),
    ] {
        let ran = alone(&["queue", "--redis-url", redis_url, "--database-url", "postgres://x@127.0.0.1:1/x"]);
        assert_eq!(ran.code, Some(code), "{ran:#?}");
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(said), "{ran:#?}");
    }
}

#[test]
fn a_bad_sale_file_is_refused_before_any_store_is_asked() {
    let folder = folder();
    let demo = include_str!("../../src/demo.toml");
    std::fs::write(
        folder.path().join("sale.toml"),
        demo.replace("stock = 500", "stock = 500\ncolour = \"red\""),
    )
    .expect("a sale file");
    let line = demo.lines().position(|line| line == "stock = 500").expect("the first product's stock") + 2;
    let ran = Ran::of(&mut program(folder.path(), &["seed", "sale.toml"]));
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    let said = ["sale.toml", &format!("line {line}"), "unknown field `colour`"];
    assert!(said.iter().all(|text| ran.stderr.contains(text)), "{ran:#?}");

    let ran = Ran::of(&mut program(folder.path(), &["seed", "missing.toml"]));
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stderr.contains("missing.toml"), "{ran:#?}");
}

#[test]
fn discarding_without_a_terminal_needs_yes() {
    let ran = alone(&["dead-letters", "discard", "1"]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stderr.contains("--yes"), "{ran:#?}");
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = alone(&["completions", shell]).expect(0);
        assert!(script.contains("dead-letters") && script.contains("dry-run"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_crash() {
    let mut command = program(std::path::Path::new("/"), &["completions", "bash"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ran = Ran::of(command.stdout(writer));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""), "{ran:#?}");
}
