//! From what a client sent to an order that can be placed, naming the field that is wrong.
//!
//! What is not a [`PlainOrder`] is parsed by hand from the JSON tree: a derived parser would say "invalid type" and
//! not which of 20 lines.

use axum::http::{HeaderMap, HeaderName};
use flashsale_core::{IdempotencyKey, Invalid, Items, OrderRequest, ProductId, Quantity, UserId};
use serde_json::{Map, Number, Value};

use crate::{body, plain_order::PlainOrder, problem::Problem};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// As a refusal names it.
const KEY_HEADER: &str = "Idempotency-Key";
const KEY_MEMBER: &str = "idempotencyKey";

/// Reads an order. Members that are not known are ignored.
pub(crate) fn read(user: UserId, headers: &HeaderMap, body: &[u8]) -> Result<OrderRequest, Problem> {
    match PlainOrder::read(body) {
        Some(PlainOrder { key, items }) => {
            let key = agreed(key, key_header(headers)?)?;
            Ok(OrderRequest::new(user, key, items))
        }
        None => parse(user, headers, &body::object(body)?),
    }
}

fn parse(user: UserId, headers: &HeaderMap, body: &Map<String, Value>) -> Result<OrderRequest, Problem> {
    let key = agreed(key_member(body)?, key_header(headers)?)?;
    let lines = match body.get("items") {
        None | Some(Value::Null) => return Err(Problem::invalid("items", "is missing")),
        Some(Value::Array(lines)) => lines,
        Some(_) => return Err(Problem::invalid("items", "must be a list")),
    };
    let lines = lines.iter().enumerate().map(|(index, line)| parse_line(index, line));
    // Too many lines are refused as such, in the words of `Items::merge`, whatever stands in them.
    let items = if lines.len() > Items::MAX_LINES {
        return Err(Problem::invalid("items", format!("must hold at most {} lines", Items::MAX_LINES)));
    } else {
        Items::merge(lines.collect::<Result<Vec<_>, Problem>>()?)?
    };
    Ok(OrderRequest::new(user, key, items))
}

fn parse_line(index: usize, line: &Value) -> Result<(ProductId, Quantity), Problem> {
    let Value::Object(line) = line else {
        return Err(Problem::invalid(&format!("items[{index}]"), "must be an object"));
    };
    let field = |member| format!("items[{index}].{member}");
    Ok((number(line, "productId", &field("productId"))?, number(line, "quantity", &field("quantity"))?))
}

/// A whole number, in the field that the client knows. A number in quotes is none.
pub(crate) fn number<T>(object: &Map<String, Value>, member: &str, field: &str) -> Result<T, Problem>
where
    T: TryFrom<i64, Error = Invalid>,
{
    match object.get(member) {
        None | Some(Value::Null) => Err(Problem::invalid(field, "is missing")),
        Some(Value::Number(number)) => {
            let whole =
                whole(number).ok_or_else(|| Problem::invalid(field, "must be a whole number in range"))?;
            T::try_from(whole).map_err(|invalid| invalid.in_field(field).into())
        }
        Some(_) => Err(Problem::invalid(field, "must be a number")),
    }
}

/// Some languages write whole numbers as `2.0`, and to JSON Schema that is an integer like any other.
fn whole(number: &Number) -> Option<i64> {
    const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;
    number.as_i64().or_else(|| {
        let double = number.as_f64().filter(|double| double.fract() == 0.0 && double.abs() < TOO_LARGE)?;
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
        let whole = double as i64;
        Some(whole)
    })
}

fn key_member(body: &Map<String, Value>) -> Result<Option<IdempotencyKey>, Problem> {
    match body.get(KEY_MEMBER) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => parse_key(text, KEY_MEMBER).map(Some),
        Some(_) => Err(Problem::invalid(KEY_MEMBER, "must be text")),
    }
}

/// The key, from the body or from the header; from both only if they agree.
fn agreed(
    from_body: Option<IdempotencyKey>,
    from_header: Option<IdempotencyKey>,
) -> Result<IdempotencyKey, Problem> {
    match (from_body, from_header) {
        (Some(body), Some(header)) if body != header => {
            Err(Problem::invalid(KEY_MEMBER, format!("differs from the {KEY_HEADER} header")))
        }
        (Some(key), _) | (None, Some(key)) => Ok(key),
        (None, None) => {
            Err(Problem::invalid(KEY_MEMBER, format!("is missing, and so is the {KEY_HEADER} header")))
        }
    }
}

/// Bare, as most APIs have it, or in quotes, as the IETF's draft has it.
fn key_header(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid(KEY_HEADER, "must be given once"));
    }
    let text = value.to_str().map_err(|_| Problem::invalid(KEY_HEADER, "must be visible ASCII"))?.trim();
    let unquoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    parse_key(unquoted.unwrap_or(text), KEY_HEADER).map(Some)
}

