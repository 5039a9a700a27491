//! The server as one buyer sees it: its requests, each in its place among those under way, and what the
//! answers mean.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use flashsale_core::{OrderId, ProductId};
use goose::goose::GooseUser;
use reqwest::{RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::herd::Ground;

/// Longer than every deadline of the server, so that it is the server that says "unknown".
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// The server's default: so many orders in 10 seconds from one address.
const RATE_LIMIT: u32 = 10;

/// What the answer to an order means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 202. Also when it was admitted before (`replayed`).
    Admitted { id: OrderId, replayed: bool },
    /// It was judged and refused, for this reason.
    Refused { status: u16, code: String },
    /// It was turned away unjudged: 503.
    TurnedAway { code: String },
    /// Nobody knows: 504, a timeout, a lost connection.
    Unknown { code: String },
    /// Something that the API does not allow.
    Strange(String),
}

/// How a buyer leaves in the middle of its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// After the whole request was sent.
    BeforeTheAnswer,
    /// After half of the body was sent.
    WithinTheBody,
}

/// One buyer's view of the server.
pub(crate) struct Shop<'a> {
    ground: &'a Ground,
    goose: &'a mut GooseUser,
    base: &'a str,
    user: String,
    address: Ipv4Addr,
    sendings: u32,
}

/// An answered order and its times.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) sent: Instant,
    pub(crate) at: Instant,
}

impl<'a> Shop<'a> {
    pub(crate) fn new(ground: &'a Ground, goose: &'a mut GooseUser, buyer: u32, user: String) -> Self {
        let base = ground.base(buyer);
        Self { ground, goose, base, user, address: address_of(buyer), sendings: 0 }
    }

    /// Sends an order once.
    pub(crate) async fn order(&mut self, key: &str, items: &[(ProductId, u32)]) -> Answered {
        let request = self
            .goose
            .client
            .post(format!("{}/api/orders", self.base))
            .header("X-User-Id", &self.user)
            .header("X-Forwarded-For", self.address.to_string())
            .header("Content-Type", "application/json")
            .body(order_body(key, items));
        let place = self.ground.place().await;
        let sent = Instant::now();
        self.sendings += 1;
        let answer = ask(request).await;
        let at = Instant::now();
        drop(place);
        self.ground.order_answered();
        let (ok, status, error) = match &answer {
            Answer::Admitted { .. } => (true, Some(202), None),
            Answer::Refused { status, .. } => (true, Some(*status), None),
            Answer::TurnedAway { code } | Answer::Unknown { code } => (false, None, Some(code.as_str())),
            Answer::Strange(what) => (false, None, Some(what.as_str())),
        };
        self.note("POST", "/api/orders", at - sent, ok, status, error).await;
        Answered { answer, sent, at }
    }

    /// Whether this buyer, who is alone at its address, may have used up the rate limit. All its orders
    /// count, not those of the last seconds: an overloaded server sees them late and close together.
    pub(crate) fn may_be_limited(&self) -> bool {
        self.sendings > RATE_LIMIT || !self.ground.has_default_rate_limit()
    }

    /// Looks at what is on sale: whether the product is there, None if the server cannot say now.
    pub(crate) async fn sees_on_sale(&mut self, product: ProductId) -> Result<Option<bool>, String> {
        let path = "/api/flashsale/active";
        let Some((status, body)) = self.get(path, path).await else { return Ok(None) };
        match status {
            StatusCode::OK => {
                let products: Vec<Value> = serde_json::from_slice(&body)
                    .map_err(|error| format!("the products on sale cannot be read: {error}"))?;
                let is_there = |entry: &Value| {
                    entry["id"].as_i64() == Some(product.get()) && entry["stockRemaining"].as_i64() >= Some(0)
                };
                Ok(Some(products.iter().any(is_there)))
            }
            StatusCode::SERVICE_UNAVAILABLE => Ok(None),
            other => Err(format!("the products on sale answered {other}")),
        }
    }

