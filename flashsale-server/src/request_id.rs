//! What a request is called: in its answer, in every log line it causes, and in the queue if it is an order.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue},
};
use flashsale_core::RequestId;
use tracing::Span;

use crate::identity::TrustedProxies;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The name of a request: a trusted proxy's, or one of our own.
pub(crate) fn of(request: &Request, trusted: &TrustedProxies) -> RequestId {
    given(request, trusted).unwrap_or_else(RequestId::random)
}

/// What a request's log lines stand in. It says the route and not the path, which may hold a user.
pub(crate) fn span(id: &RequestId, request: &Request) -> Span {
    // An error's span, so that also a filter that shows only errors shows whose they are.
    tracing::error_span!(
        "request",
        request_id = %id,
        method = %request.method(),
        route = request.extensions().get().map_or("unmatched", MatchedPath::as_str),
    )
}

/// Says it in the answer.
pub(crate) fn tell(id: &RequestId, headers: &mut HeaderMap) {
    headers.insert(HEADER, HeaderValue::from_str(id.as_str()).expect("its alphabet is visible ASCII"));
}

/// The name that a trusted proxy gave. From anybody else it could be somebody else's, to be mixed up with.
fn given(request: &Request, trusted: &TrustedProxies) -> Option<RequestId> {
    let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    let mut values = request.headers().get_all(HEADER).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    trusted.trust(peer.ip().to_canonical()).then_some(())?;
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn given_by(peer: &str, values: &[&str]) -> Option<String> {
        let mut request = Request::new(Body::empty());
        let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
        request.extensions_mut().insert(ConnectInfo(peer));
        for value in values {
            request.headers_mut().append(HEADER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        given(&request, &TrustedProxies::default()).map(String::from)
    }

    #[test]
    fn only_a_trusted_proxy_gives_names() {
        assert_eq!(given_by("127.0.0.1", &["abc-1"]).as_deref(), Some("abc-1"));
        assert_eq!(given_by("::ffff:127.0.0.1", &["abc-1"]).as_deref(), Some("abc-1"));
        assert_eq!(given_by("9.9.9.9", &["abc-1"]), None);
        // Nor one that lets its clients choose, or that would break a log line.
        let (twice, none): (&[&str], &[&str]) = (&["a", "b"], &[]);
        for bad in [twice, none, &[""], &["a b"], &["é"], &["a\tb"], &[&"x".repeat(129)]] {
            assert_eq!(given_by("127.0.0.1", bad), None, "{bad:?}");
        }
        assert_eq!(given(&Request::new(Body::empty()), &TrustedProxies::default()), None);
    }
}
