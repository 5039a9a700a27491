//! What a load would change, without changing anything.

use tokio::sync::mpsc;

use super::{
    LoadProgress,
    gather::{Chunks, gather, read_stream},
    rebuild::Rebuilt,
};
use crate::{
    error::Result,
    ids::SaleId,
    keys::SaleKeys,
    sale::{SaleState, Seq},
    scripts::{self, LookedSale, Pair},
    stores::Stores,
};

/// Fields of one kind in the book that are not as a load would write them.
#[derive(Debug, Default, Clone, Copy)]
struct Unlike {
    missing: usize,
    different: usize,
}

/// The book as a load would write it, beside the one that Redis has.
#[derive(Debug, Default)]
struct BookDifference {
    fields: usize,
    keys: Unlike,
    quotas: Unlike,
    states: Unlike,
}

impl Stores {
    /// What a load would change, a line each.
    pub(crate) async fn rehearse_load(
        &self,
        sale: SaleId,
        progress: &(dyn Fn(LoadProgress) + Sync),
    ) -> Result<Vec<String>> {
        let keys = SaleKeys::new(sale);
        let entries = read_stream(&self.link, &keys).await?;
        let (sender, receiver) = Chunks::channel();
        let gathering = gather(&self.pg, sale, &entries, Seq(0), sender, progress);
        let (rebuilt, book) = tokio::try_join!(gathering, self.compare_book(&keys, receiver))?;
        let seen = scripts::look(&self.link, &keys, &[]).await?;
        Ok(match &seen.sale {
            None => vec![format!(
                "Redis does not hold the sale: {} fields would be written ({} queued, {} parked orders)",
                book.fields, rebuilt.queued, rebuilt.parked
            )],
            Some(redis) => [rebuilt.differences(redis), book.lines()].concat(),
        })
    }

    async fn compare_book(
        &self,
        keys: &SaleKeys,
        mut chunks: mpsc::Receiver<Vec<Pair>>,
    ) -> Result<BookDifference> {
        let mut difference = BookDifference::default();
        while let Some(chunk) = chunks.recv().await {
            let mut command = redis::cmd("HMGET");
            command.arg(&keys.book);
            for (field, _) in &chunk {
                command.arg(field);
            }
            let found: Vec<Option<Vec<u8>>> = match self.link.ask(&command).await {
                Err(error) if error.is_wrong_type() => vec![None; chunk.len()],
                found => found?,
            };
            for ((field, value), found) in chunk.iter().zip(&found) {
                difference.add(field.as_ref(), value.as_ref(), found.as_deref());
            }
        }
        Ok(difference)
    }
}

impl BookDifference {
    fn add(&mut self, field: &[u8], wanted: &[u8], found: Option<&[u8]>) {
        self.fields += 1;
        let (kind, is_alike) = match field {
            [b'k', ..] => (&mut self.keys, found == Some(wanted)),
            [b'q', ..] => (&mut self.quotas, found == Some(wanted)),
            // The letter alone: instants are of Redis's clock here and of the record's there.
            _ => (&mut self.states, found.and_then(letter) == letter(wanted)),
        };
        kind.missing += usize::from(found.is_none());
        kind.different += usize::from(found.is_some() && !is_alike);
    }

    fn lines(&self) -> Vec<String> {
        let kinds = [("keys", self.keys), ("quotas", self.quotas), ("states", self.states)];
        let unlike = kinds.into_iter().filter(|(_, kind)| kind.missing + kind.different > 0);
        let line = |(name, Unlike { missing, different })| {
            format!(
                "book: {missing} {name} are missing in Redis, {different} are not as in the record and the queue"
            )
        };
        unlike.map(line).collect()
    }
}

/// Which state it is: queued or in a drainer's hands is the same to a load.
fn letter(state: &[u8]) -> Option<u8> {
    state.first().map(|letter| if *letter == b'Q' { b'P' } else { *letter })
}

impl Rebuilt {
    fn differences(&self, redis: &LookedSale) -> Vec<String> {
        let mut lines = Vec::new();
        for (product, left) in &self.stock {
            let [product, left] = [product, left].map(|text| String::from_utf8_lossy(text));
            let now = product.parse().ok().and_then(|id| redis.stock.get(&id)).map(ToString::to_string);
            if now.as_deref() != Some(&*left) {
                let now = now.unwrap_or_else(|| "nothing".to_owned());
                lines.push(format!(
                    "product {product}: {now} left in Redis, {left} by the record and the queue"
                ));
            }
        }
        if redis.changes != Some(self.changes) {
            let now = redis.changes.map_or_else(|| "none".to_owned(), |number| number.to_string());
            lines.push(format!("changes of stock: {now} in Redis, {} by the record", self.changes));
        }
        if redis.seq < self.seq {
            lines.push(format!("seq: {} in Redis, {} by the record and the queue", redis.seq, self.seq));
        }
        if redis.state != Some(self.state) {
            let now = redis.state.map_or("loading", SaleState::as_str);
            lines.push(format!("state: {now} in Redis, {} by the record", self.state));
        }
        if redis.version != scripts::VERSION {
            let (then, now) = (redis.version, scripts::VERSION);
            lines.push(format!(
                "it was loaded by version {then} of the scripts, which are of version {now} now"
            ));
        }
        if !redis.sound {
            lines.push("Redis was restarted or replaced since the sale was loaded".to_owned());
        }
        for (entry, why) in &self.unreadable {
            lines.push(format!("queue entry {} cannot be read ({why}): it would be parked", entry.id));
        }
        lines
    }
}