fn parse_key(text: &str, field: &str) -> Result<IdempotencyKey, Problem> {
    text.parse().map_err(|invalid: Invalid| invalid.in_field(field).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use serde_json::json;

    /// However a body is read, the same comes of it.
    fn read(header: Option<&str>, body: &Value) -> Result<OrderRequest, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(KEY_HEADER, value.parse().unwrap());
        }
        let user = || "ann".parse().unwrap();
        let parsed = parse(user(), &headers, body.as_object().unwrap());
        let read = super::read(user(), &headers, body.to_string().as_bytes());
        assert_eq!(format!("{read:?}"), format!("{parsed:?}"), "{body}");
        read
    }

    fn line(line: &Value) -> Value {
        json!({"idempotencyKey": "k", "items": [{"productId": 1, "quantity": 1}, line]})
    }

    #[test]
    fn an_order_is_read() {
        let body = json!({
            "idempotencyKey": "k-1", "coupon": "ignored",
            "items": [{"productId": 2, "quantity": 1}, {"productId": 1, "quantity": 2}, {"productId": 2, "quantity": 3}],
        });
        let order = read(None, &body).unwrap();
        assert_eq!(order.key.as_str(), "k-1");
        assert_eq!(order.items.iter().map(|(p, q)| (p.get(), q)).collect::<Vec<_>>(), [(1, 2), (2, 4)]);
    }

    #[test]
    fn whole_numbers_may_be_written_as_doubles() {
        let order = read(None, &line(&json!({"productId": 3.0, "quantity": 1e3}))).unwrap();
        assert_eq!(order.items.iter().map(|(p, q)| (p.get(), q)).collect::<Vec<_>>(), [(1, 1), (3, 1_000)]);
    }

    #[test]
    fn the_key_comes_from_either_place() {
        let with = json!({"idempotencyKey": "k", "items": [{"productId": 1, "quantity": 1}]});
        let without = json!({"items": [{"productId": 1, "quantity": 1}]});
        for header in ["k", "\"k\""] {
            assert_eq!(read(Some(header), &with).unwrap().key.as_str(), "k");
            assert_eq!(read(Some(header), &without).unwrap().key.as_str(), "k");
        }
    }

    #[test]
    fn too_many_lines_are_refused_as_such() {
        let line = (1.try_into().unwrap(), 1.try_into().unwrap());
        let too_many = Problem::from(Items::merge([line; Items::MAX_LINES + 1]).unwrap_err());
        for line in [json!({"productId": 1, "quantity": 1}), json!("bad")] {
            let body = json!({"idempotencyKey": "k", "items": vec![line; Items::MAX_LINES + 1]});
            assert_eq!(format!("{:?}", read(None, &body).unwrap_err()), format!("{too_many:?}"));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let one = || json!([{"productId": 1, "quantity": 1}]);
        let table = [
            (None, json!({"items": one()}), "idempotencyKey"),
            (None, json!({"idempotencyKey": null, "items": one()}), "idempotencyKey"),
            (None, json!({"idempotencyKey": 1, "items": one()}), "idempotencyKey"),
            (None, json!({"idempotencyKey": "", "items": one()}), "idempotencyKey"),
            (None, json!({"idempotencyKey": "a b", "items": one()}), "idempotencyKey"),
            (None, json!({"idempotencyKey": "x".repeat(201), "items": one()}), "idempotencyKey"),
            (Some("other"), json!({"idempotencyKey": "k", "items": one()}), "idempotencyKey"),
            (Some("\"\""), json!({"items": one()}), "Idempotency-Key"),
            (Some("\"k"), json!({"items": one()}), "Idempotency-Key"),
            (None, json!({"idempotencyKey": "k"}), "items"),
            (None, json!({"idempotencyKey": "k", "items": {}}), "items"),
            (None, json!({"idempotencyKey": "k", "items": []}), "items"),
            (None, line(&json!(7)), "items[1]"),
            (None, line(&json!({"quantity": 1})), "items[1].productId"),
            (None, line(&json!({"productId": 0, "quantity": 1})), "items[1].productId"),
            (None, line(&json!({"productId": "1", "quantity": 1})), "items[1].productId"),
            (None, line(&json!({"productId": 1})), "items[1].quantity"),
            (None, line(&json!({"productId": 1, "quantity": 0})), "items[1].quantity"),
            (None, line(&json!({"productId": 1, "quantity": -1})), "items[1].quantity"),
            (None, line(&json!({"productId": 1, "quantity": 1.5})), "items[1].quantity"),
            (None, line(&json!({"productId": 1, "quantity": 0.0})), "items[1].quantity"),
            (None, line(&json!({"productId": 1, "quantity": -1.0})), "items[1].quantity"),
            (
                None,
                line(&json!({"productId": 9_223_372_036_854_775_808_u64, "quantity": 1})),
                "items[1].productId",
            ),
            (
                None,
                line(&json!({"productId": 9_223_372_036_854_775_808.0, "quantity": 1})),
                "items[1].productId",
            ),
            (None, line(&json!({"productId": 1, "quantity": 1e30})), "items[1].quantity"),
            (None, line(&json!({"productId": 1, "quantity": u64::MAX})), "items[1].quantity"),
            (None, line(&json!({"productId": 1, "quantity": 1_001})), "items[1].quantity"),
            (None, line(&json!({"productId": 1, "quantity": "1"})), "items[1].quantity"),
            (None, line(&json!({"productId": 1, "quantity": [1]})), "items[1].quantity"),
        ];
        for (header, body, field) in table {
            let problem = read(header, &body).expect_err(&body.to_string());
            assert_eq!(problem.field(), Some(field), "{body}");
            assert_eq!(problem.into_response().status(), 400, "{body}");
        }
    }
}
