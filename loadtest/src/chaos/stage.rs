//! Where a round is played: a sale of its own, two servers and two workers, and a proxy in front of each store.
//!
//! Server 0 and worker 0 reach Redis through the first door, the other two through the second, so that a fault
//! can strike one side only: a network that is split, a Redis that was replaced for some of its clients.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use flashsale_core::{Created, Currency, Engine, EngineConfig, Money, NewProduct, NewSale, Sale, SaleId};
use flashsale_stack::{Stack, StackOptions};
use redis::{FromRedisValue, aio::MultiplexedConnection};
use reqwest::Url;
use sqlx::{ConnectOptions, Executor, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::time::sleep;

use super::{
    buyers::{Street, Wares},
    programs::{Kind, Program, StoreUrls},
    proxy::Proxy,
    queue_watch::QueueWatch,
    relay::Relay,
};

/// Units of a product that one user may buy.
pub(crate) const LIMIT: u32 = 3;
const STOCK: [(&str, u32); 3] = [("scarce", 40), ("wanted", 500), ("plenty", 1_000_000)];

/// Everything of one round.
pub(crate) struct Stage {
    pub(crate) stack: Arc<Stack>,
    /// A second stack that a fault has started.
    pub(crate) other: Option<Stack>,
    pub(crate) sale: SaleId,
    pub(crate) street: Arc<Street>,
    pub(crate) servers: Vec<Program>,
    pub(crate) workers: Vec<Program>,
    pub(crate) redis_doors: [Proxy; 2],
    pub(crate) postgres_door: Proxy,
    /// For commands of the operator's program: through the second door.
    pub(crate) doors: StoreUrls,
    /// The Redis that counts, without a proxy.
    pub(crate) redis_url: String,
    pub(crate) database_url: String,
    queue_watch: QueueWatch,
    /// One that a fault has put between the doors and Redis.
    pub(crate) relay: Option<Relay>,
    /// What a fault saw that must not be.
    pub(crate) found: Vec<String>,
    logs: TempDir,
}

impl Stage {
    /// Sets the stage on a stack that earlier rounds have used.
    pub(crate) async fn set(stack: &Arc<Stack>, round: usize) -> Result<Self> {
        sweep(stack).await?;
        let database_url = stack.create_database(&format!("round_{round}")).await?;
        let redis_url = stack.redis_url().to_owned();
        let (sale, wares) = put_on_sale(&redis_url, &database_url).await?;
        // A new database is much to write: a Postgres that is killed must not be busy with that for a minute.
        connect_postgres(&database_url).await?.execute("CHECKPOINT").await?;
        let redis_doors =
            [Proxy::start(address_of(&redis_url)?).await?, Proxy::start(address_of(&redis_url)?).await?];
        let postgres_door = Proxy::start(address_of(&database_url)?).await?;
        let logs = tempfile::Builder::new().prefix("flashsale-chaos-").tempdir()?;
        let doors = |door: usize| -> Result<StoreUrls> {
            let redis = through(&redis_url, &redis_doors[door])?;
            Ok(StoreUrls { redis, postgres: through(&database_url, &postgres_door)? })
        };
        let sides = [doors(0)?, doors(1)?];
        let start = |kind, number: usize| Program::start(kind, number, &sides[number], logs.path());
        let (one, two, three, four) = tokio::try_join!(
            start(Kind::Server, 0),
            start(Kind::Server, 1),
            start(Kind::Worker, 0),
            start(Kind::Worker, 1)
        )?;
        let addresses = vec![one.address().to_owned(), two.address().to_owned()];
        let [_, doors] = sides;
        let queue_watch = QueueWatch::start(&redis_url, key(sale, "queue"));
        Ok(Self {
            stack: Arc::clone(stack),
            other: None,
            sale,
            street: Arc::new(Street::new(wares, addresses)?),
            servers: vec![one, two],
            workers: vec![three, four],
            redis_doors,
            postgres_door,
            doors,
            redis_url,
            database_url,
            queue_watch,
            relay: None,
            found: Vec::new(),
            logs,
        })
    }

    /// Lets the fault last.
    pub(crate) async fn hold(&self, time: Duration) {
        sleep(time).await;
    }

    pub(crate) async fn start_server_again(&mut self, server: usize) -> Result<()> {
        self.servers[server].start_again().await?;
        self.street.moved(server, self.servers[server].address().to_owned());
        Ok(())
    }

    /// Another Redis is the one that counts.
    pub(crate) fn redis_moved(&mut self, redis_url: String) {
        self.queue_watch.follow(&redis_url);
        self.redis_url = redis_url;
    }

    /// How long it took, after a worker was killed or stopped last, until all that was queued then was final. If
    /// there was none left, it counts from when one was there again.
    pub(crate) fn taken_over(&self) -> Option<Duration> {
        let down_at = self.workers.iter().filter_map(|worker| worker.down_at).max()?;
        let alive = self.workers.iter().filter(|worker| worker.down_at < worker.up_at);
        let since = alive.filter_map(|worker| worker.up_at).min();
        Some(self.queue_watch.drained_after(since.map_or(down_at, |since| since.max(down_at))))
    }

    /// Leads all processes to this Redis.
    pub(crate) fn lead_all_to(&self, redis_url: &str) -> Result<()> {
        let address = address_of(redis_url)?;
        self.redis_doors.iter().for_each(|door| door.lead_to(address.clone()));
        Ok(())
    }

    /// An engine on the stores themselves, patient with a busy machine. To be closed.
    pub(crate) async fn engine(&self) -> Result<Engine> {
        engine(&self.redis_url, &self.database_url).await
    }

    /// Asks the Redis that counts.
    pub(crate) async fn redis<T: FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        redis(&self.redis_url, command).await
    }

    pub(crate) async fn postgres(&self) -> Result<PgConnection> {
        connect_postgres(&self.database_url).await
    }

    /// One of the sale's keys in Redis.
    pub(crate) fn key(&self, name: &str) -> String {
        key(self.sale, name)
    }

    /// Where Redis keeps its append-only file.
    pub(crate) fn append_only_dir(&self) -> PathBuf {
        self.stack.data_dir().join("redis").join("appendonlydir")
    }

    /// Ends all programs in good order. Says what was wrong with them, and where their logs are until that is dropped.
    pub(crate) async fn strike_set(self) -> (Vec<String>, TempDir) {
        let mut trouble = Vec::new();
        for mut program in self.servers.into_iter().chain(self.workers) {
            trouble.extend(program.end().await.err().map(|error| format!("{error:#}")));
        }
        if let Some(other) = self.other {
            other.stop().await;
        }
        (trouble, self.logs)
    }

    /// Keeps the programs' logs; where.
    pub(crate) fn keep_logs(&mut self) -> PathBuf {
        self.logs.disable_cleanup(true);
        self.logs.path().to_owned()
    }
}

