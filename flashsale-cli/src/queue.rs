//! `flashsale queue`: admitted orders that are not recorded yet.

use flashsale_core::{ConsumerStats, QueueStats};
use serde_json::{Value, json};

use crate::{call::Call, output};

/// Show each sale's queue: how many orders wait, how long, and who drains them
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  flashsale queue")]
pub(crate) struct Args {}

pub(crate) async fn run(Args {}: Args, call: &Call) -> anyhow::Result<()> {
    let engine = call.connect().await?;
    let queues = engine.operator().queue().await?;
    engine.close().await;
    let value: Vec<_> = queues.iter().map(as_json).collect();
    call.output.show(&value, || as_tables(&queues))
}

fn as_json(queue: &QueueStats) -> Value {
    let consumers = queue.consumers.iter().map(|consumer| {
        json!({ "name": consumer.name, "pending": consumer.pending, "idleSeconds": consumer.idle.as_secs_f64() })
    });
    json!({
        "sale": queue.sale,
        "slug": queue.slug,
        "backlog": queue.backlog,
        "pending": queue.pending,
        "oldestSeconds": queue.oldest.map(|age| age.as_secs_f64()),
        "consumers": consumers.collect::<Vec<_>>(),
    })
}

fn as_tables(queues: &[QueueStats]) -> String {
    if queues.is_empty() {
        return "no queues; a sale has one once a running flashsale-server has loaded it".to_owned();
    }
    let rows = queues.iter().map(|queue| {
        [
            queue.sale.to_string(),
            queue.slug.clone(),
            queue.backlog.to_string(),
            queue.pending.to_string(),
            output::or_dash(queue.oldest.map(output::seconds)),
            queue.consumers.len().to_string(),
        ]
    });
    let mut text = output::table(["sale", "slug", "backlog", "pending", "oldest", "consumers"], rows);
    let row = |queue: &QueueStats, consumer: &ConsumerStats| {
        [
            queue.sale.to_string(),
            consumer.name.clone(),
            consumer.pending.to_string(),
            output::seconds(consumer.idle),
        ]
    };
    let consumers =
        queues.iter().flat_map(|queue| queue.consumers.iter().map(move |consumer| row(queue, consumer)));
    let mut consumers = consumers.peekable();
    if consumers.peek().is_some() {
        text.push_str("\n\n");
        text.push_str(&output::table(["sale", "consumer", "pending", "idle"], consumers));
    }
    text
}
