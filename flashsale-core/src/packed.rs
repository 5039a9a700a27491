//! How ids, keys and states stand in Redis: in few bytes, because a sale keeps some of them for every order.
//!
//! One pair of functions each. People and PostgreSQL see text; Redis holds the bytes that the text says, so that
//! a million orders take half the memory and half the bytes are moved to admit one.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    ids::{IdempotencyKey, OrderId, SaleId},
    order::{FailureReason, OrderState},
};

/// What a packed key begins with. Neither can stand in a user's name, so it also ends the user in a field of
/// the book.
const TEXT: u8 = b'/';
const UUID: u8 = b'#';

/// 2020-01-01, in Unix milliseconds: instants of the book count from here, in five bytes until 2054.
pub(crate) const FIRST_MS: i64 = 1_577_836_800_000;
const LAST: i64 = (1 << 40) - 1;

impl OrderId {
    /// All but its last four bytes, the route, which the names of the sale's keys say.
    pub(crate) fn packed(self) -> [u8; 12] {
        *self.as_uuid().as_bytes().first_chunk().expect("a UUID has 16 bytes")
    }

    /// The order of this sale that is packed so.
    pub(crate) fn unpack(packed: &[u8], sale: SaleId) -> Option<Self> {
        let packed: [u8; 12] = packed.try_into().ok()?;
        let mut bytes = [0; 16];
        bytes[..12].copy_from_slice(&packed);
        bytes[12..15].copy_from_slice(&sale.get().to_be_bytes()[1..]);
        Self::try_from(Uuid::from_bytes(bytes)).ok()
    }
}

impl IdempotencyKey {
    /// Most clients make UUIDs: one in its usual form takes 17 bytes instead of 37. Any other key stays as it is.
    pub(crate) fn packed(&self) -> Vec<u8> {
        let text = self.as_str();
        let (kind, bytes) = match usual_uuid(text) {
            Some(uuid) => (UUID, &uuid.into_bytes()[..]),
            None => (TEXT, text.as_bytes()),
        };
        let mut packed = Vec::with_capacity(1 + bytes.len());
        packed.push(kind);
        packed.extend_from_slice(bytes);
        packed
    }

    /// The key that is packed so.
    pub(crate) fn unpack(packed: &[u8]) -> Option<Self> {
        match packed.split_first()? {
            (&TEXT, text) => std::str::from_utf8(text).ok()?.parse().ok(),
            (&UUID, bytes) => Uuid::from_slice(bytes).ok()?.to_string().parse().ok(),
            _ => None,
        }
    }
}

/// The UUID that is written back as exactly this text.
fn usual_uuid(text: &str) -> Option<Uuid> {
    // At this length it has its hyphens; it may be in capital letters.
    if text.len() != 36 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    Uuid::try_parse(text).ok()
}

/// An order's state as the book has it: where it is, since when, and why it failed if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BookState {
    pub state: OrderState,
    pub since: DateTime<Utc>,
    pub failure: Option<FailureReason>,
}

impl BookState {
    /// A letter, five bytes of milliseconds, and the reason's word.
    pub(crate) fn packed(self) -> Vec<u8> {
        let letter = match self.state {
            OrderState::Queued => b'Q',
            OrderState::Processing => b'P',
            OrderState::Confirmed => b'C',
            OrderState::Failed => b'F',
        };
        let ms = (self.since.timestamp_millis() - FIRST_MS).clamp(0, LAST);
        let mut packed = vec![letter];
        packed.extend_from_slice(&ms.to_be_bytes()[3..]);
        packed.extend_from_slice(self.failure.map_or("", FailureReason::as_str).as_bytes());
        packed
    }

