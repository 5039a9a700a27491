//! One of the two servers, over its life: start, wait until ready, stop, start again.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Kind, StackError, io};
use crate::process::{Launch, Tether, Tethered};
use crate::stack::Service;
use crate::user::OtherUser;
use crate::{postgres, redis};

/// Long enough for a recovery from a large log; every start gives up after it.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// One question to a server that does not answer must not eat up the time for all.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const POLL_EVERY: Duration = Duration::from_millis(10);
/// A start is tried again when the port was lost to another process, or when the last server's
/// remains (Postgres's lock file and shared memory) are still there.
const ATTEMPTS: u32 = 8;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
const LOG_TAIL_BYTES: u64 = 4096;
const LOG_TAIL_LINES: usize = 20;

#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) service: Service,
    tether: Tether,
    program: PathBuf,
    /// Its data, and its working directory.
    directory: PathBuf,
    log: PathBuf,
    /// The port that it had last.
    port_file: PathBuf,
    user: Option<OtherUser>,
    port: u16,
    running: Option<Tethered>,
}

/// How to end a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// It may finish, and its data be kept.
    Orderly,
    /// Its data is about to be removed.
    Quick,
    /// As a crash.
    Kill,
}

impl Daemon {
    pub(crate) fn new(
        service: Service,
        tether: Tether,
        program: PathBuf,
        data_dir: &Path,
        user: Option<OtherUser>,
    ) -> Self {
        let name = match service {
            Service::Redis => "redis",
            Service::Postgres => "postgres",
        };
        let directory = data_dir.join(name);
        let (log, port_file) = (directory.with_extension("log"), directory.with_extension("port"));
        Self { service, tether, program, directory, log, port_file, user, port: 0, running: None }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(Tethered::pid)
    }

    /// Starts the server and waits until it answers. The first start chooses a port, that of the last time if it
    /// is free: programs that were not told of the end go on. Later starts keep it, for clients know it by then.
    pub(crate) async fn start(&mut self) -> Result<(), StackError> {
        let deadline = Instant::now() + READY_WITHIN;
        let may_move = self.port == 0;
        let mut attempt = 1;
        loop {
            if may_move {
                self.port = match self.last_port() {
                    Some(port) if attempt == 1 => port,
                    _ => free_port()?,
                };
            }
            let log_from = fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
            let failure = match self.attempt(deadline).await? {
                Ok(running) => {
                    self.running = Some(running);
                    if let Err(error) = fs::write(&self.port_file, self.port.to_string()) {
                        tracing::debug!(%error, "the port is another one the next time");
                    }
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let log = self.log_tail(log_from);
            if attempt == ATTEMPTS || Instant::now() >= deadline {
                return Err(Kind::Failed { what: failure, log }.into());
            }
            tracing::debug!(%failure, attempt, "starting a server again");
            sleep(PAUSE_AFTER_FAILURE * attempt).await;
            attempt += 1;
        }
    }

    fn last_port(&self) -> Option<u16> {
        let port = fs::read_to_string(&self.port_file).ok()?.parse().ok()?;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    }

    /// Waits until the server has ended by itself; forever while there is none.
    pub(crate) async fn ended(&mut self) -> String {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let status = running.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        self.running = None;
        status
    }

    /// Nothing to do for a server that is not running.
    pub(crate) async fn end(&mut self, ending: Ending) {
        let signals: &[(Signal, Duration)] = match (ending, self.service) {
            (Ending::Orderly, Service::Redis) => &[(Signal::SIGTERM, Duration::from_secs(10))],
            (Ending::Orderly, Service::Postgres) => {
                &[(Signal::SIGINT, Duration::from_secs(10)), (Signal::SIGQUIT, Duration::from_secs(6))]
            }
            // Unlike SIGKILL, this lets PostgreSQL end its children and give up its shared memory.
            (Ending::Quick, Service::Postgres) => &[(Signal::SIGQUIT, Duration::from_secs(6))],
            (Ending::Quick, Service::Redis) | (Ending::Kill, _) => &[],
        };
        if let Some(running) = self.running.take() {
            running.stop(signals).await;
        }
    }

    /// A server that is ready, or why there is none; the outer error is one that no further
    /// attempt would mend.
    async fn attempt(&self, deadline: Instant) -> Result<Result<Tethered, String>, StackError> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(io(format!("open {}", self.log.display())))?;
        let launch = Launch {
            program: &self.program,
            arguments: self.arguments(),
            directory: &self.directory,
            user: self.user,
            at_parent_death: self.at_parent_death(),
        };
        let mut running =
            self.tether.serve(&launch, log).await.map_err(io(format!("start {}", self.program.display())))?;
        let pid = running.pid().unwrap_or_default();
        loop {
            if self.is_ready(pid).await {
                return Ok(Ok(running));
            }
            if let Ok(status) = timeout(POLL_EVERY, running.wait()).await {
                let status = status.map_err(io("wait for a server"))?;
                return Ok(Err(format!("{} ended while starting ({status})", self.service)));
            }
            if Instant::now() >= deadline {
                running.stop(&[]).await;
                return Ok(Err(format!(
                    "{} did not answer within {} s",
                    self.service,
                    READY_WITHIN.as_secs()
                )));
            }
        }
    }

    fn arguments(&self) -> Vec<OsString> {
        match self.service {
            Service::Redis => redis::arguments(self.port),
            Service::Postgres => postgres::arguments(self.port),
        }
    }

    fn at_parent_death(&self) -> Signal {
        match self.service {
            // Certain, even while a script runs; what was acknowledged is in the file.
            Service::Redis => Signal::SIGKILL,
            // As certain for a server that runs, and its children and shared memory go with it.
            Service::Postgres => Signal::SIGQUIT,
        }
    }

    async fn is_ready(&self, pid: u32) -> bool {
        match self.service {
            Service::Redis => timeout(ANSWER_WITHIN, redis::is_ready(self.port, pid)).await.unwrap_or(false),
            Service::Postgres => postgres::is_ready(&self.directory, pid),
        }
    }

    /// The last lines written since `from`, or why there are none.
    fn log_tail(&self, from: u64) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let from = from.max(file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES));
            file.seek(SeekFrom::Start(from))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(tail)
        };
        match read() {
            Ok(tail) => {
                let tail = String::from_utf8_lossy(&tail);
                let lines: Vec<&str> = tail.lines().collect();
                lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
            }
            Err(error) => format!("(cannot read {}: {error})", self.log.display()),
        }
    }
}

/// A port that nobody listens on, below the range from which systems take the ports of outgoing
/// connections: a client of the herd must not take the port of a server that is being restarted.
fn free_port() -> Result<u16, StackError> {
    use std::hash::BuildHasher;
    let random = std::collections::hash_map::RandomState::new();
    (0..1000u32)
        .map(|attempt| u16::try_from(15_000 + random.hash_one(attempt) % 17_000).unwrap_or(15_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| io("find a free port")(std::io::ErrorKind::AddrInUse.into()))
}
