//! The names of things, parsed once at the edge into types of their own.
//!
//! A value of one of these types has been checked; nothing behind the edge checks it again, and a Redis
//! field or a stream entry can be built from it without escaping.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a value was refused at the edge: the field it came from and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field as the caller knows it (`items[0].quantity`, `X-User-Id`, …).
    pub field: String,
    /// What is wrong, in words for a person.
    pub reason: String,
}

impl Invalid {
    pub(crate) fn new(field: &str, reason: impl Into<String>) -> Self {
        Self { field: field.to_owned(), reason: reason.into() }
    }

    /// The same complaint about a field that the caller knows by another name.
    #[must_use]
    pub fn in_field(self, field: impl Into<String>) -> Self {
        Self { field: field.into(), ..self }
    }
}

/// A sale: 1 … 2^24−1, so that it fits into the route of an [`OrderId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct SaleId(u32);

impl SaleId {
    /// The largest sale id.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<i64> for SaleId {
    type Error = Invalid;

    fn try_from(value: i64) -> Result<Self, Invalid> {
        match u32::try_from(value) {
            Ok(id @ 1..=Self::MAX) => Ok(Self(id)),
            _ => Err(Invalid::new("saleId", format!("must be between 1 and {}", Self::MAX))),
        }
    }
}

impl From<SaleId> for i64 {
    fn from(id: SaleId) -> i64 {
        i64::from(id.0)
    }
}

impl FromStr for SaleId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number: i64 = text.parse().map_err(|_| Invalid::new("saleId", "must be a whole number"))?;
        Self::try_from(number)
    }
}

impl fmt::Display for SaleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A product: a positive integer, unique over all sales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct ProductId(i64);

impl ProductId {
    /// The number itself.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for ProductId {
    type Error = Invalid;

    fn try_from(value: i64) -> Result<Self, Invalid> {
        if value > 0 {
            Ok(Self(value))
        } else {
            Err(Invalid::new("productId", "must be a positive whole number"))
        }
    }
}

impl From<ProductId> for i64 {
    fn from(id: ProductId) -> i64 {
        id.0
    }
}

impl FromStr for ProductId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number: i64 =
            text.parse().map_err(|_| Invalid::new("productId", "must be a positive whole number"))?;
        Self::try_from(number)
    }
}

impl fmt::Display for ProductId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A buyer: 1–100 bytes of `[A-Za-z0-9._@:+-]`, not `.` or `..`.
///
/// The alphabet has no `/`, so a user can stand in a Redis field and in a URL path as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(Box<str>);

/// The name a client gives to one purchase, so that repeating the request is safe: 1–200 bytes of visible
/// ASCII without space, `"`, `{` and `}`. It is bound to its user and to the body it first came with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdempotencyKey(Box<str>);

/// The name of one request in the logs of everything that it passes through: 1–128 bytes of
/// `[A-Za-z0-9._:/+=@-]`. Nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(Box<str>);

impl RequestId {
    /// A new one: 64 random bits, as 16 hexadecimal digits. It waits in the queue with its order, so it is
    /// no longer than it takes to be told apart.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }
}

/// A name for scripts and addresses.
pub(crate) fn checked_slug(field: &str, text: &str) -> Result<(), Invalid> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(Invalid::new(field, "must be 1-64 characters of a-z, 0-9 and -"))
}

fn checked_text(
    text: &str,
    field: &str,
    max: usize,
    allowed: fn(u8) -> bool,
    alphabet: &str,
) -> Result<Box<str>, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "must not be empty"));
    }
    if text.len() > max {
        return Err(Invalid::new(field, format!("must be at most {max} bytes long")));
    }
    if !text.bytes().all(allowed) {
        return Err(Invalid::new(field, format!("may only hold {alphabet}")));
    }
    Ok(text.into())
}

impl FromStr for UserId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._@:+-".contains(&b);
        let text = checked_text(text, "userId", 100, allowed, "letters, digits and ._@:+-")?;
        if matches!(&*text, "." | "..") {
            return Err(Invalid::new("userId", "must not be . or .."));
        }
        Ok(Self(text))
    }
}

impl FromStr for IdempotencyKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |b: u8| b.is_ascii_graphic() && !br#""{}"#.contains(&b);
        checked_text(text, "idempotencyKey", 200, allowed, r#"visible ASCII without space, ", { and }"#)
            .map(Self)
    }
}

impl FromStr for RequestId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:/+=@-".contains(&b);
        checked_text(text, "requestId", 128, allowed, "letters, digits and ._:/+=@-").map(Self)
    }
}

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
text_id!(UserId);
text_id!(IdempotencyKey);
text_id!(RequestId);

