//! An engine on the embedder's own client and pool.

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{by_hand::*, *};
use crate::{OrderState, Verdict};

/// A pool of the embedder's, whose connections are as these options say.
fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().max_connections(4).connect_lazy_with(options)
}

async fn database() -> PgConnectOptions {
    test_support::database().await.parse().unwrap()
}

/// A whole sale, and what stays of it afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_on_ones_own_client_and_pool_sells_drains_and_audits() {
    // Another protocol than the engine's, and a name by which the pool is known again.
    let url = format!("{}?protocol=resp3", test_support::stack().await.redis_url());
    let client = redis::Client::open(url).unwrap();
    let own = pool(database().await.application_name("shop"));
    let shop = Shop::on(EngineConfig::new(client.clone(), own.clone()), &[(3, 2)]).await;
    shop.keeper().keep_once().await.unwrap();
    let confirmed = admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    let sold_out = shop.buy("bob", "k", &[(0, 2)]).await.unwrap();
    let refusal = Refusal::SoldOut { product: shop.products[0], left: 1 };
    assert_eq!(sold_out, Admission::Refused(refusal));
    shop.drain().await;
    assert_eq!(state(&shop, confirmed).await, OrderState::Confirmed);
    shop.assert_sound().await;

    // What draining takes is set by the engine, also where the pool has other settings.
    let drains = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'flashsale-drain'";
    let connections = async |query| sqlx::query_scalar::<_, i64>(query).fetch_one(&own).await.unwrap();
    assert!(connections(drains).await > 0);
    let others = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'flashsale'";
    assert_eq!(connections(others).await, 0, "the engine has made a pool of its own");

    // Its own connections go with it, and the embedder's stay.
    shop.engine.close().await;
    until("the drain's connections are gone", async || connections(drains).await == 0).await;
    assert!(!own.is_closed());
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let _: String = redis::cmd("PING").query_async(&mut redis).await.unwrap();
}

#[tokio::test]
async fn an_engine_closes_the_pools_that_it_has_made() {
    let shop = Shop::open(&[(3, 2)]).await;
    let pool = shop.stores().pg.clone();
    shop.engine.close().await;
    assert!(pool.is_closed());
}

/// `rediss://` of a client is no reason to panic either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_speaks_tls_to_a_server_that_does_not_is_an_error() {
    let url = test_support::stack().await.redis_url().replace("redis://", "rediss://");
    let client = redis::Client::open(url).unwrap();
    let shop = Shop::open(&[(2, 5)]).await;
    let config = EngineConfig::new(client, shop.stores().pg.clone());
    let engine = Engine::connect(config).await.unwrap();
    let error = engine.reserve(shop.request("bob", "k", &[(0, 1)])).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

/// A pool that commits without waiting could lose what a sale was told to be.
#[tokio::test]
async fn a_pool_that_does_not_commit_durably_is_refused() {
    for (commit, verdict) in [("off", Verdict::Refused), ("on", Verdict::Ok)] {
        let own = pool(database().await.options([("synchronous_commit", commit)]));
        let config = EngineConfig::new(test_support::stack().await.redis_url(), own);
        let engine = Engine::connect(config).await.unwrap();
        let findings = engine.preflight().await;
        let found = findings.iter().find(|finding| finding.check == "postgres durability").unwrap();
        assert_eq!(found.verdict, verdict, "{found:?}");
    }
}

#[test]
fn a_password_is_not_shown() {
    let config = EngineConfig::new("redis://:secret@127.0.0.1/", "postgres://ann:secret@127.0.0.1/shop");
    assert!(!format!("{config:?}").contains("secret"));
}
