//! The queue's entries: how an admitted order stands in the stream, and how it is read back.

use chrono::{DateTime, Utc};

use crate::{
    ids::{IdempotencyKey, OrderId, ProductId, RequestId, SaleId, UserId},
    order::{FailureReason, Fingerprint, Items, Quantity},
    sale::{Epoch, NewSale, Seq},
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

impl From<QueuedOrder> for Holding {
    fn from(order: QueuedOrder) -> Self {
        Self {
            id: order.id,
            user: order.user,
            key: order.key,
            fingerprint: order.fingerprint,
            seq: order.seq,
            units: order.lines.iter().map(|line| (line.product, line.quantity)).collect(),
        }
    }
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

/// The length of an order's id as entries of scripts version 1 have it: as text. Their key is text, too.
const TEXT_ID: usize = 36;

impl Entry {
    fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.fields.chunks_exact(2).find(|pair| pair[0] == name.as_bytes()).map(|pair| &*pair[1])
    }

    fn field(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self.field(name).ok_or_else(|| format!("field {name:?} is missing or not text"))?;
        text.parse().map_err(|_| format!("field {name:?} cannot be read"))
    }

    /// The bytes of its `order` field, which the scripts compare; empty if it has none.
    pub(crate) fn raw_order(&self) -> &[u8] {
        self.bytes("order").unwrap_or_default()
    }

    /// It was admitted by scripts of version 1, and has waited while the processes were replaced.
    fn is_of_version_1(&self) -> bool {
        self.raw_order().len() == TEXT_ID
    }

    /// The order it says it is. Only one of version 1 can name an order of another sale.
    pub(crate) fn order_id(&self, sale: SaleId) -> Option<OrderId> {
        if self.is_of_version_1() {
            self.parsed("order").ok()
        } else {
            OrderId::unpack(self.raw_order(), sale)
        }
    }

    fn key(&self) -> Option<IdempotencyKey> {
        if self.is_of_version_1() {
            self.parsed("key").ok()
        } else {
            IdempotencyKey::unpack(self.bytes("key")?)
        }
    }

    /// When the order was admitted, by Redis's clock, which the stream's ids begin with.
    fn admitted_at(&self) -> Option<DateTime<Utc>> {
        let (ms, _) = self.id.split_once('-')?;
        DateTime::from_timestamp_millis(ms.parse().ok()?)
    }

    /// What the request that placed it is called in the logs. Entries of older processes have none, and one
    /// that cannot be read harms nothing.
    pub(crate) fn request_id(&self) -> Option<RequestId> {
        self.parsed("request").ok()
    }

    /// The whole order, or why it cannot be read.
    pub(crate) fn decode(&self, sale: SaleId) -> Result<QueuedOrder, String> {
        let held = self.holding(sale)?;
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
            admitted_at: self.admitted_at().unwrap_or_else(|| held.id.made_at()),
            lines,
        })
    }

    /// What it holds of stock, quota and key, or why that cannot be read. Prices and epoch may be unreadable: they
    /// are not needed to keep the books right.
    pub(crate) fn holding(&self, sale: SaleId) -> Result<Holding, String> {
        let units = self.field("lines").unwrap_or_default().split(',').map(parse_units);
        let units = units.collect::<Option<Vec<_>>>().ok_or("field \"lines\" cannot be read")?;
        let mut products: Vec<_> = units.iter().map(|(product, _)| *product).collect();
        products.sort_unstable();
        if products.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("field \"lines\" names a product twice".to_owned());
        }
        let fingerprint = Fingerprint::of(sale, &Items::of_merged(units.clone()));
        Ok(Holding { fingerprint, units, ..self.claim(sale)? })
    }

    /// Whose order it is and under which key, without the units, or why that cannot be read.
    pub(crate) fn claim(&self, sale: SaleId) -> Result<Holding, String> {
        let id = self.order_id(sale).ok_or("field \"order\" is missing or cannot be read")?;
        if id.sale() != sale {
            return Err(format!("order {id} belongs to sale {}", id.sale()));
        }
        Ok(Holding {
            id,
            user: self.parsed("user")?,
            key: self.key().ok_or("field \"key\" is missing or cannot be read")?,
            // Entries of version 1 have a field of this name. Where the units can be read it follows from them.
            fingerprint: self.field("fingerprint").map_or(Fingerprint::UNKNOWN, Fingerprint::from_store),
            seq: Seq(self.parsed("seq")?),
            units: Vec::new(),
        })
    }

    /// Its fields for people: what Redis holds in few bytes is written out.
    pub(crate) fn readable(&self, sale: SaleId) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let value = |pair: &[Vec<u8>]| {
            let written_out = match &*pair[0] {
                b"order" => self.order_id(sale).map(|id| id.to_string()),
                b"key" => self.key().map(String::from),
                _ => None,
            };
            written_out.unwrap_or_else(|| pair.get(1).map_or_else(String::new, |value| text(value)))
        };
        self.fields.chunks(2).map(|pair| (text(&pair[0]), value(pair))).collect()
    }
}

/// The most units of one merged line: as many lines as an order may have, each of the most units.
#[expect(clippy::cast_possible_truncation, reason = "twenty")]
const MAX_UNITS: u32 = Quantity::MAX * Items::MAX_LINES as u32;

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
    (0..=NewSale::MAX_PRICE).contains(&unit_price).then_some(QueuedLine { product, quantity, unit_price })
}

