//! Which stores, and a connection to them.

use flashsale_core::{Engine, EngineConfig};
use flashsale_server::{StoreArgs, Stores};

use crate::failure::usage;

/// The stores that the options, the environment or a running `flashsale up` name.
pub(crate) fn resolve(stores: &StoreArgs) -> anyhow::Result<Stores> {
    stores.clone().resolve_stores().map_err(|error| usage(error.to_string()))
}

/// An engine on these stores. It connects when it is first asked for something.
pub(crate) async fn connect(stores: &StoreArgs) -> anyhow::Result<Engine> {
    let Stores { redis_url, database_url } = resolve(stores)?;
    // Of any other scheme the rest would be taken for a PostgreSQL's address.
    if !["postgres://", "postgresql://"].iter().any(|scheme| database_url.starts_with(scheme)) {
        return Err(usage("the database URL cannot be used: it must begin with postgres://"));
    }
    let engine = Engine::connect(EngineConfig::new(redis_url, database_url)).await;
    // Nothing was asked for yet: only a URL that cannot be read is refused here.
    engine.map_err(|error| usage(error.to_string()))
}
