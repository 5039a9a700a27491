//! What browsers, and caches on the way to them, are told: whose pages may use the API, and what may be kept.

use std::{str::FromStr, time::Duration};

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, LINK, LOCATION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
    },
};
use tower_http::cors::{AllowOrigin, CorsLayer};
use url::Url;

/// How long a browser may remember that it may ask. None remembers it for longer than two hours.
const REMEMBER_FOR: Duration = Duration::from_hours(2);

/// Which pages may use the API.
#[derive(Debug, Clone, clap::Args)]
pub struct BrowserArgs {
    /// Origins whose pages may use the API, such as `https://shop.example`, or `*`; none unless given
    ///
    /// Pages of the API's own origin need no leave. Cookies are never asked for, so `*` gives a page nothing
    /// that its visitor does not send by hand.
    #[arg(
        long,
        env = "FLASHSALE_CORS_ORIGINS",
        value_name = "ORIGIN,…",
        default_value = "",
        hide_default_value = true
    )]
    pub cors_origins: CorsOrigins,
}

/// The origins whose pages may use the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsOrigins(Origins);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origins {
    Any,
    These(Vec<HeaderValue>),
}

impl Default for Origins {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

/// `*`, or origins with commas between them; an empty text allows none.
impl FromStr for CorsOrigins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self(Origins::Any));
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(origin).collect::<Result<_, _>>().map(|origins| Self(Origins::These(origins)))
    }
}

/// An origin exactly as browsers write it. Anything else would be accepted here and never match.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    // `https://*.shop.example` is a URL, but no browser comes from there.
    let url = url.filter(|_| !text.contains('*'));
    let written = url.map(|url| url.origin().ascii_serialization());
    match written {
        Some(written) if written == text => HeaderValue::from_str(text).map_err(|error| error.to_string()),
        Some(written) => Err(format!("{text:?} is not an origin; browsers would say {written:?}")),
        None => Err(format!("{text:?} is not an origin such as https://shop.example")),
    }
}

/// Adds what every answer tells browsers and caches, problems and unknown paths included.
pub(crate) fn tell(headers: &mut HeaderMap) {
    // Most answers are about one user or one moment. The few that may be kept say so themselves.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// What lets pages of these origins in; `None` if there are none.
pub(crate) fn cors(CorsOrigins(origins): &CorsOrigins) -> Option<CorsLayer> {
    let allowed = match origins {
        Origins::Any => AllowOrigin::any(),
        Origins::These(origins) if origins.is_empty() => return None,
        Origins::These(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    let own = HeaderName::from_static;
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            own("idempotency-key"),
            own("last-event-id"),
            own("x-request-id"),
            own("x-user-id"),
        ])
        .expose_headers([LINK, LOCATION, RETRY_AFTER, own("idempotency-replayed"), own("x-request-id")])
        .max_age(REMEMBER_FOR);
    Some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{app::Policy, passage};
    use axum::{Router, body::Body, http::Request, routing::get};
    use tower::ServiceExt;

    async fn ask(origins: &str, method: Method, path: &str) -> (u16, HeaderMap) {
        let kept = get(async || [(CACHE_CONTROL, "public, max-age=1")]);
        let routes = Router::new().route("/", get(async || "")).route("/kept", kept);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "POST")
            .body(Body::empty());
        let policy = Policy { cors_origins: origins.parse().unwrap(), ..Policy::default() };
        let told = passage::to(routes, policy.into());
        let response = told.oneshot(request.unwrap()).await.unwrap();
        (response.status().as_u16(), response.headers().clone())
    }

    #[test]
    fn origins_are_as_browsers_write_them() {
        assert_eq!("".parse(), Ok(CorsOrigins::default()));
        assert_eq!(" * ".parse(), Ok(CorsOrigins(Origins::Any)));
        for good in ["https://shop.example", "http://localhost:3000", "https://a.example, https://b.example,"]
        {
            assert!(good.parse::<CorsOrigins>().is_ok(), "{good}");
        }
        for bad in [
            "shop.example",
            "https://shop.example/",
            "https://shop.example:443",
            "https://Shop.example",
            "https://*.shop.example",
            "https://shop.example/path",
            "https://user@shop.example",
            "file:///tmp",
            "null",
            "*,https://shop.example",
        ] {
            assert!(bad.parse::<CorsOrigins>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn every_answer_is_as_declared_and_kept_by_nobody_unless_it_says_so() {
        for (path, status, kept) in
            [("/", 200, "no-store"), ("/nothing", 404, "no-store"), ("/kept", 200, "public, max-age=1")]
        {
            let (answered, headers) = ask("", Method::GET, path).await;
            assert_eq!(
                (answered, &headers[CACHE_CONTROL]),
                (status, &HeaderValue::from_static(kept)),
                "{path}"
            );
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        }
    }

    #[tokio::test]
    async fn pages_of_other_origins_are_let_in_only_where_configured() {
        const ALLOWED: &str = "access-control-allow-origin";
        for (origins, path, allowed) in [
            ("", "/", None),
            ("https://other.example", "/", None),
            ("https://other.example,https://shop.example", "/", Some("https://shop.example")),
            ("https://shop.example", "/nothing", Some("https://shop.example")),
            ("*", "/", Some("*")),
        ] {
            for method in [Method::GET, Method::OPTIONS] {
                let (_, headers) = ask(origins, method.clone(), path).await;
                let said = headers.get(ALLOWED).map(|value| value.to_str().unwrap());
                assert_eq!(said, allowed, "{method} {path} with {origins:?}");
            }
        }
        let (status, headers) = ask("*", Method::OPTIONS, "/").await;
        assert_eq!(status, 200);
        assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("idempotency-key"));
        assert_eq!(headers["access-control-allow-methods"], "GET,POST,DELETE");
        assert!(!headers.contains_key("access-control-allow-credentials"));
    }
}
