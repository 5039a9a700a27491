//! Processes of their own: servers and the client, so that none of them shares a runtime with another.

use std::{env, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

const UP_WITHIN: Duration = Duration::from_mins(1);

/// The program of this name beside this one.
pub(crate) fn beside_us(name: &str) -> Result<PathBuf> {
    let path = env::current_exe()?.with_file_name(name);
    ensure!(path.is_file(), "{} is missing: build it first (cargo build -p {name})", path.display());
    Ok(path)
}

/// A command that ends with this process, however this one ends, where there is a setpriv that can say so.
/// To be started on a thread that lives as long as it shall.
pub(crate) async fn command(program: &PathBuf) -> Command {
    const SAY: [&str; 3] = ["--pdeathsig", "KILL", "--"];
    let knows = Command::new("setpriv").args(SAY).arg("true").stderr(Stdio::null()).status().await;
    let mut command = if knows.is_ok_and(|status| status.success()) {
        let mut command = Command::new("setpriv");
        command.args(SAY).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A server that says `listening on http://…`. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) async fn start(mut command: Command) -> Result<Self> {
        let mut child = command.spawn().context("cannot start a server")?;
        let mut lines = BufReader::new(child.stdout.take().context("a server without stdout")?).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.strip_prefix("listening on http://") {
                    return Ok(address.to_owned());
                }
            }
            bail!("a server ended before it listened")
        };
        let address = timeout(UP_WITHIN, listening).await.context("a server does not listen")??;
        Ok(Self { child, address })
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("a server cannot be ended")
    }
}
