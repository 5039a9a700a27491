//! Every name in Redis, in one place. Nothing else builds a key or a field, but for `reserve.lua`, which makes
//! the fields of the book from the same parts.
//!
//! One sale is one hash slot: the sale id is the hash tag of all its keys, so that the scripts work on
//! Redis Cluster as they are. A later shard of a hot sale would put its number into the tag.

use std::net::IpAddr;

use crate::{
    ids::{IdempotencyKey, OrderId, ProductId, SaleId, UserId},
    order::Fingerprint,
};

/// The consumer group of every sale's queue.
pub(crate) const GROUP: &str = "drain";

/// The keys of one sale. Every script of a sale is given all of them, in this order.
#[derive(Debug, Clone)]
pub(crate) struct SaleKeys {
    pub id: SaleId,
    /// Hash: epoch, state, window, seq, script version, run id of the server, load token and chunk number.
    pub sale: String,
    /// Hash: product → units left. May be negative after a recovery; never clamped.
    pub stock: String,
    /// Hash: product → per-user limit and price.
    pub product: String,
    /// Hash: who holds what; see the `book_` functions.
    pub book: String,
    /// Stream: admitted orders that are not settled yet.
    pub queue: String,
}

impl SaleKeys {
    pub(crate) fn new(sale: SaleId) -> Self {
        let key = |name| format!("fs:{{{sale}}}:{name}");
        Self {
            id: sale,
            sale: key("sale"),
            stock: key("stock"),
            product: key("product"),
            book: key("book"),
            queue: key("queue"),
        }
    }

    pub(crate) fn all(&self) -> [&str; 5] {
        [&self.sale, &self.stock, &self.product, &self.book, &self.queue]
    }
}

/// Field of the book: which order a user's idempotency key stands for, and its fingerprint.
pub(crate) fn book_key(user: &UserId, key: &IdempotencyKey) -> Vec<u8> {
    [b"k", user.as_str().as_bytes(), &key.packed()].concat()
}

/// Its value.
pub(crate) fn book_key_value(order: OrderId, fingerprint: &Fingerprint) -> Vec<u8> {
    [&order.packed()[..], fingerprint.as_bytes()].concat()
}

/// Field of the book: units of a product that a user holds.
pub(crate) fn book_quota(user: &UserId, product: ProductId) -> Vec<u8> {
    format!("q{user}/{product}").into_bytes()
}

/// Field of the book: an order's state. Present and not `F`: its units are out of stock.
pub(crate) fn book_order(order: OrderId) -> Vec<u8> {
    [&b"o"[..], &order.packed()].concat()
}

/// Field of the book: the epoch under which it was begun. A book that was removed has none.
const BOOK_EPOCH: &[u8] = b"epoch";

/// What a field of the book is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BookField {
    Epoch,
    Key(UserId, IdempotencyKey),
    Quota(UserId, ProductId),
    Order(OrderId),
}

impl BookField {
    /// Reads a field of this sale's book.
    pub(crate) fn read(field: &[u8], sale: SaleId) -> Option<Self> {
        if field == BOOK_EPOCH {
            return Some(Self::Epoch);
        }
        let (kind, rest) = field.split_first()?;
        let user = |bytes| std::str::from_utf8(bytes).ok()?.parse().ok();
        match kind {
            b'k' => {
                let end = rest.iter().position(|byte| matches!(byte, b'/' | b'#'))?;
                Some(Self::Key(user(&rest[..end])?, IdempotencyKey::unpack(&rest[end..])?))
            }
            b'q' => {
                let (holder, product) = std::str::from_utf8(rest).ok()?.split_once('/')?;
                Some(Self::Quota(holder.parse().ok()?, product.parse().ok()?))
            }
            b'o' => OrderId::unpack(rest, sale).map(Self::Order),
            _ => None,
        }
    }
}

/// The fixed window of one client address.
pub(crate) fn rate(address: IpAddr) -> String {
    format!("fs:rate:{address}")
}

/// One name of each kind, to ask what is allowed with them. There may or may not be such keys.
pub(crate) fn samples() -> Vec<String> {
    let sale = SaleKeys::new(SaleId::try_from(1).expect("a sale's id"));
    let mut names = sale.all().map(str::to_owned).to_vec();
    names.push(rate(IpAddr::from([127, 0, 0, 1])));
    names.push(cart(&"preflight".parse().expect("a user's name")));
    names
}

/// A buyer's cart. Hash: product → quantity and currency.
pub(crate) fn cart(user: &UserId) -> String {
    format!("fs:cart:{user}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_field_is_not_read() {
        let sale = SaleId::try_from(7).unwrap();
        let other: [&[u8]; 13] = [
            b"",
            b"k",
            b"kann",
            b"k/k",
            b"kann/",
            b"kann/a b",
            b"kann#short",
            b"q",
            b"qann",
            b"qann/",
            b"qann/0",
            b"o",
            b"x",
        ];
        let version_1: [&[u8]; 3] = [b"k/ann/k1", b"q/ann/1", b"o/00000000-0000-8000-8000-000000000700"];
        for field in other.into_iter().chain(version_1) {
            assert_eq!(BookField::read(field, sale), None, "{}", field.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn a_field_says_what_it_is_about(
            user in "[A-Za-z0-9_@:+-][A-Za-z0-9._@:+-]{0,99}",
            key in "[!#-z|~]{1,200}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            product in 1..i64::MAX,
        ) {
            let sale = SaleId::try_from(7).unwrap();
            let (user, key): (UserId, IdempotencyKey) = (user.parse().unwrap(), key.parse().unwrap());
            let (product, order) = (ProductId::try_from(product).unwrap(), OrderId::new(sale));
            let read = |field: Vec<u8>| BookField::read(&field, sale);
            prop_assert_eq!(read(book_quota(&user, product)), Some(BookField::Quota(user.clone(), product)));
            prop_assert_eq!(read(book_key(&user, &key)), Some(BookField::Key(user, key)));
            prop_assert_eq!(read(book_order(order)), Some(BookField::Order(order)));
        }
    }
}
