//! The routes, and what their handlers can use.

use std::{ops::Deref, sync::Arc};

use axum::Router;
use flashsale_core::Engine;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    browser::CorsOrigins,
    cart, docs, events, health, history,
    identity::{Auth, TrustedProxies},
    limits::{LimitArgs, Turns},
    metrics, openapi, orders, passage,
    problem::{Code, Problem},
    sales, status,
    streams::Streams,
};

/// What the operator decided about requests.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How a request says whose it is.
    pub auth: Auth,
    /// Whose headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// How much clients may ask for.
    pub limits: LimitArgs,
    /// Whose pages may use the API.
    pub cors_origins: CorsOrigins,
    /// Whether `/metrics` has an address of its own, so that the API does not show it.
    pub metrics_apart: bool,
}

impl Default for Policy {
    /// What the flags say when nothing is given: the `X-User-Id` header, believed from this machine.
    fn default() -> Self {
        Self {
            auth: Auth::Header,
            trusted_proxies: TrustedProxies::default(),
            limits: LimitArgs::default(),
            cors_origins: CorsOrigins::default(),
            metrics_apart: false,
        }
    }
}

/// What every handler can use. Each request is given several clones of it, so that all is behind one count.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
pub struct Parts {
    pub(crate) engine: Engine,
    pub(crate) policy: Arc<Policy>,
    pub(crate) draining: CancellationToken,
    pub(crate) order_turns: Turns,
    pub(crate) other_turns: Turns,
    pub(crate) streams: Streams,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// An application on this engine. Cancelling `draining` tells load balancers, by way of `/readyz`, to send
    /// no more, and ends the streams.
    pub fn new(engine: Engine, policy: Policy, draining: CancellationToken) -> Self {
        let limits = &policy.limits;
        let order_turns = Turns::new(limits.orders_at_once);
        let other_turns = Turns::new(limits.requests_at_once);
        let streams = Streams::new(limits.streams_per_client, limits.streams_at_once);
        Self(Arc::new(Parts {
            engine,
            policy: Arc::new(policy),
            draining,
            order_turns,
            other_turns,
            streams,
        }))
    }
}

/// All routes. Serve it with connection info (a [`SocketAddr`](std::net::SocketAddr)): who is asking depends on
/// the other end of the socket.
pub fn router(app: App) -> Router {
    let policy = Arc::clone(&app.policy);
    whole(Router::from(routes()).with_state(app), policy)
}

/// The routes for those who run the process, and for nobody else: health in detail, and metrics.
pub fn operations_router(engine: Engine, draining: CancellationToken) -> Router {
    let app = App::new(engine, Policy::default(), draining);
    let routes = OpenApiRouter::new()
        .routes(routes!(health::alive))
        .routes(routes!(health::ready_in_detail))
        .routes(routes!(metrics::scrape));
    let policy = Arc::clone(&app.policy);
    whole(Router::from(routes).with_state(app), policy)
}

/// The routes with an answer for every path and method, and with what all requests pass through.
fn whole(routes: Router, policy: Arc<Policy>) -> Router {
    let routes = routes.fallback(async || Problem::nothing_here()).method_not_allowed_fallback(async || {
        Problem::new(Code::MethodNotAllowed, "This path does not know this method.")
    });
    passage::to(routes, policy)
}

/// Every route together with its documentation: there is no other way to add one.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(sales::active))
        .routes(routes!(cart::set))
        .routes(routes!(cart::show, cart::clear))
        .routes(routes!(cart::remove))
        .routes(routes!(orders::place))
        .routes(routes!(status::status))
        .routes(routes!(events::events))
        .routes(routes!(history::history))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::scrape))
        .routes(routes!(docs::document))
        .routes(routes!(docs::front))
        .routes(routes!(docs::without_slash))
        .routes(routes!(docs::page))
        .routes(routes!(docs::file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        body::{Body, to_bytes},
        extract::Request,
        http::Method,
        response::Response,
        routing::get,
    };
    use tower::ServiceExt;

    async fn ask(method: Method, path: &str) -> (u16, serde_json::Value, Response) {
        async fn panics() -> &'static str {
            panic!("secret: the inside")
        }
        let policy = Policy { cors_origins: "https://shop.example".parse().unwrap(), ..Policy::default() };
        let app = whole(Router::new().route("/panics", get(panics)), Arc::new(policy));
        let request = Request::builder().method(method).uri(path).header("origin", "https://shop.example");
        let request = request.body(Body::empty()).unwrap();
        let mut response = app.oneshot(request).await.unwrap();
        let body = to_bytes(std::mem::take(response.body_mut()), usize::MAX).await.unwrap();
        (response.status().as_u16(), serde_json::from_slice(&body).unwrap(), response)
    }

    #[tokio::test]
    async fn what_has_no_handler_is_a_problem_too() {
        let (status, problem, response) = ask(Method::GET, "/nothing").await;
        assert_eq!(
            (status, &problem["code"], &problem["instance"]),
            (404, &"not-found".into(), &"/nothing".into())
        );
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let (status, problem, response) = ask(Method::DELETE, "/panics").await;
        assert_eq!((status, &problem["code"]), (405, &"method-not-allowed".into()));
        assert_eq!(response.headers()["allow"], "GET,HEAD");
    }

    #[tokio::test]
    async fn a_panic_says_nothing_of_the_inside() {
        let (status, problem, response) = ask(Method::GET, "/panics").await;
        assert_eq!((status, &problem["code"]), (500, &"internal".into()));
        assert!(!problem.to_string().contains("secret"), "{problem}");
        for (name, value) in [
            ("content-type", "application/problem+json"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("access-control-allow-origin", "https://shop.example"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
        assert_eq!(response.headers()["x-request-id"].len(), 16);
    }
}
