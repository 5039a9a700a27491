//! `flashsale migrate`: the tables, brought up to date.

use serde_json::json;

use crate::call::Call;

/// Bring the tables in Postgres up to date
///
/// Repeating it changes nothing. flashsale-server and `flashsale seed` do it by themselves.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  flashsale migrate --redis-url redis://cache/ --database-url postgres://db/flashsale"
)]
pub(crate) struct Args {}

pub(crate) async fn run(Args {}: Args, call: &Call) -> anyhow::Result<()> {
    let engine = call.connect().await?;
    engine.migrate().await?;
    engine.close().await;
    call.output.show(&json!({ "migrated": true }), || "the tables are up to date".to_owned())
}
