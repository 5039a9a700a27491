//! `flashsale worker`: drainers without HTTP.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::value_parser;
use flashsale_server::StoreArgs;
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
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u8).range(1..=64))]
    drainers: u8,
}

pub(crate) async fn run(args: &Args, stores: &StoreArgs) -> anyhow::Result<()> {
    let stores = resolve(stores)?;
    let mut signals = Signals::install()?;
    let engine = tokio::select! {
        engine = flashsale_server::connect(&stores, STORES_WITHIN) => engine?,
        _ = signals.next() => return Ok(()),
    };
    let shutdown = CancellationToken::new();
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
    }
    eprintln!("finishing the batch in hand");
    shutdown.cancel();
    let finish = async {
        while let Some(ended) = drainers.join_next().await {
            ended.context("a drainer broke down")?;
        }
        engine.close().await;
        anyhow::Ok(())
    };
    tokio::select! {
        finished = finish => finished,
        _ = signals.next() => bail!("stopped at once; another drainer takes over what was in hand"),
    }
}
