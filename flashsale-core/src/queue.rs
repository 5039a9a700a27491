//! The queue's entries: how an admitted order stands in the stream, and how it is read back.

use chrono::{DateTime, Utc};

use crate::{
    ids::{IdempotencyKey, OrderId, ProductId, RequestId, SaleId, UserId},
    order::Fingerprint,
    sale::{Epoch, Seq},
};

/// An admitted order as its queue entry says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueuedOrder {
    pub id: OrderId,
    pub seq: Seq,
    /// The epoch under which it was admitted, which may be older than the one it is drained under.
    pub epoch: Epoch,
    pub user: UserId,
    pub key: IdempotencyKey,
    pub fingerprint: Fingerprint,
    pub admitted_at: DateTime<Utc>,
    /// Each product once.
    pub lines: Vec<QueuedLine>,
}

impl QueuedOrder {
    /// An order of which only its holding can be read: enough to record that it failed.
    pub(crate) fn without_prices(holding: Holding, epoch: Epoch) -> Self {
        let line = |(product, quantity)| QueuedLine { product, quantity, unit_price: 0 };
        Self {
            id: holding.id,
            seq: holding.seq,
            epoch,
            user: holding.user,
            key: holding.key,
            fingerprint: holding.fingerprint,
            admitted_at: holding.id.made_at(),
            lines: holding.units.into_iter().map(line).collect(),
        }
    }
}

/// A line with the price that stood when the order was admitted (P7), in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueuedLine {
    pub product: ProductId,
    pub quantity: u32,
    pub unit_price: i64,
}

/// What an entry holds of stock, quota and key. It can be read even where the rest of the entry cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holding {
    pub id: OrderId,
    pub user: UserId,
    pub key: IdempotencyKey,
    pub fingerprint: Fingerprint,
    pub seq: Seq,
    pub units: Vec<(ProductId, u32)>,
}

/// One entry of a sale's stream, or of a dead letter, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The stream's id of it; empty for a parked order whose entry is gone.
    pub id: String,
    /// Name, value, name, value, … as bytes, because garbage may hold anything.
    pub fields: Vec<Vec<u8>>,
}

/// An entry with the order that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub entry: Entry,
    pub order: QueuedOrder,
}

impl Entry {
    fn field(&self, name: &str) -> Option<&str> {
        let pair = self.fields.chunks_exact(2).find(|pair| pair[0] == name.as_bytes())?;
        std::str::from_utf8(&pair[1]).ok()
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self.field(name).ok_or_else(|| format!("field {name:?} is missing or not text"))?;
        text.parse().map_err(|_| format!("field {name:?} cannot be read"))
    }

    /// The bytes of its `order` field, which the scripts compare; empty if it has none.
    pub(crate) fn raw_order(&self) -> &[u8] {
        self.fields.chunks_exact(2).find(|pair| pair[0] == b"order").map_or(&[], |pair| &pair[1])
    }

    /// The order it says it is.
    pub(crate) fn order_id(&self) -> Option<OrderId> {
        self.parsed("order").ok()
    }

    /// What the request that placed it is called in the logs. Entries of older processes have none, and one
    /// that cannot be read harms nothing.
    pub(crate) fn request_id(&self) -> Option<RequestId> {
        self.parsed("request").ok()
    }

    /// The whole order, or why it cannot be read.
    pub(crate) fn decode(&self, sale: SaleId) -> Result<QueuedOrder, String> {
        let held = self.holding(sale)?;
        let at: i64 = self.parsed("at")?;
        let admitted_at = DateTime::from_timestamp_millis(at).ok_or("field \"at\" is not an instant")?;
        let lines = self.field("lines").unwrap_or_default().split(',').map(parse_line);
        let lines =
            lines.collect::<Option<Vec<_>>>().ok_or("field \"lines\" has a price that cannot be read")?;
        Ok(QueuedOrder {
            id: held.id,
            seq: held.seq,
            epoch: Epoch(self.parsed("epoch")?),
            user: held.user,
            key: held.key,
            fingerprint: held.fingerprint,
            admitted_at,
            lines,
        })
    }

