//! Many buyers at once, each waiting for an answer before asking again.

use std::time::{Duration, Instant};

use anyhow::Result;
use flashsale_core::{IdempotencyKey, Items, OrderRequest, ProductId, Quantity, UserId};
use uuid::Uuid;

/// How many are at it at once.
pub(crate) const TASKS: usize = 1_000;

/// Over so many connections, as the engine has lanes.
pub(crate) const CONNECTIONS: usize = 4;

/// Who buys, under which key: a name of 12 bytes and a UUID.
#[derive(Debug, Clone)]
pub(crate) struct Buyer {
    pub(crate) user: UserId,
    pub(crate) key: IdempotencyKey,
}

impl Buyer {
    /// These buyers, none of whom comes twice.
    pub(crate) fn all(numbers: std::ops::Range<usize>) -> Vec<Self> {
        numbers.map(Self::new).collect()
    }

    fn new(number: usize) -> Self {
        let key = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        Self { user: named(number), key: key.to_string().parse().expect("a UUID can be a key") }
    }

    /// One of each of these products.
    pub(crate) fn wants(self, products: &[ProductId]) -> OrderRequest {
        let one = Quantity::try_from(1).expect("a quantity");
        let items = Items::merge(products.iter().map(|product| (*product, one))).expect("an order's items");
        OrderRequest::new(self.user, self.key, items)
    }
}

fn named(number: usize) -> UserId {
    format!("u{number:011}").parse().expect("a name")
}

/// An id for an order of a store that makes its own.
pub(crate) fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// Lets [`TASKS`] tasks do all of the work, each one piece after the other, and says how long it took. The
/// results come in the order of the work; the first failure is that of the whole.
pub(crate) async fn crowd<W, R, F>(
    work: Vec<W>,
    act: impl Fn(W) -> F + Clone + Send + 'static,
) -> Result<(Vec<R>, Duration)>
where
    W: Send + 'static,
    R: Send + 'static,
    F: Future<Output = Result<R>> + Send,
{
    let count = work.len();
    let share = count.div_ceil(TASKS).max(1);
    let mut work = work.into_iter();
    let shares: Vec<Vec<W>> = (0..TASKS).map(|_| work.by_ref().take(share).collect()).collect();
    let began = Instant::now();
    let tasks: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let act = act.clone();
            tokio::spawn(async move {
                let mut results = Vec::with_capacity(share.len());
                for piece in share {
                    results.push(act(piece).await?);
                }
                anyhow::Ok(results)
            })
        })
        .collect();
    let mut results = Vec::with_capacity(count);
    for task in tasks {
        results.extend(task.await??);
    }
    Ok((results, began.elapsed()))
}

/// So many in this time, per second.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
pub(crate) fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_of_the_work_is_done_once_and_answered_in_order() {
        for count in [0, 1, TASKS - 1, TASKS, TASKS + 1, 2_500] {
            let (results, _) = crowd((0..count).collect(), async |piece| Ok(piece * 2)).await.unwrap();
            assert_eq!(results, (0..count).map(|piece| piece * 2).collect::<Vec<_>>());
        }
        let refuse = async |piece: usize| {
            anyhow::ensure!(piece != 7, "a wrong answer");
            Ok(())
        };
        assert!(crowd((0..10).collect(), refuse).await.is_err());
    }

    #[test]
    fn buyers_are_told_apart() {
        let [first, second] = &Buyer::all(8..10)[..] else { panic!("two buyers") };
        assert_eq!((first.user.as_str(), first.key.as_str().len()), ("u00000000008", 36));
        assert!(first.user != second.user && first.key != second.key);
    }
}
