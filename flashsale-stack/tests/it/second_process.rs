//! A second process that holds a stack, to be killed or run as somebody else. It is this test
//! binary once more, told by its environment to play that part.

use std::collections::HashMap;
use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use flashsale_stack::{Stack, StackOptions};

use crate::processes::descendants;

const PART: &str = "FLASHSALE_STACK_TEST_PART";
const DATA_DIR: &str = "FLASHSALE_STACK_TEST_DATA_DIR";
const ENV_FILE: &str = "FLASHSALE_STACK_TEST_ENV_FILE";

/// A running second process whose stack is up. Its standard input is what keeps it going.
pub(crate) struct SecondProcess {
    child: Child,
    /// Kept open: the test harness in it still has things to say.
    _output: BufReader<ChildStdout>,
    facts: HashMap<String, String>,
}

/// A second process to be started.
pub(crate) struct Part(pub(crate) Command);

impl Part {
    pub(crate) fn new() -> Self {
        Self::of(&env::current_exe().expect("the path of this test"))
    }

    /// Played by a copy of this test binary.
    pub(crate) fn of(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["second_process::plays_its_part", "--exact", "--nocapture"]).env(PART, "yes");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command)
    }

    pub(crate) fn data_dir(mut self, dir: &Path) -> Self {
        self.0.env(DATA_DIR, dir);
        self
    }

    pub(crate) fn env_file(mut self, path: &Path) -> Self {
        self.0.env(ENV_FILE, path);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &Path) -> Self {
        self.0.env(name, value);
        self
    }

    /// Returns when the stack is up.
    pub(crate) fn start(mut self) -> SecondProcess {
        let mut child = self.0.spawn().expect("a second process");
        let stdout = child.stdout.take().expect("its output is a pipe");
        let mut output = BufReader::new(stdout);
        let facts: HashMap<String, String> = output
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .take_while(|line| line != "ready")
            .filter_map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect();
        assert!(facts.contains_key("data_dir"), "the second process did not come up: {facts:?}");
        SecondProcess { child, _output: output, facts }
    }
}

impl SecondProcess {
    pub(crate) fn fact(&self, name: &str) -> &str {
        &self.facts[name]
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All processes that must not outlive it.
    pub(crate) fn family(&self) -> Vec<u32> {
        let mut family = descendants(self.pid());
        family.extend(
            ["redis_pid", "postgres_pid"].map(|name| self.fact(name).parse::<u32>().expect("a process id")),
        );
        family
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the second process is killed");
        self.child.wait().expect("the second process is gone");
    }

    /// Lets it stop its stack and end.
    pub(crate) fn finish(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("the second process is gone");
        assert!(status.success(), "the second process failed: {status}");
    }
}

#[test]
fn plays_its_part() {
    if env::var_os(PART).is_none() {
        // Run with all the other tests: there is no part to play.
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let data_dir = env::var_os(DATA_DIR).map(Into::into);
    let options = StackOptions { data_dir, ..StackOptions::default() };
    let stack = runtime.block_on(Stack::start(options)).expect("a stack");
    let env_file =
        env::var_os(ENV_FILE).map(|path| stack.write_env_file(Path::new(&path)).expect("an env file"));
    // A line of its own: the test harness has begun one.
    println!("\ndata_dir={}", stack.data_dir().display());
    println!("redis_url={}", stack.redis_url());
    println!("redis_pid={}", stack.redis_pid().expect("Redis runs"));
    println!("postgres_pid={}", stack.postgres_pid().expect("Postgres runs"));
    println!("ready");
    io::read_to_string(io::stdin()).expect("the end of the input");
    drop(env_file);
    runtime.block_on(stack.stop());
}