    pub(crate) fn unpack(packed: &[u8]) -> Option<Self> {
        let (head, reason) = packed.split_at_checked(6)?;
        let state = match head[0] {
            b'Q' => OrderState::Queued,
            b'P' => OrderState::Processing,
            b'C' => OrderState::Confirmed,
            b'F' => OrderState::Failed,
            _ => return None,
        };
        let mut ms = [0; 8];
        ms[3..].copy_from_slice(&head[1..]);
        let since = DateTime::from_timestamp_millis(FIRST_MS + i64::from_be_bytes(ms))?;
        // A word that only a newer version knows must not hide that the order failed.
        let failure = std::str::from_utf8(reason).ok().and_then(FailureReason::parse);
        Some(Self { state, since, failure })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> IdempotencyKey {
        text.parse().unwrap()
    }

    #[test]
    fn only_a_uuid_in_its_usual_form_is_packed_as_one() {
        const USUAL: &str = "0190f5fe-7c00-7a00-8000-0000000001ab";
        assert_eq!(key(USUAL).packed(), b"#\x01\x90\xf5\xfe\x7c\x00\x7a\x00\x80\x00\x00\x00\x00\x00\x01\xab");
        let unusual = [
            &USUAL.to_uppercase(),
            &USUAL.replace('-', ""),
            &USUAL.replacen('-', "", 1).replacen("7c", "7c-", 1)[..],
            &USUAL.replace("ab", "xy"),
            &format!("urn:uuid:{USUAL}"),
            "#0123456789abcdef",
            "/k",
            "k",
        ];
        for text in unusual {
            assert_eq!(key(text).packed(), [b"/", text.as_bytes()].concat(), "{text}");
        }
        for bad in [&b""[..], b"k", b"/", b"/a b", b"/\xff", b"#", b"#0123456789abcde", b"#0123456789abcdefg"]
        {
            assert_eq!(IdempotencyKey::unpack(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_state_that_cannot_be_read_is_none() {
        for bad in [&b""[..], b"Q", b"Q1234", b"X12345", b"q12345"] {
            assert_eq!(BookState::unpack(bad), None, "{}", bad.escape_ascii());
        }
        let newer = BookState::unpack(b"F\0\0\0\0\0not-yet-known").unwrap();
        assert_eq!((newer.state, newer.failure), (OrderState::Failed, None));
        assert_eq!(newer.since.timestamp_millis(), FIRST_MS);
    }

    #[test]
    fn an_instant_that_does_not_fit_is_the_nearest_that_does() {
        let at = |ms| BookState {
            state: OrderState::Queued,
            since: DateTime::from_timestamp_millis(ms).unwrap(),
            failure: None,
        };
        assert_eq!(at(0).packed(), b"Q\0\0\0\0\0");
        assert_eq!(at(FIRST_MS + LAST).packed(), b"Q\xff\xff\xff\xff\xff");
        assert_eq!(at(4_102_444_800_000).packed(), b"Q\xff\xff\xff\xff\xff");
    }

    proptest! {
        #[test]
        fn a_key_comes_back_as_it_was(text in "[!#-z|~]{1,200}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-f]{12}") {
            let key = key(&text);
            prop_assert_eq!(IdempotencyKey::unpack(&key.packed()), Some(key));
        }

        /// However a user and a key are put together, no other pair gets the same field.
        #[test]
        fn a_uuid_is_never_another_key(bytes: [u8; 16]) {
            let key = key(&Uuid::from_bytes(bytes).to_string());
            prop_assert_eq!(key.packed().len(), 17);
            prop_assert_eq!(IdempotencyKey::unpack(&key.packed()), Some(key));
        }

        #[test]
        fn an_order_comes_back_in_its_sale(sale in 1i64..=i64::from(SaleId::MAX), other in 1i64..=i64::from(SaleId::MAX)) {
            let (sale, other) = (SaleId::try_from(sale).unwrap(), SaleId::try_from(other).unwrap());
            let id = OrderId::new(sale);
            prop_assert_eq!(OrderId::unpack(&id.packed(), sale), Some(id));
            prop_assert_eq!(OrderId::unpack(&id.packed(), other).map(OrderId::sale), Some(other));
            prop_assert_eq!(OrderId::unpack(&id.packed()[1..], sale), None);
        }

        #[test]
        fn a_state_comes_back(ms in FIRST_MS..FIRST_MS + LAST, reason in 0..FailureReason::ALL.len()) {
            let since = DateTime::from_timestamp_millis(ms).unwrap();
            for state in [OrderState::Queued, OrderState::Processing, OrderState::Confirmed, OrderState::Failed] {
                let failure = (state == OrderState::Failed).then(|| FailureReason::ALL[reason]);
                let state = BookState { state, since, failure };
                prop_assert_eq!(BookState::unpack(&state.packed()), Some(state));
            }
        }
    }
}
