//! What each route may refuse, and how the document says so.

use std::collections::BTreeMap;

use flashsale_core::Refusal;
use serde_json::{Map, Value, json};

use super::reference;
use crate::problem::{
    Code::{
        self, CartFull, ContentTooLarge, Fenced, Forbidden, Internal, InvalidRequest, ItemsSpanSales,
        KeyReused, MethodNotAllowed, NotFound, OutcomeUnknown, OverQuota, RateLimited, RequestTimeout,
        SaleEnded, SaleNotOpen, SalePaused, SoldOut, Unauthorized, Unavailable, UnknownProduct,
        UnsupportedMediaType,
    },
    Problem,
};

/// A route's own codes. Those of [`EVERYWHERE`] come on top.
const ROUTES: &[(&str, &[Code])] = &[
    ("GET /api/flashsale/active", &[Unavailable, Fenced]),
    (
        "POST /api/orders",
        &[
            InvalidRequest,
            Unauthorized,
            UnknownProduct,
            RequestTimeout,
            SoldOut,
            OverQuota,
            SaleNotOpen,
            SalePaused,
            SaleEnded,
            ContentTooLarge,
            UnsupportedMediaType,
            KeyReused,
            ItemsSpanSales,
            RateLimited,
            Unavailable,
            Fenced,
            OutcomeUnknown,
        ],
    ),
    (
        "POST /api/cart",
        &[
            InvalidRequest,
            Unauthorized,
            UnknownProduct,
            RequestTimeout,
            SoldOut,
            SaleNotOpen,
            CartFull,
            ContentTooLarge,
            UnsupportedMediaType,
            ItemsSpanSales,
            Unavailable,
            Fenced,
            OutcomeUnknown,
        ],
    ),
    ("GET /api/cart/{userId}", &[InvalidRequest, Unauthorized, Forbidden, Unavailable, Fenced]),
    ("DELETE /api/cart/{userId}", &[InvalidRequest, Unauthorized, Forbidden, Unavailable, OutcomeUnknown]),
    (
        "DELETE /api/cart/{userId}/items/{productId}",
        &[InvalidRequest, Unauthorized, Forbidden, Unavailable, OutcomeUnknown],
    ),
    ("GET /api/orders/status/{orderId}", &[InvalidRequest, NotFound, Unavailable, Fenced]),
    (
        "GET /api/orders/status/{orderId}/events",
        &[InvalidRequest, NotFound, RateLimited, Unavailable, Fenced],
    ),
    ("GET /api/orders/{userId}", &[InvalidRequest, Unauthorized, Forbidden, Unavailable]),
    ("GET /healthz", &[]),
    ("GET /readyz", &[]),
    ("GET /metrics", &[NotFound]),
    ("GET /openapi.json", &[]),
    ("GET /", &[]),
    ("GET /docs", &[]),
    ("GET /docs/", &[]),
    ("GET /docs/{file}", &[InvalidRequest, NotFound]),
];

/// A mistake of ours can happen to any request.
const EVERYWHERE: Code = Internal;

/// The codes of one route, by status.
pub(super) struct RefusalsOf(BTreeMap<u16, Vec<Code>>);

impl RefusalsOf {
    pub(super) fn route(route: &str) -> Self {
        let row = ROUTES.iter().find(|(name, _)| *name == route);
        let own = row.map_or(&[][..], |(_, codes)| codes);
        let mut by_status = BTreeMap::<_, Vec<_>>::new();
        for &code in own.iter().chain([&EVERYWHERE]) {
            by_status.entry(code.status().as_u16()).or_default().push(code);
        }
        Self(by_status)
    }

    pub(super) fn include(&self, code: Code) -> bool {
        self.0.values().flatten().any(|own| *own == code)
    }

    /// The responses, by status.
    pub(super) fn responses(&self) -> impl Iterator<Item = (String, Value)> {
        self.0.iter().map(|(status, codes)| (status.to_string(), response(codes)))
    }
}

/// The routes that have a row.
#[cfg(test)]
pub(super) fn routes() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|(route, _)| *route)
}

