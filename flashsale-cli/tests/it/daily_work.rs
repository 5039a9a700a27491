//! A sale from its loading to its audit, with nothing but this program and the engine to buy with.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use flashsale_core::{Admission, Engine, EngineConfig, Items, OrderId, OrderRequest, ProductId, Quantity};
use flashsale_stack::{Stack, StackOptions};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::program::{Ran, Running, on, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_drained_watched_listed_and_audited() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    let engine = engine(&stack).await;
    let order = buy(&engine, "alice", 2).await.to_string();

    let queue = run(&["queue", "--output", "json"]).json();
    assert_eq!((&queue[0]["sale"], &queue[0]["backlog"]), (&1.into(), &1.into()), "{queue}");
    assert!(run(&["orders", "show", &order]).expect(0).contains("not recorded yet"));

    let flags = ["worker", "--metrics-listen", "127.0.0.1:0", "--log-format", "json"];
    let mut worker = Running::start(on(&stack, &flags).env("FLASHSALE_DRAINERS", "2"));
    let said = worker.lines_until("draining as ");
    assert_eq!(said.last().expect("a line").matches(", ").count(), 1, "two drain: {said:?}");
    let metrics = said[0].strip_prefix("metrics on http://").expect("where its metrics are");
    let watched = run(&["orders", "watch", &order, "--output", "json"]).expect(0);
    let last: Value = serde_json::from_str(watched.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["orderId"], &last["status"]), (&order.as_str().into(), &"Confirmed".into()));
    // Orders that are drained here are counted nowhere else.
    wait_until("the order is counted", || {
        get(metrics).contains("flashsale_orders_final_total{status=\"Confirmed\"} 1\n")
    });
    wait_until("the sale is shown", || get(metrics).contains("flashsale_queue_length{sale=\"1\"} 0\n"));
    let operations = metrics.trim_end_matches("/metrics");
    assert!(get(&format!("{operations}/healthz")).contains("200 OK"));
    assert!(get(&format!("{operations}/readyz")).ends_with("server: ok\n"));
    assert!(get(&format!("{operations}/api/flashsale/active")).contains("404 Not Found"));
    let ran = worker.end(Signal::SIGTERM);
    assert_eq!(ran.code, Some(0), "{ran:#?}");

    let listed = run(&[
        "orders",
        "list",
        "--user",
        "alice",
        "--sale",
        "1",
        "--status",
        "Confirmed",
        "--output",
        "json",
    ]);
    let listed = listed.json();
    assert_eq!(listed.as_array().expect("orders").len(), 1, "{listed}");
    assert_eq!((&listed[0]["id"], &listed[0]["totalAmount"]), (&order.as_str().into(), &"499.98".into()));
    assert_eq!(run(&["orders", "show", &order, "--output", "json"]).json(), listed[0]);
    assert!(run(&["orders", "list"]).expect(0).trim_end().ends_with("  1: 2"));
    assert!(run(&["orders", "list", "--status", "failed"]).expect(0).contains("no orders"));
    assert!(run(&["dead-letters", "list"]).expect(0).contains("no dead letters"));
    assert_eq!(run(&["sales", "show", "1", "--output", "json"]).json()["products"][0]["left"], 498);

    let audit = run(&["audit", "--output", "json"]).json();
    let checks: Vec<_> =
        audit[0]["invariants"].as_array().expect("checks").iter().map(|c| &c["invariant"]).collect();
    assert_eq!(checks, ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"]);

    // What the record says is there without Redis, too.
    let away = |arguments: &[&str]| Ran::of(on(&stack, arguments).env("REDIS_URL", "redis://127.0.0.1:1/"));
    assert!(away(&["sales", "show", "1"]).expect(0).contains("Redis cannot be reached"));
    let shown = away(&["sales", "show", "1", "--output", "json"]).json();
    assert!(shown["products"][0]["left"].is_null() && shown["problems"][0].is_string(), "{shown}");
    let audit = away(&["audit"]);
    assert!(audit.code == Some(1) && audit.stderr.contains("Are the stores running"), "{audit:#?}");
    assert!(!audit.stdout.contains("unavailable: unavailable"), "{audit:#?}");
    engine.close().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_finds_something_is_a_failure_and_names_it() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    let sound = run(&["audit", "--sale", "1"]).expect(0);
    assert_eq!(sound.lines().filter(|line| line.contains("holds")).count(), 8, "{sound}");

    redis(&stack, "HSET fs:{1}:stock 1 1000000");
    let broken = run(&["audit", "--patience", "0"]).expect(1);
    let line = broken.lines().find(|line| line.contains("I4")).expect("a line for I4");
    assert!(line.contains("FAILED"), "{broken}");
    assert!(broken.contains("1000000"), "{broken}");

    let planned = run(&["recover", "1", "--dry-run"]).expect(0);
    assert!(planned.contains("would change"), "{planned}");
    let refused = run(&["recover", "1"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("is selling"), "{refused:#?}");
    assert!(run(&["recover", "1", "--yes"]).expect(0).contains("recovered"));
    run(&["audit"]).expect(0);

    redis(&stack, "DEL fs:{1}:sale");
    run(&["audit", "--patience", "0"]).expect(1);
    // It sells nothing, so that there is nothing to ask about.
    run(&["recover", "demo"]).expect(0);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_are_paused_resumed_and_closed() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    for (command, state) in [
        (&["sales", "pause", "1"][..], "paused"),
        (&["sales", "resume", "demo"], "open"),
        (&["sales", "close", "1", "--yes", "--no-wait"], "closed"),
    ] {
        assert!(run(command).expect(0).contains(state));
        assert_eq!(run(&["sales", "show", "1", "--output", "json"]).json()["state"], state);
    }
    for arguments in [&["sales", "pause", "77"][..], &["recover", "77"], &["audit", "--sale", "77"]] {
        let ran = run(arguments);
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.stderr.contains("sale 77 not found; there are: 1 (demo)"), "{ran:#?}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_entry_is_listed_shown_and_discarded() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    redis(&stack, "XADD fs:{1}:queue * what garbage");

    // An empty variable is one that is not set.
    let mut worker = Running::start(on(&stack, &["worker"]).env("FLASHSALE_METRICS_LISTEN", ""));
    worker.lines_until("draining as ");
    let list = || run(&["dead-letters", "list", "--output", "json"]).json();
    wait_until("the garbage to be parked", || !list().as_array().expect("dead letters").is_empty());
    assert_eq!(worker.end(Signal::SIGINT).code, Some(0));

    let id = list()[0]["id"].to_string();
    let shown = run(&["dead-letters", "show", &id, "--output", "json"]).json();
    assert_eq!((&shown["orderId"], &shown["fields"]["what"]), (&Value::Null, &"garbage".into()), "{shown}");
    let refused = run(&["dead-letters", "discard", &id]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    let planned = run(&["dead-letters", "discard", &id, "--dry-run"]).expect(0);
    assert!(planned.contains("it is dropped"), "{planned}");
    assert_eq!(list().as_array().map(Vec::len), Some(1), "nothing is discarded unasked");
    assert!(run(&["dead-letters", "discard", &id, "--yes"]).expect(0).contains("dropped"));
    let log = run(&["log", "--output", "json"]).json();
    assert_eq!((&log[0]["what"], &log[0]["saleId"]), (&"discard".into(), &1.into()), "{log}");
    let unknown = run(&["dead-letters", "show", "77"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("dead-letters list"), "{unknown:#?}");
    stack.stop().await;
}

/// A stack with the demo catalogue, loaded into Redis.
pub(crate) async fn seeded_stack() -> Stack {
    let stack = Stack::start(StackOptions::default()).await.expect("a stack");
    Ran::of(&mut on(&stack, &["seed"])).expect(0);
    Ran::of(&mut on(&stack, &["recover", "1"])).expect(0);
    stack
}

pub(crate) async fn engine(stack: &Stack) -> Engine {
    Engine::connect(EngineConfig::new(stack.redis_url(), stack.database_url())).await.expect("an engine")
}

pub(crate) async fn buy(engine: &Engine, user: &str, units: i64) -> OrderId {
    let line = (ProductId::try_from(1).expect("an id"), Quantity::try_from(units).expect("a quantity"));
    let items = Items::merge([line]).expect("items");
    let request = OrderRequest::new(user.parse().expect("a user"), "first".parse().expect("a key"), items);
    match engine.reserve(request).await.expect("an answer") {
        Admission::Admitted(id) => id,
        other => panic!("not admitted: {other:?}"),
    }
}

/// The whole answer to a GET of `host:port/path`.
fn get(url: &str) -> String {
    let (host, path) = url.split_once('/').expect("a path");
    let mut connection = TcpStream::connect(host).expect("a connection to the worker");
    write!(connection, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        .expect("a request sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer from the worker");
    answer
}

/// Changes Redis by hand, behind the engine's back.
pub(crate) fn redis(stack: &Stack, command: &str) {
    use std::io::Read;
    let address = stack.redis_url().trim_start_matches("redis://").trim_end_matches('/');
    let mut connection = TcpStream::connect(address).expect("a connection to Redis");
    write!(connection, "{command}\r\nQUIT\r\n").expect("a command sent to Redis");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer from Redis");
    assert!(!answer.starts_with('-'), "{answer}");
}
