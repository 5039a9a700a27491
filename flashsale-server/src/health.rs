//! Is it alive, and may it be sent requests?

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use flashsale_core::Dependency;

use crate::app::App;

/// Is the process alive?
///
/// Asks nobody else: restarting this process would not bring a store back.
#[utoipa::path(get, path = "/healthz", operation_id = "checkHealth", tag = "operations", responses((
    status = 200,
    description = "Alive",
    content_type = "text/plain; charset=utf-8",
    body = String,
    example = "ok\n",
)))]
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// May it be sent requests?
///
/// One line for each store and each sale that has begun, and last one for this server: `ok`; `degraded`, when
/// orders are taken although something is wrong; or, with 503, `unavailable` without Redis and `draining` when it
/// is about to end.
#[utoipa::path(get, path = "/readyz", operation_id = "checkReadiness", tag = "operations", responses(
    (
        status = 200,
        description = "Orders are taken",
        content_type = "text/plain; charset=utf-8",
        body = String,
        example = "redis: ok\npostgres: ok\nsale noon: ok\nserver: ok\n",
    ),
    (
        status = 503,
        description = "Send no requests",
        content_type = "text/plain; charset=utf-8",
        body = String,
        example = "redis: ok\npostgres: ok\nsale noon: ok\nserver: draining\n",
    ),
))]
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let mut dependencies = app.engine.readiness().await;
    // Buyers can ask here too. What a store says may name hosts and users, and a sale may be a secret yet.
    dependencies.retain(|dependency| dependency.announced);
    for Dependency { name, problem, .. } in &mut dependencies {
        if let Some(problem) = problem {
            tracing::debug!(%name, %problem, "cannot be used");
            "cannot be used now".clone_into(problem);
        }
    }
    told(&dependencies, app.draining.is_cancelled())
}

/// May it be sent requests, and if not, why?
///
/// For operators: every open sale, and what is wrong with each store.
#[utoipa::path(get, path = "/readyz", responses((status = 200), (status = 503)))]
pub(crate) async fn ready_in_detail(State(app): State<App>) -> Response {
    told(&app.engine.readiness().await, app.draining.is_cancelled())
}

fn told(dependencies: &[Dependency], draining: bool) -> Response {
    let (status, word) = judge(dependencies, draining);
    let mut lines = String::new();
    for Dependency { name, problem, .. } in dependencies {
        // One line each, whatever the store said.
        let state = problem.as_deref().unwrap_or("ok").replace('\n', " ");
        lines.extend([name, ": ", &state, "\n"]);
    }
    lines.extend(["server: ", word, "\n"]);
    (status, lines).into_response()
}

fn judge(dependencies: &[Dependency], draining: bool) -> (StatusCode, &'static str) {
    let wrong = || dependencies.iter().filter(|dependency| dependency.problem.is_some());
    if draining {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if wrong().any(|dependency| dependency.vital) {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    } else if wrong().next().is_some() {
        (StatusCode::OK, "degraded")
    } else {
        (StatusCode::OK, "ok")
    }
}
