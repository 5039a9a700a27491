//! Loading a sale into Redis, and rebuilding it there: the same six steps.
//!
//! 1. PostgreSQL: the epoch rises under the sale's row lock. From here no drainer records under the old
//!    epoch, and once Redis has it no script changes anything under it.
//! 2. Redis: fenced under the new epoch, with a token that says whose load it is.
//! 3. The stream is read, *then* 4. the record: an order that is recorded in between counts as its row. The
//!    other way round it could count as neither.
//! 5. The sale is written in numbered chunks.
//! 6. PostgreSQL: this epoch is loaded. Redis: open.
//!
//! Killed anywhere, it leaves the sale fenced, and running it again is right. An advisory lock keeps two
//! loads from wasting work; epoch, token and chunk number keep them from harming.

mod rebuild;

use std::time::{Duration, Instant};

use self::rebuild::{Rebuilt, rebuild};
use crate::{
    engine::Stores,
    error::{Error, Result},
    ids::SaleId,
    keys::SaleKeys,
    link::{CallError, Link},
    queue::Entry,
    sale::{Epoch, Seq},
    scripts::{self, LoadStep},
    sql,
};

/// Most field and value pairs of one chunk: Lua's stack holds 8,000 values.
const CHUNK: usize = 1_000;
/// Entries of the stream that are read at once.
const PAGE: usize = 1_000;
/// A loader that is not heard of for so long keeps nobody else from loading.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// A million orders take their time to be read: the server's limit for that, and some more.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(150);
/// A big book takes its time to be removed and written.
const DEADLINE: Duration = Duration::from_secs(10);

/// How far a load has come: what it does now, and how much of it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadProgress {
    /// Fields written so far.
    pub written: usize,
    /// Fields to write; 0 while the stores are read.
    pub total: usize,
}

/// One load under way.
struct Load<'a> {
    stores: &'a Stores,
    link: Link,
    sale: SaleId,
    keys: SaleKeys,
    epoch: Epoch,
    token: String,
    chunk: u32,
}

impl Stores {
    /// Loads a sale into Redis, or rebuilds it there, and opens it as the record says. `None`: somebody
    /// else is loading it, or has done so since it was judged under the epoch `judged`.
    pub(crate) async fn load(
        &self,
        sale: SaleId,
        judged: Epoch,
        why: &str,
        progress: &(dyn Fn(LoadProgress) + Sync),
    ) -> Result<Option<Epoch>> {
        let Some(mut lock) = self.record(sql::sales::lock_load(&self.pg, sale, LOCK_LIMIT)).await? else {
            return Ok(None);
        };
        let began = Instant::now();
        let loaded = tokio::select! {
            loaded = self.load_alone(sale, judged, why, progress) => loaded,
            never = lock.keep() => match never {},
        };
        match &loaded {
            // Somebody else's load is counted there.
            Ok(None) => {}
            result => self.meters.load(result.is_ok(), began.elapsed()),
        }
        lock.release().await;
        loaded
    }

    async fn load_alone(
        &self,
        sale: SaleId,
        judged: Epoch,
        why: &str,
        progress: &(dyn Fn(LoadProgress) + Sync),
    ) -> Result<Option<Epoch>> {
        if self.catalog.refresh().await?.sales.get(&sale).is_none_or(|sale| sale.epoch != judged) {
            return Ok(None);
        }
        // Before the epoch, which stops the drainers: not for a Redis that cannot be reached.
        let seen = scripts::look(&self.link, &SaleKeys::new(sale), &[]).await?;
        if seen.sale.as_ref().is_some_and(|sale| sale.version > scripts::VERSION) {
            return Err(Error::refused(format!("sale {sale} stays as it is: {}", scripts::NEWER)));
        }
        let in_redis = seen.sale.map_or(Epoch(0), |sale| sale.epoch);
        let epoch = self.record(sql::sales::raise_epoch(&self.pg, sale, in_redis)).await?;
        tracing::info!(sale = sale.get(), epoch = epoch.get(), why, "loading the sale into Redis");
        let mut load = Load {
            stores: self,
            link: Link::new(self.redis.clone(), DEADLINE),
            sale,
            keys: SaleKeys::new(sale),
            epoch,
            token: format!("{:016x}", rand::random::<u64>()),
            chunk: 0,
        };
        let known = load.fence(&seen.server).await?;
        let rebuilt = load.gather(known).await?;
        load.write(&rebuilt, progress).await?;
        load.open(&rebuilt).await?;
        self.catalog.refresh().await?;
        tracing::info!(sale = sale.get(), epoch = epoch.get(), seq = rebuilt.seq.get(), "the sale is loaded");
        Ok(Some(epoch))
    }

    /// What a load would write, and what Redis holds now.
    pub(crate) async fn rehearse_load(&self, sale: SaleId) -> Result<(Rebuilt, scripts::Look)> {
        let keys = SaleKeys::new(sale);
        let entries = read_stream(&self.link, &keys).await?;
        let snapshot = sql::snapshot::load_snapshot(&self.pg, sale).await?;
        let rebuilt = rebuild(&snapshot, &entries, Seq(0));
        let seen = scripts::look(&self.link, &keys, &[]).await?;
        Ok((rebuilt, seen))
    }
}

