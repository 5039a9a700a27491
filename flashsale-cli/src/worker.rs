//! `flashsale worker`: drainers without HTTP.

use std::{future::Future, net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use clap::value_parser;
use flashsale_core::Engine;
use flashsale_server::{LogArgs, Patience, PreflightArgs, StoreArgs, listen, operations_router, serve};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{output, signals::Signals, stores::resolve};

/// When everything starts at once, the stores may be up a little later.
const STORES_WITHIN: Duration = Duration::from_secs(30);

/// Record admitted orders, without serving HTTP, until Ctrl-C or SIGTERM
///
/// Workers help running servers, or take their drainers' place (`flashsale-server --drainers 0`). When asked to
/// end, the batch in hand is finished first; what a killed worker leaves behind is taken over by another one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  flashsale worker --drainers 2")]
pub(crate) struct Args {
    /// How many drain side by side; one sale is drained by one of them at a time
    #[arg(long, env = "FLASHSALE_DRAINERS", value_name = "N", default_value_t = 1, value_parser = value_parser!(u8).range(1..=64))]
    drainers: u8,
    /// Address for /metrics, /healthz and /readyz; without it nobody learns what this worker measures
    #[arg(long, env = "FLASHSALE_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    preflight: PreflightArgs,
    #[command(flatten, next_help_heading = "Logs")]
    pub(crate) logs: LogArgs,
}

pub(crate) async fn run(args: &Args, stores: &StoreArgs) -> anyhow::Result<()> {
    let stores = resolve(stores)?;
    let mut signals = Signals::install()?;
    let engine = tokio::select! {
        engine = flashsale_server::connect(&stores, STORES_WITHIN, args.preflight) => engine?,
        _ = signals.next() => return Ok(()),
    };
    let shutdown = CancellationToken::new();
    let mut operations = Box::pin(serve_operations(args.metrics_listen, &engine, &shutdown)?);
    let mut drainers = JoinSet::new();
    let mut names = Vec::new();
    for _ in 0..args.drainers {
        let drainer = engine.drainer();
        names.push(drainer.name().to_owned());
        drainers.spawn(drainer.run(shutdown.clone()));
    }
    output::line(&format!("draining as {}", names.join(", ")))?;

    tokio::select! {
        _ = signals.next() => {}
        Some(ended) = drainers.join_next() => {
            ended.context("a drainer broke down")?;
            bail!("a drainer ended although nobody asked it to");
        }
        served = &mut operations => {
            served?;
            bail!("the metrics are not served any more");
        }
    }
    eprintln!("finishing the batch in hand");
    shutdown.cancel();
    let finish = async {
        while let Some(ended) = drainers.join_next().await {
            ended.context("a drainer broke down")?;
        }
        operations.await?;
        engine.close().await;
        anyhow::Ok(())
    };
    tokio::select! {
        finished = finish => finished,
        _ = signals.next() => bail!("stopped at once; another drainer takes over what was in hand"),
    }
}

/// What tells others of this worker: where that is not wanted, a future that only waits for the shutdown.
fn serve_operations(
    address: Option<SocketAddr>,
    engine: &Engine,
    shutdown: &CancellationToken,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + use<>> {
    let (engine, shutdown) = (engine.clone(), shutdown.clone());
    let listener = address.map(listen).transpose().context("cannot listen for --metrics-listen")?;
    if let Some(listener) = &listener {
        output::line(&format!("metrics on http://{}/metrics", listener.local_addr()?))?;
    }
    Ok(async move {
        let Some(listener) = listener else {
            shutdown.cancelled().await;
            return Ok(());
        };
        let app = operations_router(engine.clone(), shutdown.clone());
        let monitoring = engine.monitor().run(shutdown.clone());
        let serving = serve(vec![listener], app, Patience::default(), shutdown);
        let (served, ()) = tokio::join!(serving, monitoring);
        Ok(served?)
    })
}
