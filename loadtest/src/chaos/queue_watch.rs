//! How long orders stand in the queue, seen from outside while a round goes on.
//!
//! An entry leaves the queue in the step that shows its order as final, so the oldest one tells for all.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use redis::aio::MultiplexedConnection;
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::stage;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks at a queue until it is dropped. A Redis that does not answer shows nothing meanwhile.
pub(crate) struct QueueWatch {
    url: watch::Sender<String>,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// The queue's oldest entry at one moment.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    age: Duration,
}

impl QueueWatch {
    pub(crate) fn start(redis_url: &str, queue: String) -> Self {
        let url = watch::Sender::new(redis_url.to_owned());
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let task = tokio::spawn(look(url.subscribe(), queue, Arc::clone(&seen)));
        Self { url, seen, task }
    }

    /// The queue that counts is in another Redis from now on.
    pub(crate) fn follow(&self, redis_url: &str) {
        self.url.send_replace(redis_url.to_owned());
    }

    /// How long it took from this moment until every order that was queued then was final.
    pub(crate) fn drained_after(&self, moment: Instant) -> Duration {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        drained_after(&seen, moment)
    }
}

impl Drop for QueueWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn drained_after(seen: &[Seen], moment: Instant) -> Duration {
    let was_queued = |seen: &&Seen| seen.at.checked_sub(seen.age).is_none_or(|since| since <= moment);
    let later = seen.iter().filter(|seen| seen.at >= moment);
    later.filter(was_queued).map(|seen| seen.at - moment).max().unwrap_or_default()
}

async fn look(mut url: watch::Receiver<String>, queue: String, seen: Arc<Mutex<Vec<Seen>>>) {
    loop {
        let at = url.borrow_and_update().clone();
        if let Ok(mut connection) = stage::connect_redis(&at).await {
            while let Ok(age) = oldest(&mut connection, &queue).await {
                let now = Instant::now();
                let age = age.map(|age| Seen { at: now, age });
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend(age);
                sleep(LOOK_EVERY).await;
                if url.has_changed().unwrap_or(false) {
                    break;
                }
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The age of the oldest entry, by Redis's clock, from which the entry's id was taken too.
async fn oldest(connection: &mut MultiplexedConnection, queue: &str) -> redis::RedisResult<Option<Duration>> {
    let (time, entries): ((u64, u64), Vec<(String, redis::Value)>) = redis::pipe()
        .cmd("TIME")
        .cmd("XRANGE")
        .arg(&[queue, "-", "+", "COUNT", "1"])
        .query_async(connection)
        .await?;
    let now = Duration::from_secs(time.0) + Duration::from_micros(time.1);
    let admitted = entries.first().and_then(|(id, _)| id.split('-').next()?.parse().ok());
    Ok(admitted.map(|ms| now.saturating_sub(Duration::from_millis(ms))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_queued_at_a_moment_counts_until_it_is_gone() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let seen = |at, age| Seen { at: after(at), age: Duration::from_secs(age) };
        // An entry of second 3 is there until second 9; then come younger ones.
        let queue = [seen(4, 1), seen(9, 6), seen(12, 2), seen(30, 10)];
        assert_eq!(drained_after(&queue, after(4)), Duration::from_secs(5));
        assert_eq!(drained_after(&queue, after(10)), Duration::from_secs(2), "of second 10");
        assert_eq!(drained_after(&queue, after(25)), Duration::from_secs(5), "of second 20");
        assert_eq!(drained_after(&queue, after(31)), Duration::ZERO);
        assert_eq!(drained_after(&queue, after(1)), Duration::ZERO, "nothing was queued then");
    }
}
