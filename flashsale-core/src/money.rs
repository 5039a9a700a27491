//! Money: whole minor units inside, a decimal string with its currency outside, never a float.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ids::Invalid;

/// An ISO 4217 currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(iso_currency::Currency);

impl Currency {
    /// The three-letter code, such as `USD`.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// How many digits follow the decimal point: 2 for USD, 0 for JPY, 3 for KWD.
    #[must_use]
    pub fn digits(self) -> u32 {
        self.0.exponent().map_or(0, u32::from)
    }
}

impl FromStr for Currency {
    type Err = Invalid;

    fn from_str(code: &str) -> Result<Self, Invalid> {
        iso_currency::Currency::from_code(code).map(Self).ok_or_else(|| {
            Invalid::new("currency", format!("{code:?} is not an ISO 4217 code such as \"USD\""))
        })
    }
}

impl TryFrom<String> for Currency {
    type Error = Invalid;

    fn try_from(code: String) -> Result<Self, Invalid> {
        code.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.code().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount of money in one currency, in minor units (cents). Shown and serialized as a decimal string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    /// Minor units: 24999 is 249.99 in a currency of two digits.
    pub minor: i64,
    /// The currency that says how many digits follow the point.
    pub currency: Currency,
}

impl Money {
    /// An amount of minor units.
    #[must_use]
    pub fn from_minor(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// Reads `"249.99"`: not negative, at most the currency's digits after the point, nothing else.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, Invalid> {
        let bad = |reason: String| Invalid::new("amount", reason);
        let digits = currency.digits() as usize;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(fraction) || text.ends_with('.') {
            return Err(bad(format!("{text:?} is not an amount such as \"249.99\"")));
        }
        if fraction.len() > digits {
            return Err(bad(format!("{text:?} has more than the {digits} decimals of {currency}")));
        }
        format!("{whole}{fraction:0<digits$}")
            .parse()
            .map(|minor| Self { minor, currency })
            .map_err(|_| bad(format!("{text:?} is too large")))
    }

    /// This amount `times` over; `None` when it does not fit.
    #[must_use]
    pub fn times(self, times: u32) -> Option<Self> {
        Some(Self { minor: self.minor.checked_mul(i64::from(times))?, ..self })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.currency.digits();
        let unit = 10_u64.pow(digits);
        let sign = if self.minor < 0 { "-" } else { "" };
        let minor = self.minor.unsigned_abs();
        if digits == 0 {
            return write!(f, "{sign}{minor}");
        }
        write!(f, "{sign}{}.{:0width$}", minor / unit, minor % unit, width = digits as usize)
    }
}

impl Serialize for Money {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_read_by_their_currency() {
        let read = |text, code: &str| Money::parse(text, code.parse().unwrap()).map(|m| m.minor);
        assert_eq!(read("249.99", "USD"), Ok(24_999));
        assert_eq!(read("249.9", "USD"), Ok(24_990));
        assert_eq!(read("249", "USD"), Ok(24_900));
        assert_eq!(read("249", "JPY"), Ok(249));
        assert_eq!(read("1.234", "KWD"), Ok(1_234));
        for bad in ["", ".5", "5.", "-1", "+1", "1e3", "1.234", "0x2", " 1", "1,5", "99999999999999999999"] {
            assert!(read(bad, "USD").is_err(), "{bad}");
        }
        assert!(read("1.0", "JPY").is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read_again(minor in 0i64..i64::MAX, code in prop_oneof!["USD", "JPY", "KWD"]) {
            let currency = code.parse().unwrap();
            let money = Money::from_minor(minor, currency);
            prop_assert_eq!(Money::parse(&money.to_string(), currency).unwrap(), money);
        }
    }
}
