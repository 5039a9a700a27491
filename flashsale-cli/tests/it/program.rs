//! The program as a user runs it: in a folder of its own, without the settings of whoever runs the tests.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
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
    for name in ["REDIS_URL", "DATABASE_URL", "RUST_LOG", "FLASHSALE_ALLOW_UNSAFE_REDIS"] {
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
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self { child, stdout }
    }

    /// The lines up to the one that starts so, that one included.
    #[track_caller]
    pub(crate) fn lines_until(&mut self, start: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| !line.starts_with(start)) {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).expect("text") == 0 {
                let mut errors = String::new();
                self.child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
                panic!("it ended before it said {start:?}: {lines:?}\n{errors}");
            }
            lines.push(line.trim_end().to_owned());
        }
        lines
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
        child.stderr.take().expect("a pipe").read_to_string(&mut ran.stderr).expect("text");
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
