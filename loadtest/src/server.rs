//! A flashsale-server of our own: the program beside this one, on addresses of the loopback network.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::{NamedTempFile, TempPath};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// One pair of addresses has only some 28,000 ports for connections; other systems have to be told of more
/// loopback addresses first.
const ADDRESSES: u8 = if cfg!(target_os = "linux") { 8 } else { 1 };
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const UP_WITHIN: Duration = Duration::from_mins(1);
/// Longer than the server's own patience with what is in flight.
const DOWN_WITHIN: Duration = Duration::from_mins(1);

/// A server that is already up has to answer, whatever it answers, before a sale is made and a herd gathered.
pub(crate) async fn must_answer(target: &str) -> Result<()> {
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?;
    let answer = client.get(format!("{target}/healthz")).send().await;
    answer.with_context(|| format!("no server answers at {target}: is it up, and is --target right?"))?;
    Ok(())
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    addresses: Vec<String>,
    log: TempPath,
}

impl Server {
    /// Starts the server and waits until it listens. To be called on a thread that lives as long as the
    /// server shall: the kernel kills the server when that thread ends.
    pub(crate) async fn start(redis_url: &str, database_url: &str) -> Result<Self> {
        let (log_file, log) = NamedTempFile::with_prefix("flashsale-server-log-")?.into_parts();
        let program = beside_us("flashsale-server")?;
        let mut command = command_dying_with_us(&program);
        for last in 1..=ADDRESSES {
            command.args(["--listen", &format!("127.0.0.{last}:0")]);
        }
        // The buyers expect the defaults.
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"FLASHSALE_"))
        {
            command.env_remove(name);
        }
        // Not as arguments, which every user of the machine can read.
        command.env("REDIS_URL", redis_url).env("DATABASE_URL", database_url);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        // Ctrl-C in a terminal is for this process, which then ends the server in good order.
        let mut child =
            command.process_group(0).kill_on_drop(true).spawn().context("cannot start the server")?;
        let stdout = child.stdout.take().context("the server has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let listening = timeout(UP_WITHIN, read_addresses(&mut lines)).await;
        let problem = match listening {
            Ok(Ok(addresses)) => {
                // Keep the pipe open and empty: a server that cannot write would stop.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Self { child, addresses, log });
            }
            Ok(Err(problem)) => problem,
            Err(_) => anyhow::anyhow!("the server does not listen after {} s", UP_WITHIN.as_secs()),
        };
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        bail!(
            "{problem:#}: {} (its log is in {})",
            said.lines().last().unwrap_or("it said nothing"),
            kept(log).display()
        )
    }

    /// `http://127.0.0.1:…` and so on.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Stops it in good order: it finishes what is in flight and ends with 0.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let ended = async {
            let pid = self.child.id().context("the server ended before it was stopped")?;
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
            match timeout(DOWN_WITHIN, self.child.wait()).await {
                Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
                Ok(status) => bail!("the server, when told to stop, ended with {}", status?),
                Err(_) => bail!("the server did not stop within {} s", DOWN_WITHIN.as_secs()),
            }
        };
        match ended.await {
            Ok(()) => Ok(()),
            Err(error) => bail!("{error:#} (its log is in {})", kept(self.log).display()),
        }
    }

    /// Kills it and keeps its log.
    pub(crate) fn abandon(self) -> PathBuf {
        kept(self.log)
    }
}

fn kept(log: TempPath) -> PathBuf {
    let path = log.to_path_buf();
    log.keep().unwrap_or(path)
}

/// The addresses from the lines `listening on http://…`.
async fn read_addresses(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Vec<String>> {
    let mut addresses = Vec::new();
    while addresses.len() < usize::from(ADDRESSES) {
        let line = lines.next_line().await?.context("the server ended before it listened")?;
        addresses.extend(line.strip_prefix("listening on ").map(|address| address.trim().to_owned()));
    }
    Ok(addresses)
}

pub(crate) fn beside_us(name: &str) -> Result<PathBuf> {
    let path = env::current_exe()?.with_file_name(name);
    if !path.is_file() {
        bail!(
            "{} is missing: build it (cargo build --workspace), or name a server with --target",
            path.display()
        );
    }
    Ok(path)
}

/// A command that the kernel kills when this process ends, however it ends. Where there is no such setpriv
/// (macOS, `BusyBox`), only an orderly end of this process ends it.
pub(crate) fn command_dying_with_us(program: &Path) -> Command {
    let setpriv = |arguments: &[&str]| -> Vec<OsString> {
        ["--pdeathsig", "KILL", "--"].iter().chain(arguments).map(OsString::from).collect()
    };
    let knows = std::process::Command::new("setpriv")
        .args(setpriv(&["true"]))
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !knows {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(setpriv(&[])).arg(program);
    command
}
