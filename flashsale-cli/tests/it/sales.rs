//! A sale's evening: watched, its window moved, closed, and who did it.

use flashsale_stack::Stack;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    daily_work::{buy, engine, seeded_stack},
    program::{Ran, Running, on, send, wait_until},
    seed::UNCHANGED,
};

/// Runs a keeper and a drainer, as a server does, for as long as it is there.
struct Server(CancellationToken);

impl Server {
    async fn start(stack: &Stack) -> Self {
        let shutdown = CancellationToken::new();
        let engine = engine(stack).await;
        tokio::spawn(engine.keeper().run(shutdown.clone()));
        tokio::spawn(engine.drainer().run(shutdown.clone()));
        Self(shutdown)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_asks_waits_for_the_queue_and_tells_the_end() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    let engine = engine(&stack).await;
    buy(&engine, "alice", 2).await;
    let state = || run(&["sales", "show", "1", "--output", "json"]).json()["state"].clone();

    let refused = run(&["sales", "close", "1"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    for said in ["0 of 1700 units", "1 order in the queue will be recorded", "--yes", "Nothing was changed"] {
        assert!(refused.stderr.contains(said), "{said}: {refused:#?}");
    }
    let planned = run(&["sales", "close", "demo", "--dry-run", "--output", "json"]).json();
    assert_eq!((&planned["queued"], &planned["stock"]), (&1.into(), &1700.into()), "{planned}");
    assert_eq!(state(), "open");

    // Nobody carries it to Redis, and nobody drains.
    let mut closing = Running::start(&mut on(&stack, &["sales", "close", "1", "--yes"]));
    wait_until("the sale is closed", || state() == "closed");
    closing.complains("start flashsale-server");
    let interrupted = closing.end(Signal::SIGINT);
    assert_eq!(interrupted.code, Some(1), "{interrupted:#?}");
    assert!(interrupted.stderr.contains("only the waiting ended"), "{interrupted:#?}");

    let server = Server::start(&stack).await;
    // It is closed already: there is nothing to ask.
    let closed = run(&["sales", "close", "1", "--output", "json"]).json();
    assert_eq!((&closed["state"], &closed["sold"]), (&"closed".into(), &2.into()), "{closed}");
    assert_eq!(
        (&closed["confirmed"], &closed["failed"], &closed["parked"]),
        (&1.into(), &0.into(), &0.into())
    );
    assert_eq!(run(&["queue", "--output", "json"]).json()[0]["backlog"], 0);
    drop(server);
    run(&["audit"]).expect(0);
    engine.close().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_previewed_moved_and_asked_about() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    let phase = || run(&["sales", "list", "--output", "json"]).json()[0]["phase"].clone();
    assert_eq!(phase(), "open");

    let planned = run(&["sales", "window", "1", "--ends-at", "2098-01-01T00:00:00Z", "--dry-run"]).expect(0);
    assert!(planned.contains("2099-12-31") && planned.contains("2098-01-01"), "{planned}");
    assert!(planned.contains(UNCHANGED) && !planned.contains("ends now"), "{planned}");
    let planned = run(&["sales", "window", "1", "--ends-at", "now", "--dry-run"]).expect(0);
    assert!(planned.contains("the sale ends now.") && planned.contains(UNCHANGED), "{planned}");
    let moved =
        run(&["sales", "window", "1", "--ends-at", "2098-01-01T01:00:00+01:00", "--output", "json"]).json();
    assert_eq!(moved["to"]["endsAt"], "2098-01-01T00:00:00Z", "{moved}");

    for (when, said) in [("2020-01-01T00:00:00Z", "ends now"), ("now", "ends now")] {
        let refused = run(&["sales", "window", "1", "--ends-at", when]);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        assert!(refused.stderr.contains(said) && refused.stderr.contains("--yes"), "{refused:#?}");
    }
    assert_eq!(phase(), "open");
    // What has passed is now: a sale that ended a day ago would be removed from Redis.
    let ended =
        run(&["sales", "window", "1", "--ends-at", "2020-01-01T00:00:00Z", "--yes", "--output", "json"])
            .json();
    assert!(ended["to"]["endsAt"].as_str() > Some("2026"), "{ended}");
    assert_eq!(phase(), "ended");
    assert!(run(&["sales", "window", "1", "--ends-at", "now"]).stderr.contains("sale 1 has ended"));
    assert!(run(&["sales", "list"]).expect(0).contains("ended"));
    let again = run(&["sales", "window", "1", "--ends-at", "+2h"]);
    assert!(again.code == Some(2) && again.stderr.contains("opens again"), "{again:#?}");
    let moved = run(&["sales", "window", "1", "--starts-at", "+1h", "--ends-at", "+2h", "--yes"]);
    assert!(moved.stderr.contains("FROM") && !moved.stdout.contains("FROM"), "once is enough: {moved:#?}");
    assert_eq!(moved.code, Some(0));
    assert_eq!(phase(), "upcoming");

    let crossed = run(&["sales", "window", "1", "--starts-at", "+3h"]);
    assert!(crossed.code == Some(2) && crossed.stderr.contains("move both"), "{crossed:#?}");
    run(&["sales", "close", "1", "--yes", "--no-wait"]).expect(0);
    let closed = run(&["sales", "window", "1", "--ends-at", "+9h"]);
    assert!(closed.code == Some(1) && closed.stderr.contains("closed"), "{closed:#?}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_tells_what_changes_and_ends_with_the_sale() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    let engine = engine(&stack).await;
    let mut lines = Running::start(&mut on(&stack, &["sales", "watch", "demo"]));
    let mut json = Running::start(&mut on(&stack, &["sales", "watch", "1", "--output", "json"]));
    let first = lines.lines_with("0 admitted");
    assert!(first.last().expect("a line").contains("500 left of 500, 0 sold"), "{first:?}");
    buy(&engine, "alice", 2).await;
    let queued = lines.lines_with("1 queued");
    assert!(queued.last().expect("a line").contains("498 left of 500"), "{queued:?}");

    let server = Server::start(&stack).await;
    lines.lines_with("1 confirmed, 0 failed");
    run(&["sales", "close", "1", "--yes"]).expect(0);
    let ran = lines.wait();
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let ran = json.wait();
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let last: Value = serde_json::from_str(ran.stdout.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["phase"], &last["stateInRedis"]), (&"closed".into(), &"closed".into()), "{last}");
    assert_eq!((&last["confirmed"], &last["queue"]["backlog"]), (&1.into(), &0.into()), "{last}");
    assert_eq!(
        (&last["products"][0]["sold"], &last["products"][0]["left"]),
        (&2.into(), &498.into()),
        "{last}"
    );

    let mut forever = Running::start(&mut on(&stack, &["sales", "watch", "1", "--forever"]));
    forever.lines_with("closed");
    assert_eq!(forever.end(Signal::SIGINT).code, Some(0));
    drop(server);
    engine.close().await;
    stack.stop().await;
}

/// A frozen Redis answers as little as one that is gone, and is the same one afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn watching_outlives_a_store_that_is_away() {
    let stack = seeded_stack().await;
    let mut watching = Running::start(&mut on(&stack, &["sales", "watch", "1", "--output", "json"]));
    watching.lines_with("\"problems\":[]");
    let redis = stack.redis_pid().expect("a process id");
    send(redis, Signal::SIGSTOP);
    watching.lines_with("Redis does not answer since");
    send(redis, Signal::SIGCONT);
    watching.lines_with("\"problems\":[]");
    let ran = watching.end(Signal::SIGTERM);
    assert_eq!(ran.code, Some(128 + Signal::SIGTERM as i32), "{ran:#?}");
    assert!(ran.stderr.contains("the sale goes on"), "{ran:#?}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_noted_under_a_name() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    Ran::of(on(&stack, &["sales", "pause", "1"]).env("FLASHSALE_OPERATOR", "ann")).expect(0);
    assert!(run(&["sales", "resume", "1", "--as", "bob"]).expect(0).contains("is open; running servers"));
    assert!(run(&["sales", "resume", "1", "--as", "bob"]).expect(0).contains("was open already"));
    run(&["sales", "window", "1", "--ends-at", "2098-01-01T00:00:00Z", "--as", "bob"]).expect(0);
    Ran::of(
        on(&stack, &["sales", "close", "1", "--yes", "--no-wait"]).env("USER", "cy").env_remove("SUDO_USER"),
    )
    .expect(0);

    let log = run(&["log", "--sale", "1", "--output", "json"]).json();
    let log: Vec<_> = log.as_array().expect("acts").iter().collect();
    let whats: Vec<_> = log.iter().map(|act| act["what"].as_str().expect("text")).collect();
    assert_eq!(whats, ["close", "window", "resume", "pause", "recover", "create"]);
    let whos: Vec<_> = log.iter().map(|act| act["who"].as_str().expect("text")).collect();
    assert!(whos[0].starts_with("cy@") && whos[1..4] == ["bob", "bob", "ann"], "{whos:?}");
    assert!(run(&["log", "--limit", "1"]).expect(0).contains("it was open"));
    assert!(run(&["log", "--sale", "77"]).stderr.contains("there are: 1 (demo)"));
    assert_eq!(run(&["log", "--as", "a\nb"]).code, Some(2));
    stack.stop().await;
}
