//! Builds that are broken on purpose: the server and the worker, run from their libraries with scripts that break
//! a promise. The fault machine runs them in the place of the real programs, and has to see it.

mod mutation;

use std::{io::Write, time::Duration};

use anyhow::{Context, Error, Result};
use clap::Subcommand;
use flashsale_server::{
    App, Config, Ending, PreflightArgs, StoreArgs, connect, end_on_signal, listen, router,
};

use mutation::named;
pub(crate) use mutation::{
    BLIND_FENCE, BLIND_GIVE_BACK, EARLY_ACKNOWLEDGE, Mutation, SHIFTED_ANSWERS, STALE_STOCK, UNNUMBERED,
};

const STORES_WITHIN: Duration = Duration::from_secs(30);

/// Run a server or a worker that is broken on purpose
#[derive(Debug, Clone, clap::Args)]
pub struct BrokenArgs {
    /// How
    #[arg(long, value_name = "NAME", value_parser = named)]
    mutation: &'static Mutation,
    #[command(subcommand)]
    program: Program,
}

#[derive(Debug, Clone, Subcommand)]
enum Program {
    /// As `flashsale-server`
    Server(Box<Config>),
    /// As `flashsale worker`
    Worker(StoreArgs),
}

/// Runs the broken program until it is told to end.
pub async fn run(args: &BrokenArgs) -> Result<bool> {
    args.mutation.apply()?;
    match &args.program {
        Program::Server(config) => serve(config).await?,
        Program::Worker(stores) => Box::pin(work(stores)).await?,
    }
    Ok(true)
}

async fn serve(config: &Config) -> Result<()> {
    let policy = config.policy().map_err(Error::msg)?;
    let stores = config.stores.clone().resolve_stores()?;
    let Ending { draining, shutdown } = end_on_signal(config.drain_for())?;
    let engine = connect(&stores, config.store_wait(), config.preflight).await?;
    let address = config.listen.first().context("no address to listen on")?;
    let listener = listen(*address)?;
    say(&format!("listening on http://{}", listener.local_addr()?))?;
    let app = router(App::new(engine.clone(), policy, draining));
    let (drainers, check_every) = (config.drainers, config.check_every());
    Ok(flashsale_server::run(engine, app, vec![listener], drainers, check_every, shutdown).await?)
}

async fn work(stores: &StoreArgs) -> Result<()> {
    let stores = stores.clone().resolve_stores()?;
    let Ending { shutdown, .. } = end_on_signal(Duration::ZERO)?;
    let engine = connect(&stores, STORES_WITHIN, PreflightArgs::default()).await?;
    let drainer = engine.drainer();
    say(&format!("draining as {}", drainer.name()))?;
    Box::pin(drainer.run(shutdown)).await;
    engine.close().await;
    Ok(())
}

/// As the real programs say that they work.
fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