fn key(sale: SaleId, name: &str) -> String {
    format!("fs:{{{sale}}}:{name}")
}

/// A stack for many rounds.
pub(crate) async fn start_stack() -> Result<Stack> {
    Ok(Stack::start(StackOptions::default()).await?)
}

/// Brings a stack that a fault was at back to where it was.
async fn sweep(stack: &Stack) -> Result<()> {
    if stack.redis_pid().is_none() {
        stack.restart_redis().await?;
    }
    if stack.postgres_pid().is_none() {
        stack.restart_postgres().await?;
    }
    redis::<()>(stack.redis_url(), &["CONFIG", "SET", "maxmemory", "0"]).await?;
    redis::<()>(stack.redis_url(), &["FLUSHALL"]).await?;
    let mut connection = connect_postgres(stack.database_url()).await?;
    let rounds = r"SELECT datname::text FROM pg_database WHERE datname LIKE 'round\_%'";
    for name in sqlx::query_scalar::<_, String>(rounds).fetch_all(&mut connection).await? {
        let drop = format!(r#"DROP DATABASE "{name}" WITH (FORCE)"#);
        connection.execute(sqlx::AssertSqlSafe(drop)).await?;
    }
    Ok(())
}

async fn connect_postgres(url: &str) -> Result<PgConnection> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.connect().await?)
}

async fn engine(redis_url: &str, database_url: &str) -> Result<Engine> {
    let mut config = EngineConfig::new(redis_url, database_url);
    config.lanes = 1;
    config.redis_deadline = Duration::from_secs(10);
    config.postgres_deadline = Duration::from_secs(30);
    Engine::connect(config).await.context("cannot reach the stores")
}

async fn put_on_sale(redis_url: &str, database_url: &str) -> Result<(SaleId, Wares)> {
    let engine = engine(redis_url, database_url).await?;
    engine.migrate().await?;
    let currency: Currency = "USD".parse()?;
    let product = |(name, stock): (&str, u32)| NewProduct {
        id: None,
        name: name.to_owned(),
        description: String::new(),
        image_url: String::new(),
        original_price: Money::from_minor(2_000, currency),
        sale_price: Money::from_minor(1_000, currency),
        stock,
        per_user_limit: LIMIT,
    };
    let new = NewSale {
        slug: "chaos".to_owned(),
        name: "Chaos".to_owned(),
        currency,
        starts_at: Utc::now() - TimeDelta::hours(1),
        ends_at: Utc::now() + TimeDelta::days(1),
        products: STOCK.map(product).into(),
    };
    let (Created::New(id) | Created::Exists(id)) = engine.operator().create_sale(&new).await?;
    let sale = engine.operator().sale(id).await?;
    engine.close().await;
    let [scarce, wanted, plenty] = STOCK.map(|(name, _)| named(&sale, name));
    Ok((id, Wares { scarce: scarce?, wanted: wanted?, plenty: plenty? }))
}

fn named(sale: &Sale, name: &str) -> Result<flashsale_core::ProductId> {
    let product = sale.products.iter().find(|product| product.name == name);
    Ok(product.with_context(|| format!("the sale has lost product {name}"))?.id)
}

/// Asks a Redis once, over a connection of its own.
pub(crate) async fn redis<T: FromRedisValue>(url: &str, command: &[&str]) -> Result<T> {
    let (name, arguments) = command.split_first().context("no command")?;
    let mut connection = connect_redis(url).await?;
    Ok(redis::cmd(name).arg(arguments).query_async(&mut connection).await?)
}

pub(crate) async fn connect_redis(url: &str) -> Result<MultiplexedConnection> {
    let patience = Some(Duration::from_secs(20));
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(patience);
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

/// `host:port` of a URL.
pub(crate) fn address_of(url: &str) -> Result<String> {
    let url = Url::parse(url)?;
    let (host, port) = (url.host_str().context("no host")?, url.port().context("no port")?);
    Ok(format!("{host}:{port}"))
}

/// The same URL, through a proxy.
pub(crate) fn through(url: &str, proxy: &Proxy) -> Result<String> {
    let mut url = Url::parse(url)?;
    ensure!(url.set_port(Some(proxy.address().port())).is_ok(), "{url} takes no port");
    Ok(url.into())
}
