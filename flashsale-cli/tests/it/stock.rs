//! Stock that is changed while it sells.

use nix::sys::signal::Signal;

use crate::{
    daily_work::{buy, engine, seeded_stack},
    program::{Ran, on, send},
    seed::UNCHANGED,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_counts_once_and_takes_nothing_that_is_sold() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    let engine = engine(&stack).await;
    // Claimed, and not recorded.
    buy(&engine, "alice", 2).await;
    let units = || {
        let product = run(&["sales", "show", "1", "--output", "json"]).json()["products"][0].clone();
        (product["stock"].as_u64().expect("a number"), product["left"].as_i64().expect("a number"))
    };
    let restock = ["sales", "restock", "demo", "1", "50", "--op-id", "second-batch", "--as", "ann"];
    assert!(run(&restock).expect(0).contains("50 units more, 550 in all"));
    let rehearsed = [&restock[..], &["--dry-run"]].concat();
    for again in [&restock[..], &restock, &rehearsed] {
        let told = run(again).expect(0);
        assert!(told.contains("was made already: 50 units more") && told.contains("stock is 550"), "{told}");
        assert_eq!(units(), (550, 548));
    }
    let other = run(&["sales", "restock", "1", "1", "51", "--op-id", "second-batch"]);
    assert!(other.code == Some(1) && other.stderr.contains("second-batch"), "{other:#?}");

    let planned = run(&["sales", "reduce", "1", "1", "40", "--dry-run", "--output", "json"]).json();
    assert_eq!((&planned["from"], &planned["to"], &planned["left"]), (&550.into(), &510.into(), &548.into()));
    let refused = run(&["sales", "reduce", "1", "1", "40"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("--yes"), "{refused:#?}");
    assert!(
        refused.stderr.contains("stock 550 -> 510 (-40); 0 sold by the record, 548 left"),
        "{refused:#?}"
    );
    assert_eq!(units(), (550, 548));
    let reduced = run(&["sales", "reduce", "1", "1", "40", "--yes"]);
    assert!(reduced.stderr.contains("repeat it with --op-id"), "{reduced:#?}");
    assert!(reduced.expect(0).contains("510 in all"));
    assert_eq!(units(), (510, 508));
    let beyond = run(&["sales", "reduce", "1", "1", "511", "--yes", "--op-id", "beyond"]);
    assert!(beyond.code == Some(1) && beyond.stderr.contains("has 510 units"), "{beyond:#?}");
    let too_many = run(&["sales", "reduce", "1", "1", "509", "--yes", "--op-id", "all"]);
    assert!(too_many.code == Some(1) && too_many.stderr.contains("sales show 1"), "{too_many:#?}");
    assert_eq!(units(), (510, 508));

    let shown = run(&["sales", "show", "1"]).expect(0);
    let lines: Vec<Vec<_>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(
        lines.iter().any(|line| line.starts_with(&["1", "1", "+50", "applied", "second-batch"])),
        "{shown}"
    );
    assert!(lines.iter().any(|line| line.starts_with(&["3", "1", "-509", "refused", "all"])), "{shown}");
    assert!(!shown.contains("beyond"), "its name is free still: {shown}");
    let log = run(&["log", "--output", "json"]).json();
    assert!(log[0]["detail"].as_str().is_some_and(|detail| detail.contains("-509 units asked for")), "{log}");
    let acts = log.as_array().expect("acts").iter().filter(|act| act["what"] == "restock");
    assert_eq!(acts.map(|act| &act["who"]).collect::<Vec<_>>(), ["ann"], "once: {log}");
    for arguments in
        [&["sales", "restock", "1", "77", "5"][..], &["sales", "reduce", "1", "77", "5", "--yes"]]
    {
        let unknown = run(arguments);
        assert_eq!(unknown.code, Some(1), "{unknown:#?}");
        assert!(unknown.stderr.contains("which has 1 (Sony WH-1000XM5 Headphones), 2 ("), "{unknown:#?}");
    }
    engine.close().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_redis_is_told_and_done_when_it_is_repeated() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    let reduce = ["sales", "reduce", "1", "2", "10", "--yes", "--op-id", "broken"];
    let redis = stack.redis_pid().expect("a process id");
    send(redis, Signal::SIGSTOP);
    let waiting = run(&reduce);
    send(redis, Signal::SIGCONT);
    assert_eq!(waiting.code, Some(1), "{waiting:#?}");
    assert!(waiting.stderr.contains("--op-id broken"), "{waiting:#?}");
    assert!(run(&reduce).expect(0).contains("10 units fewer, 190 in all"));
    // Without a question, as nothing comes of it.
    let again = run(&reduce.map(|word| if word == "--yes" { "--dry-run" } else { word })).expect(0);
    assert!(again.contains("was made already: 10 units fewer") && again.contains(UNCHANGED), "{again}");
    let again = run(&reduce.into_iter().filter(|word| *word != "--yes").collect::<Vec<_>>());
    assert!(again.stderr.is_empty(), "{again:#?}");
    assert!(again.expect(0).contains("was made already: 10 units fewer"));
    send(redis, Signal::SIGSTOP);
    let unseen = run(&["sales", "restock", "1", "2", "5"]);
    send(redis, Signal::SIGCONT);
    assert!(unseen.expect(0).contains("Buyers may not see them yet"));
    run(&["audit"]).expect(0);
    stack.stop().await;
}