/// One response for all codes of a status.
fn response(codes: &[Code]) -> Value {
    let titles: Vec<_> = codes.iter().map(|code| code.title()).collect();
    let words: Vec<_> = codes.iter().map(|code| code.word()).collect();
    let examples: Map<_, _> =
        words.iter().map(|word| ((*word).to_owned(), reference("examples", word))).collect();
    let status = codes[0].status().as_u16();
    let only = json!({ "properties": { "status": { "const": status }, "code": { "enum": words } } });
    let mut headers = json!({});
    match status {
        401 => headers["WWW-Authenticate"] = reference("headers", "WwwAuthenticate"),
        405 => headers["Allow"] = reference("headers", "Allow"),
        429 | 503 | 504 => headers["Retry-After"] = reference("headers", "RetryAfter"),
        _ => {}
    }
    json!({
        "description": titles.join(" · "),
        "headers": headers,
        "content": { "application/problem+json": {
            "schema": { "allOf": [reference("schemas", "Problem"), only] },
            "examples": examples,
        } },
    })
}

/// What a request is answered with that no route takes.
pub(super) fn of_no_route() -> Value {
    json!({ "NotFound": response(&[NotFound]), "MethodNotAllowed": response(&[MethodNotAllowed]) })
}

/// The document of a problem.
pub(super) fn schema() -> Value {
    let words: Vec<_> = Code::ALL.iter().map(|code| code.word()).collect();
    let units = |description| json!({ "type": "integer", "minimum": 0, "description": description });
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457).",
        "required": ["type", "title", "status", "detail", "instance", "code"],
        "properties": {
            "type": { "type": "string", "format": "uri", "description": "The code as a URN." },
            "title": { "type": "string", "description": "The code in words." },
            "status": { "type": "integer", "description": "The status of the response." },
            "detail": { "type": "string", "description": "What happened, for people." },
            "instance": { "type": "string", "description": "The path that was asked for." },
            "code": { "type": "string", "enum": words, "description": "The word to rely on." },
            "field": {
                "type": "string",
                "description": "With `invalid-request`: what is wrong, such as `items[0].quantity`.",
            },
            "productId": reference("schemas", "ProductId"),
            "left": units("With `sold-out`: the units that are left, fewer than were asked for."),
            "limit": units("With `over-quota`: the units that one user may hold."),
            "held": units("With `over-quota`: the units that this user holds already."),
        },
    })
}

/// An example of each code, written by what writes the real ones.
pub(super) fn examples() -> Value {
    let example = |code: &Code| {
        let (problem, path) = example(*code);
        let value = json!({ "summary": code.title(), "value": problem.document(path) });
        (code.word().to_owned(), value)
    };
    Value::Object(Code::ALL.iter().map(example).collect())
}

fn example(code: Code) -> (Problem, &'static str) {
    let product = || 1.try_into().expect("a product");
    let problem = match code {
        InvalidRequest => Problem::invalid("items[0].quantity", "must be between 1 and 1000"),
        Unauthorized => Problem::new(code, "The X-User-Id header is missing."),
        Forbidden => {
            return (
                Problem::new(code, "A user's own things are shown to that user only."),
                "/api/orders/alice",
            );
        }
        NotFound => return (Problem::nothing_here(), "/api/nothing"),
        MethodNotAllowed => Problem::new(code, "This path does not know this method."),
        RequestTimeout => Problem::new(code, "The body did not arrive within 10 s."),
        ContentTooLarge => Problem::new(code, "The body may have at most 16384 bytes."),
        UnsupportedMediaType => {
            Problem::new(code, "The body must be JSON, with Content-Type: application/json.")
        }
        UnknownProduct => Refusal::UnknownProduct(product()).into(),
        SoldOut => Refusal::SoldOut { product: product(), left: 0 }.into(),
        OverQuota => Refusal::OverQuota { product: product(), limit: 3, held: 2 }.into(),
        SaleNotOpen => Refusal::NotStarted.into(),
        SalePaused => Refusal::Paused.into(),
        SaleEnded => Refusal::Ended.into(),
        CartFull => Problem::cart_full(),
        KeyReused => Refusal::KeyReused.into(),
        ItemsSpanSales => Refusal::ItemsSpanSales.into(),
        RateLimited => Problem::new(code, "One address may send 10 orders in 10 s."),
        Unavailable => Problem::unavailable(),
        Fenced => Problem::fenced(),
        OutcomeUnknown => Problem::outcome_unknown(),
        Internal => Problem::internal(),
    };
    (problem, "/api/orders")
}
