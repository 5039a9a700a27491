//! The ledger: where an order becomes final. PostgreSQL decides again what Redis has admitted.
//!
//! A batch is one transaction: lock the sale's row, read, decide ([`decide`], a pure function), write. What
//! was decided before stands, so that recording the same batch again, after an answer was lost or by another
//! drainer, gives the same verdicts and writes nothing.

mod decide;
mod park;
mod session;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashMap};

use sqlx::{PgPool, Postgres, pool::PoolConnection};

pub(crate) use self::session::{DRAIN_CONNECTIONS, drain_pool};
use self::{
    decide::{Decision, Known, Write},
    session::{Session, within_deadline},
};
use crate::{
    error::Error,
    ids::{OrderId, ProductId, SaleId},
    order::FailureReason,
    queue::{Decoded, QueuedOrder, Verdict},
    sale::Epoch,
    sql,
};

/// Records verdicts, under the epoch of the caller.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pool: PgPool,
}

/// A connection on which PostgreSQL has just given a sign of life.
#[derive(Debug)]
pub(crate) struct Reached(PoolConnection<Postgres>);

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// The sale stands under another epoch (0: there is no such sale). Nothing was written: what the caller
    /// began belongs to the past.
    #[error("the sale stands under epoch {epoch}")]
    Fenced { epoch: Epoch },
    /// PostgreSQL is away, or busy, or the answer to COMMIT was lost. It may have been written: leave the
    /// entries pending and come again.
    #[error(transparent)]
    Away(Error),
}

impl LedgerError {
    /// The error of an operation that is repeated until it has a verdict.
    pub(crate) fn in_sale(self, sale: SaleId) -> Error {
        match self {
            Self::Fenced { epoch } => Error::fenced(sale, format!("it stands under epoch {epoch} now")),
            Self::Away(error) => error,
        }
    }
}

/// How a transaction failed.
#[derive(Debug)]
enum Failure {
    Fenced(Epoch),
    /// The database refused the data by a rule that the decision does not know. Nothing was written.
    Refused(sqlx::Error),
    Away(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let refused = match &error {
            // A value that has no form in PostgreSQL at all.
            sqlx::Error::Encode(_) => true,
            // Bad data, a broken constraint, a trigger's exception. Everything else (connection, timeout,
            // deadlock, shutdown, disk full …) says nothing about the order.
            sqlx::Error::Database(error) => error
                .code()
                .is_some_and(|code| code.starts_with("22") || code.starts_with("23") || code == "P0001"),
            _ => false,
        };
        if refused { Self::Refused(error) } else { Self::Away(error) }
    }
}

impl From<Failure> for LedgerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fenced(epoch) => Self::Fenced { epoch },
            Failure::Refused(error) | Failure::Away(error) => Self::Away(error.into()),
        }
    }
}

impl Ledger {
    /// A ledger over connections of [`drain_pool`].
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Closes the connections; a batch in hand is finished first.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Fails when PostgreSQL cannot be reached: the pool asks a connection for a sign of life before it gives it.
    pub(crate) async fn reached(&self) -> Result<Reached, sqlx::Error> {
        Ok(Reached(self.pool.acquire().await?))
    }

    /// Records a batch of orders of one sale: one verdict per order, in the batch's order. What the database refuses unexpectedly is narrowed down to the
    /// order it refuses, so that one order cannot stop the others. It begins on the connection that was reached,
    /// if one was.
    pub(crate) async fn record(
        &self,
        sale: SaleId,
        epoch: Epoch,
        batch: &[Decoded],
        mut reached: Option<Reached>,
    ) -> Result<Vec<Verdict>, LedgerError> {
        // Parts of a batch must be recorded in the order of admission, as the whole is.
        let mut by_seq: Vec<usize> = (0..batch.len()).collect();
        by_seq.sort_by_key(|&place| batch[place].order.seq);
        let mut verdicts = vec![Verdict::Parked; batch.len()];
        let mut parts = vec![by_seq.as_slice()];
        while let Some(part) = parts.pop() {
            let orders: Vec<&QueuedOrder> = part.iter().map(|&place| &batch[place].order).collect();
            let decisions = match (self.record_all(sale, epoch, &orders, reached.take()).await, part) {
                (Ok(decisions), _) => decisions,
                (Err(Failure::Refused(error)), [place]) => {
                    vec![self.reject(sale, epoch, &batch[*place], &error).await?]
                }
                (Err(Failure::Refused(_)), part) => {
                    let (earlier, later) = part.split_at(part.len() / 2);
                    parts.extend([later, earlier]);
                    continue;
                }
                (Err(failure), _) => return Err(failure.into()),
            };
            for (&place, decision) in part.iter().zip(decisions) {
                verdicts[place] = decision.verdict;
            }
        }
        Ok(verdicts)
    }

    async fn record_all(
        &self,
        sale: SaleId,
        epoch: Epoch,
        orders: &[&QueuedOrder],
        reached: Option<Reached>,
    ) -> Result<Vec<Decision>, Failure> {
        let recorded = within_deadline(async {
            let session = self.lock(sale, epoch, reached).await?;
            prepare(session, sale, orders, decide::decide).await?.commit().await
        });
        recorded.await
    }

