//! The life of a server process: reach the stores, serve and drain, end in good order.

use std::{io, time::Duration};

use axum::Router;
use flashsale_core::{Engine, EngineConfig};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    serve::{Patience, serve},
    stores::Stores,
};

/// Between two attempts to reach the stores.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// For a batch in hand to be recorded and acknowledged: what PostgreSQL and Redis may take together. An
/// unfinished one is not lost, another drainer takes it over.
const DRAINED_WITHIN: Duration = Duration::from_secs(15);

/// Why a server could not start, or ended although nobody told it to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The stores did not answer in time, or said that they cannot be used.
    #[error("cannot use {stores}: {reason}")]
    Stores {
        /// Where they should be.
        stores: Stores,
        /// What came of it.
        reason: String,
    },
    /// Connections cannot be accepted.
    #[error("cannot serve: {0}")]
    Serve(#[from] io::Error),
    /// A task that must run as long as the server ended.
    #[error("the {0} ended by itself; half a server is worse than none")]
    Worker(&'static str),
}

/// A token that is cancelled by SIGTERM or SIGINT, from now on.
pub fn shutdown_on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!("{name}: ending in good order");
        told.cancel();
    });
    Ok(shutdown)
}

/// Connects to the stores and brings the database's schema up to date. Stores that are away, as they are when
/// everything starts at once, are waited for.
pub async fn connect(stores: &Stores, patience: Duration) -> Result<Engine, RunError> {
    // Before the engine, which counts to the recorder that it finds.
    metrics::recorder();
    let unusable = |reason| RunError::Stores { stores: stores.clone(), reason };
    let config = EngineConfig::new(&stores.redis_url, &stores.database_url);
    let engine = Engine::connect(config).await.map_err(|error| unusable(error.to_string()))?;
    let give_up = Instant::now() + patience;
    let mut said = String::new();
    loop {
        let (reason, may_pass) = match prepare(&engine).await {
            Ok(()) => return Ok(engine),
            Err(NotYet { reason, may_pass }) => (reason, may_pass),
        };
        if !may_pass || Instant::now() + RETRY_AFTER >= give_up {
            return Err(unusable(reason));
        }
        // Each new reason once, not the same line twice a second.
        if reason != said {
            tracing::warn!("waiting for {stores}: {reason}");
            said = reason;
        }
        sleep(RETRY_AFTER).await;
    }
}

/// What still keeps the engine from working, and whether waiting may help.
struct NotYet {
    reason: String,
    may_pass: bool,
}

async fn prepare(engine: &Engine) -> Result<(), NotYet> {
    let migrated = engine.migrate().await;
    migrated.map_err(|error| NotYet { reason: error.to_string(), may_pass: error.is_transient() })?;
    // The migration has shown PostgreSQL; Redis is still to be seen. That sales are not loaded yet is the
    // keeper's business, which starts later.
    let lines = engine.readiness().await;
    let redis = lines.into_iter().find(|dependency| dependency.name == "redis");
    match redis.and_then(|dependency| dependency.problem) {
        Some(reason) => Err(NotYet { reason, may_pass: true }),
        None => Ok(()),
    }
}

/// Serves `app` and drains until `shutdown` is cancelled. Then: no more connections, the requests in flight are
/// answered, the drainers acknowledge the batch in hand, the connections are closed. In this order, so that
/// what was just accepted still has drainers and what is being answered still has stores.
pub async fn run(
    engine: Engine,
    app: Router,
    listeners: Vec<TcpListener>,
    drainers: u8,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let mut workers = Workers::start(&engine, drainers);
    let serving = serve(listeners, app, Patience::default(), shutdown.clone());
    tokio::pin!(serving);
    let result = tokio::select! {
        served = &mut serving => served.map_err(RunError::from),
        name = workers.ended() => {
            shutdown.cancel();
            serving.await.map_err(RunError::from).and(Err(RunError::Worker(name)))
        }
    };
    workers.stop().await;
    engine.close().await;
    result
}

/// The tasks beside the requests: the keeper, which keeps live sales loaded, the monitor, which measures them, and
/// the drainers.
struct Workers {
    tasks: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Workers {
    fn start(engine: &Engine, drainers: u8) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let keeping = engine.keeper().run(stop.clone());
        tasks.spawn(async move {
            keeping.await;
            "keeper"
        });
        let monitoring = engine.monitor().run(stop.clone());
        tasks.spawn(async move {
            monitoring.await;
            "monitor"
        });
        for _ in 0..drainers {
            let draining = engine.drainer().run(stop.clone());
            tasks.spawn(async move {
                draining.await;
                "drainer"
            });
        }
        Self { tasks, stop }
    }

    /// Waits until one ends, which none does by itself, and says which.
    async fn ended(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(error)) => {
                tracing::error!(%error, "a worker panicked");
                "worker"
            }
            None => "worker",
        }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(DRAINED_WITHIN, all).await.is_err() {
            tracing::warn!("the batch in hand is not finished; another drainer takes it over");
        }
    }
}
