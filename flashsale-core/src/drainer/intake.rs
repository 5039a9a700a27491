//! How a drainer takes entries from a queue.

use std::time::{Duration, Instant};

use super::queue_side::QueueSide;
use crate::{
    error::{Error, Result},
    ids::SaleId,
    keys::{GROUP, SaleKeys},
    queue::Entry,
    scripts::SETTLE_BATCH,
    sql,
};

/// How often other drainers' stale entries are looked for.
const CLAIM_EVERY: Duration = Duration::from_millis(500);

/// Entries that were taken from a queue.
pub(super) struct Taken {
    pub entries: Vec<Entry>,
    /// They are our own from before: there may be more of these.
    pub left_over: bool,
    /// As many as are taken at once: there may be more in the queue.
    pub full: bool,
}

impl QueueSide {
    /// Takes entries: our own that were left over, then others' that are stale, then new ones.
    pub(super) async fn take(&mut self, sale: SaleId) -> Result<Taken> {
        if self.unfinished.contains(&sale) {
            let entries = self.read_group(sale, &SaleKeys::new(sale), "0", self.most()).await?;
            if !entries.is_empty() {
                return Ok(Taken { entries, left_over: true, full: false });
            }
            self.unfinished.remove(&sale);
        }
        self.take_more(sale).await
    }

    /// The same while entries are in hand, which also are pending under our name.
    pub(super) async fn take_more(&mut self, sale: SaleId) -> Result<Taken> {
        let (keys, most) = (SaleKeys::new(sale), self.most());
        // Until the settle is answered, entries may stay pending under our name; so they may when an answer with
        // entries is lost.
        let new = self.unfinished.insert(sale);
        let mut entries = self.claim(sale, &keys, most).await?;
        if entries.len() < most {
            entries.extend(self.read_group(sale, &keys, ">", most - entries.len()).await?);
        }
        if new && entries.is_empty() {
            self.unfinished.remove(&sale);
        }
        let full = entries.len() == most;
        Ok(Taken { entries, left_over: false, full })
    }

    fn most(&self) -> usize {
        self.stores.config.drain_batch.clamp(1, SETTLE_BATCH)
    }

    async fn read_group(&self, sale: SaleId, keys: &SaleKeys, from: &str, most: usize) -> Result<Vec<Entry>> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(most);
        command.arg("STREAMS").arg(&keys.queue).arg(from);
        let streams: Option<Vec<(String, Vec<RawEntry>)>> = self.ask_queue(sale, &command).await?;
        Ok(streams.into_iter().flatten().flat_map(|(_, entries)| entries).filter_map(entry).collect())
    }

    /// Takes over what other drainers have held for too long.
    async fn claim(&mut self, sale: SaleId, keys: &SaleKeys, most: usize) -> Result<Vec<Entry>> {
        let cursor = match self.claimed.get(&sale) {
            Some((at, cursor)) if at.elapsed() < CLAIM_EVERY && cursor == "0-0" => return Ok(Vec::new()),
            Some((_, cursor)) => cursor.clone(),
            None => "0-0".to_owned(),
        };
        let mut command = redis::cmd("XAUTOCLAIM");
        let idle_ms = u64::try_from(self.stores.config.claim_idle.as_millis()).unwrap_or(u64::MAX);
        command
            .arg(&keys.queue)
            .arg(GROUP)
            .arg(&self.consumer)
            .arg(idle_ms)
            .arg(&cursor)
            .arg("COUNT")
            .arg(most);
        let (next, entries, _deleted): (String, Vec<RawEntry>, Vec<String>) =
            self.ask_queue(sale, &command).await?;
        self.claimed.insert(sale, (Instant::now(), next));
        let entries: Vec<_> = entries.into_iter().filter_map(entry).collect();
        if !entries.is_empty() {
            self.stores.meters.drain_claimed.increment(entries.len() as u64);
            tracing::info!(sale = sale.get(), entries = entries.len(), "took over stale queue entries");
        }
        Ok(entries)
    }

    async fn ask_queue<T: redis::FromRedisValue>(&self, sale: SaleId, command: &redis::Cmd) -> Result<T> {
        match self.link.query(command).await {
            Err(error) if error.is_no_queue() => {
                // It was lost or damaged, or is being rebuilt right now: the keeper looks into it.
                let known = self.epoch(sale)?;
                let catalog = self.stores.catalog.refresh().await?;
                if catalog.sales.get(&sale).is_some_and(|sale| sale.epoch == known && sale.is_loaded()) {
                    self.stores.record(sql::request_recover(&self.stores.pg, sale, known)).await?;
                }
                Err(Error::fenced(sale, "its queue is not there"))
            }
            other => Ok(other?),
        }
    }
}

/// An entry as Redis sends it; one that was deleted while pending has no fields.
type RawEntry = (String, Option<Vec<Vec<u8>>>);

fn entry((id, fields): RawEntry) -> Option<Entry> {
    fields.map(|fields| Entry { id, fields })
}