    /// The database refuses this order as it was decided: it fails, without its lines, and keeps its key. If
    /// even that is refused, it is parked.
    async fn reject(
        &self,
        sale: SaleId,
        epoch: Epoch,
        culprit: &Decoded,
        refusal: &sqlx::Error,
    ) -> Result<Decision, LedgerError> {
        let request_id = culprit.entry.request_id().map(tracing::field::display);
        tracing::error!(%sale, order = %culprit.order.id, request_id, error = %refusal, "the database refuses an order");
        let judge =
            |orders: &[&QueuedOrder], known| decide::fail(orders, known, FailureReason::Rejected, Write::Row);
        let rejected = within_deadline(async {
            let session = self.lock(sale, epoch, None).await?;
            prepare(session, sale, &[&culprit.order], judge).await?.commit().await
        });
        let verdict = match rejected.await {
            Ok(decisions) => return Ok(decisions.into_iter().next().expect("one order, one decision")),
            Err(Failure::Refused(error)) => {
                self.park(sale, epoch, &culprit.entry, &format!("the database refuses it: {error}")).await?
            }
            Err(failure) => return Err(failure.into()),
        };
        Ok(Decision { verdict, write: Write::Nothing })
    }

    /// A transaction that holds the sale's row, which stands under this epoch.
    async fn lock(&self, sale: SaleId, epoch: Epoch, reached: Option<Reached>) -> Result<Session, Failure> {
        let Reached(conn) = match reached {
            Some(reached) => reached,
            None => self.reached().await?,
        };
        let mut session = Session::begin(conn).await?;
        let stands = sql::sales::lock(session.conn(), sale).await?.unwrap_or_default();
        if stands == epoch {
            return Ok(session);
        }
        session.rollback().await?;
        Err(Failure::Fenced(stands))
    }
}

/// Everything of a locked transaction but its end: read, decide, write.
async fn prepare(
    mut session: Session,
    sale: SaleId,
    orders: &[&QueuedOrder],
    judge: impl FnOnce(&[&QueuedOrder], Known) -> Vec<Decision>,
) -> Result<Prepared, Failure> {
    let work = async {
        let known = read(&mut session, sale, orders).await?;
        let decisions = judge(orders, known);
        write(&mut session, sale, orders, &decisions).await?;
        Ok(decisions)
    };
    match work.await {
        Ok(decisions) => Ok(Prepared { session, decisions }),
        Err(error) => Err(given_up(session, error).await),
    }
}

/// Ends a transaction that failed. Only a connection on which the server has answered is used again.
async fn given_up(session: Session, error: sqlx::Error) -> Failure {
    let failure = Failure::from(error);
    if matches!(failure, Failure::Refused(_))
        && let Err(error) = session.rollback().await
    {
        return Failure::Away(error);
    }
    failure
}

/// A batch that is decided and written, but not committed.
#[derive(Debug)]
struct Prepared {
    session: Session,
    decisions: Vec<Decision>,
}

impl Prepared {
    async fn commit(self) -> Result<Vec<Decision>, Failure> {
        self.session.commit().await?;
        Ok(self.decisions)
    }
}

async fn read(session: &mut Session, sale: SaleId, orders: &[&QueuedOrder]) -> Result<Known, sqlx::Error> {
    let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();
    let products = sorted(orders.iter().flat_map(|order| &order.lines).map(|line| line.product.get()));
    let users = sorted(orders.iter().map(|order| order.user.as_str()));
    let conn = session.conn();
    let recorded = sql::orders::recorded(conn, &ids).await?;
    let standing = sql::orders::standing(conn, sale, &users).await?;
    let parked = sql::dead_letters::parked(conn, &ids).await?;
    let limits = sql::products::limits(conn, sale, &products).await?;
    let (mut key_holders, mut held) = (HashMap::new(), HashMap::new());
    for order in standing {
        if let Some((product, units)) = order.holds {
            *held.entry((order.user.clone(), product)).or_insert(0) += units;
        }
        if let Some(key) = order.key {
            key_holders.insert((order.user, key), (order.order, order.fingerprint));
        }
    }
    Ok(Known {
        recorded: recorded.into_iter().collect(),
        key_holders,
        parked: parked.into_iter().collect(),
        products: limits.into_iter().collect(),
        held,
    })
}

fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

async fn write(
    session: &mut Session,
    sale: SaleId,
    orders: &[&QueuedOrder],
    decisions: &[Decision],
) -> Result<(), sqlx::Error> {
    assert_eq!(orders.len(), decisions.len(), "every order is decided");
    let new = || {
        let pairs = orders.iter().copied().zip(decisions);
        pairs.filter(|(_, decision)| decision.write != Write::Nothing)
    };
    let rows: Vec<_> = new().map(|(order, decision)| row(order, &decision.verdict)).collect();
    let Some(highest) = new().map(|(order, _)| order.seq).max() else { return Ok(()) };
    let with_items = new().filter(|(_, decision)| decision.write == Write::RowWithItems);
    let mut sold: BTreeMap<ProductId, i64> = BTreeMap::new();
    for (order, _) in new().filter(|(_, decision)| decision.verdict == Verdict::Confirmed) {
        for line in &order.lines {
            *sold.entry(line.product).or_insert(0) += i64::from(line.quantity);
        }
    }
    let sold: Vec<(ProductId, i64)> = sold.into_iter().collect();
    let conn = session.conn();
    sql::orders::insert(conn, sale, &rows).await?;
    sql::orders::insert_items(conn, with_items.map(|(order, _)| order)).await?;
    sql::products::sell(conn, &sold).await?;
    if sql::sales::raise_recorded_seq(conn, sale, highest).await? {
        sql::deliveries::announce(conn, new().map(|(order, _)| order.id)).await?;
    }
    Ok(())
}

fn row<'a>(order: &'a QueuedOrder, verdict: &Verdict) -> sql::orders::NewRow<'a> {
    let (failure, duplicate_of) = match verdict {
        Verdict::Failed { reason, key_holder } => (Some(*reason), key_holder.as_ref().map(|(id, _)| *id)),
        Verdict::Confirmed | Verdict::Parked => (None, None),
    };
    // An order whose total does not fit has failed for that, and has no lines either.
    sql::orders::NewRow { order, failure, duplicate_of, total: decide::total(order).unwrap_or(0) }
}
