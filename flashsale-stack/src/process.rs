//! Child processes that end with this process, whatever ends it.
//!
//! On Linux the kernel sees to it: `setpriv --pdeathsig` asks for a signal when the *thread* that
//! started the child ends. So all children are started by the supervisor's thread, which lives as
//! long as the stack. Where there is no such `setpriv` (macOS, `BusyBox`), a shell waits at a pipe
//! that only this process holds open, and sends the signal when the pipe closes.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;
use tokio::time::timeout;

use crate::user::OtherUser;

/// Closes the gap between fork and prctl: a parent that died in it would never be noticed. The
/// shell keeps the process id and the death signal through its exec.
const IF_PARENT_LIVES: &str = r#"[ "$PPID" = "$0" ] || exit 1; exec "$@""#;
/// Starts the server once the watchdog is there; end of file means that the parent died before.
const WHEN_WATCHED: &str = r#"read -r _ || exit 1; exec "$@" </dev/null"#;
/// The parent never writes: `read` returns when the pipe closes.
const WATCHDOG: &str = r#"read -r _; kill -s "$1" "$2" 2>/dev/null"#;

/// How children are tied to this process.
#[derive(Clone, Debug)]
pub(crate) struct Tether {
    /// A setpriv that knows `--pdeathsig`; `BusyBox` has one that does not.
    setpriv: Option<PathBuf>,
}

/// What to run.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: &'a Path,
    pub(crate) user: Option<OtherUser>,
    /// The signal that ends it when this process is gone.
    pub(crate) at_parent_death: Signal,
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Tethered {
    child: Child,
    watchdog: Option<Child>,
}

impl Tether {
    pub(crate) fn of_this_system() -> Self {
        let setpriv = env::var_os("PATH")
            .iter()
            .flat_map(env::split_paths)
            .map(|dir| dir.join("setpriv"))
            .find(|path| path.is_file() && knows_pdeathsig(path));
        Self { setpriv }
    }

    /// Starts a server whose output goes to `log`.
    pub(crate) async fn serve(&self, launch: &Launch<'_>, log: File) -> io::Result<Tethered> {
        let errors = log.try_clone()?;
        self.spawn(launch, log.into(), errors.into()).await
    }

    /// Runs a program to its end.
    pub(crate) async fn run(&self, launch: &Launch<'_>) -> io::Result<Output> {
        let Tethered { child, watchdog } = self.spawn(launch, Stdio::piped(), Stdio::piped()).await?;
        let output = child.wait_with_output().await;
        drop(watchdog);
        output
    }

    async fn spawn(&self, launch: &Launch<'_>, stdout: Stdio, stderr: Stdio) -> io::Result<Tethered> {
        let mut command = match &self.setpriv {
            Some(setpriv) => with_death_signal(setpriv, launch.at_parent_death),
            None => shell(WHEN_WATCHED),
        };
        command.stdin(if self.setpriv.is_some() { Stdio::null() } else { Stdio::piped() });
        command.arg(launch.program).args(&launch.arguments).current_dir(launch.directory);
        command.stdout(stdout).stderr(stderr);
        // Error messages are looked at, so they must be English; PGDATA, PGHOST, PGOPTIONS and the
        // like of the caller's shell mean another server.
        foreign_settings().for_each(|name| {
            command.env_remove(name);
        });
        command.env("LC_ALL", "C");
        if let Some(user) = launch.user {
            // Before setpriv runs: a change of user afterwards would clear the death signal.
            user.applied_to(&mut command);
        }
        let mut child = spawn_apart(command)?;
        let mut watchdog = None;
        if let Some(mut stdin) = child.stdin.take() {
            watchdog = Some(watch(&child, launch.at_parent_death)?);
            stdin.write_all(b"go\n").await?;
        }
        Ok(Tethered { child, watchdog })
    }
}

impl Tethered {
    /// None once the end of the process has been seen.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for the end of the process. May be dropped and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        // The process id may be given to somebody else from now on.
        self.watchdog = None;
        status
    }

    /// Sends each signal in turn, and waits that long for the process to end before the next.
    /// SIGKILL is the last resort of every list.
    pub(crate) async fn stop(mut self, signals: &[(Signal, Duration)]) {
        for (signal, patience) in signals {
            self.signal(*signal);
            if timeout(*patience, self.wait()).await.is_ok() {
                return;
            }
        }
        self.signal(Signal::SIGKILL);
        if let Err(error) = self.wait().await {
            tracing::warn!(%error, "could not wait for the end of a killed process");
        }
    }

    fn signal(&self, signal: Signal) {
        // The child is not reaped before `wait` returns, so the id is still its own.
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            tracing::warn!(pid, %signal, %error, "could not send a signal");
        }
    }
}

fn knows_pdeathsig(setpriv: &Path) -> bool {
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--", "/bin/sh", "-c", ":"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// GNU env does since 8.31.
fn resets_signals() -> bool {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,QUIT,TERM", "/bin/sh", "-c", ":"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn with_death_signal(setpriv: &Path, signal: Signal) -> Command {
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", short_name(signal), "--"]);
    if resets_signals() {
        // A shell in the background of a script ignores SIGINT, and hands that down. The death signal of a
        // server that has not installed its handlers yet would be ignored too.
        command.args(["env", "--default-signal=INT,QUIT,TERM"]);
    }
    command.args(["/bin/sh", "-c", IF_PARENT_LIVES]).arg(process::id().to_string());
    command
}

fn watch(child: &Child, signal: Signal) -> io::Result<Child> {
    let pid = child.id().ok_or_else(|| io::Error::other("the process ended at once"))?;
    let mut command = shell(WATCHDOG);
    command.args([short_name(signal), &pid.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir("/");
    spawn_apart(command)
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]);
    command
}

/// Starts a command in a process group of its own: Ctrl-C in a terminal is for this process, which
/// then ends its children in good order.
fn spawn_apart(mut command: Command) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    tokio::process::Command::from(command).kill_on_drop(true).spawn()
}

fn foreign_settings() -> impl Iterator<Item = OsString> {
    let is_foreign = |name: &OsStr| name.as_bytes().starts_with(b"PG") || name.as_bytes().starts_with(b"LC_");
    env::vars_os().map(|(name, _)| name).filter(move |name| is_foreign(name))
}

/// `KILL` for SIGKILL, as shells and setpriv want it.
fn short_name(signal: Signal) -> &'static str {
    let name = signal.as_str();
    name.strip_prefix("SIG").unwrap_or(name)
}