/// What the record says of an order, to be written back to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The units are sold.
    Confirmed,
    /// The units go back.
    Failed {
        reason: FailureReason,
        /// For a duplicate: the order that holds the key, and that order's fingerprint.
        key_holder: Option<(OrderId, Fingerprint)>,
    },
    /// An operator has to look at it; its units stay held.
    Parked,
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0190f5fe-7c00-7a00-8000-0000000001ab";

    fn sale() -> SaleId {
        SaleId::try_from(1).unwrap()
    }

    fn order() -> OrderId {
        "00000001-0000-8000-8000-000000000100".parse().unwrap()
    }

    fn entry(order: &[u8], key: &[u8], more: &[(&str, &[u8])]) -> Entry {
        let ids: [(&str, &[u8]); 5] =
            [("order", order), ("seq", b"3"), ("epoch", b"7"), ("user", b"ann"), ("key", key)];
        let lines: [(&str, &[u8]); 1] = [("lines", b"2:1:500,1:2:1000")];
        let pairs = ids.iter().chain(&lines).chain(more);
        let fields = pairs.flat_map(|(name, value)| [name.as_bytes().to_vec(), value.to_vec()]).collect();
        Entry { id: "1700000000000-5".to_owned(), fields }
    }

    fn packed(more: &[(&str, &[u8])]) -> Entry {
        entry(&order().packed(), b"/k", more)
    }

    #[test]
    fn an_entry_of_version_1_says_the_same_in_text() {
        let (id, uuid): (_, IdempotencyKey) = (order(), UUID.parse().unwrap());
        for key in ["k".parse().unwrap(), "/k".parse().unwrap(), "#0123456789abcdef".parse().unwrap(), uuid] {
            let now = entry(&id.packed(), &key.packed(), &[]).decode(sale()).unwrap();
            let old = entry(
                id.to_string().as_bytes(),
                key.as_str().as_bytes(),
                &[("fingerprint", b"1"), ("at", b"1")],
            );
            assert_eq!(old.decode(sale()).as_ref(), Ok(&now), "{key}");
            assert_eq!((now.id, now.seq, now.epoch, now.key), (id, Seq(3), Epoch(7), key));
            assert_eq!(now.admitted_at.timestamp_millis(), 1_700_000_000_000);
            let items = Items::of_merged(vec![("1".parse().unwrap(), 2), ("2".parse().unwrap(), 1)]);
            assert_eq!(now.fingerprint, Fingerprint::of(sale(), &items));
        }
    }

    #[test]
    fn the_instant_is_the_ids_where_the_entry_has_none() {
        for id in ["", "-", "x-1", "18446744073709551615-0"] {
            let parked = Entry { id: id.to_owned(), ..packed(&[]) };
            assert_eq!(parked.decode(sale()).unwrap().admitted_at, order().made_at(), "{id}");
        }
    }

    /// Whoever repeats the key of such an order is shown the order.
    #[test]
    fn a_claim_knows_what_was_asked_for_only_in_version_1() {
        let text = order().to_string();
        let damaged = |order: &[u8], key: &[u8], more: &[(&str, &[u8])]| {
            let mut entry = entry(order, key, more);
            entry.fields[11] = b"?".to_vec();
            assert!(entry.holding(sale()).is_err());
            entry.claim(sale()).unwrap().fingerprint
        };
        assert_eq!(damaged(&order().packed(), b"/k", &[]), Fingerprint::UNKNOWN);
        assert_eq!(damaged(text.as_bytes(), b"k", &[("fingerprint", b"nonsense")]), Fingerprint::UNKNOWN);
        let known = Fingerprint::from_store("10123456789abcdef");
        assert_eq!(damaged(text.as_bytes(), b"k", &[("fingerprint", b"10123456789abcdef")]), known);
    }

    #[test]
    fn people_read_text() {
        let key: IdempotencyKey = UUID.parse().unwrap();
        let entry = entry(&order().packed(), &key.packed(), &[("odd", b"a\xffb")]);
        let shown = entry.readable(sale());
        let field =
            |name: &str| shown.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
        assert_eq!(field("order"), Some(order().to_string()));
        assert_eq!(field("key").as_deref(), Some(UUID));
        assert_eq!(field("odd").as_deref(), Some("a\u{fffd}b"));
        let unpaired = Entry { id: String::new(), fields: vec![b"order".to_vec()] };
        assert_eq!(unpaired.readable(sale()), [("order".to_owned(), String::new())]);
    }

    /// It is only for the logs: no order is parked for it.
    #[test]
    fn the_name_of_the_request_decides_nothing() {
        let without = packed(&[]).decode(sale()).unwrap();
        let named = packed(&[("request", b"r-1")]);
        assert_eq!(named.request_id().map(String::from).as_deref(), Some("r-1"));
        assert_eq!(named.decode(sale()).as_ref(), Ok(&without));
        for bad in [&b""[..], b"a b", b"\xff", &[b'x'; 129]] {
            let entry = packed(&[("request", bad)]);
            assert_eq!(entry.request_id(), None, "{bad:?}");
            assert_eq!(entry.decode(sale()).as_ref(), Ok(&without), "{bad:?}");
        }
    }
}
