//! The program as a user runs it: in a folder of its own, without the settings of whoever runs the tests.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
    process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use flashsale_stack::Stack;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_mins(1);

/// A folder to run it in, which the user of Postgres can enter.
pub(crate) fn folder() -> TempDir {
    let permissions = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(permissions).tempdir().expect("a temporary folder")
}

/// The program with these arguments, to be run in `folder`.
pub(crate) fn program(folder: &Path, arguments: &[&str]) -> Command {
    in_folder(Path::new(env!("CARGO_BIN_EXE_flashsale")), folder, arguments)
}

/// Any copy of the program.
pub(crate) fn in_folder(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for name in
        ["REDIS_URL", "DATABASE_URL", "RUST_LOG", "FLASHSALE_ALLOW_UNSAFE_REDIS", "FLASHSALE_OPERATOR"]
    {
        command.env_remove(name);
    }
    command
}

/// What a run of it came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().expect("the program runs"))
    }

    /// Its stdout; fails unless it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self.stdout
    }

    /// Its stdout as JSON; fails unless it ended well.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.expect(0)).expect("JSON")
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The program in an empty folder, with no stores to be found.
pub(crate) fn alone(arguments: &[&str]) -> Ran {
    Ran::of(&mut program(folder().path(), arguments))
}

/// The program, pointed at a stack.
pub(crate) fn on(stack: &Stack, arguments: &[&str]) -> Command {
    let mut command = program(Path::new("/"), arguments);
    command.env("REDIS_URL", stack.redis_url()).env("DATABASE_URL", stack.database_url());
    command
}

/// One that goes on until it is told to end. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let stderr = BufReader::new(child.stderr.take().expect("what it says is a pipe"));
        Self { child, stdout, stderr }
    }

    /// The lines up to the one that starts so, that one included.
    #[track_caller]
    pub(crate) fn lines_until(&mut self, start: &str) -> Vec<String> {
        self.lines_to(|line| line.starts_with(start), start)
    }

    /// The lines up to the one that has this in it, that one included.
    #[track_caller]
    pub(crate) fn lines_with(&mut self, text: &str) -> Vec<String> {
        self.lines_to(|line| line.contains(text), text)
    }

    #[track_caller]
    fn lines_to(&mut self, is_it: impl Fn(&str) -> bool, what: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| !is_it(line)) {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).expect("text") == 0 {
                let mut errors = String::new();
                self.stderr.read_to_string(&mut errors).expect("text");
                panic!("it ended before it said {what:?}: {lines:?}\n{errors}");
            }
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    /// Waits until it says this on stderr.
    #[track_caller]
    pub(crate) fn complains(&mut self, of: &str) {
        let mut line = String::new();
        while !line.contains(of) {
            line.clear();
            assert!(self.stderr.read_line(&mut line).expect("text") > 0, "it ended and did not say {of:?}");
        }
    }

    /// Reads all that it still has to say, and then waits for its end.
    pub(crate) fn read_to_its_end(mut self) -> Ran {
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).expect("text");
        Ran { stdout, ..self.wait() }
    }

    /// Reads a line, and no more: its end, when nobody reads it any longer.
    pub(crate) fn read_a_line(mut self) -> Ran {
        self.stdout.read_line(&mut String::new()).expect("text");
        let Self { stdout, .. } = &mut self;
        let (reader, _) = std::io::pipe().expect("a pipe");
        drop(std::mem::replace(stdout, BufReader::new(ChildStdout::from(OwnedFd::from(reader)))));
        self.wait()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, and says what came of it.
    pub(crate) fn end(mut self, signal: Signal) -> Ran {
        send(self.pid(), signal);
        self.wait()
    }

    /// Waits for its end, a minute at most.
    pub(crate) fn wait(&mut self) -> Ran {
        let child = &mut self.child;
        wait_until("the end of the program", || child.try_wait().expect("its status").is_some());
        let mut ran = Ran {
            code: child.wait().expect("its status").code(),
            stdout: String::new(),
            stderr: String::new(),
        };
        self.stdout.read_to_string(&mut ran.stdout).expect("text");
        self.stderr.read_to_string(&mut ran.stderr).expect("text");
        ran
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().expect("a process id")), signal).expect("the process takes a signal");
}

/// Waits for a condition, and fails after a bound that only a broken machine reaches.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + WITHIN;
    while !condition() {
        assert!(Instant::now() < give_up, "not within {WITHIN:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
