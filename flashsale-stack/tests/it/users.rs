//! Root and ordinary users. Tests that need root pass without a word for anybody else, for whom
//! all the other tests are the proof.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

use flashsale_stack::{Stack, StackOptions};
use nix::unistd::{User, geteuid};

use crate::open_folder;
use crate::processes::wait_until_gone;
use crate::second_process::Part;

#[test]
fn an_ordinary_user_has_a_stack_too() {
    if !geteuid().is_root() {
        return;
    }
    let nobody = User::from_name("nobody").expect("the users").expect("user nobody");
    // The test itself may be in a folder that is closed to others.
    let folder = open_folder();
    let copy = folder.path().join("it");
    fs::copy(std::env::current_exe().expect("this test"), &copy).expect("a copy of this test");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("a program for everybody");

    let mut part = Part::of(&copy);
    part.0.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()).current_dir("/").env_remove("TMPDIR");
    let second = part.start();
    let dir = second.fact("data_dir").to_owned();
    assert_eq!(fs::metadata(&dir).expect("the data").uid(), nobody.uid.as_raw());
    let family = second.family();
    second.finish();
    wait_until_gone(&family);
    assert!(!fs::exists(&dir).expect("the temporary folder can be read"));
}

#[tokio::test]
async fn as_root_postgres_runs_as_somebody_else() {
    if !geteuid().is_root() {
        return;
    }
    let stack = Stack::start(StackOptions::default()).await.expect("a stack");
    let owner = fs::metadata(stack.data_dir().join("postgres")).expect("the cluster").uid();
    assert_ne!(owner, 0);
    stack.stop().await;
}

#[tokio::test]
async fn as_root_a_closed_folder_is_stood_in_for() {
    if !geteuid().is_root() {
        return;
    }
    // As /root is.
    let closed = open_folder();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("a closed folder");
    let named = closed.path().join("checkout/data");
    let options = StackOptions { data_dir: Some(named.clone()), ..StackOptions::default() };
    let stack = Stack::start(options.clone()).await.expect("a stack");
    let stand_in = stack.data_dir().to_owned();
    assert_ne!(stand_in, named);
    let notes: Vec<&str> = stack.notes().collect();
    assert!(notes.iter().any(|note| note.contains(&stand_in.display().to_string())), "{notes:?}");
    stack.create_database("kept").await.expect("a database");
    stack.stop().await;

    let stack = Stack::start(options).await.expect("the stack again");
    assert_eq!(stack.data_dir(), stand_in);
    stack.create_database("kept").await.expect_err("the database is there");
    stack.stop().await;
    fs::remove_dir_all(stand_in).expect("the data is removed");
}
