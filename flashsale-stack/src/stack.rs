//! The handle that callers hold.

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot, watch};

use crate::env_file::EnvFile;
use crate::error::{Kind, StackError};
use crate::postgres;
use crate::supervisor::{self, Answer, Channels, Request, Status};

/// How to start a stack. The default is a temporary one.
#[derive(Clone, Debug, Default)]
pub struct StackOptions {
    /// Where the data is kept; it is created if missing, and can be started again later. None:
    /// a temporary directory that is removed when the stack stops.
    pub data_dir: Option<PathBuf>,
    /// The only directories to look for server programs in. None: PATH and the usual places.
    pub binary_dirs: Option<Vec<PathBuf>>,
}

/// One of the servers of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// `redis-server` or `valkey-server`.
    Redis,
    /// `postgres`.
    Postgres,
}

/// A server that ended although nobody asked the stack to end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildExit {
    /// Which one.
    pub service: Service,
    /// How, for people: `exit status: 1`, `signal: 9 (SIGKILL)`.
    pub status: String,
}

/// A running Redis and Postgres. Both end when it is stopped or dropped, or when this process
/// ends, in whatever way.
#[derive(Debug)]
pub struct Stack {
    redis_url: String,
    postgres_port: u16,
    database_url: String,
    data_dir: PathBuf,
    note: Option<String>,
    status: watch::Receiver<Status>,
    /// None once stopping has begun: the supervisor ends when this end of the channel is gone.
    requests: Option<mpsc::Sender<Request>>,
    supervisor: Option<JoinHandle<()>>,
}

impl Stack {
    /// Starts both servers and waits until they answer and the database `flashsale` is there.
    ///
    /// Works from any runtime, and does not depend on it afterwards. If the returned future is
    /// dropped, what it started is stopped in the background.
    ///
    /// # Errors
    ///
    /// A missing program, a data directory in use, or a server that does not come up; the message
    /// then has the end of its log.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        let (requests, request_receiver) = mpsc::channel(16);
        let (status_sender, status) = watch::channel(Status::default());
        let (started_sender, started) = oneshot::channel();
        let channels =
            Channels { requests: request_receiver, status: status_sender, started: started_sender };
        let supervisor = supervisor::spawn(options, channels)?;
        let started = started.await.map_err(|_| Kind::Stopped)??;
        Ok(Self {
            redis_url: format!("redis://127.0.0.1:{}/", started.redis_port),
            postgres_port: started.postgres_port,
            database_url: database_url(started.postgres_port, postgres::NAME),
            data_dir: started.data_dir,
            note: started.note,
            status,
            requests: Some(requests),
            supervisor: Some(supervisor),
        })
    }

    /// `redis://127.0.0.1:PORT/`
    pub fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// `postgres://flashsale@127.0.0.1:PORT/flashsale`; the role is a superuser.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Where the data is: the named directory, one that stands in for it ([`Stack::notes`] says
    /// so), or a temporary one.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What the person who started the stack should know; usually nothing.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.note.as_deref().into_iter()
    }

    /// The process id of the Redis server; None while it is not running.
    pub fn redis_pid(&self) -> Option<u32> {
        self.status.borrow().redis_pid
    }

    /// The process id of the Postgres server; None while it is not running.
    pub fn postgres_pid(&self) -> Option<u32> {
        self.status.borrow().postgres_pid
    }

    /// Makes an empty database and returns its URL. Names are 1 to 63 of `a-z`, `0-9` and `_`,
    /// no digit first.
    ///
    /// # Errors
    ///
    /// Another name, one that is taken, or a Postgres that does not answer.
    pub async fn create_database(&self, name: &str) -> Result<String, StackError> {
        self.ask(|answer| Request::CreateDatabase(name.to_owned(), answer)).await?;
        Ok(database_url(self.postgres_port, name))
    }

    /// Kills Redis as a crash would (SIGKILL), and returns when it is gone.
    ///
    /// # Errors
    ///
    /// Only if the stack itself is gone.
    pub async fn kill_redis(&self) -> Result<(), StackError> {
        self.ask(|answer| Request::Kill(Service::Redis, answer)).await
    }

    /// Starts Redis again, on the same port and data; one that runs is stopped in good order first.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub async fn restart_redis(&self) -> Result<(), StackError> {
        self.ask(|answer| Request::Restart(Service::Redis, answer)).await
    }

    /// Kills Postgres as a crash would (SIGKILL of its main process, with which the others end).
    ///
    /// # Errors
    ///
    /// Only if the stack itself is gone.
    pub async fn kill_postgres(&self) -> Result<(), StackError> {
        self.ask(|answer| Request::Kill(Service::Postgres, answer)).await
    }

    /// Starts Postgres again, on the same port and data; one that runs is stopped in good order
    /// first.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub async fn restart_postgres(&self) -> Result<(), StackError> {
        self.ask(|answer| Request::Restart(Service::Postgres, answer)).await
    }

    /// Waits until a server has ended by itself, and says which. One that [`Stack::kill_redis`]
    /// and the like ended does not count, nor one that has been started again since.
    pub async fn child_exited(&self) -> ChildExit {
        let mut status = self.status.clone();
        loop {
            if let Some(exit) = status.borrow_and_update().exit.clone() {
                return exit;
            }
            if status.changed().await.is_err() {
                // The supervisor is gone, which only stopping brings about.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Writes `REDIS_URL=…` and `DATABASE_URL=…` to a file, for [`read_env_file`] in other
    /// processes. The file is removed when the guard is dropped: drop it before the stack.
    ///
    /// # Errors
    ///
    /// Another living stack has written this file, or it cannot be written.
    ///
    /// [`read_env_file`]: crate::read_env_file
    pub fn write_env_file(&self, path: impl AsRef<Path>) -> Result<EnvFile, StackError> {
        EnvFile::write(path.as_ref(), &self.redis_url, &self.database_url)
    }

    /// Ends both servers in good order and waits for it; then removes a temporary data directory.
    pub async fn stop(mut self) {
        self.requests = None;
        let mut status = self.status.clone();
        // The supervisor drops its end at the end of its thread, when all is cleaned up.
        while status.changed().await.is_ok() {}
        // Dropping joins the thread, which has nothing left to do.
    }

    async fn ask(&self, request: impl FnOnce(Answer) -> Request) -> Result<(), StackError> {
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(Kind::Stopped)?;
        requests.send(request(answer)).await.map_err(|_| Kind::Stopped)?;
        answered.await.map_err(|_| Kind::Stopped)?
    }
}

/// The last resort: blocks until both servers are gone, a few seconds at most.
impl Drop for Stack {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(supervisor) = self.supervisor.take()
            && supervisor.join().is_err()
        {
            tracing::error!("the thread that owned the servers panicked");
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis-server",
            Self::Postgres => "postgres",
        })
    }
}

impl fmt::Display for ChildExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended by itself ({})", self.service, self.status)
    }
}

fn database_url(port: u16, name: &str) -> String {
    format!("postgres://{}@127.0.0.1:{port}/{name}", postgres::NAME)
}
