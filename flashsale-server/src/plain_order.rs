//! An order's body as nearly everybody writes it, read without a tree.
//!
//! Nothing is refused here. What is unusual about a body, be it wrong or only rare (a member that is not known or
//! comes twice, an escape, `2.0` for 2), makes it not plain, and [`order_request`](crate::order_request) reads it
//! its own way, which can say what is wrong and where.

use flashsale_core::{IdempotencyKey, Items, ProductId, Quantity};
use serde::Deserialize;

/// What a plain body holds, checked.
pub(crate) struct PlainOrder {
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) items: Items,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    idempotency_key: Option<&'a str>,
    items: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    product_id: i64,
    quantity: i64,
}

impl PlainOrder {
    /// Reads a body; `None` if it is not plain.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        // A derived reader takes a list of values for an object. With one list, that can only be the items.
        #[expect(clippy::naive_bytecount, reason = "a body is short")]
        let lists = body.iter().filter(|byte| **byte == b'[').count();
        if lists != 1 {
            return None;
        }
        let Body { idempotency_key, items } = serde_json::from_slice(body).ok()?;
        let lines = items.into_iter().map(|Line { product_id, quantity }| {
            Some((ProductId::try_from(product_id).ok()?, Quantity::try_from(quantity).ok()?))
        });
        let items = Items::merge(lines.collect::<Option<Vec<_>>>()?).ok()?;
        let key = idempotency_key.map(str::parse).transpose().ok()?;
        Some(Self { key, items })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is plain is read as the tree is; `order_request` tests the same of all that it reads.
    #[test]
    fn what_is_unusual_is_not_plain() {
        let plain = |body: &str| PlainOrder::read(body.as_bytes()).is_some();
        for body in [
            r#"{"idempotencyKey":"k","items":[{"productId":1,"quantity":2}]}"#,
            r#" { "items" : [ {"quantity": 1, "productId": 2}, {"productId": 2, "quantity": 1} ] } "#,
            r#"{"idempotencyKey":null,"items":[{"productId":1,"quantity":1}]}"#,
        ] {
            assert!(plain(body), "{body}");
        }
        for body in [
            "",
            "{}",
            "[]",
            r#"["k",[{"productId":1,"quantity":2}]]"#,
            r#"{"idempotencyKey":"k","items":[[1,2]]}"#,
            r#"{"idempotencyKey":"k","items":[]}"#,
            r#"{"idempotencyKey":"k","items":[{"productId":1,"quantity":2}]} x"#,
            r#"{"idempotencyKey":"k","items":[{"productId":1,"quantity":2}],"coupon":1}"#,
            r#"{"idempotencyKey":"k","items":[{"productId":1,"quantity":2,"note":1}]}"#,
            r#"{"idempotencyKey":"k","idempotencyKey":"k","items":[{"productId":1,"quantity":2}]}"#,
            r#"{"idempotencyKey":"k","items":[{"productId":1,"productId":1,"quantity":2}]}"#,
            r#"{"idempotencyKey":"\u006b","items":[{"productId":1,"quantity":2}]}"#,
            r#"{"idempotencyKey":"a b","items":[{"productId":1,"quantity":2}]}"#,
            r#"{"idempotencyKey":"k","items":[{"productId":1,"quantity":2.0}]}"#,
            r#"{"idempotencyKey":"k","items":[{"productId":1,"quantity":1001}]}"#,
            r#"{"idempotencyKey":"k","items":[{"productId":0,"quantity":1}]}"#,
        ] {
            assert!(!plain(body), "{body}");
        }
    }
}
