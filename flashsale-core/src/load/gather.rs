//! Reading a sale from both stores, and giving what Redis has to hold on while more is read: neither the record
//! nor the book of a large sale is ever in memory as a whole.

use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::mpsc;

use super::{
    LoadProgress,
    rebuild::{Rebuild, Rebuilt},
};
use crate::{
    error::{Error, Result},
    ids::SaleId,
    keys::SaleKeys,
    link::Link,
    queue::Entry,
    sale::Seq,
    scripts::Pair,
    sql,
};

/// Fields of the book in one call to Redis: some 3 ms of its time. (Lua's stack holds 8,000 values.)
const CHUNK: usize = 2_500;
/// Entries of the stream that are read at once.
const PAGE: usize = 1_000;
/// How long the first look into the record may take, which counts its orders.
const COUNT_WITHIN: Duration = Duration::from_mins(1);

/// Where the chunks of the book go. One is under way while the next one is made.
pub(super) struct Chunks {
    to: mpsc::Sender<Vec<Pair>>,
    next: Vec<Pair>,
}

impl Chunks {
    pub(super) fn channel() -> (Self, mpsc::Receiver<Vec<Pair>>) {
        let (to, chunks) = mpsc::channel(1);
        (Self { to, next: Vec::with_capacity(CHUNK) }, chunks)
    }

    async fn push(&mut self, pairs: impl IntoIterator<Item = Pair>) -> Result<()> {
        for pair in pairs {
            self.next.push(pair);
            if self.next.len() == CHUNK {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        let chunk = std::mem::replace(&mut self.next, Vec::with_capacity(CHUNK));
        self.to.send(chunk).await.map_err(|_| Error::unavailable("the load was given up"))
    }

    /// The last one.
    async fn close(mut self) -> Result<()> {
        if self.next.is_empty() { Ok(()) } else { self.send().await }
    }
}

/// Computes what the sale has to look like. The stream is to be read before: an order that was recorded
/// meanwhile counts as its row; the other way round it could count as neither.
pub(super) async fn gather(
    pool: &PgPool,
    sale: SaleId,
    entries: &[Entry],
    known: Seq,
    mut chunks: Chunks,
    progress: &(dyn Fn(LoadProgress) + Sync),
) -> Result<Rebuilt> {
    let mut record = sql::within(Duration::from_secs(5), sql::snapshot::begin(pool, sale)).await?;
    let head = async { Ok((record.sale().await?, record.letters().await?, record.count().await?)) };
    let (sale, letters, total) = sql::within(COUNT_WITHIN, head).await?;
    let mut rebuild = Rebuild::new(&sale, &letters, entries, known);
    let mut orders = record.orders();
    let mut done = 0;
    loop {
        progress(LoadProgress { done, total });
        let page = orders.next_page().await?;
        if page.is_empty() {
            break;
        }
        done += page.len() as u64;
        for order in &page {
            rebuild.order(order);
        }
        chunks.push(rebuild.take_book()).await?;
    }
    for page in entries.chunks(PAGE) {
        for entry in page {
            rebuild.entry(entry);
        }
        chunks.push(rebuild.take_book()).await?;
    }
    for letter in &letters {
        rebuild.letter(letter);
    }
    chunks.push(rebuild.take_book()).await?;
    chunks.push(rebuild.quotas()).await?;
    chunks.close().await?;
    Ok(rebuild.close())
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