/// An order: a UUID version 8 that says by itself when it was made and which sale's keys hold it.
///
/// 48 bits of Unix milliseconds, then random bits, and in the last 32 bits the route: 24 bits of sale id and
/// 8 bits of shard (0 today). It sorts by time, which is good for the primary key's B-tree, and a status
/// look-up needs no directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Uuid", into = "Uuid")]
pub struct OrderId(Uuid);

impl OrderId {
    /// A new id for an order of this sale. Uniqueness is checked where it matters: the reserve script says
    /// when an id is taken and the engine makes another.
    #[must_use]
    pub fn new(sale: SaleId) -> Self {
        Self::from_parts(sale, Utc::now().timestamp_millis().unsigned_abs(), rand::random())
    }

    fn from_parts(sale: SaleId, unix_ms: u64, random: [u8; 6]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        bytes[6..12].copy_from_slice(&random);
        bytes[12..15].copy_from_slice(&sale.get().to_be_bytes()[1..]);
        // The builder sets the version and the variant, in bytes 6 and 8: random ones here.
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The sale that this order belongs to.
    #[must_use]
    pub fn sale(self) -> SaleId {
        let [.., a, b, c, _shard] = *self.0.as_bytes();
        SaleId(u32::from_be_bytes([0, a, b, c]))
    }

    /// When the id was made, by the clock of the process that made it. For people and for sorting: nothing
    /// is decided by it.
    #[must_use]
    pub fn made_at(self) -> DateTime<Utc> {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&self.0.as_bytes()[..6]);
        DateTime::from_timestamp_millis(i64::from_be_bytes(ms)).unwrap_or_default()
    }

    /// The UUID itself.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl TryFrom<Uuid> for OrderId {
    type Error = Invalid;

    fn try_from(uuid: Uuid) -> Result<Self, Invalid> {
        let bad = |reason| Invalid::new("orderId", reason);
        if uuid.get_version_num() != 8 || uuid.get_variant() != uuid::Variant::RFC4122 {
            return Err(bad("is not an order id of this system (a UUID version 8)"));
        }
        let [.., a, b, c, shard] = *uuid.as_bytes();
        if shard != 0 || u32::from_be_bytes([0, a, b, c]) == 0 {
            return Err(bad("is not an order id of this system (no such route)"));
        }
        Ok(Self(uuid))
    }
}

impl From<OrderId> for Uuid {
    fn from(id: OrderId) -> Uuid {
        id.0
    }
}

impl FromStr for OrderId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let uuid = Uuid::try_parse(text).map_err(|_| Invalid::new("orderId", "is not a UUID"))?;
        Self::try_from(uuid)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn users_and_keys_are_checked() {
        for good in ["a", "user-1", "a.b@c:d+e", &"x".repeat(100)] {
            assert!(good.parse::<UserId>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a\0", &"x".repeat(101)] {
            assert!(bad.parse::<UserId>().is_err(), "{bad}");
        }
        for good in ["k", "a/b~!#", &"x".repeat(200)] {
            assert!(good.parse::<IdempotencyKey>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\"", "{", "}", "a\n", "\u{7f}", &"x".repeat(201)] {
            assert!(bad.parse::<IdempotencyKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn request_ids_are_checked() {
        for good in
            ["1", "4bf92f3577b34da6a3ce929d0e0e4736", "Root=1-67891233-abc/d:e+f@g_h.", &"x".repeat(128)]
        {
            assert!(good.parse::<RequestId>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\n", "a\"b", "{", "é", "a\0", &"x".repeat(129)] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad}");
        }
        let (one, other) = (RequestId::random(), RequestId::random());
        assert_ne!(one, other);
        assert_eq!(one.as_str().parse(), Ok(one));
    }

    proptest! {
        #[test]
        fn an_order_id_says_its_sale_and_its_time(sale in 1i64..=i64::from(SaleId::MAX), ms in 0u64..1 << 47, random: [u8; 6]) {
            let sale = SaleId::try_from(sale).unwrap();
            let id = OrderId::from_parts(sale, ms, random);
            prop_assert_eq!(id.sale(), sale);
            prop_assert_eq!(id.made_at().timestamp_millis().unsigned_abs(), ms);
            prop_assert_eq!(id.to_string().parse::<OrderId>().unwrap(), id);
        }
    }

    #[test]
    fn foreign_uuids_are_refused() {
        for bad in ["", "x", "00000000-0000-0000-0000-000000000000", "0190f5fe-7c00-7a00-8000-000000000100"] {
            assert!(bad.parse::<OrderId>().is_err(), "{bad}");
        }
    }
}
