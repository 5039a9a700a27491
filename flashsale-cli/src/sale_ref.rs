//! A sale as people name it: by its id or by its slug.

use std::{fmt, str::FromStr};

use anyhow::bail;
use flashsale_core::{Invalid, Operator, Sale, SaleId};

/// What was written on the command line; [`find`](Self::find) says which sale it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SaleRef {
    Id(SaleId),
    Slug(String),
}

/// Most sales that a message lists.
const LISTED: usize = 8;

impl FromStr for SaleRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_slug =
            |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        // A number is an id, also where a slug looks like one; `-1` is a number, too.
        let is_number = text.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit());
        if is_number {
            return text.parse().map(Self::Id);
        }
        if is_slug(text) {
            return Ok(Self::Slug(text.to_owned()));
        }
        let reason = "must be a sale's id, a whole number, or its slug; `flashsale sales list` shows both";
        Err(Invalid { field: "sale".to_owned(), reason: reason.to_owned() })
    }
}

impl fmt::Display for SaleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Slug(slug) => slug.fmt(f),
        }
    }
}

impl SaleRef {
    /// The sale, as the record has it now; or a message that says which ones there are.
    pub(crate) async fn find(&self, operator: &Operator) -> anyhow::Result<Sale> {
        let mut sales = operator.sales().await?;
        let is_it = |sale: &Sale| match self {
            Self::Id(id) => sale.id == *id,
            Self::Slug(slug) => sale.slug == *slug,
        };
        if let Some(at) = sales.iter().position(is_it) {
            return Ok(sales.swap_remove(at));
        }
        let mut known: Vec<_> =
            sales.iter().take(LISTED).map(|sale| format!("{} ({})", sale.id, sale.slug)).collect();
        if sales.len() > LISTED {
            known.push("more in `flashsale sales list`".to_owned());
        }
        match known.as_slice() {
            [] => bail!("sale {self} not found; there is none yet: `flashsale seed` creates one"),
            known => bail!("sale {self} not found; there are: {}", known.join(", ")),
        }
    }

    /// The id of the sale that was named, if one was.
    pub(crate) async fn id_of(named: Option<&Self>, operator: &Operator) -> anyhow::Result<Option<SaleId>> {
        match named {
            Some(sale) => Ok(Some(sale.find(operator).await?.id)),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_an_id_and_other_words_are_slugs() {
        assert!(matches!("7".parse(), Ok(SaleRef::Id(_))));
        assert!(matches!("black-friday-2026".parse(), Ok(SaleRef::Slug(_))));
        for bad in ["0", "-1", "16777216", "", "-", "Black Friday", "a/b"] {
            assert!(bad.parse::<SaleRef>().is_err(), "{bad:?}");
        }
    }
}
