//! A parent that is killed leaves no process, and the next start removes its files.

use std::path::Path;

use crate::open_folder;
use crate::processes::{is_alive, wait_until_gone};
use crate::second_process::Part;

#[test]
fn no_server_outlives_a_killed_parent_and_the_next_start_sweeps() {
    let temporary = open_folder();
    let killed = Part::new().env("TMPDIR", temporary.path()).start();
    let left = killed.fact("data_dir").to_owned();
    assert!(Path::new(&left).starts_with(temporary.path()));
    let family = killed.family();
    killed.kill();
    wait_until_gone(&family);
    assert!(Path::new(&left).exists(), "nobody could remove it yet");

    let living = Part::new().env("TMPDIR", temporary.path()).start();
    assert!(!Path::new(&left).exists());
    // A start sweeps only what is dead.
    let next = Part::new().env("TMPDIR", temporary.path()).start();
    assert!(Path::new(living.fact("data_dir")).exists());
    assert!(living.family().into_iter().any(is_alive));
    next.finish();
    living.finish();
    let remaining = temporary.path().read_dir().expect("the folder").count();
    assert_eq!(remaining, 0);
}

/// Without a setpriv on PATH, as on macOS and with `BusyBox`. The servers are found in the usual
/// places here, for PATH is empty; where they are not, setpriv is not either.
#[test]
fn without_setpriv_no_server_outlives_a_killed_parent_either() {
    let temporary = open_folder();
    let part = || {
        let part = Part::new().env("TMPDIR", temporary.path());
        if cfg!(target_os = "linux") { part.env("PATH", temporary.path()) } else { part }
    };
    let killed = part().start();
    let family = killed.family();
    killed.kill();
    wait_until_gone(&family);

    let finished = part().start();
    let family = finished.family();
    finished.finish();
    wait_until_gone(&family);
}
