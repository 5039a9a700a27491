//! Dead letters: entries that cannot be decided, and how an operator ends them.

use super::{
    Failure, Ledger, LedgerError,
    decide::{self, Decision, Known, Write},
    given_up, prepare,
    session::within_deadline,
};
use crate::{
    ids::SaleId,
    order::FailureReason,
    queue::{Entry, QueuedOrder, Verdict},
    sale::Epoch,
    sql::{self, dead_letters::Resolution},
};

type Judge = fn(&[&QueuedOrder], Known) -> Vec<Decision>;

impl Ledger {
    /// Parks an entry that cannot be decided: its units stay held until an operator ends it. An order that has
    /// a row is not parked; its verdict stands. Parking it twice is parking it once.
    pub(crate) async fn park(
        &self,
        sale: SaleId,
        epoch: Epoch,
        entry: &Entry,
        reason: &str,
    ) -> Result<Verdict, LedgerError> {
        // An entry that names an order of another sale must not park that one.
        let order = entry.order_id(sale).filter(|id| id.sale() == sale);
        // PostgreSQL has no NUL in text; a reason may quote garbage.
        let reason = reason.replace('\0', "");
        let parked = within_deadline(async {
            let mut session = self.lock(sale, epoch, None).await?;
            if let Some(id) = order
                && let Some((_, verdict)) = sql::orders::recorded(session.conn(), &[id]).await?.pop()
            {
                session.rollback().await?;
                return Ok(verdict);
            }
            sql::dead_letters::insert(session.conn(), sale, entry, order, &reason).await?;
            session.commit().await?;
            Ok::<_, Failure>(Verdict::Parked)
        });
        Ok(parked.await?)
    }

    /// Ends a parked order as an operator wants it: decided as if it came now, or failed. [`Verdict::Parked`]:
    /// the database refuses it still, and it stays parked. The letter itself stays until Redis has been told.
    /// `None`: there is no such letter of this order (any more), nor a row.
    pub(crate) async fn end_parked(
        &self,
        sale: SaleId,
        epoch: Epoch,
        letter: i64,
        order: &QueuedOrder,
        how: Resolution,
        actor: &str,
    ) -> Result<Option<Verdict>, LedgerError> {
        // First in full, then without the lines, which may be what the database refuses.
        let judges: [Judge; 2] = match how {
            Resolution::Replayed => [decide::decide, |orders, known| {
                decide::fail(orders, known, FailureReason::Rejected, Write::Row)
            }],
            Resolution::Discarded => [
                |orders, known| decide::fail(orders, known, FailureReason::Discarded, Write::RowWithItems),
                |orders, known| decide::fail(orders, known, FailureReason::Discarded, Write::Row),
            ],
        };
        for judge in judges {
            match within_deadline(self.end_as(sale, epoch, letter, order, (how, actor), judge)).await {
                Ok(verdict) => return Ok(verdict),
                Err(Failure::Refused(error)) => {
                    tracing::error!(%sale, order = %order.id, %error, "the database refuses a parked order");
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(Some(Verdict::Parked))
    }

    /// Row and resolution in one transaction. `None`, and nothing written, if there is neither row nor letter.
    async fn end_as(
        &self,
        sale: SaleId,
        epoch: Epoch,
        letter: i64,
        order: &QueuedOrder,
        how: (Resolution, &str),
        judge: Judge,
    ) -> Result<Option<Verdict>, Failure> {
        let unparked = |orders: &[&QueuedOrder], mut known: Known| {
            known.parked.clear();
            judge(orders, known)
        };
        let session = self.lock(sale, epoch, None).await?;
        let mut prepared = prepare(session, sale, &[order], unparked).await?;
        let letter_is_there =
            match sql::dead_letters::resolve(prepared.session.conn(), sale, letter, order.id, how).await {
                Ok(found) => found,
                Err(error) => return Err(given_up(prepared.session, error).await),
            };
        let stood_before = prepared.decisions.iter().all(|decision| decision.write == Write::Nothing);
        if !letter_is_there && !stood_before {
            prepared.session.rollback().await?;
            return Ok(None);
        }
        Ok(prepared.commit().await?.pop().map(|decision| decision.verdict))
    }
}
