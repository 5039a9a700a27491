//! What is measured: the process's recorder, the requests, and `/metrics`, which shows it all to Prometheus.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};
use metrics::{
    Counter, Histogram, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
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

/// What a request may be counted under; a client may invent methods, and each would be a label for ever.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];

/// How most requests end: by status, or with their clients gone away.
const ENDS: [Option<StatusCode>; 14] = [
    None,
    Some(StatusCode::OK),
    Some(StatusCode::ACCEPTED),
    Some(StatusCode::NO_CONTENT),
    Some(StatusCode::BAD_REQUEST),
    Some(StatusCode::UNAUTHORIZED),
    Some(StatusCode::FORBIDDEN),
    Some(StatusCode::NOT_FOUND),
    Some(StatusCode::METHOD_NOT_ALLOWED),
    Some(StatusCode::CONFLICT),
    Some(StatusCode::UNPROCESSABLE_ENTITY),
    Some(StatusCode::TOO_MANY_REQUESTS),
    Some(StatusCode::SERVICE_UNAVAILABLE),
    Some(StatusCode::GATEWAY_TIMEOUT),
];

/// The meters of one route. Each is looked up in the recorder when it is first needed: to find it there takes
/// longer than to count.
#[derive(Default)]
pub(crate) struct Meters {
    requests: [[OnceLock<Counter>; ENDS.len()]; METHODS.len()],
    seconds: [OnceLock<Histogram>; METHODS.len()],
}

impl Meters {
    /// A request to this route begins; it is counted by the route and never by its path.
    pub(crate) fn begin(meters: &Arc<Self>, request: &Request) -> Flight {
        REQUESTS_IN_FLIGHT.fetch_add(1, Ordering::Relaxed);
        Flight {
            meters: Arc::clone(meters),
            method: METHODS
                .iter()
                .position(|name| *name == request.method().as_str())
                .unwrap_or(METHODS.len() - 1),
            route: request.extensions().get().cloned(),
            began: Instant::now(),
            status: None,
        }
    }
}

/// A request on its way. It is counted when it is over, also when its client goes away before.
pub(crate) struct Flight {
    meters: Arc<Meters>,
    method: usize,
    route: Option<MatchedPath>,
    began: Instant,
    status: Option<StatusCode>,
}

impl Flight {
    /// Its answer has begun.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        // Nothing louder: in an outage it would be as many lines as there are requests.
        tracing::debug!(status = status.as_u16(), seconds = self.began.elapsed().as_secs_f64(), "answered");
    }

    fn route(&self) -> SharedString {
        self.route.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned().into()
    }

    fn requests(&self) -> Counter {
        let status = self.status.as_ref().map_or("aborted", StatusCode::as_str).to_owned();
        counter!(REQUESTS, "method" => METHODS[self.method], "route" => self.route(), "status" => status)
    }

    fn seconds(&self) -> Histogram {
        histogram!(REQUEST_SECONDS, "method" => METHODS[self.method], "route" => self.route())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        REQUESTS_IN_FLIGHT.fetch_sub(1, Ordering::Relaxed);
        match ENDS.iter().position(|end| *end == self.status) {
            Some(end) => {
                self.meters.requests[self.method][end].get_or_init(|| self.requests()).increment(1);
            }
            None => self.requests().increment(1),
        }
        self.meters.seconds[self.method].get_or_init(|| self.seconds()).record(self.began.elapsed());
    }
}
