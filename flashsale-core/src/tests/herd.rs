//! Buyers that go on buying while something else happens.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;

/// Between two orders of one buyer.
const PACE: Duration = Duration::from_millis(5);

/// Buyers that buy one unit after the other, under names of their own, until everything is sold out. An
/// order without an answer is repeated under the same key.
pub(super) struct Herd {
    buyers: JoinSet<Vec<OrderId>>,
    /// Told to buy the rest, without a limit.
    rest: CancellationToken,
    end: CancellationToken,
}

impl Herd {
    /// Each buyer buys at most `most` until it is told to buy the rest.
    pub(super) fn start(shop: &Arc<Shop>, buyers: usize, most: usize) -> Self {
        let (rest, end) = (CancellationToken::new(), CancellationToken::new());
        let mut herd = Self { buyers: JoinSet::new(), rest, end };
        for buyer in 0..buyers {
            let (rest, end) = (herd.rest.clone(), herd.end.clone());
            herd.buyers.spawn(buy_out(Arc::clone(shop), buyer, most, rest, end));
        }
        herd
    }

    /// Lets them buy what is left. Returns all that they bought.
    pub(super) async fn buy_the_rest(self) -> Vec<OrderId> {
        self.rest.cancel();
        self.buyers.join_all().await.concat()
    }

    /// Ends them. Returns all that they bought.
    pub(super) async fn stop(self) -> Vec<OrderId> {
        self.end.cancel();
        self.buyers.join_all().await.concat()
    }
}

async fn buy_out(
    shop: Arc<Shop>,
    buyer: usize,
    most: usize,
    rest: CancellationToken,
    end: CancellationToken,
) -> Vec<OrderId> {
    let mut products: Vec<_> = (0..shop.products.len()).collect();
    let mut bought = Vec::new();
    for purchase in 0.. {
        if bought.len() == most {
            rest.cancelled().await;
        }
        if products.is_empty() || end.is_cancelled() {
            break;
        }
        let place = purchase % products.len();
        let (name, line) = (format!("u{buyer}-{purchase}"), [(products[place], 1)]);
        let answer = loop {
            match shop.buy(&name, "k", &line).await {
                Err(error) if error.is_transient() || error.outcome_unknown() => {
                    tokio::time::sleep(PACE).await;
                }
                answer => break answer.unwrap(),
            }
        };
        match answer {
            Admission::Admitted(id) | Admission::Replayed(id) => bought.push(id),
            Admission::Refused(Refusal::SoldOut { left: 0, .. }) => drop(products.swap_remove(place)),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(PACE).await;
    }
    bought
}
