//! `flashsale up`: what it prints, what it writes, and that nothing is left of it.

use std::{fs, os::unix::process::CommandExt, path::Path};

use flashsale_stack::read_env_file;
use nix::{
    sys::signal::Signal,
    unistd::{User, geteuid},
};

use crate::program::{Running, folder, in_folder, program, send, wait_until};

#[test]
fn it_says_where_its_servers_are_and_ends_with_them() {
    let folder = folder();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut up = Running::start(&mut program(folder.path(), &["up"]));
        check(&mut up, folder.path());
        assert!(folder.path().join(".flashsale/data/postgres").is_dir());
        let ran = up.end(signal);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert!(!folder.path().join(".flashsale/stack.env").exists());
    }
}

#[test]
fn a_server_that_dies_is_reported() {
    let (folder, data) = (folder(), folder());
    let arguments = ["up", "--data-dir", data.path().to_str().expect("text")];
    let mut up = Running::start(&mut program(folder.path(), &arguments));
    check(&mut up, folder.path());
    // The first line of its lock file is the process id of the main process of PostgreSQL.
    let pid = fs::read_to_string(data.path().join("postgres/postmaster.pid")).expect("a lock file");
    send(pid.lines().next().expect("a line").parse().expect("a process id"), Signal::SIGKILL);
    let ran = up.wait();
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("postgres ended by itself"), "{ran:#?}");
    assert!(!folder.path().join(".flashsale/stack.env").exists());
}

#[test]
fn a_second_one_in_the_same_directory_is_refused() {
    let folder = folder();
    let mut first = Running::start(&mut program(folder.path(), &["up"]));
    check(&mut first, folder.path());
    let second = Running::start(&mut program(folder.path(), &["up"])).wait();
    assert_eq!(second.code, Some(1), "{second:#?}");
    assert!(second.stderr.contains("in use by another stack"), "{second:#?}");
    assert!(
        read_env_file(folder.path().join(".flashsale/stack.env")).is_some(),
        "the first one is not disturbed"
    );
    assert_eq!(first.end(Signal::SIGTERM).code, Some(0));
}

#[test]
fn an_ordinary_user_can_run_it_too() {
    if !geteuid().is_root() {
        // Then all the other tests are the proof.
        return;
    }
    let nobody = User::from_name("nobody").expect("the users").expect("user nobody");
    let folder = folder();
    // The program itself may lie in a folder that is closed to others.
    let copy = folder.path().join("flashsale");
    fs::copy(env!("CARGO_BIN_EXE_flashsale"), &copy).expect("a copy of the program");
    std::os::unix::fs::chown(folder.path(), Some(nobody.uid.as_raw()), None).expect("a folder of his own");

    let mut command = in_folder(&copy, folder.path(), &["up"]);
    let mut up = Running::start(command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()));
    check(&mut up, folder.path());
    assert_eq!(up.end(Signal::SIGTERM).code, Some(0));
}

/// Waits until it is ready, and compares what it prints with what it writes.
#[track_caller]
fn check(up: &mut Running, folder: &Path) {
    let lines = up.lines_until("ready");
    let file = folder.join(".flashsale/stack.env");
    wait_until("the file that says where the servers are", || read_env_file(&file).is_some());
    let (redis_url, database_url) = read_env_file(&file).expect("a living stack");
    assert_eq!(
        lines,
        [format!("REDIS_URL={redis_url}"), format!("DATABASE_URL={database_url}"), "ready".to_owned()]
    );
}
