//! Reading a request's JSON body, with limits.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header::CONTENT_TYPE},
};
use futures::StreamExt;
use serde_json::{Map, Value};

use crate::{
    problem::{Code, Problem},
    repeated::Repeated,
};

/// An order of 20 lines takes less than a tenth of it.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// How much of a body that is too large is read and thrown away, so that its sender gets to see the answer:
/// closing on somebody who still sends resets the connection, and the answer with it.
const MAX_DISCARDED_BYTES: usize = 4 * 1024 * 1024;

const READ_WITHIN: Duration = Duration::from_secs(10);

/// The members of the JSON object that a request carries.
pub(crate) async fn json_object(headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, Problem> {
    let bytes = tokio::time::timeout(READ_WITHIN, collect(body)).await.map_err(|_| {
        let detail = format!("The body did not arrive within {} s.", READ_WITHIN.as_secs());
        Problem::new(Code::RequestTimeout, detail)
    })??;
    if !is_json(headers) {
        let detail = "The body must be JSON, with Content-Type: application/json.";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    // Two readers of the same body must not read two orders.
    if let Ok(Some(member)) = serde_json::from_slice::<Repeated>(&bytes).map(|repeated| repeated.0) {
        return Err(Problem::invalid(&member, "is there twice"));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Problem::invalid("body", "must be a JSON object")),
        Err(error) => Err(Problem::invalid("body", format!("is not JSON: {error}"))),
    }
}

async fn collect(body: Body) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut seen = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::invalid("body", "broke off"))?;
        seen += chunk.len();
        if seen <= MAX_BODY_BYTES {
            bytes.extend_from_slice(&chunk);
        } else if seen > MAX_DISCARDED_BYTES {
            break;
        }
    }
    if seen > MAX_BODY_BYTES {
        let detail = format!("The body may have at most {MAX_BODY_BYTES} bytes.");
        return Err(Problem::new(Code::ContentTooLarge, detail));
    }
    Ok(bytes.into())
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_several_names() {
        let is_json = |value: &str| is_json(&HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]));
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.shop+json"] {
            assert!(is_json(good), "{good}");
        }
        for bad in ["", "text/json", "text/plain", "application/jsonx", "application/x-www-form-urlencoded"] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
