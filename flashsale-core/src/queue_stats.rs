//! How long the queues are, and who drains them.

use std::time::Duration;

use redis::streams::StreamInfoConsumersReply;

use crate::{
    error::Result,
    ids::SaleId,
    keys::{GROUP, SaleKeys},
    link::CallError,
    sale::Sale,
    stores::Stores,
};

/// One sale's queue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QueueStats {
    /// The sale.
    pub sale: SaleId,
    /// Its slug.
    pub slug: String,
    /// Orders that are not settled yet.
    pub backlog: u64,
    /// Those of them that a drainer has in hand.
    pub pending: u64,
    /// How long the oldest has been waiting.
    pub oldest: Option<Duration>,
    /// Who drains.
    pub consumers: Vec<ConsumerStats>,
}

/// One drainer's name in a queue's group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Host, process id, random.
    pub name: String,
    /// Entries it has in hand.
    pub pending: u64,
    /// Since it last took an entry.
    pub idle: Duration,
}

impl Stores {
    /// What a sale's queue holds now.
    pub(crate) async fn queue_stats(&self, sale: &Sale) -> Result<QueueStats> {
        let link = &self.link;
        let queue = SaleKeys::new(sale.id).queue;
        let backlog = link.ask(redis::cmd("XLEN").arg(&queue)).await?;
        let command = redis::cmd("XRANGE").arg(&queue).arg("-").arg("+").arg("COUNT").arg(1).to_owned();
        let first: Vec<(String, redis::Value)> = link.ask(&command).await?;
        let (seconds, micros): (u64, u64) = link.ask(&redis::cmd("TIME")).await?;
        let now_ms = seconds * 1_000 + micros / 1_000;
        let oldest = first.first().and_then(|(id, _)| id.split_once('-')?.0.parse::<u64>().ok());
        let command = redis::cmd("XINFO").arg("CONSUMERS").arg(&queue).arg(GROUP).to_owned();
        let consumers = match link.query::<StreamInfoConsumersReply>(&command).await {
            Ok(reply) => reply.consumers,
            // Not loaded yet, or lost: there is no group.
            Err(CallError::Refused(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let consumers: Vec<_> = consumers
            .into_iter()
            .map(|consumer| ConsumerStats {
                name: consumer.name,
                pending: consumer.pending as u64,
                idle: Duration::from_millis(consumer.idle as u64),
            })
            .collect();
        Ok(QueueStats {
            sale: sale.id,
            slug: sale.slug.clone(),
            backlog,
            pending: consumers.iter().map(|consumer| consumer.pending).sum(),
            oldest: oldest.map(|at| Duration::from_millis(now_ms.saturating_sub(at))),
            consumers,
        })
    }
}
