//! Stores that cannot be used as they are: the program says what to change, and does not begin.

use std::{
    fs::{File, read_to_string},
    process::Stdio,
};

use flashsale_core::{Engine, EngineConfig};
use flashsale_server::Stores;
use flashsale_stack::{Stack, StackOptions};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use crate::{
    process::{Process, program},
    shop::BOUND,
};

/// What it said when it ended with 1, having served nothing.
async fn refusal(stores: &Stores, arguments: &[&str]) -> String {
    let arguments = [&["--listen", "127.0.0.1:0"][..], arguments].concat();
    let mut command = program(stores, &arguments);
    let ended =
        timeout(BOUND, command.stderr(Stdio::piped()).output()).await.expect("an end in time").unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), &b""[..]), "{said}");
    said
}

/// What it logged while it was up.
async fn log(stores: &Stores, arguments: &[&str], variable: (&str, &str)) -> String {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = program(stores, arguments);
    command.env(variable.0, variable.1).stderr(File::create(log.path()).unwrap());
    let process = Process::of(command).await;
    assert_eq!(process.end(Signal::SIGTERM).await.code(), Some(0));
    read_to_string(log.path()).unwrap()
}

#[tokio::test]
async fn stores_that_would_break_the_promises_are_refused() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let stores =
        Stores { redis_url: stack.redis_url().to_owned(), database_url: stack.database_url().to_owned() };
    let client = redis::Client::open(stack.redis_url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut tell = async |words: &[&str]| {
        redis::cmd(words[0]).arg(&words[1..]).exec_async(&mut redis).await.unwrap();
    };

    tell(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    tell(&["CONFIG", "SET", "appendonly", "no"]).await;
    let said = refusal(&stores, &[]).await;
    for part in [
        "redis eviction: maxmemory-policy allkeys-lru",
        "set maxmemory-policy to noeviction, or use it as it is with --allow-unsafe-redis",
        "redis persistence: none",
        "set appendonly to yes",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let config = EngineConfig::new(&stores.redis_url, &stores.database_url);
    let engine = Engine::connect(config).await.unwrap();
    let untouched = engine.operator().sales().await.expect_err("nothing was migrated").to_string();
    assert!(untouched.contains("flashsale migrate"), "{untouched}");
    engine.close().await;

    let by_flag = log(&stores, &["--allow-unsafe-redis"], ("RUST_LOG", "warn")).await;
    let by_variable = log(&stores, &[], ("FLASHSALE_ALLOW_UNSAFE_REDIS", "true")).await;
    for said in [by_flag, by_variable] {
        for warning in ["redis eviction: ", "redis persistence: "] {
            let lines = said.lines().filter(|line| line.contains("WARN") && line.contains(warning));
            assert_eq!(lines.count(), 1, "{said}");
        }
        assert!(!said.contains("postgres tables"), "it brought them up to date itself: {said}");
    }

    tell(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    tell(&["CONFIG", "SET", "appendonly", "yes"]).await;
    // Of a master that nobody reaches.
    tell(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let said = refusal(&stores, &["--allow-unsafe-redis"]).await;
    assert!(said.contains("redis role: a replica") && said.contains("name the master"), "{said}");
    assert!(!said.contains("redis eviction"), "{said}");
    stack.stop().await;
}
