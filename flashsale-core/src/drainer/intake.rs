//! How a drainer takes entries from a queue.

use std::time::{Duration, Instant};

use super::Drainer;
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

impl Drainer {
    /// Takes entries: our own that were left over, then others' that are stale, then new ones.
    pub(crate) async fn read(&mut self, sale: SaleId) -> Result<Vec<Entry>> {
        let keys = SaleKeys::new(sale);
        let most = self.stores.config.drain_batch.clamp(1, SETTLE_BATCH);
        if self.unfinished.contains(&sale) {
            let left_over = self.read_group(sale, &keys, "0", most).await?;
            if !left_over.is_empty() {
                return Ok(left_over);
            }
        }
        let mut entries = self.claim(sale, &keys, most).await?;
        if entries.len() < most {
            // An answer that is lost leaves entries pending under our name.
            self.unfinished.insert(sale);
            entries.extend(self.read_group(sale, &keys, ">", most - entries.len()).await?);
        }
        Ok(entries)
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
                if catalog
                    .sales
                    .get(&sale)
                    .is_some_and(|sale| sale.epoch == known && sale.loaded_epoch == known)
                {
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
