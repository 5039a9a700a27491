//! What `flashsale doctor` says of stores that are as they should be, and of others.

use flashsale_stack::{Stack, StackOptions};
use serde_json::Value;

use crate::{
    daily_work::redis,
    program::{Ran, alone, on},
};

const CHECKS: [&str; 11] = [
    "redis version",
    "redis role",
    "redis eviction",
    "redis persistence",
    "redis permissions",
    "postgres version",
    "postgres role",
    "postgres durability",
    "postgres tables",
    "postgres connections",
    "clocks",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_are_examined() {
    let stack = Stack::start(StackOptions::default()).await.expect("a stack");
    let doctor = |arguments: &[&str]| Ran::of(&mut on(&stack, &[&["doctor"][..], arguments].concat()));

    let empty = doctor(&[]).expect(0);
    let line = line_of(&empty, "postgres tables");
    assert!(line.contains("WARNING") && line.contains("not applied yet"), "{empty}");
    assert!(empty.contains("To do:\n  postgres tables: run `flashsale migrate`"), "{empty}");
    Ran::of(&mut on(&stack, &["migrate"])).expect(0);
    let sound = doctor(&["--output", "json"]).json();
    let sound = sound.as_array().expect("findings");
    assert_eq!(sound.iter().map(|finding| &finding["check"]).collect::<Vec<_>>(), CHECKS);
    for finding in sound {
        assert_eq!((&finding["verdict"], &finding["remedy"]), (&"ok".into(), &Value::Null), "{finding}");
    }
    assert!(!doctor(&[]).expect(0).contains("To do"), "there is nothing to do");

    redis(&stack, "CONFIG SET maxmemory-policy allkeys-lru");
    redis(&stack, "CONFIG SET appendonly no");
    let ran = doctor(&[]);
    assert_eq!(ran.stderr, "", "what was found is the result");
    let refused = ran.expect(1);
    for check in ["redis eviction", "redis persistence"] {
        assert!(line_of(&refused, check).contains("REFUSED"), "{refused}");
    }
    assert!(
        refused.contains("set maxmemory-policy to noeviction, or use it as it is with --allow-unsafe-redis")
    );
    let allowed = doctor(&["--allow-unsafe-redis"]).expect(0);
    assert!(line_of(&allowed, "redis eviction").contains("WARNING"), "{allowed}");
    Ran::of(on(&stack, &["doctor"]).env("FLASHSALE_ALLOW_UNSAFE_REDIS", "1")).expect(0);

    // A worker does not even begin.
    let worker = Ran::of(&mut on(&stack, &["worker"]));
    assert_eq!((worker.code, &*worker.stdout), (Some(1), ""), "{worker:#?}");
    assert!(worker.stderr.contains("set maxmemory-policy to noeviction"), "{worker:#?}");
    assert!(worker.stderr.contains("--allow-unsafe-redis"), "{worker:#?}");

    stack.kill_redis().await.expect("Redis is killed");
    let away = doctor(&[]).expect(1);
    assert!(line_of(&away, "redis").contains("AWAY"), "{away}");
    assert!(line_of(&away, "postgres tables").contains("ok"), "the other one is examined: {away}");
    stack.stop().await;
}

#[test]
fn the_option_belongs_to_those_who_check() {
    for arguments in [&["queue", "--allow-unsafe-redis"][..], &["doctor", "--allow-unsafe-redis=maybe"]] {
        assert_eq!(alone(arguments).code, Some(2), "{arguments:?}");
    }
}

fn line_of<'a>(text: &'a str, check: &str) -> &'a str {
    text.lines()
        .find(|line| line.trim_start().starts_with(check))
        .unwrap_or_else(|| panic!("no {check} in {text}"))
}
