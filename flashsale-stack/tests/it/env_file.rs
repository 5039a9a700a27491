//! The file that says where a stack is, as long as it lives.

use std::fs;

use flashsale_stack::{Stack, StackOptions, read_env_file};

use crate::open_folder;
use crate::second_process::Part;

#[tokio::test]
async fn it_is_read_while_the_stack_lives_and_removed_after() {
    let folder = open_folder();
    let path = folder.path().join(".flashsale/stack.env");
    assert_eq!(read_env_file(&path), None);
    let stack = Stack::start(StackOptions::default()).await.expect("a stack");
    let urls = Some((stack.redis_url().to_owned(), stack.database_url().to_owned()));

    let file = stack.write_env_file(&path).expect("an env file");
    let content = fs::read_to_string(&path).expect("the file");
    assert_eq!(content, format!("REDIS_URL={}\nDATABASE_URL={}\n", stack.redis_url(), stack.database_url()));
    assert_eq!(read_env_file(&path), urls);
    assert_eq!(read_env_file(&path), urls, "reading changes nothing");

    let refused = stack.write_env_file(&path).expect_err("one writer at a time");
    assert!(refused.is_in_use());
    assert_eq!(read_env_file(&path), urls);

    drop(file);
    assert!(!path.exists());
    stack.stop().await;
}

#[test]
fn that_of_a_killed_stack_does_not_count_and_is_replaced() {
    let folder = open_folder();
    let path = folder.path().join("stack.env");
    let second = Part::new().env_file(&path).start();
    let (redis_url, _) = read_env_file(&path).expect("a living stack");
    assert_eq!(redis_url, second.fact("redis_url"));
    second.kill();
    assert!(path.exists());
    assert_eq!(read_env_file(&path), None);

    let next = Part::new().env_file(&path).start();
    let (redis_url, _) = read_env_file(&path).expect("a living stack");
    assert_eq!(redis_url, next.fact("redis_url"));
    next.finish();
    assert!(!path.exists());
}
