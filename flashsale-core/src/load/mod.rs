//! Loading a sale into Redis, and rebuilding it there: the same six steps.
//!
//! 1. PostgreSQL: the epoch rises under the sale's row lock. From here no drainer records under the old
//!    epoch, and once Redis has it no script changes anything under it.
//! 2. Redis: fenced under the new epoch, with a token that says whose load it is.
//! 3. The stream is read, *then* 4. the record: an order that is recorded in between counts as its row. The
//!    other way round it could count as neither.
//! 5. The sale is written in numbered chunks, while the record is still being read.
//! 6. PostgreSQL: this epoch is loaded. Redis: open.
//!
//! Killed anywhere, it leaves the sale fenced, and running it again is right. An advisory lock keeps two
//! loads from wasting work; epoch, token and chunk number keep them from harming.

mod gather;
mod rebuild;
mod rehearse;

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub(crate) use self::gather::read_stream;
use self::{
    gather::{Chunks, gather},
    rebuild::Rebuilt,
};
use crate::{
    error::{Error, Result},
    ids::SaleId,
    keys::SaleKeys,
    link::{CallError, Link},
    sale::{Epoch, Seq},
    scripts::{self, LoadStep, Pair},
    sql,
    stores::Stores,
};

/// Most entries that one call deletes, and most fields of products: Lua's stack holds 8,000 values.
const CHUNK: usize = 1_000;
/// A loader that is not heard of for so long keeps nobody else from loading.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// A big book takes its time to be removed and written.
const DEADLINE: Duration = Duration::from_secs(10);

/// How far a load has come, which of a large record takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadProgress {
    /// Recorded orders that are read and on their way to Redis.
    pub done: u64,
    /// Recorded orders in all.
    pub total: u64,
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
        let rebuilt = load.rebuild(known, progress).await?;
        load.open(&rebuilt).await?;
        self.catalog.refresh().await?;
        tracing::info!(sale = sale.get(), epoch = epoch.get(), seq = rebuilt.seq.get(), "the sale is loaded");
        Ok(Some(epoch))
    }
}

#[cfg(test)]
impl Stores {
    /// What a load would write, and the book of it.
    pub(crate) async fn rebuilt(&self, sale: SaleId) -> Result<(Rebuilt, Vec<Pair>)> {
        let entries = read_stream(&self.link, &SaleKeys::new(sale)).await?;
        let (sender, mut receiver) = Chunks::channel();
        let taking = async {
            let mut book = Vec::new();
            while let Some(chunk) = receiver.recv().await {
                book.extend(chunk);
            }
            Ok(book)
        };
        tokio::try_join!(gather(&self.pg, sale, &entries, Seq(0), sender, &|_| {}), taking)
    }
}

impl Load<'_> {
    /// Step 2. Says which seq this Redis knows.
    async fn fence(&self, server: &str) -> Result<Seq> {
        let start = || scripts::load_start(&self.link, &self.keys, self.epoch, &self.token, server);
        self.insist(start).await
    }

    /// Steps 3, 4 and 5.
    async fn rebuild(&mut self, known: Seq, progress: &(dyn Fn(LoadProgress) + Sync)) -> Result<Rebuilt> {
        let entries = read_stream(&self.link, &self.keys).await?;
        self.step(&LoadStep::Clear).await?;
        let (sender, receiver) = Chunks::channel();
        let gathering = gather(&self.stores.pg, self.sale, &entries, known, sender, progress);
        let (rebuilt, ()) = tokio::try_join!(gathering, self.write_book(receiver))?;
        self.park(&rebuilt).await?;
        self.write_rest(&rebuilt).await?;
        Ok(rebuilt)
    }

    async fn write_book(&mut self, mut chunks: mpsc::Receiver<Vec<Pair>>) -> Result<()> {
        while let Some(chunk) = chunks.recv().await {
            self.step(&LoadStep::Fields("book", &chunk)).await?;
        }
        Ok(())
    }

    /// One entry that nobody can read must not keep everybody from buying: it waits for an operator outside
    /// the queue, from which it is deleted when it is safe here.
    async fn park(&self, rebuilt: &Rebuilt) -> Result<()> {
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
        Ok(())
    }

    async fn write_rest(&mut self, rebuilt: &Rebuilt) -> Result<()> {
        let changes = [(b"changes".to_vec(), rebuilt.changes.to_string().into_bytes())];
        for (hash, pairs) in
            [("stock", &changes[..]), ("stock", &rebuilt.stock), ("product", &rebuilt.product)]
        {
            for chunk in pairs.chunks(CHUNK) {
                self.step(&LoadStep::Fields(hash, chunk)).await?;
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
        let (starts_ms, ends_ms) = sale.window_ms();
        let step = LoadStep::Open { state: sale.state, starts_ms, ends_ms, seq: rebuilt.seq };
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
