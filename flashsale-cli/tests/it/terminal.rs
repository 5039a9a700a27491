//! What somebody sees who sits before it.

use std::{
    fs::File,
    io::{Read, Write},
    process::Stdio,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use nix::{pty::openpty, sys::signal::Signal};

use crate::{
    daily_work::seeded_stack,
    program::{Ran, Running, on},
};

/// How long a picture is waited for.
const BOUND: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_undone_is_asked_and_only_yes_is_yes() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    for (answer, code, state) in [("\n", 1, "open"), ("no\n", 1, "open"), ("yes\n", 0, "closed")] {
        let terminal = openpty(None, None).expect("a terminal");
        let mut close = on(&stack, &["sales", "close", "1", "--no-wait"]);
        let mut close = Running::start(close.stdin(Stdio::from(terminal.slave)));
        // It is read when it asks.
        File::from(terminal.master.try_clone().expect("a terminal"))
            .write_all(answer.as_bytes())
            .expect("an answer");
        let ran = close.wait();
        assert_eq!(ran.code, Some(code), "{answer:?}: {ran:#?}");
        assert!(
            ran.stderr.contains("0 of 1700 units are sold") && ran.stderr.contains("Close it? [y/N]"),
            "{ran:#?}"
        );
        assert_eq!(run(&["sales", "show", "1", "--output", "json"]).json()["state"], state);
    }
    stack.stop().await;
}

/// What is drawn on a terminal. A program that draws nothing any more must not keep the test for ever.
struct Screen(Receiver<String>);

impl Screen {
    fn of(mut terminal: File) -> Self {
        let (drawn, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut some = [0; 4_096];
            while let Ok(read @ 1..) = terminal.read(&mut some) {
                let _ = drawn.send(String::from_utf8_lossy(&some[..read]).into_owned());
            }
        });
        Self(screen)
    }

    /// The next part; `None` when the other side of the terminal is gone.
    fn next(&mut self) -> Option<String> {
        match self.0.recv_timeout(BOUND) {
            Ok(drawn) => Some(drawn),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing is drawn for {BOUND:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_sale_is_drawn_and_the_terminal_is_left_in_order() {
    let stack = seeded_stack().await;
    let terminal = openpty(None, None).expect("a terminal");
    let mut command = on(&stack, &["sales", "watch", "1"]);
    command.env("TERM", "xterm").stdout(Stdio::from(terminal.slave)).stderr(Stdio::piped());
    let mut watch = command.spawn().expect("it starts");
    // It would keep the terminal open.
    drop(command);
    let mut screen = Screen::of(File::from(terminal.master));
    let mut seen = String::new();
    while !(seen.contains("Sony WH-1000XM5")
        && seen.contains("left of 500")
        && seen.contains("queue   empty"))
    {
        seen += &screen.next().unwrap_or_else(|| panic!("it ended: {seen}"));
    }
    crate::program::send(watch.id(), Signal::SIGINT);
    // The other side of the terminal is gone with it.
    while let Some(drawn) = screen.next() {
        seen += &drawn;
    }
    assert_eq!(watch.wait().expect("its end").code(), Some(130));
    // It flickers if it is drawn in pieces, or again as it was.
    let pictures: Vec<_> = seen.split("sale 1 (demo)").skip(1).collect();
    let (last, whole) = pictures.split_last().expect("a picture");
    for picture in whole {
        let parts = ["Sony WH-1000XM5", "orders  ", "queue   "];
        assert!(parts.iter().all(|part| picture.contains(part)), "in pieces: {picture:?} of {seen:?}");
    }
    let mut pairs = whole.iter().zip(whole.iter().skip(1)).chain(whole.iter().last().map(|one| (one, last)));
    assert!(pairs.all(|(one, next)| one != next), "as it was: {seen:?}");
    assert!(!seen.contains("\u{1b}[?25l") && !seen.contains("\u{1b}[?1049h"), "there is nothing to put back");
    stack.stop().await;
}
