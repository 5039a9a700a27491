//! What every request passes through on its way to a handler, and every answer on its way back.
//!
//! All of it is one layer of the router. As layers of their own these would each take a box for the future, one
//! for the routes inside, and a copy of all that is further inside, for every request: more than an order costs.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::Method,
    response::{IntoResponse, Response},
    routing::Route,
};
use futures::FutureExt;
use tokio::time::timeout;
use tower::{Layer, Service, layer::layer_fn, service_fn, util::option_layer};
use tracing::Instrument;

use crate::{
    app::Policy,
    browser,
    metrics::{self, Meters},
    problem::{self, Problem},
    request_id, unread,
};

/// The last resort for a request that hangs. Above what the engine's own deadlines add up to, which give the
/// better answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What answers requests: the routes, or the routes with something around them.
trait Answers:
    Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Answers for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Leads to the routes. From the outside in: whatever a request is answered with, it has a name and is counted;
/// browsers are told; what is wrong is a problem document.
pub(crate) fn to(routes: Router, policy: Arc<Policy>) -> Router {
    // Meters count for ever to the recorder that the first request finds.
    metrics::recorder();
    let cors = option_layer(browser::cors(&policy.cors_origins));
    routes.layer(layer_fn(move |route: Route| observed(cors.layer(with_manners(route)), Arc::clone(&policy))))
}

/// Gives each request a name and counts it, by its route.
fn observed(mut inside: impl Answers, policy: Arc<Policy>) -> impl Answers {
    let meters = Arc::new(Meters::default());
    service_fn(move |mut request: Request| {
        let id = request_id::of(&request, &policy.trusted_proxies);
        let span = request_id::span(&id, &request);
        let mut flight = Meters::begin(&meters, &request);
        request.extensions_mut().insert(id.clone());
        let answer = inside.call(request);
        let observe = async move {
            let Ok(mut response) = answer.await;
            flight.answered(response.status());
            browser::tell(response.headers_mut());
            request_id::tell(&id, response.headers_mut());
            Ok::<_, Infallible>(response)
        };
        observe.instrument(span)
    })
}

/// Every answer comes in time and, if it is a refusal, as a problem document: panics too.
fn with_manners(mut route: Route) -> impl Answers {
    service_fn(move |request: Request| {
        let about = request.uri().clone();
        let changes_nothing = matches!(*request.method(), Method::GET | Method::HEAD);
        let (request, unread) = unread::watch(request);
        // The panic itself is in the log.
        let answer = AssertUnwindSafe(route.call(request)).catch_unwind();
        async move {
            let mut response = match timeout(ANSWER_WITHIN, answer).await {
                Ok(Ok(Ok(response))) => response,
                Ok(Err(_panic)) => Problem::internal().into_response(),
                Err(_) if changes_nothing => Problem::unavailable().into_response(),
                Err(_) => Problem::outcome_unknown().into_response(),
            };
            problem::write(&mut response, about.path());
            unread.announce(&mut response);
            Ok::<_, Infallible>(response)
        }
    })
}
