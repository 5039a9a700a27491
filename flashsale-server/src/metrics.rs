//! What is measured: the process's recorder, the requests, and `/metrics`, which shows it all to Prometheus.

use std::{
    borrow::Cow,
    io,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, header::CONTENT_TYPE},
    middleware::Next,
    response::{IntoResponse, Response},
};
use metrics::{
    Counter, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use crate::{app::App, problem::Problem};

const REQUESTS: &str = "flashsale_http_requests_total";
const REQUEST_SECONDS: &str = "flashsale_http_request_duration_seconds";
const IN_FLIGHT: &str = "flashsale_http_requests_in_flight";
const EVENT_STREAMS: &str = "flashsale_event_streams";
const RATE_LIMITED: &str = "flashsale_rate_limited_total";
const BUILD_INFO: &str = "flashsale_build_info";

/// From an order that Redis admits at once to what the longest deadlines add up to.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Up to the largest batch that there is.
const SIZES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// A gauge that nobody has written for so long is not shown any more: rather no stock than yesterday's.
const GAUGES_STAND_FOR: Duration = Duration::from_secs(10);
/// How often what was recorded is summed up. Until then each single value takes memory.
const SUM_UP_EVERY: Duration = Duration::from_secs(5);

/// Requests whose answers have not begun.
static REQUESTS_IN_FLIGHT: AtomicU32 = AtomicU32::new(0);
/// Streams of events that are open.
static OPEN_EVENT_STREAMS: AtomicU32 = AtomicU32::new(0);

/// The recorder of this process, which all servers in it share; it is installed when it is first asked for.
/// An engine counts only if that was before it was made.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(install)
}

fn install() -> PrometheusHandle {
    let buckets = |builder: PrometheusBuilder, suffix: &str, values: &[f64]| {
        builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), values).expect("there are values")
    };
    let builder = buckets(PrometheusBuilder::new(), "_seconds", &SECONDS);
    let recorder = buckets(builder, "_size", &SIZES)
        .idle_timeout(MetricKindMask::GAUGE, Some(GAUGES_STAND_FOR))
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another recorder of metrics is installed already; /metrics stays empty");
    }
    describe();
    let summed_up = handle.clone();
    // A thread, since a task would end with its runtime, of which a test process has many.
    let upkeep = move || loop {
        thread::sleep(SUM_UP_EVERY);
        // The recorder looks at the age of its gauges only while it is rendering.
        let _ = summed_up.render_to_write(&mut io::sink());
    };
    thread::Builder::new().name("metrics".to_owned()).spawn(upkeep).expect("a thread");
    handle
}

fn describe() {
    describe_counter!(REQUESTS, "Requests, by method, route and status; `aborted` if the client went away");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "From a request's head to its answer's");
    describe_gauge!(IN_FLIGHT, "Requests whose answers have not begun");
    describe_gauge!(EVENT_STREAMS, "Streams of events that are open");
    describe_counter!(RATE_LIMITED, "Orders that were turned away because their address had sent too many");
    describe_gauge!(BUILD_INFO, "1; which version this is");
    // A counter that appears with its first event hides that event from whoever looks at its growth.
    let _ = rate_limited_counter();
}

/// What this process has measured
///
/// In the text format of Prometheus. Gauges about sales are the same at every server; counters and histograms
/// are this process's own. No label holds a user, a key or an order.
///
/// A server whose metrics have an address of their own answers 404 at the API's.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "operations", responses((
    status = 200,
    description = "Counters, gauges and histograms",
    content_type = "text/plain; version=0.0.4; charset=utf-8",
    body = String,
    example = "# TYPE flashsale_admissions_total counter\nflashsale_admissions_total{outcome=\"admitted\"} 500\n",
)))]
pub(crate) async fn scrape(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    if app.policy.metrics_apart {
        return Err(Problem::nothing_here());
    }
    gauge!(IN_FLIGHT).set(REQUESTS_IN_FLIGHT.load(Ordering::Relaxed));
    gauge!(EVENT_STREAMS).set(OPEN_EVENT_STREAMS.load(Ordering::Relaxed));
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], recorder().render()))
}

/// An order was turned away by the rate limit.
pub(crate) fn rate_limited() {
    rate_limited_counter().increment(1);
}

fn rate_limited_counter() -> Counter {
    counter!(RATE_LIMITED)
}

/// A stream of events, counted as open until it is dropped.
#[derive(Debug)]
pub(crate) struct EventStream(());

impl EventStream {
    pub(crate) fn open() -> Self {
        OPEN_EVENT_STREAMS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        OPEN_EVENT_STREAMS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts and times a request, by its route and never by its path.
pub(crate) async fn measure(request: Request, next: Next) -> Response {
    let mut flight = Flight::begin(&request);
    let response = next.run(request).await;
    flight.status = Some(response.status());
    response
}

/// A request on its way. It is counted when it is over, also when its client goes away before.
struct Flight {
    method: &'static str,
    route: Option<MatchedPath>,
    began: Instant,
    status: Option<StatusCode>,
}

impl Flight {
    fn begin(request: &Request) -> Self {
        REQUESTS_IN_FLIGHT.fetch_add(1, Ordering::Relaxed);
        let route = request.extensions().get().cloned();
        Self { method: known(request.method()), route, began: Instant::now(), status: None }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        REQUESTS_IN_FLIGHT.fetch_sub(1, Ordering::Relaxed);
        let route = self.route.as_ref().map_or("unmatched", MatchedPath::as_str);
        let route = SharedString::from_shared(route.into());
        let status = self.status.map_or(Cow::Borrowed("aborted"), word);
        counter!(REQUESTS, "method" => self.method, "route" => route.clone(), "status" => status)
            .increment(1);
        histogram!(REQUEST_SECONDS, "method" => self.method, "route" => route).record(self.began.elapsed());
    }
}

/// The statuses that most requests end with take no memory.
fn word(status: StatusCode) -> Cow<'static, str> {
    match status.as_u16() {
        200 => "200".into(),
        202 => "202".into(),
        204 => "204".into(),
        404 => "404".into(),
        409 => "409".into(),
        429 => "429".into(),
        503 => "503".into(),
        504 => "504".into(),
        _ => status.as_str().to_owned().into(),
    }
}

/// A client may invent methods; each would be a label for ever.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
