//! Reading a request's JSON body, with limits.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, Bytes, HttpBody},
    http::{
        HeaderMap,
        header::{CONTENT_TYPE, EXPECT},
    },
};
use futures::StreamExt;
use serde_json::{Map, Value};

use crate::{
    problem::{Code, Problem},
    repeated::Repeated,
};

/// An order of 20 lines takes less than a tenth of it.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// How much of a body that is refused is read and thrown away, so that its sender gets to see the answer:
/// closing on somebody who still sends resets the connection, and the answer with it.
const MAX_DISCARDED_BYTES: usize = 4 * 1024 * 1024;

const READ_WITHIN: Duration = Duration::from_secs(10);

/// The members of the JSON object that a request carries.
pub(crate) async fn json_object(headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, Problem> {
    object(&json(headers, body).await?)
}

/// The members of this JSON object.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    // Two readers of the same body must not read two orders.
    if let Ok(Some(member)) = serde_json::from_slice::<Repeated>(bytes).map(|repeated| repeated.0) {
        return Err(Problem::invalid(&member, "is there twice"));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Problem::invalid("body", "must be a JSON object")),
        Err(error) => Err(Problem::invalid("body", format!("is not JSON: {error}"))),
    }
}

/// The whole body, which says that it is JSON. A refusal does not wait for the rest of it.
pub(crate) async fn json(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let refused_unread = refuse_unread(headers, &body);
    let mut chunks = body.into_data_stream();
    let refusal = match refused_unread {
        // Its sender asked whether to send it at all. To read would be to say yes.
        Some(refusal) if headers.contains_key(EXPECT) => return Err(refusal),
        Some(refusal) => refusal,
        None => {
            let collected =
                tokio::time::timeout(READ_WITHIN, collect(&mut chunks)).await.map_err(|_| {
                    let detail = format!("The body did not arrive within {} s.", READ_WITHIN.as_secs());
                    Problem::new(Code::RequestTimeout, detail)
                })??;
            match collected {
                Some(bytes) => return Ok(bytes),
                None => too_large(),
            }
        }
    };
    tokio::spawn(tokio::time::timeout(READ_WITHIN, discard(chunks)));
    Err(refusal)
}

/// Why the body is not even read.
fn refuse_unread(headers: &HeaderMap, body: &Body) -> Option<Problem> {
    if !is_json(headers) {
        let detail = "The body must be JSON in UTF-8, with Content-Type: application/json.";
        return Some(Problem::new(Code::UnsupportedMediaType, detail));
    }
    (body.size_hint().lower() > MAX_BODY_BYTES as u64).then(too_large)
}

fn too_large() -> Problem {
    Problem::new(Code::ContentTooLarge, format!("The body may have at most {MAX_BODY_BYTES} bytes."))
}

/// The body, or `None` as soon as it is too large.
async fn collect(chunks: &mut BodyDataStream) -> Result<Option<Bytes>, Problem> {
    let mut bytes = Bytes::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::invalid("body", "broke off"))?;
        if bytes.len() + chunk.len() > MAX_BODY_BYTES {
            return Ok(None);
        }
        // Nearly all come in one piece.
        bytes = if bytes.is_empty() { chunk } else { [bytes, chunk].concat().into() };
        if chunks.is_end_stream() {
            break;
        }
    }
    Ok(Some(bytes))
}

async fn discard(mut chunks: BodyDataStream) {
    let mut seen = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        seen += chunk.len();
        if seen > MAX_DISCARDED_BYTES {
            break;
        }
    }
}

/// JSON is UTF-8; whoever says otherwise would have it read as what it is not.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if value == "application/json" {
        return true;
    }
    let value = value.to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let json =
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    json && parts
        .filter_map(|part| part.strip_prefix("charset="))
        .all(|name| name.trim_matches('"') == "utf-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_several_names() {
        let is_json = |value: &str| is_json(&HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]));
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json; profile=x",
            "application/vnd.shop+json",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/json",
            "text/plain",
            "application/jsonx",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=latin1",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
