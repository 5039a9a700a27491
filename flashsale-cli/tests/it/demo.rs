//! `flashsale demo`: what it does around the load test, for which a short script stands in. The load test has
//! tests of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::program::{Ran, Running, folder, in_folder, wait_until};

/// Leaves a sale behind, as the load test does.
const SELLS: &str = r#"
echo "called with $1 $2 $3 $4"
flashsale="$(dirname "$0")/flashsale"
"$flashsale" seed "$5" "$6" "$7" "$8" && "$flashsale" recover 1 "$5" "$6" "$7" "$8"
"#;
/// Goes on until it is ended.
const WAITS: &str = "echo herd $$; exec sleep 600";

/// A copy of the program with the programs it runs beside it.
struct Demo {
    folder: TempDir,
    program: PathBuf,
}

impl Demo {
    fn with_loadtest(script: &str) -> Self {
        let demo = Self::without_loadtest();
        write_script(&demo.folder.path().join("flashsale-loadtest"), script);
        write_script(&demo.folder.path().join("flashsale-server"), "exit 1");
        demo
    }

    fn without_loadtest() -> Self {
        let folder = folder();
        let program = folder.path().join("flashsale");
        fs::copy(env!("CARGO_BIN_EXE_flashsale"), &program).expect("a copy of the program");
        Self { folder, program }
    }

    fn command(&self) -> Command {
        in_folder(&self.program, self.folder.path(), &["demo", "--users", "7", "--stock", "3"])
    }

    /// Started, with the process id of its herd.
    fn start(&self) -> (Running, Pid) {
        let mut running = Running::start(&mut self.command());
        let lines = running.lines_until("herd ");
        let pid = lines.last().and_then(|line| line.strip_prefix("herd ")).expect("a line of the herd");
        (running, Pid::from_raw(pid.parse().expect("a process id")))
    }
}

fn write_script(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a program");
}

fn wait_until_gone(pid: Pid) {
    wait_until("the end of the herd", || kill(pid, None) == Err(Errno::ESRCH) || is_zombie(pid));
}

/// One that only waits to be reaped, which is up to its new parent.
fn is_zombie(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn it_runs_the_load_test_on_stores_of_its_own_and_audits_them() {
    let demo = Demo::with_loadtest(SELLS);
    let told = Ran::of(&mut demo.command()).expect(0);
    assert!(told.contains("called with --users 7 --stock 3"), "{told}");
    assert!(told.contains("audit: every invariant holds (1 sale)"), "{told}");
}

#[test]
fn a_failed_load_test_is_a_failed_demo() {
    let demo = Demo::with_loadtest(&format!("{SELLS}\nexit 3"));
    let told = Ran::of(&mut demo.command()).expect(3);
    assert!(told.contains("audit: every invariant holds"), "{told}");
}

#[test]
fn stores_that_cannot_be_audited_are_a_failed_demo() {
    let ran = Ran::of(&mut Demo::with_loadtest("exit 0").command());
    assert_eq!(ran.code, Some(1), "{ran:#?}");
}

#[test]
fn being_interrupted_ends_the_herd() {
    let demo = Demo::with_loadtest(WAITS);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (running, herd) = demo.start();
        let ran = running.end(signal);
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.stderr.contains("interrupted"), "{ran:#?}");
        wait_until_gone(herd);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn being_killed_ends_the_herd_too() {
    let demo = Demo::with_loadtest(WAITS);
    let (running, herd) = demo.start();
    let ran = running.end(Signal::SIGKILL);
    assert_eq!(ran.code, None, "{ran:#?}");
    wait_until_gone(herd);
}

#[test]
fn it_says_how_to_build_what_is_missing() {
    let ran = Ran::of(&mut Demo::without_loadtest().command());
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("flashsale-loadtest") && ran.stderr.contains("cargo build"), "{ran:#?}");
}
