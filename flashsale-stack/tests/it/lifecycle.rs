//! Starting, stopping, crashes and restarts of temporary stacks.

use std::thread;
use std::time::Duration;

use flashsale_stack::{Service, Stack, StackOptions};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use crate::processes::{descendants, is_alive, send, wait_until_gone};
use crate::redis;

async fn start() -> Stack {
    Stack::start(StackOptions::default()).await.expect("a stack")
}

/// Both servers and what they have forked so far.
fn family(stack: &Stack) -> Vec<u32> {
    let servers = [stack.redis_pid(), stack.postgres_pid()].map(|pid| pid.expect("the server runs"));
    servers.into_iter().flat_map(|pid| [vec![pid], descendants(pid)].concat()).collect()
}

#[tokio::test]
async fn a_stopped_stack_leaves_nothing() {
    let stack = start().await;
    let (dir, family) = (stack.data_dir().to_owned(), family(&stack));
    assert!(dir.is_dir());
    assert_eq!(stack.notes().count(), 0);
    stack.stop().await;
    assert!(!dir.exists());
    wait_until_gone(&family);
}

#[tokio::test]
async fn a_dropped_stack_leaves_nothing() {
    let stack = start().await;
    let (dir, family) = (stack.data_dir().to_owned(), family(&stack));
    drop(stack);
    assert!(!dir.exists());
    wait_until_gone(&family);
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_leaves_nothing() {
    let folder = crate::open_folder();
    let dir = folder.path().join("data");
    let options = StackOptions { data_dir: Some(dir.clone()), ..StackOptions::default() };
    // Long enough for the directory to be taken, too short for the servers to be up.
    let given_up = timeout(Duration::from_millis(100), Stack::start(options.clone())).await;
    assert!(given_up.is_err());
    // The directory is free again as soon as what had been started is gone.
    let again = timeout(Duration::from_mins(1), async {
        loop {
            match Stack::start(options.clone()).await {
                Err(error) if error.is_in_use() => tokio::time::sleep(Duration::from_millis(20)).await,
                other => return other,
            }
        }
    });
    again.await.expect("within a minute").expect("a stack").stop().await;
}

#[tokio::test]
async fn two_stacks_run_side_by_side() {
    let (one, other) = tokio::join!(start(), start());
    assert_ne!(one.data_dir(), other.data_dir());
    assert_ne!(one.database_url(), other.database_url());
    redis(one.redis_url(), &["SET whose one"]);
    redis(other.redis_url(), &["SET whose other"]);
    one.create_database("mine").await.expect("a database");
    other.create_database("mine").await.expect("a database of the same name on the other server");
    assert!(redis(one.redis_url(), &["GET whose"]).contains("one"));
    one.stop().await;
    assert!(redis(other.redis_url(), &["GET whose"]).contains("other"));
    other.stop().await;
}

#[tokio::test]
async fn redis_keeps_what_it_was_told_and_never_evicts() {
    let stack = start().await;
    for (setting, value) in [("appendonly", "yes"), ("maxmemory-policy", "noeviction"), ("bind", "127.0.0.1")]
    {
        let answer = redis(stack.redis_url(), &[&format!("CONFIG GET {setting}")]);
        assert!(answer.contains(&format!("\r\n{value}\r\n")), "{setting}: {answer}");
    }
    stack.stop().await;
}

#[tokio::test]
async fn databases_are_made_on_request() {
    let stack = start().await;
    let url = stack.create_database("of_one_test").await.expect("a database");
    assert!(url.ends_with("/of_one_test"), "{url}");
    let taken = stack.create_database("of_one_test").await.expect_err("the name is taken");
    assert!(taken.to_string().contains("already exists"), "{taken}");
    for name in ["", "1st", "a b", "a\"b", &"x".repeat(64)] {
        stack.create_database(name).await.expect_err("no such name");
    }
    let names: Vec<String> = (0..8).map(|n| format!("at_once_{n}")).collect();
    let (a, b, c) = tokio::join!(
        stack.create_database(&names[0]),
        stack.create_database(&names[1]),
        stack.create_database(&names[2])
    );
    a.and(b).and(c).expect("three databases at once");
    stack.stop().await;
}

#[tokio::test]
async fn a_killed_server_starts_again_on_its_port_with_its_data() {
    let stack = start().await;
    redis(stack.redis_url(), &["SET kept yes"]);
    stack.create_database("kept").await.expect("a database");
    let before = family(&stack);

    stack.kill_redis().await.expect("Redis is killed");
    stack.kill_postgres().await.expect("Postgres is killed");
    assert_eq!((stack.redis_pid(), stack.postgres_pid()), (None, None));
    wait_until_gone(&before);

    stack.restart_redis().await.expect("Redis is back");
    stack.restart_postgres().await.expect("Postgres is back");
    assert!(redis(stack.redis_url(), &["GET kept"]).contains("yes"));
    let kept = stack.create_database("kept").await.expect_err("the database is there");
    assert!(kept.to_string().contains("already exists"), "{kept}");
    // Nothing here ended by itself.
    assert!(timeout(Duration::ZERO, stack.child_exited()).await.is_err());
    stack.stop().await;
}

#[tokio::test]
async fn a_server_that_runs_is_restarted_in_good_order() {
    let stack = start().await;
    redis(stack.redis_url(), &["SET kept yes"]);
    let before = family(&stack);
    stack.restart_redis().await.expect("Redis is back");
    stack.restart_postgres().await.expect("Postgres is back");
    wait_until_gone(&before);
    assert!(redis(stack.redis_url(), &["GET kept"]).contains("yes"));
    stack.stop().await;
}

#[tokio::test]
async fn a_server_that_ends_by_itself_is_reported() {
    let stack = start().await;
    let redis_pid = stack.redis_pid().expect("Redis runs");
    send(redis_pid, Signal::SIGKILL);
    let exit = timeout(Duration::from_secs(30), stack.child_exited()).await.expect("a report");
    assert_eq!(exit.service, Service::Redis);
    assert!(exit.to_string().contains("signal: 9"), "{exit}");
    assert_eq!(stack.redis_pid(), None);

    stack.restart_redis().await.expect("Redis is back");
    assert!(timeout(Duration::ZERO, stack.child_exited()).await.is_err(), "it is not missing any more");
    send(stack.postgres_pid().expect("Postgres runs"), Signal::SIGQUIT);
    let exit = timeout(Duration::from_secs(30), stack.child_exited()).await.expect("a report");
    assert_eq!(exit.service, Service::Postgres);
    stack.stop().await;
}

#[test]
fn a_stack_outlives_the_thread_that_started_it() {
    let starter = thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(start())
    });
    let stack = starter.join().expect("a started stack");
    // Were the death signal tied to that thread, it would have been sent before the join.
    assert!(is_alive(stack.redis_pid().expect("Redis runs")));
    assert!(redis(stack.redis_url(), &["PING"]).contains("PONG"));
    drop(stack);
}

#[tokio::test]
async fn missing_programs_are_named_with_the_command_that_installs_them() {
    let empty = crate::open_folder();
    let options =
        StackOptions { binary_dirs: Some(vec![empty.path().to_owned()]), ..StackOptions::default() };
    let error = Stack::start(options).await.expect_err("no programs there");
    assert!(error.is_missing_binaries());
    let message = error.to_string();
    for part in ["redis-server", "initdb", "nstall"] {
        assert!(message.contains(part), "{message}");
    }
}
