//! Is it alive, and may it be sent requests?

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::app::App;

/// Is the process alive?
///
/// Asks nobody else: restarting this process would not bring a store back.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "Alive")))]
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// May it be sent requests?
///
/// One line per dependency and per open sale; 503 if no order can be taken or this server is about to end.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses((status = 200, description = "Ready"), (status = 503, description = "Not ready")))]
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let mut ready = true;
    let mut lines = String::new();
    for dependency in app.engine.readiness().await {
        ready &= !dependency.vital || dependency.problem.is_none();
        let state = dependency.problem.unwrap_or_else(|| "ok".to_owned()).replace('\n', " ");
        lines.extend([&dependency.name, ": ", &state, "\n"]);
    }
    let draining = app.draining.is_cancelled();
    lines.push_str(if draining { "server: draining\n" } else { "server: ok\n" });
    let status = if ready && !draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, lines).into_response()
}
