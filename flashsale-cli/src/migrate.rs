//! `flashsale migrate`: the tables, brought up to date.

use flashsale_server::StoreArgs;
use serde_json::json;

use crate::{output::Output, stores::connect};

/// Bring the tables in Postgres up to date
///
/// Repeating it changes nothing. flashsale-server and `flashsale seed` do it by themselves.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  flashsale migrate --redis-url redis://cache/ --database-url postgres://db/flashsale"
)]
pub(crate) struct Args {}

pub(crate) async fn run(Args {}: Args, stores: &StoreArgs, output: Output) -> anyhow::Result<()> {
    let engine = connect(stores).await?;
    engine.migrate().await?;
    engine.close().await;
    output.show(&json!({ "migrated": true }), || "the tables are up to date".to_owned())
}
