//! What Redis is to hold of the model's sale, as lines of text that can be compared and read.

use std::collections::BTreeSet;

use super::model::{Order, Sale, State};
use crate::{
    IdempotencyKey, OrderId, OrderState, SaleId, UserId,
    keys::{book_key, book_key_value, book_order, book_quota},
    packed::BookState,
    tests::{
        key,
        scripts::scene::{EPOCH, order_id},
        user,
    },
};

impl Sale {
    /// Everything that Redis is to hold.
    pub(super) fn lines(&self, sale: SaleId) -> BTreeSet<String> {
        let sale_line = format!("sale {} seq {}", self.state, self.seq);
        let mut lines = BTreeSet::from([sale_line, format!("book epoch {EPOCH}")]);
        lines.insert(format!("stock changes {}", self.changes));
        let outcome = |applied| format!("stock outcome {}", if applied { "applied" } else { "refused" });
        lines.extend(self.applied.map(outcome));
        for (id, product) in &self.products {
            lines.insert(format!("stock {id} {}", self.left(*id)));
            lines.insert(format!("product {id} {}:{}", product.limit, product.price));
        }
        for ((user_number, key_number), holder) in &self.keys {
            let field = book_key(&name_user(*user_number), &name_key(*key_number));
            let fingerprint = self.orders[holder].request.fingerprint(sale);
            let value = book_key_value(order_id(sale, *holder), &fingerprint);
            lines.insert(format!("book {} {}", field.escape_ascii(), value.escape_ascii()));
        }
        for order in self.orders.values() {
            let (id, user) = (order_id(sale, order.request.number), name_user(order.request.user));
            lines.insert(format!("book {} {}", book_order(id).escape_ascii(), order.state.text()));
            // A user whose units all went back holds 0, which is not the same as never having bought.
            for (product, _) in order.request.items.iter() {
                let held = self.held(order.request.user, product);
                lines.insert(format!("book {} {held}", book_quota(&user, product).escape_ascii()));
            }
            if order.queued {
                lines.insert(format!("queue {}", order.entry(id)));
            }
            if order.pending {
                lines.insert(format!("pending {id}"));
            }
        }
        lines
    }
}

impl Order {
    /// Its entry's fields.
    fn entry(&self, id: OrderId) -> String {
        let line = |(product, units)| format!("{product}:{units}:{}", self.prices[&product]);
        let lines: Vec<_> = self.request.items.iter().map(line).collect();
        format!(
            "order={} seq={} epoch={EPOCH} user={} key={} lines={}",
            id.packed().escape_ascii(),
            self.seq,
            name_user(self.request.user),
            name_key(self.request.key).packed().escape_ascii(),
            lines.join(",")
        )
    }
}

impl State {
    pub(super) fn of(book: BookState) -> Self {
        match book.state {
            OrderState::Queued => Self::Queued,
            OrderState::Processing => Self::Processing,
            OrderState::Confirmed => Self::Confirmed,
            OrderState::Failed => Self::Failed(book.failure.expect("why it failed")),
        }
    }

    /// What the book says, the instant left out.
    pub(super) fn text(self) -> String {
        match self {
            Self::Queued => "Q".to_owned(),
            Self::Processing => "P".to_owned(),
            Self::Confirmed => "C".to_owned(),
            Self::Failed(reason) => format!("F {}", reason.as_str()),
        }
    }
}

pub(super) fn name_user(number: u8) -> UserId {
    user(&format!("u{number}"))
}

/// Every other one is a UUID.
pub(super) fn name_key(number: u8) -> IdempotencyKey {
    if number.is_multiple_of(2) {
        key(&format!("k{number}"))
    } else {
        key(&format!("0190f5fe-7c00-7a00-8000-0000000000{number:02x}"))
    }
}
