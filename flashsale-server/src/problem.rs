//! What went wrong, as `application/problem+json` (RFC 9457).

mod code;

use std::time::Duration;

use axum::{
    body::Body,
    http::{
        HeaderValue,
        header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use flashsale_core::{Error, Invalid, Refusal};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

pub(crate) use code::Code;

/// A request that was not fulfilled. As a response it is only marked; [`write`] writes the document, because
/// only there the request's path is known.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    members: Vec<(&'static str, Value)>,
    retry_after: Option<Duration>,
    challenge: Option<&'static str>,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), members: Vec::new(), retry_after: None, challenge: None }
    }

    /// A 400 that names what is wrong.
    pub(crate) fn invalid(field: &str, reason: impl std::fmt::Display) -> Self {
        Self::new(Code::InvalidRequest, format!("{field}: {reason}")).with("field", field)
    }

    /// A 401. It has to say how to ask instead (RFC 9110, section 15.5.2).
    pub(crate) fn unauthorized(challenge: &'static str, detail: impl Into<String>) -> Self {
        Self { challenge: Some(challenge), ..Self::new(Code::Unauthorized, detail) }
    }

    /// A 404 for a path that is not there.
    pub(crate) fn nothing_here() -> Self {
        Self::new(Code::NotFound, "There is nothing at this path.")
    }

    /// A 503: nothing was changed.
    pub(crate) fn unavailable() -> Self {
        Self::new(Code::Unavailable, "A store cannot be asked right now. Nothing was changed; try again.")
            .retry_after(Duration::from_secs(1))
    }

    /// A 504: the same request again, with the same key, is safe and tells.
    pub(crate) fn outcome_unknown() -> Self {
        let detail = "The request may or may not have taken effect. Repeat it: an order with the same idempotency key.";
        Self::new(Code::OutcomeUnknown, detail).retry_after(Duration::from_secs(1))
    }

    /// A 409: something has to leave the cart first.
    pub(crate) fn cart_full() -> Self {
        let most = flashsale_core::Items::MAX_LINES;
        Self::new(Code::CartFull, format!("The cart holds {most} products, the most that an order can have."))
    }

    /// A 503: the sale is not to be touched now.
    pub(crate) fn fenced() -> Self {
        let detail =
            "The sale sells nothing until its state is known to be right. Nothing was changed; try again.";
        Self::new(Code::Fenced, detail).retry_after(Duration::from_secs(2))
    }

    /// A 500, which says nothing of the inside.
    pub(crate) fn internal() -> Self {
        Self::new(Code::Internal, "Something went wrong on our side.")
    }

    /// One more member of the document.
    pub(crate) fn with(mut self, member: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((member, value.into()));
        self
    }

    /// Says when to try again.
    pub(crate) fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// The field that an invalid request is wrong in.
    #[cfg(test)]
    pub(crate) fn field(&self) -> Option<&str> {
        self.members.iter().find(|(member, _)| *member == "field")?.1.as_str()
    }

    /// The document itself, about a request for this path.
    pub(crate) fn document<'a>(&'a self, instance: &'a str) -> impl Serialize + 'a {
        Document { problem: self, instance }
    }
}

/// A problem, and the path that was asked for.
struct Document<'a> {
    problem: &'a Problem,
    instance: &'a str,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Problem { code, detail, members, .. } = self.problem;
        let mut document = serializer.serialize_map(Some(6 + members.len()))?;
        document.serialize_entry("type", code.urn())?;
        document.serialize_entry("title", code.title())?;
        document.serialize_entry("status", &code.status().as_u16())?;
        document.serialize_entry("detail", detail)?;
        document.serialize_entry("instance", self.instance)?;
        document.serialize_entry("code", code.word())?;
        for (member, value) in members {
            document.serialize_entry(member, value)?;
        }
        document.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up: earlier would be refused again.
            let seconds = after.as_secs() + u64::from(after.subsec_millis() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.max(1).into());
        }
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the document of a marked response to a request for this path.
pub(crate) fn write(response: &mut Response, instance: &str) {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return };
    // It says the length of the empty body that was there.
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    let mut document = Vec::with_capacity(256);
    serde_json::to_writer(&mut document, &problem.document(instance)).expect("text becomes JSON");
    *response.body_mut() = Body::from(document);
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(&invalid.field, invalid.reason)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        if error.outcome_unknown() {
            tracing::debug!(%error, "outcome unknown");
            return Self::outcome_unknown();
        }
        if error.is_fenced() {
            return Self::fenced();
        }
        // What the stores said is for the log: it may name hosts and statements. Not louder than `debug`,
        // since an outage is one of these per request; `/readyz` and the keeper's log tell of it.
        if error.is_transient() {
            tracing::debug!(%error, "unavailable");
            return Self::unavailable();
        }
        if let Some(invalid) = error.invalid() {
            return invalid.clone().into();
        }
        if error.is_not_found() {
            return Self::new(Code::NotFound, error.to_string());
        }
        tracing::error!(%error, "internal error");
        Self::internal()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::UnknownProduct(_) => Code::UnknownProduct,
            Refusal::ItemsSpanSales => Code::ItemsSpanSales,
            Refusal::KeyReused => Code::KeyReused,
            Refusal::NotStarted => Code::SaleNotOpen,
            Refusal::Paused => Code::SalePaused,
            Refusal::Ended => Code::SaleEnded,
            Refusal::OverQuota { .. } => Code::OverQuota,
            Refusal::SoldOut { .. } => Code::SoldOut,
            other => {
                tracing::error!(refusal = other.code(), "a refusal that this server does not know");
                return Self::internal();
            }
        };
        let problem = Self::new(code, refusal.to_string());
        match refusal {
            Refusal::UnknownProduct(product) => problem.with("productId", product.get()),
            Refusal::OverQuota { product, limit, held } => {
                problem.with("productId", product.get()).with("limit", limit).with("held", held)
            }
            Refusal::SoldOut { product, left } => problem.with("productId", product.get()).with("left", left),
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn product() -> flashsale_core::ProductId {
        7.try_into().unwrap()
    }

    #[test]
    fn every_refusal_has_its_code_and_status() {
        let table = [
            (Refusal::KeyReused, 422),
            (Refusal::UnknownProduct(product()), 404),
            (Refusal::ItemsSpanSales, 422),
            (Refusal::NotStarted, 409),
            (Refusal::Paused, 409),
            (Refusal::Ended, 409),
            (Refusal::OverQuota { product: product(), limit: 3, held: 2 }, 409),
            (Refusal::SoldOut { product: product(), left: 0 }, 409),
        ];
        for (refusal, status) in table {
            let word = refusal.code();
            let document = json!(Problem::from(refusal).document("/api/orders"));
            assert_eq!(document["code"], word);
            assert_eq!(document["status"], status, "{word}");
            assert_eq!(document["type"], format!("urn:flashsale:problem:{word}"));
            assert_eq!(document["instance"], "/api/orders");
        }
    }

    #[test]
    fn over_quota_says_limit_and_held() {
        let refusal = Refusal::OverQuota { product: product(), limit: 3, held: 2 };
        let document = json!(Problem::from(refusal).document("/"));
        assert_eq!((&document["limit"], &document["held"]), (&json!(3), &json!(2)));
    }

    #[test]
    fn retry_after_is_rounded_up() {
        for (after_ms, header) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (9_999, "10")] {
            let problem = Problem::new(Code::RateLimited, "").retry_after(Duration::from_millis(after_ms));
            assert_eq!(problem.into_response().headers()[RETRY_AFTER], header);
        }
    }
}
