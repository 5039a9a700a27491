//! Data directories that are named: kept, started again, held by one stack at a time.

use flashsale_stack::{Stack, StackOptions};

use crate::processes::wait_until_gone;
use crate::second_process::Part;
use crate::{open_folder, redis};

#[tokio::test]
async fn the_data_is_there_after_a_stop() {
    let folder = open_folder();
    let options = StackOptions { data_dir: Some(folder.path().join("a/data")), ..StackOptions::default() };
    let stack = Stack::start(options.clone()).await.expect("a stack");
    redis(stack.redis_url(), &["SET kept yes"]);
    stack.create_database("kept").await.expect("a database");
    stack.stop().await;

    let stack = Stack::start(options).await.expect("the stack again");
    assert!(redis(stack.redis_url(), &["GET kept"]).contains("yes"));
    let kept = stack.create_database("kept").await.expect_err("the database is there");
    assert!(kept.to_string().contains("already exists"), "{kept}");
    stack.stop().await;
}

#[tokio::test]
async fn the_ports_are_those_of_the_last_time_where_they_are_free() {
    let folder = open_folder();
    let options = StackOptions { data_dir: Some(folder.path().join("data")), ..StackOptions::default() };
    let port = |url: &str| url.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
    let stack = Stack::start(options.clone()).await.expect("a stack");
    let (redis_url, database_url) = (stack.redis_url().to_owned(), stack.database_url().to_owned());
    stack.stop().await;
    // Once of three times at least: somebody else may take a port while it is free.
    let mut kept = false;
    for _ in 0..3 {
        let stack = Stack::start(options.clone()).await.expect("the stack again");
        kept |= (stack.redis_url(), stack.database_url()) == (&*redis_url, &*database_url);
        stack.stop().await;
        std::fs::write(folder.path().join("data/redis.port"), port(&redis_url)).expect("a port");
        std::fs::write(folder.path().join("data/postgres.port"), port(&database_url)).expect("a port");
    }
    assert!(kept);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let number = taken.local_addr().expect("its address").port().to_string();
    for (file, number) in [("redis.port", number.as_str()), ("postgres.port", "no port")] {
        std::fs::write(folder.path().join("data").join(file), number).expect("a port");
    }
    let stack = Stack::start(options).await.expect("a stack on other ports");
    assert_ne!(port(stack.redis_url()), number);
    stack.stop().await;
}

#[tokio::test]
async fn the_data_is_there_after_the_parent_was_killed() {
    let folder = open_folder();
    let dir = folder.path().join("data");
    let parent = Part::new().data_dir(&dir).start();
    redis(parent.fact("redis_url"), &["SET kept yes"]);
    parent.kill();

    // At once: the old servers may be in their last moments still.
    let options = StackOptions { data_dir: Some(dir), ..StackOptions::default() };
    let stack = Stack::start(options).await.expect("the stack again");
    assert!(redis(stack.redis_url(), &["GET kept"]).contains("yes"));
    stack.stop().await;
}

#[tokio::test]
async fn a_pid_file_of_a_dead_server_does_not_matter() {
    let folder = open_folder();
    let options = StackOptions { data_dir: Some(folder.path().join("data")), ..StackOptions::default() };
    let stack = Stack::start(options.clone()).await.expect("a stack");
    let pids = [stack.redis_pid(), stack.postgres_pid()].map(|pid| pid.expect("the server runs"));
    stack.kill_redis().await.expect("Redis is killed");
    stack.kill_postgres().await.expect("Postgres is killed");
    wait_until_gone(&pids);
    assert!(stack.data_dir().join("postgres/postmaster.pid").exists());
    stack.stop().await;
    Stack::start(options).await.expect("the stack again").stop().await;
}

#[tokio::test]
async fn a_cluster_whose_making_was_cut_short_is_made_again() {
    let folder = open_folder();
    let dir = folder.path().join("data");
    std::fs::create_dir_all(dir.join("postgres.new/base")).expect("what a killed initdb left");
    let options = StackOptions { data_dir: Some(dir), ..StackOptions::default() };
    Stack::start(options).await.expect("a stack").stop().await;
}

#[tokio::test]
async fn a_second_stack_on_the_same_directory_is_refused() {
    let folder = open_folder();
    let options = StackOptions { data_dir: Some(folder.path().join("data")), ..StackOptions::default() };
    let first = Stack::start(options.clone()).await.expect("a stack");
    let refused = Stack::start(options.clone()).await.expect_err("the directory is in use");
    assert!(refused.is_in_use());
    let message = refused.to_string();
    assert!(
        message.contains(&format!("in use by another stack (process {})", std::process::id())),
        "{message}"
    );
    assert!(redis(first.redis_url(), &["PING"]).contains("PONG"), "the first one is unharmed");
    first.stop().await;
    Stack::start(options).await.expect("free again").stop().await;
}
