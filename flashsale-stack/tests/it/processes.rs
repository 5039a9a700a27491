//! Looking at processes from outside, and waiting for what they do.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const WITHIN: Duration = Duration::from_secs(30);

/// Waits for a condition, and fails after a bound that only a broken machine reaches.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + WITHIN;
    while !condition() {
        assert!(Instant::now() < give_up, "not within {WITHIN:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn wait_until_gone(pids: &[u32]) {
    wait_until(&format!("the end of all of the processes {pids:?}"), || {
        !pids.iter().any(|pid| is_alive(*pid))
    });
}

/// A process that only waits to be reaped does not count: that is up to its new parent.
pub(crate) fn is_alive(pid: u32) -> bool {
    kill(as_pid(pid), None) != Err(Errno::ESRCH) && stat(pid).is_none_or(|(state, _)| state != "Z")
}

pub(crate) fn send(pid: u32, signal: Signal) {
    kill(as_pid(pid), signal).expect("the process takes a signal");
}

/// Children, their children and so on. Linux only; elsewhere there are none to be seen.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?.1))
        })
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.split_off(1)
}

/// State and parent of a process, where the system tells.
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a process id"))
}
