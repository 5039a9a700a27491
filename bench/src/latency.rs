//! How long an admission takes while the engine is half busy, beside a PING at the same rate.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use flashsale_core::Admission;
use hdrhistogram::Histogram;
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    report::{Reach, Row},
    rounds::{Figures, play},
    shop::Bench,
};

pub(crate) async fn half_load(bench: &Bench, name: &'static str) -> Result<Row> {
    let capacity = capacity(bench).await?;
    let rate = capacity / 2.0;
    eprintln!("{name}  capacity {capacity:.0}/s, so {rate:.0}/s is half");
    let duel =
        play(name, bench.rounds, async || Ok((admissions(bench, rate).await?, pings(bench, rate).await?)))
            .await?;
    let row = Row::of_duel(name, Reach::AtMost(5.0), &duel, ["p99 of admissions", "of PING", "µs"]);
    Ok(Row { of: format!("{} at {rate:.0}/s", row.of), ..row })
}

/// The median of three: how many a second with everybody at it.
async fn capacity(bench: &Bench) -> Result<f64> {
    let orders = bench.size(100_000, 3_000);
    let mut rates = Vec::new();
    for _ in 0..3 {
        let shop = bench.shop(&[orders]).await?;
        rates.push(shop.admit(shop.requests(0..orders)).await?);
        shop.expect_sold_out(orders).await?;
        shop.close().await?;
    }
    Ok(Figures::of(&rates).median)
}

/// As many as come in some seconds.
fn count(bench: &Bench, rate: f64) -> usize {
    let seconds = if bench.quick { 0.5 } else { 3.0 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred thousand")]
    let count = (rate * seconds) as usize;
    count.max(1)
}

async fn admissions(bench: &Bench, rate: f64) -> Result<f64> {
    let orders = count(bench, rate);
    let shop = bench.shop(&[orders]).await?;
    let engine = shop.engine.clone();
    let p99 = open_loop(rate, shop.requests(0..orders), move |_, request| {
        let engine = engine.clone();
        async move {
            match engine.reserve(request).await? {
                Admission::Admitted(_) => Ok(()),
                other => bail!("a buyer who should be admitted got {other:?}"),
            }
        }
    })
    .await?;
    shop.expect_sold_out(orders).await?;
    shop.close().await?;
    Ok(p99)
}

async fn pings(bench: &Bench, rate: f64) -> Result<f64> {
    let connections = bench.connections().await?;
    open_loop(rate, vec![(); count(bench, rate)], move |number, ()| {
        let mut redis = connections[number % connections.len()].clone();
        async move {
            let pong: String = redis::cmd("PING").query_async(&mut redis).await?;
            ensure!(pong == "PONG", "PING is answered {pong}");
            Ok(())
        }
    })
    .await
}

/// Begins each piece of work at its time, whether those before are done or not, and gives the p99 of how long
/// they took in microseconds, counted from when each was due: waiting for its beginning is waiting, too.
async fn open_loop<W, F>(rate: f64, work: Vec<W>, act: impl Fn(usize, W) -> F + Send + 'static) -> Result<f64>
where
    W: Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let runtime = Handle::current();
    // A thread of its own: the runtime's clock ticks in whole milliseconds.
    let pacing = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let start = |(number, piece)| {
            #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
            let due = began + Duration::from_secs_f64(number as f64 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let work = act(number, piece);
            runtime.spawn(async move { work.await.map(|()| due.elapsed()) })
        };
        work.into_iter().enumerate().map(start).collect::<Vec<JoinHandle<Result<Duration>>>>()
    });
    let mut latencies = Histogram::<u64>::new(3)?;
    for answered in pacing.await? {
        latencies.record(u64::try_from(answered.await??.as_nanos())?)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 nanoseconds")]
    Ok(latencies.value_at_quantile(0.99) as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_waits_for_those_before() {
        // Four that are done only when all four have begun.
        let all_there = Arc::new(Barrier::new(4));
        let meet = move |_, ()| {
            let all_there = Arc::clone(&all_there);
            async move {
                all_there.wait();
                Ok(())
            }
        };
        assert!(open_loop(1_000.0, vec![(); 4], meet).await.unwrap() > 0.0);
    }

    #[tokio::test]
    async fn one_wrong_answer_is_a_failure() {
        let answer = async |number, ()| {
            ensure!(number != 2, "wrong");
            Ok(())
        };
        assert!(open_loop(1e6, vec![(); 5], answer).await.is_err());
    }
}
