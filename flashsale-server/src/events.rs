//! What became of an order, told as it happens: server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use flashsale_core::{OrderId, OrderState, OrderStatus, OrderWatch};
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use tracing::Span;

use crate::{
    app::App,
    identity::ClientAddress,
    openapi::schemas,
    path::segment,
    problem::{Code, Problem},
    status::{StatusBody, unknown},
    streams::Place,
};

const LAST_EVENT_ID: &str = "last-event-id";

/// The word by which nginx, and what imitates it, is told to pass on what it gets at once.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// When a client whose stream broke comes back.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

/// What becomes of an order, as it happens
#[utoipa::path(
    get,
    path = "/api/orders/status/{orderId}/events",
    operation_id = "streamOrderStatus",
    tag = "orders",
    description = "One event `status` for where the order is now and for each change, with the status as `id` and, \
                   as `data`, what the status route answers; the stream ends after a final one. Changes that follow \
                   each other at once may be told as one. An event `gone` instead, with the `orderId`, ends the stream \
                   of an order that was lost before it was recorded. A stream that ends otherwise is to be \
                   opened again, as `EventSource` does by itself: the server may be about to end. Comments keep an \
                   idle connection alive.",
    params(
        ("orderId" = schemas::OrderId, Path, description = "As it was answered to the order"),
        ("Last-Event-ID" = Option<String>, Header, description = "Sent by `EventSource` when it comes back: the last status that it was told"),
    ),
    responses(
        (
            status = 200,
            description = "The events. The schema is that of one",
            body = schemas::OrderEvent,
            content_type = "text/event-stream",
            headers(("X-Accel-Buffering" = String, description = "`no`: a proxy is to pass on each event at once")),
            example = json!({
                "event": "status",
                "id": "Confirmed",
                "data": "{\"orderId\":\"01a2030b-433f-86f7-8ef0-46ca00000100\",\"status\":\"Confirmed\",\
                         \"failureReason\":null,\"lastUpdatedAt\":\"2026-01-01T12:00:00.123Z\"}",
            })
        ),
        (status = 204, description = "The last status that the client was told is final: an `EventSource` stops here"),
    )
)]
pub(crate) async fn events(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id: OrderId = segment(path, "orderId")?;
    // An `EventSource` comes back after every end, and takes nothing but this for an answer.
    if was_told_the_end(&headers) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    // It would be ended at once, and an `EventSource` would come back every second until the server is gone.
    if app.draining.is_cancelled() {
        let detail = "This server is about to end. Open the stream again: another one takes it.";
        return Err(Problem::new(Code::Unavailable, detail).retry_after(COME_BACK_AFTER));
    }
    let place = app.streams.place(client)?;
    let watch = app.engine.watch_order(id).await?.ok_or_else(|| unknown(id))?;
    let hint = Event::default().retry(COME_BACK_AFTER);
    let events = stream::iter([hint]).chain(told(id, watch, place)).map(Ok::<_, Infallible>);
    // Whoever is told to end waits for the streams that are open.
    let events = events.take_until(app.draining.clone().cancelled_owned());
    let events = within(Span::current(), events);
    let keep_alive = Duration::from_secs(app.policy.limits.stream_keep_alive_seconds.into());
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(keep_alive)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// Polls a stream in the span of its request, which is over for everything else by then.
fn within<S: Stream>(span: Span, stream: S) -> impl Stream<Item = S::Item> {
    let mut stream = Box::pin(stream);
    stream::poll_fn(move |context| span.in_scope(|| stream.poll_next_unpin(context)))
}

fn was_told_the_end(headers: &HeaderMap) -> bool {
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    last.and_then(OrderState::parse).is_some_and(OrderState::is_final)
}

/// The events of an order. The place is free again when they end, or when the client is gone and they are
/// dropped.
fn told(id: OrderId, watch: OrderWatch, place: Place) -> impl Stream<Item = Event> {
    stream::unfold(Some((watch, place)), move |watching| async move {
        let (mut watch, place) = watching?;
        match watch.next().await {
            Ok(Some(status)) => Some((changed(status), Some((watch, place)))),
            Err(error) if error.is_not_found() => Some((gone(id), None)),
            // The order is final; or the engine ends, and the client finds another one.
            Ok(None) | Err(_) => None,
        }
    })
}

fn changed(status: OrderStatus) -> Event {
    let event = Event::default().event("status").id(status.state.as_str());
    event.json_data(StatusBody::from(status)).expect("a status is JSON")
}

/// Whoever comes back after it is told that there is no such order.
fn gone(id: OrderId) -> Event {
    Event::default().event("gone").data(json!({ "orderId": id }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_stream_logs_is_its_requests() {
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry());
        let span = tracing::error_span!("request");
        let polled_in = stream::poll_fn(|_| std::task::Poll::Ready(Some(Span::current().id())));
        let mut events = within(span.clone(), polled_in);
        assert!(span.id().is_some());
        assert_eq!(events.next().await, Some(span.id()));
    }
}
