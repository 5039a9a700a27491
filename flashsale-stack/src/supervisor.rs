//! The thread that starts the servers, owns them and ends them.
//!
//! It is a thread of its own because the kernel's death signal is tied to the thread that started
//! a child: one of the caller's runtime may end at any time.

use std::fs;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot, watch};

use crate::binaries::Binaries;
use crate::daemon::{Daemon, Ending};
use crate::data_dir::DataDir;
use crate::error::{StackError, io};
use crate::postgres;
use crate::process::Tether;
use crate::stack::{ChildExit, Service, StackOptions};
use crate::user::OtherUser;

pub(crate) type Answer = oneshot::Sender<Result<(), StackError>>;

/// What the stack asks of its supervisor. It ends when nobody can ask any more.
pub(crate) enum Request {
    Kill(Service, Answer),
    Restart(Service, Answer),
    CreateDatabase(String, Answer),
}

/// What is fixed once both servers are up.
pub(crate) struct Started {
    pub(crate) redis_port: u16,
    pub(crate) postgres_port: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) note: Option<String>,
}

/// What changes over the life of a stack.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) redis_pid: Option<u32>,
    pub(crate) postgres_pid: Option<u32>,
    /// The last server that ended without having been asked to.
    pub(crate) exit: Option<ChildExit>,
}

pub(crate) struct Channels {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) started: oneshot::Sender<Result<Started, StackError>>,
}

pub(crate) fn spawn(options: StackOptions, channels: Channels) -> Result<JoinHandle<()>, StackError> {
    thread::Builder::new()
        .name("flashsale-stack".to_owned())
        .spawn(move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(supervise(options, channels)),
            Err(error) => drop(channels.started.send(Err(io("start a runtime")(error)))),
        })
        .map_err(io("start a thread"))
}

async fn supervise(options: StackOptions, channels: Channels) {
    let Channels { requests, status, started } = channels;
    let (mut supervisor, started_as) = match Supervisor::start(&options, status).await {
        Ok(running) => running,
        Err(error) => {
            // Nobody listens when the start was given up by the caller.
            let _ = started.send(Err(error));
            return;
        }
    };
    if started.send(Ok(started_as)).is_ok() {
        supervisor.serve(requests).await;
    }
    supervisor.stop().await;
}

struct Supervisor {
    tether: Tether,
    psql: PathBuf,
    redis: Daemon,
    postgres: Daemon,
    data_dir: DataDir,
    /// Last: whoever sees it closed may rely on the data directory being given up or removed.
    status: watch::Sender<Status>,
}

impl Supervisor {
    async fn start(
        options: &StackOptions,
        status: watch::Sender<Status>,
    ) -> Result<(Self, Started), StackError> {
        let binaries = Binaries::find(options.binary_dirs.as_deref())?;
        let tether = Tether::of_this_system();
        let user = OtherUser::for_postgres()?;
        let data_dir = DataDir::open(options.data_dir.as_deref(), user)?;
        if let Some(note) = data_dir.note() {
            tracing::warn!("{note}");
        }
        let dir = data_dir.path();
        let user = user.map(|user| user.or_owner_of(&dir.join("postgres")));
        let redis = Daemon::new(Service::Redis, tether.clone(), binaries.redis_server.clone(), dir, None);
        let postgres = Daemon::new(Service::Postgres, tether.clone(), binaries.postgres.clone(), dir, user);
        fs::create_dir_all(redis.directory())
            .map_err(io(format!("create {}", redis.directory().display())))?;
        postgres::init(&tether, &binaries, dir, postgres.directory(), user).await?;

        let mut supervisor = Self { tether, psql: binaries.psql, redis, postgres, data_dir, status };
        if let Err(error) = supervisor.start_servers().await {
            supervisor.stop().await;
            return Err(error);
        }
        let started = Started {
            redis_port: supervisor.redis.port(),
            postgres_port: supervisor.postgres.port(),
            data_dir: supervisor.data_dir.path().to_owned(),
            note: supervisor.data_dir.note().map(str::to_owned),
        };
        Ok((supervisor, started))
    }

    async fn start_servers(&mut self) -> Result<(), StackError> {
        let (redis, postgres) = tokio::join!(self.redis.start(), self.postgres.start());
        redis?;
        postgres?;
        let port = self.postgres.port();
        postgres::create_database(&self.tether, &self.psql, port, postgres::NAME, true).await?;
        self.publish(None);
        Ok(())
    }

    /// Until the stack is stopped or dropped.
    async fn serve(&mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            let exit = tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => {
                        self.answer(request).await;
                        continue;
                    }
                    None => return,
                },
                status = self.redis.ended() => ChildExit { service: Service::Redis, status },
                status = self.postgres.ended() => ChildExit { service: Service::Postgres, status },
            };
            tracing::warn!("{exit}");
            self.publish(Some(exit));
        }
    }

    async fn answer(&mut self, request: Request) {
        let (answer, result) = match request {
            Request::Kill(service, answer) => {
                self.daemon(service).end(Ending::Kill).await;
                (answer, Ok(()))
            }
            Request::Restart(service, answer) => {
                let daemon = self.daemon(service);
                daemon.end(Ending::Orderly).await;
                (answer, daemon.start().await)
            }
            Request::CreateDatabase(name, answer) => {
                // Beside the loop: tests ask for many at once.
                let (tether, psql, port) = (self.tether.clone(), self.psql.clone(), self.postgres.port());
                tokio::spawn(async move {
                    let result = postgres::create_database(&tether, &psql, port, &name, false).await;
                    let _ = answer.send(result);
                });
                return;
            }
        };
        self.publish(None);
        // Whoever asked may have stopped waiting.
        let _ = answer.send(result);
    }

    fn daemon(&mut self, service: Service) -> &mut Daemon {
        match service {
            Service::Redis => &mut self.redis,
            Service::Postgres => &mut self.postgres,
        }
    }

    fn publish(&self, exit: Option<ChildExit>) {
        self.status.send_modify(|status| {
            status.redis_pid = self.redis.pid();
            status.postgres_pid = self.postgres.pid();
            // A server that was started again is no longer missing.
            let missing = exit.or(status.exit.take());
            status.exit = missing.filter(|exit| !self.is_running(exit.service));
        });
    }

    fn is_running(&self, service: Service) -> bool {
        match service {
            Service::Redis => self.redis.pid().is_some(),
            Service::Postgres => self.postgres.pid().is_some(),
        }
    }

    async fn stop(&mut self) {
        let ending = if self.data_dir.is_temporary() { Ending::Quick } else { Ending::Orderly };
        tokio::join!(self.redis.end(ending), self.postgres.end(ending));
        self.publish(None);
    }
}
