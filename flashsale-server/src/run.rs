//! The life of a server process: reach the stores, serve and drain, end in good order.

use std::{future::Future, io, panic::AssertUnwindSafe, time::Duration};

use axum::Router;
use flashsale_core::{Engine, EngineConfig, Verdict};
use futures::FutureExt;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    preflight::{self, PreflightArgs},
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

/// The two steps of an end in good order.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Cancelled first: from now on `/readyz` says so.
    pub draining: CancellationToken,
    /// Cancelled then: nothing more is accepted. It cancels `draining` too.
    pub shutdown: CancellationToken,
}

impl Default for Ending {
    fn default() -> Self {
        let shutdown = CancellationToken::new();
        Self { draining: shutdown.child_token(), shutdown }
    }
}

/// An end that SIGTERM or SIGINT begins, from now on. Load balancers are given so long to learn of it while
/// connections are still accepted; a second signal cuts that short.
pub fn end_on_signal(drain_for: Duration) -> io::Result<Ending> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ending = Ending::default();
    let Ending { draining, shutdown } = ending.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let mut name = next().await;
        draining.cancel();
        if !drain_for.is_zero() {
            tracing::info!("{name}: draining; connections are accepted for {} s more", drain_for.as_secs());
            tokio::select! {
                () = sleep(drain_for) => {}
                again = next() => name = again,
            }
        }
        shutdown.cancel();
        tracing::info!("{name}: ending in good order");
    });
    Ok(ending)
}

/// Connects to the stores, sees that they can be used, and brings the database's schema up to date. Stores that
/// are away, as they are when everything starts at once, are waited for.
pub async fn connect(
    stores: &Stores,
    patience: Duration,
    preflight: PreflightArgs,
) -> Result<Engine, RunError> {
    // Before the engine, which counts to the recorder that it finds.
    metrics::recorder();
    let unusable = |reason| RunError::Stores { stores: stores.clone(), reason };
    let config = EngineConfig::new(&stores.redis_url, &stores.database_url);
    let engine = Engine::connect(config).await.map_err(|error| unusable(error.to_string()))?;
    let give_up = Instant::now() + patience;
    let mut said = String::new();
    loop {
        let (reason, may_pass) = match prepare(&engine, preflight).await {
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

async fn prepare(engine: &Engine, args: PreflightArgs) -> Result<(), NotYet> {
    // Before the migration: a database that is refused is left as it is.
    let findings = args.judge(engine.preflight().await);
    let such = |verdict| -> Vec<_> {
        let such = findings.iter().filter(|finding| finding.verdict == verdict);
        such.map(preflight::line).collect()
    };
    let (refused, away) = (such(Verdict::Refused), such(Verdict::Away));
    if !refused.is_empty() {
        return Err(NotYet { reason: format!("\n  {}", refused.join("\n  ")), may_pass: false });
    }
    if !away.is_empty() {
        return Err(NotYet { reason: away.join("; "), may_pass: true });
    }
    let migrated = engine.migrate().await;
    migrated.map_err(|error| NotYet { reason: error.to_string(), may_pass: error.is_transient() })?;
    // Once more: what the migration has mended is nothing to warn of.
    let findings = args.judge(engine.preflight().await);
    for warning in findings.iter().filter(|finding| finding.verdict == Verdict::Warning) {
        tracing::warn!("{}", preflight::line(warning));
    }
    Ok(())
}

/// Serves `app`, drains, and checks the invariants every `check_every`, until `shutdown` is cancelled. Then: no more
/// connections, the requests in flight are answered, the drainers acknowledge the batch in hand, the connections
/// are closed. In this order, so that what was just accepted still has drainers and what is being answered still
/// has stores.
pub async fn run(
    engine: Engine,
    app: Router,
    listeners: Vec<TcpListener>,
    drainers: u8,
    check_every: Option<Duration>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let mut workers = Workers::start(&engine, drainers, check_every);
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

/// The tasks beside the requests: the keeper, which keeps live sales loaded, the monitor, which measures them, the
/// auditor, which checks them, and the drainers.
struct Workers {
    tasks: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Workers {
    fn start(engine: &Engine, drainers: u8, check_every: Option<Duration>) -> Self {
        let mut workers = Self { tasks: JoinSet::new(), stop: CancellationToken::new() };
        let stop = workers.stop.clone();
        workers.needed("keeper", engine.keeper().run(stop.clone()));
        workers.onlooker("monitor", engine.monitor().run(stop.clone()));
        if let Some(every) = check_every {
            workers.onlooker("auditor", engine.auditor(every).run(stop.clone()));
        }
        for _ in 0..drainers {
            workers.needed("drainer", engine.drainer().run(stop.clone()));
        }
        workers
    }

    /// One without which nothing is sold or recorded: its end is the server's.
    fn needed(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            work.await;
            name
        });
    }

    /// One that only looks: a mistake in it is no reason to stop selling.
    fn onlooker(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.needed(name, async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!("the {name} panicked; the server goes on without it");
            }
            stop.cancelled().await;
        });
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_panic_of_one_that_only_looks_ends_nothing() {
        let mut workers = Workers { tasks: JoinSet::new(), stop: CancellationToken::new() };
        let (panics, panicked) = oneshot::channel::<()>();
        workers.onlooker("monitor", async move {
            let _dropped_by_the_panic = panics;
            panic!("a mistake");
        });
        workers.needed("keeper", async move {
            let _ = panicked.await;
        });
        assert_eq!(workers.ended().await, "keeper");
        timeout(DRAINED_WITHIN, workers.stop()).await.expect("the one that panicked is waited for, and ends");
    }

    #[test]
    fn a_shutdown_is_the_end_of_draining_too() {
        let Ending { draining, shutdown } = Ending::default();
        draining.cancel();
        assert!(!shutdown.is_cancelled());
        let Ending { draining, shutdown } = Ending::default();
        shutdown.cancel();
        assert!(draining.is_cancelled());
    }
}
