//! What a request is called: in its answer, in every log line it causes, and in the queue if it is an order.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use flashsale_core::RequestId;
use tracing::Instrument;

use crate::{app::Policy, identity::TrustedProxies};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Gives a request its name, by which handlers find it among the request's extensions.
///
/// The span says the route and not the path, which may hold a user. Nothing is louder than `debug` here: in an
/// outage it would be as many lines as there are requests, and `/metrics` counts them.
pub(crate) async fn give(State(policy): State<Arc<Policy>>, mut request: Request, next: Next) -> Response {
    let id = given(&request, &policy.trusted_proxies).unwrap_or_else(RequestId::random);
    request.extensions_mut().insert(id.clone());
    // An error's span, so that also a filter that shows only errors shows whose they are.
    let span = tracing::error_span!(
        "request",
        request_id = %id,
        method = %request.method(),
        route = request.extensions().get().map_or("unmatched", MatchedPath::as_str),
    );
    let answered = async {
        let began = Instant::now();
        let response = next.run(request).await;
        let seconds = began.elapsed().as_secs_f64();
        tracing::debug!(status = response.status().as_u16(), seconds, "answered");
        response
    };
    let mut response = answered.instrument(span).await;
    let value = HeaderValue::from_str(id.as_str()).expect("its alphabet is visible ASCII");
    response.headers_mut().insert(HEADER, value);
    response
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