    /// Puts one unit of a product into the cart, if the server takes it: it reserves nothing.
    pub(crate) async fn puts_in_cart(&mut self, product: ProductId) -> Result<(), String> {
        let request = self
            .goose
            .client
            .post(format!("{}/api/cart", self.base))
            .header("X-User-Id", &self.user)
            .header("Content-Type", "application/json")
            .body(json!({"productId": product, "quantity": 1}).to_string());
        // A conflict: sold out, or not open yet by the server's clock.
        match self.fetch(request, "POST", "/api/cart", &[StatusCode::CONFLICT]).await {
            None | Some((StatusCode::OK | StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE, _)) => {
                Ok(())
            }
            Some((other, _)) => Err(format!("the cart answered {other}")),
        }
    }

    /// The word for where an order is, None if the server cannot say now.
    pub(crate) async fn status(&mut self, id: OrderId) -> Result<Option<String>, String> {
        let path = format!("/api/orders/status/{id}");
        let Some((status, body)) = self.get(&path, "/api/orders/status/{orderId}").await else {
            return Ok(None);
        };
        match status {
            StatusCode::OK => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let word = body["status"].as_str();
                word.map(|word| Some(word.to_owned()))
                    .ok_or_else(|| format!("order {id} has no status: {body}"))
            }
            StatusCode::SERVICE_UNAVAILABLE => Ok(None),
            other => Err(format!("the status of order {id} answered {other}")),
        }
    }

    /// Sends an order and leaves. True if it was sent as far as it was to be.
    pub(crate) async fn leave(&mut self, key: &str, items: &[(ProductId, u32)], leaving: Leaving) -> bool {
        let Some(authority) = self.base.strip_prefix("http://").map(str::to_owned) else { return false };
        let (authority, prefix) = authority.split_once('/').unwrap_or((&authority, ""));
        let slash = if prefix.is_empty() { "" } else { "/" };
        let body = order_body(key, items);
        let head = format!(
            "POST {slash}{prefix}/api/orders HTTP/1.1\r\nHost: {authority}\r\nX-User-Id: {}\r\n\
             X-Forwarded-For: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.user,
            self.address,
            body.len()
        );
        let sent_part = match leaving {
            Leaving::BeforeTheAnswer => &body[..],
            Leaving::WithinTheBody => &body[..body.len() / 2],
        };
        let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        let _place = self.ground.place().await;
        self.sendings += 1;
        let sending = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(format!("{head}{sent_part}").as_bytes()).await
        };
        timeout(REQUEST_TIMEOUT, sending).await.is_ok_and(|sent| sent.is_ok())
    }

    async fn get(&mut self, path: &str, name: &str) -> Option<(StatusCode, Vec<u8>)> {
        let request = self.goose.client.get(format!("{}{path}", self.base));
        self.fetch(request, "GET", name, &[]).await
    }

    /// An answer that is neither a success nor one of the `refusals` counts as a failure.
    async fn fetch(
        &mut self,
        request: RequestBuilder,
        method: &str,
        name: &str,
        refusals: &[StatusCode],
    ) -> Option<(StatusCode, Vec<u8>)> {
        let place = self.ground.place().await;
        let sent = Instant::now();
        let answer = fetch(request).await;
        drop(place);
        let took = sent.elapsed();
        let status = answer.as_ref().ok().map(|(status, ..)| *status);
        let ok = status.is_some_and(|status| status.is_success() || refusals.contains(&status));
        self.note(method, name, took, ok, status.map(|s| s.as_u16()), answer.as_ref().err().copied()).await;
        answer.ok().map(|(status, _, body)| (status, body))
    }

    /// For goose's report. Its own `request` would count every expected refusal as a failure first.
    async fn note(
        &mut self,
        method: &str,
        name: &str,
        took: Duration,
        ok: bool,
        status: Option<u16>,
        error: Option<&str>,
    ) {
        if let Err(error) =
            self.goose.record_custom_request_duration(method, name, took, ok, status, error).await
        {
            tracing::debug!(%error, "goose did not take a measurement");
        }
    }
}

/// Each buyer has an address of its own, so that the real rate limit can stay on.
fn address_of(buyer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + 1 + buyer)
}