impl Load<'_> {
    /// Step 2. Says which seq this Redis knows.
    async fn fence(&self, server: &str) -> Result<Seq> {
        let start = || scripts::load_start(&self.link, &self.keys, self.epoch, &self.token, server);
        self.insist(start).await
    }

    /// Steps 3 and 4, and what is to be written.
    async fn gather(&self, known: Seq) -> Result<Rebuilt> {
        let entries = read_stream(&self.link, &self.keys).await?;
        let snapshot =
            sql::within(SNAPSHOT_WITHIN, sql::snapshot::load_snapshot(&self.stores.pg, self.sale)).await?;
        let rebuilt = rebuild(&snapshot, &entries, known);
        // One entry that nobody can read must not keep everybody from buying: it waits for an operator outside
        // the queue, from which it is deleted when it is safe here.
        for (entry, why) in &rebuilt.unreadable {
            let parked = self.stores.ledger.park(self.sale, self.epoch, entry, why).await;
            parked.map_err(|error| error.in_sale(self.sale))?;
            tracing::error!(
                sale = self.sale.get(),
                entry = entry.id,
                why,
                "a queue entry cannot be read and is parked; see `flashsale dead-letters list`"
            );
        }
        Ok(rebuilt)
    }

    /// Step 5.
    async fn write(&mut self, rebuilt: &Rebuilt, progress: &(dyn Fn(LoadProgress) + Sync)) -> Result<()> {
        let total = rebuilt.stock.len() + rebuilt.product.len() + rebuilt.book.len();
        let mut written = 0;
        self.step(&LoadStep::Clear).await?;
        let hashes = [("stock", &rebuilt.stock), ("product", &rebuilt.product), ("book", &rebuilt.book)];
        for (hash, pairs) in hashes {
            for chunk in pairs.chunks(CHUNK) {
                self.step(&LoadStep::Fields(hash, chunk)).await?;
                written += chunk.len();
                progress(LoadProgress { written, total });
            }
        }
        // At least once, for the group.
        self.step(&LoadStep::Queue(&[])).await?;
        for dropped in rebuilt.dropped.chunks(CHUNK) {
            self.step(&LoadStep::Queue(dropped)).await?;
        }
        for letter in &rebuilt.ended_letters {
            self.stores.record(sql::dead_letters::finish_dead_letter(&self.stores.pg, *letter)).await?;
        }
        Ok(())
    }

    /// Step 6.
    async fn open(&mut self, rebuilt: &Rebuilt) -> Result<()> {
        let loaded = sql::sales::set_loaded_epoch(&self.stores.pg, self.sale, self.epoch);
        if !self.stores.record(loaded).await? {
            return Err(Error::fenced(self.sale, "another load has overtaken this one"));
        }
        // As the record says now: the sale may have been paused since it was read.
        let catalog = self.stores.catalog.refresh().await?;
        let sale =
            catalog.sales.get(&self.sale).ok_or_else(|| Error::not_found(format!("sale {}", self.sale)))?;
        let step = LoadStep::Open {
            state: sale.state,
            starts_ms: sale.starts_at.timestamp_millis(),
            ends_ms: sale.ends_at.timestamp_millis(),
            seq: rebuilt.seq,
        };
        let Err(error) = self.step(&step).await else { return Ok(()) };
        // The answer to an open that took effect may have been lost; asking again is then refused.
        let seen = scripts::look(&self.link, &self.keys, &[]).await?.sale;
        if seen.is_some_and(|sale| sale.counts_under(self.epoch)) {
            return Ok(());
        }
        Err(error)
    }

    async fn step(&mut self, step: &LoadStep<'_>) -> Result<()> {
        self.chunk += 1;
        let (epoch, token, chunk) = (self.epoch, &self.token, self.chunk);
        self.insist(|| scripts::load_step(&self.link, &self.keys, epoch, token, chunk, step)).await
    }

    /// Repeats a step whose answer was lost: each step may run twice.
    async fn insist<T, F: Future<Output = Result<T, CallError>>>(&self, call: impl Fn() -> F) -> Result<T> {
        for _ in 0..2 {
            match call().await {
                Err(CallError::Lost(_) | CallError::NotSent(_)) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return other.map_err(|error| error.in_sale(self.sale)),
            }
        }
        call().await.map_err(|error| error.in_sale(self.sale))
    }
}

/// All entries of the queue. While the sale is loading none comes and none goes.
pub(crate) async fn read_stream(link: &Link, keys: &SaleKeys) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let from = entries.last().map_or_else(|| "-".to_owned(), |entry| format!("({}", entry.id));
        let mut command = redis::cmd("XRANGE");
        command.arg(&keys.queue).arg(from).arg("+").arg("COUNT").arg(PAGE);
        let page: Vec<(String, Vec<Vec<u8>>)> = match link.ask(&command).await {
            // A key of another type holds no orders; the load puts a stream in its place.
            Err(error) if error.is_wrong_type() => return Ok(Vec::new()),
            page => page?,
        };
        let last = page.len() < PAGE;
        entries.extend(page.into_iter().map(|(id, fields)| Entry { id, fields }));
        if last {
            return Ok(entries);
        }
    }
}