    /// What it holds of stock, quota and key, or why that cannot be read. Prices, instant and epoch may be
    /// unreadable: they are not needed to keep the books right.
    pub(crate) fn holding(&self, sale: SaleId) -> Result<Holding, String> {
        let units = self.field("lines").unwrap_or_default().split(',').map(parse_units);
        let units = units.collect::<Option<Vec<_>>>().ok_or("field \"lines\" cannot be read")?;
        let mut products: Vec<_> = units.iter().map(|(product, _)| *product).collect();
        products.sort_unstable();
        if products.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("field \"lines\" names a product twice".to_owned());
        }
        Ok(Holding { units, ..self.claim(sale)? })
    }

    /// Whose order it is and under which key, without the units, or why that cannot be read.
    pub(crate) fn claim(&self, sale: SaleId) -> Result<Holding, String> {
        let id: OrderId = self.parsed("order")?;
        if id.sale() != sale {
            return Err(format!("order {id} belongs to sale {}", id.sale()));
        }
        let fingerprint = self.field("fingerprint").ok_or("field \"fingerprint\" is missing or not text")?;
        if fingerprint.is_empty() || !fingerprint.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err("field \"fingerprint\" cannot be read".to_owned());
        }
        Ok(Holding {
            id,
            user: self.parsed("user")?,
            key: self.parsed("key")?,
            fingerprint: Fingerprint::from_store(fingerprint),
            seq: Seq(self.parsed("seq")?),
            units: Vec::new(),
        })
    }
}

/// The most units of one merged line: as many lines as an order may have, each of the most units.
const MAX_UNITS: u32 = crate::order::Quantity::MAX * 20;

/// `product:quantity:price`, the price not looked at.
fn parse_units(line: &str) -> Option<(ProductId, u32)> {
    let mut parts = line.splitn(3, ':');
    let product = parts.next()?.parse().ok()?;
    let quantity: u32 = parts.next()?.parse().ok()?;
    (1..=MAX_UNITS).contains(&quantity).then_some((product, quantity))
}

/// `product:quantity:price`
fn parse_line(line: &str) -> Option<QueuedLine> {
    let (product, quantity) = parse_units(line)?;
    let unit_price: i64 = line.splitn(3, ':').nth(2)?.parse().ok()?;
    (0..=crate::sale::NewSale::MAX_PRICE).contains(&unit_price).then_some(QueuedLine {
        product,
        quantity,
        unit_price,
    })
}

/// What the record says of an order, to be written back to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The units are sold.
    Confirmed,
    /// The units go back.
    Failed {
        reason: crate::order::FailureReason,
        /// For a duplicate: the order that holds the key, and that order's fingerprint.
        key_holder: Option<(OrderId, Fingerprint)>,
    },
    /// An operator has to look at it; its units stay held.
    Parked,
}

impl Verdict {
    /// It refuses, for stock or quota, what Redis let in by the same limits.
    pub(crate) fn contradicts_redis(&self) -> bool {
        use crate::order::FailureReason::{OverQuota, SoldOut};
        matches!(self, Self::Failed { reason: SoldOut | OverQuota, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(request: Option<&[u8]>) -> Entry {
        let order = "00000000-0000-8000-8000-000000000100";
        let text = [("order", order), ("seq", "1"), ("epoch", "1"), ("user", "ann"), ("key", "k")];
        let more = [("fingerprint", "f1"), ("at", "1700000000000"), ("lines", "1:2:1000")];
        let pairs = text.into_iter().chain(more).map(|(name, value)| (name, value.as_bytes()));
        let pairs = pairs.chain(request.map(|request| ("request", request)));
        let fields = pairs.flat_map(|(name, value)| [name.as_bytes().to_vec(), value.to_vec()]).collect();
        Entry { id: "1-0".to_owned(), fields }
    }

    /// It is only for the logs: no order is parked for it.
    #[test]
    fn the_name_of_the_request_decides_nothing() {
        let sale = SaleId::try_from(1).unwrap();
        let without = entry(None).decode(sale).unwrap();
        let named = entry(Some(b"r-1"));
        assert_eq!(named.request_id().map(String::from).as_deref(), Some("r-1"));
        assert_eq!(named.decode(sale).as_ref(), Ok(&without));
        for bad in [&b""[..], b"a b", b"\xff", &[b'x'; 129]] {
            let entry = entry(Some(bad));
            assert_eq!(entry.request_id(), None, "{bad:?}");
            assert_eq!(entry.decode(sale).as_ref(), Ok(&without), "{bad:?}");
        }
    }
}
