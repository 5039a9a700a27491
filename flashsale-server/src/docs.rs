//! The documentation that the server serves: the OpenAPI document, and Swagger UI to read and try it. Everything
//! is inside the binary; nothing is fetched from elsewhere.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use axum::{
    body::Bytes,
    extract::{Path, State, rejection::PathRejection},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_FRAME_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use utoipa_swagger_ui::Config;

use crate::{
    app::{self, App},
    identity::{Auth, AuthMode},
    openapi,
    problem::{Code, Problem},
};

const DOCUMENT_PATH: &str = "/openapi.json";
const UI_PATH: &str = "/docs/";

/// What the page may do: run its own scripts and ask its own server. Swagger UI sets styles in place and has
/// pictures in `data:` URLs.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                              img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                              frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY)),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// This document
///
/// It tells of this server: of the way in which it learns who is asking, too.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getDocument",
    tag = "operations",
    responses((
        status = 200,
        description = "OpenAPI 3.1",
        body = Object,
        content_type = "application/json",
        example = json!({"openapi": "3.1.0", "info": {"title": "flashsale", "version": "1.0.0"}, "paths": {}})
    ))
)]
pub(crate) async fn document(State(app): State<App>) -> impl IntoResponse {
    // It never changes while the program runs.
    static BY_HEADER: LazyLock<Bytes> = LazyLock::new(|| written(AuthMode::Header));
    static BY_TOKEN: LazyLock<Bytes> = LazyLock::new(|| written(AuthMode::Jwt));
    let document = match app.policy.auth {
        Auth::Header => BY_HEADER.clone(),
        Auth::Jwt(_) => BY_TOKEN.clone(),
    };
    ([(CONTENT_TYPE, "application/json")], document)
}

fn written(auth: AuthMode) -> Bytes {
    openapi::complete(&app::routes().into_openapi(), auth).to_string().into()
}

/// Leads to the documentation
#[utoipa::path(
    get,
    path = "/",
    operation_id = "getFrontPage",
    tag = "operations",
    description = "For people who type the address of the server.",
    responses((
        status = 307,
        description = "The documentation is at `Location`",
        headers(("Location" = String, description = "`/docs/`"))
    ))
)]
pub(crate) async fn front() -> impl IntoResponse {
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, UI_PATH)])
}

/// Leads to the documentation
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "getDocs",
    tag = "operations",
    description = "The page's parts have relative addresses, which need the slash at the end.",
    responses((
        status = 307,
        description = "The documentation is at `Location`",
        headers(("Location" = String, description = "`/docs/`"))
    ))
)]
pub(crate) async fn without_slash() -> impl IntoResponse {
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, UI_PATH)])
}

/// Swagger UI
///
/// A page in which this document can be read and its requests can be tried.
#[utoipa::path(
    get,
    path = "/docs/",
    operation_id = "getSwaggerUi",
    tag = "operations",
    responses((
        status = 200,
        description = "The page",
        body = String,
        content_type = "text/html",
        headers(
            ("Cache-Control" = String, description = "It may be kept for an hour"),
            ("Content-Security-Policy" = String, description = "Own scripts only, and in no frame"),
            ("Referrer-Policy" = String, description = "`no-referrer`"),
            ("X-Frame-Options" = String, description = "`DENY`"),
        ),
        example = "<!DOCTYPE html>"
    ))
)]
pub(crate) async fn page() -> Result<Response, Problem> {
    part("index.html")
}

/// A part of Swagger UI
#[utoipa::path(
    get,
    path = "/docs/{file}",
    operation_id = "getSwaggerUiPart",
    tag = "operations",
    description = "A script, a style sheet or a picture of the page.",
    params(("file" = String, Path, description = "The name of the file", example = "swagger-ui.css")),
    responses((
        status = 200,
        description = "The file",
        headers(
            ("Cache-Control" = String, description = "It may be kept for an hour"),
            ("Content-Security-Policy" = String, description = "Own scripts only, and in no frame"),
            ("Referrer-Policy" = String, description = "`no-referrer`"),
            ("X-Frame-Options" = String, description = "`DENY`"),
        ),
        content(
            (String = "text/css", example = "body { margin: 0 }"),
            (String = "text/html", example = "<!DOCTYPE html>"),
            (String = "text/javascript", example = "window.onload = function() {}"),
            ("image/png"),
        )
    ))
)]
pub(crate) async fn file(path: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let Path(name) = path.map_err(|_| Problem::invalid("file", "must be UTF-8"))?;
    part(&name)
}

fn part(name: &str) -> Result<Response, Problem> {
    // Without the badge of a validator on the internet, which would be told of every page view.
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        Arc::new(Config::from(DOCUMENT_PATH).validator_url("none").try_it_out_enabled(true))
    });
    let found = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)).map_err(|error| {
        tracing::error!(%error, name, "a part of the documentation cannot be written");
        Problem::internal()
    })?;
    let file = found.ok_or_else(|| Problem::new(Code::NotFound, "The documentation has no such file."))?;
    let bytes = match file.bytes {
        Cow::Borrowed(inside_the_binary) => Bytes::from_static(inside_the_binary),
        Cow::Owned(written) => written.into(),
    };
    Ok((HEADERS, [(CONTENT_TYPE, file.content_type)], bytes).into_response())
}
