//! What tells a repeated request from another one under the same key.

use std::fmt::{self, Write};

use sha2::{Digest, Sha256};

use super::Items;
use crate::ids::SaleId;

/// What a request asked for, in few bytes: the same key may only repeat the same request.
///
/// A versioned, truncated SHA-256 of the parsed request in a canonical text, so that it depends neither on
/// the bytes of the body nor on a hasher that changes with the toolchain. 64 bits are enough: it is only
/// ever compared within one user's one key, and who forges a collision deceives nobody but himself.
///
/// In Redis it is a byte of version and eight of the hash; PostgreSQL has the same as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 9]);

impl Fingerprint {
    /// Of an order of which it cannot be read any more what it asked for. The reserve script shows that order to
    /// whoever repeats its key: to refuse the buyer would be wrong more often.
    pub(crate) const UNKNOWN: Self = Self([0; 9]);

    pub(crate) fn of(sale: SaleId, items: &Items) -> Self {
        let mut text = String::with_capacity(128);
        let _ = write!(text, "flashsale order v1\nsale {sale}\n");
        for (product, quantity) in items.iter() {
            let _ = writeln!(text, "{product} x {quantity}");
        }
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let mut bytes = [1; 9];
        bytes[1..].copy_from_slice(&hash[..8]);
        Self(bytes)
    }

    /// Reads the text.
    pub(crate) fn from_store(text: &str) -> Self {
        let read = || {
            let (version, hash) = text.split_at_checked(1)?;
            let is_hash = hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            let hash = u64::from_str_radix(hash, 16).ok().filter(|_| is_hash)?;
            let mut bytes = [version.parse().ok()?; 9];
            bytes[1..].copy_from_slice(&hash.to_be_bytes());
            Some(Self(bytes))
        };
        read().unwrap_or(Self::UNKNOWN)
    }

    /// The bytes that stand for it in Redis.
    pub(crate) fn as_bytes(&self) -> &[u8; 9] {
        &self.0
    }
}

/// The text that stands for it in PostgreSQL.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [version, hash @ ..] = self.0;
        write!(f, "{version}{:016x}", u64::from_be_bytes(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ProductId, order::Quantity};

    fn line(product: i64, quantity: i64) -> (ProductId, Quantity) {
        (product.try_into().unwrap(), quantity.try_into().unwrap())
    }

    /// Stored fingerprints outlive processes: this text must never change under version 1.
    #[test]
    fn the_fingerprint_is_stable() {
        let sale = SaleId::try_from(7).unwrap();
        let items = Items::merge([line(2, 2), line(1, 1)]).unwrap();
        let merged = Items::merge([line(1, 1), line(2, 1), line(2, 1)]).unwrap();
        let other = Items::merge([line(1, 1), line(2, 1)]).unwrap();
        assert_eq!(Fingerprint::of(sale, &items), Fingerprint::of(sale, &merged));
        assert_ne!(Fingerprint::of(sale, &items), Fingerprint::of(sale, &other));
        assert_ne!(Fingerprint::of(sale, &items), Fingerprint::of(SaleId::try_from(8).unwrap(), &items));
        assert_eq!(Fingerprint::of(sale, &items).to_string(), "1307087a537199a4e");
    }

    #[test]
    fn a_fingerprint_comes_back_from_the_record() {
        let sale = SaleId::try_from(7).unwrap();
        let of = Fingerprint::of(sale, &Items::merge([line(1, 1)]).unwrap());
        assert_eq!(Fingerprint::from_store(&of.to_string()), of);
        for bad in ["", "1", "1123", "x0123456789abcdef", "1+123456789abcdef", "10123456789abcdef0", "é"] {
            assert_eq!(Fingerprint::from_store(bad), Fingerprint::UNKNOWN, "{bad}");
        }
        assert_eq!(Fingerprint::from_store(&Fingerprint::UNKNOWN.to_string()), Fingerprint::UNKNOWN);
    }
}
