//! The real programs, as processes that can be killed, stopped and started again.

use std::{
    env,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    broken::Mutation,
    server::{beside_us, command_dying_with_us},
};

const UP_WITHIN: Duration = Duration::from_mins(1);
/// Longer than the programs' own patience with what is in flight.
const DOWN_WITHIN: Duration = Duration::from_secs(45);

/// Where a program finds its stores: the proxies in front of them.
#[derive(Debug, Clone)]
pub(crate) struct StoreUrls {
    pub(crate) redis: String,
    pub(crate) postgres: String,
}

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `flashsale-server` without drainers.
    Server,
    /// `flashsale worker`.
    Worker,
}

/// A server or a worker over the life of a round. Dropping it kills it.
pub(crate) struct Program {
    kind: Kind,
    name: String,
    /// From the next start on.
    pub(crate) stores: StoreUrls,
    /// From the next start on: a build that is broken like this.
    pub(crate) broken: Option<&'static Mutation>,
    log: PathBuf,
    child: Option<Child>,
    /// When it was killed or stopped last.
    pub(crate) down_at: Option<Instant>,
    /// When it was started last.
    pub(crate) up_at: Option<Instant>,
    /// A server's, as `http://127.0.0.1:…`; the name under which a worker takes entries.
    address: String,
}

impl Program {
    /// Starts it and waits until it works. Like every start, to be awaited by the main thread: the kernel kills
    /// the process when the thread that started it ends.
    pub(crate) async fn start(kind: Kind, number: usize, stores: &StoreUrls, logs: &Path) -> Result<Self> {
        let name = format!("{} {number}", if kind == Kind::Server { "server" } else { "worker" });
        let log = logs.join(format!("{}.log", name.replace(' ', "-")));
        let (stores, address) = (stores.clone(), String::new());
        let mut program =
            Self { kind, name, stores, broken: None, log, child: None, down_at: None, up_at: None, address };
        program.start_again().await?;
        Ok(program)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The real program, or the broken one in its place.
    fn command(&self) -> Result<Command> {
        let Some(mutation) = self.broken else {
            let name = if self.kind == Kind::Server { "flashsale-server" } else { "flashsale" };
            let mut command = command_dying_with_us(&beside_us(name)?);
            command.args((self.kind == Kind::Worker).then_some("worker"));
            return Ok(command);
        };
        let mut command = command_dying_with_us(&beside_us("flashsale-loadtest")?);
        let which = if self.kind == Kind::Server { "server" } else { "worker" };
        command.args(["broken", "--mutation", mutation.name, which]);
        Ok(command)
    }

    /// Starts one that is not running. A server takes a new port.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        let mut command = self.command()?;
        let ready = match self.kind {
            Kind::Server => {
                command.args(["--listen", "127.0.0.1:0", "--drainers", "0", "--rate-limit", "off"]);
                "listening on "
            }
            Kind::Worker => "draining as ",
        };
        self.stores.tell(&mut command);
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        command.env("RUST_LOG", "info,sqlx=error");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        // Ctrl-C in a terminal is for this process, which then ends the others.
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("it has no stdout")?).lines();
        let said = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(rest) = line.strip_prefix(ready) {
                    return Ok(rest.trim().to_owned());
                }
            }
            bail!("it ended");
        };
        let said = timeout(UP_WITHIN, said).await.context("it took too long").flatten();
        self.address =
            said.with_context(|| format!("{} did not start, see {}", self.name, self.log.display()))?;
        // Keep the pipe open and empty: a program that cannot write would stop.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.child = Some(child);
        self.up_at = Some(Instant::now());
        Ok(())
    }

    /// Ends it as a crash would, and returns when it is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} is not running", self.name))?;
        let ended = child.try_wait()?;
        ensure!(ended.is_none(), "{} had ended by itself, see {}", self.name, self.log.display());
        self.down_at = Some(Instant::now());
        child.kill().await?;
        Ok(())
    }

    /// Stops it in the middle of whatever it does, or lets it go on.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if signal == Signal::SIGSTOP {
            self.down_at = Some(Instant::now());
        }
        let pid = self.child.as_ref().and_then(Child::id);
        let pid = pid.with_context(|| format!("{} is not running", self.name))?;
        signal::kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        Ok(())
    }

    /// Ends it in good order, and looks at what it left: a crash nobody asked for, a panic.
    pub(crate) async fn end(&mut self) -> Result<()> {
        // Killed by the fault, and not started again.
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            bail!("{} ended by itself with {status}, see {}", self.name, self.log.display());
        }
        self.child = Some(child);
        self.signal(Signal::SIGTERM)?;
        let mut child = self.child.take().expect("it was just put there");
        let ended = timeout(DOWN_WITHIN, child.wait()).await;
        let Ok(status) = ended else {
            bail!("{} did not end when told to, see {}", self.name, self.log.display());
        };
        let status = status?;
        ensure!(status.success(), "{}, when told to end, ended with {status}", self.name);
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let panic = log.lines().find(|line| line.contains("panicked at"));
        ensure!(panic.is_none(), "{}: {}", self.name, panic.unwrap_or_default());
        Ok(())
    }
}

impl StoreUrls {
    /// Not as arguments, which every user of the machine can read.
    fn tell(&self, command: &mut Command) {
        // The machine expects the defaults.
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"FLASHSALE_"))
        {
            command.env_remove(name);
        }
        command.env("REDIS_URL", &self.redis).env("DATABASE_URL", &self.postgres);
    }

    /// A command of the operator's program, to be run or started.
    pub(crate) fn flashsale(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = command_dying_with_us(&beside_us("flashsale")?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        self.tell(&mut command);
        Ok(command)
    }
}

/// What a command said, in one line.
pub(crate) fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).trim().replace('\n', "; ")
}