/// The body of an order.
pub(crate) fn order_body(key: &str, items: &[(ProductId, u32)]) -> String {
    let items: Vec<Value> =
        items.iter().map(|(product, quantity)| json!({"productId": product, "quantity": quantity})).collect();
    json!({"idempotencyKey": key, "items": items}).to_string()
}

async fn fetch(request: RequestBuilder) -> Result<(StatusCode, HeaderMap, Vec<u8>), &'static str> {
    let kind = |error: reqwest::Error| {
        tracing::debug!(?error, "no answer");
        match &error {
            error if error.is_timeout() => "timeout",
            error if error.is_connect() => "no-connection",
            _ => "connection-lost",
        }
    };
    let response = request.timeout(REQUEST_TIMEOUT).send().await.map_err(kind)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.map_err(kind)?;
    Ok((status, headers, body.to_vec()))
}

/// Sends an order.
pub(crate) async fn ask(request: RequestBuilder) -> Answer {
    match fetch(request).await {
        Ok((status, headers, body)) => read_answer(status, &headers, &body),
        Err(why) => Answer::Unknown { code: why.to_owned() },
    }
}

/// What the answer to an order means.
fn read_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let strange =
        || Answer::Strange(format!("an order was answered {status} {}", String::from_utf8_lossy(body)));
    if status == StatusCode::ACCEPTED {
        let replayed = headers.get("Idempotency-Replayed").is_some_and(|value| value == "true");
        return match value["orderId"].as_str().and_then(|id| id.parse().ok()) {
            Some(id) => Answer::Admitted { id, replayed },
            None => strange(),
        };
    }
    let Some(code) = value["code"].as_str().map(str::to_owned) else {
        // A proxy's 502 has no code; whether the order went through is not known.
        let code = status.as_u16().to_string();
        return if status.is_server_error() { Answer::Unknown { code } } else { strange() };
    };
    match status.as_u16() {
        503 => Answer::TurnedAway { code },
        500.. => Answer::Unknown { code },
        status @ 400.. => Answer::Refused { status, code },
        _ => strange(),
    }
}

#[cfg(test)]
mod tests {
    use flashsale_core::SaleId;

    use super::*;

    fn read(status: u16, body: &str) -> Answer {
        read_answer(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn answers_are_told_apart() {
        let id = OrderId::new(SaleId::try_from(7).unwrap());
        assert_eq!(read(202, &format!(r#"{{"orderId":"{id}"}}"#)), Answer::Admitted { id, replayed: false });
        let refused = Answer::Refused { status: 409, code: "sold-out".to_owned() };
        assert_eq!(read(409, r#"{"code":"sold-out","status":409}"#), refused);
        assert_eq!(read(503, r#"{"code":"fenced"}"#), Answer::TurnedAway { code: "fenced".to_owned() });
        assert_eq!(
            read(504, r#"{"code":"outcome-unknown"}"#),
            Answer::Unknown { code: "outcome-unknown".to_owned() }
        );
        assert_eq!(read(502, "bad gateway"), Answer::Unknown { code: "502".to_owned() });
    }

    #[test]
    fn what_the_api_does_not_allow_is_strange() {
        for (status, body) in
            [(202, "{}"), (202, r#"{"orderId":"x"}"#), (200, r#"{"code":"x"}"#), (409, "no")]
        {
            assert!(matches!(read(status, body), Answer::Strange(_)), "{status} {body}");
        }
    }

    #[test]
    fn a_replay_says_so() {
        let id = OrderId::new(SaleId::try_from(7).unwrap());
        let headers = [("idempotency-replayed", "true")]
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect();
        let body = format!(r#"{{"orderId":"{id}"}}"#);
        let answer = read_answer(StatusCode::ACCEPTED, &headers, body.as_bytes());
        assert_eq!(answer, Answer::Admitted { id, replayed: true });
    }

    #[test]
    fn every_buyer_has_its_own_address() {
        assert_eq!(address_of(0), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(address_of(999_999), Ipv4Addr::new(10, 15, 66, 64));
    }
}
