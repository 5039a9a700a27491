//! The OpenAPI document: what the handlers say of themselves, completed by what they have in common.
//!
//! A handler's annotation tells of its success. What it may refuse stands in one table ([`refusals`]), from which
//! the responses are made: so that a code has one description, and a route without a row fails a test.

mod refusals;
pub(crate) mod schemas;

use serde_json::{Value, json};
use utoipa::{OpenApi, openapi};

use crate::{identity::AuthMode, openapi::refusals::RefusalsOf, problem::Code};

/// What stands in front of every page of the documentation.
const CONVENTIONS: &str = "\
Sells a few units to a great many buyers at once: never more than there are, never more per user than the limit, and \
one order per idempotency key.

**Problems.** Whatever is not fulfilled is answered with `application/problem+json` (RFC 9457). `code` is the word to \
rely on; `detail` is for people. A path that does not exist answers 404 `not-found`; a path that does not know the \
method, 405 `method-not-allowed` with `Allow`. A request whose head cannot be read or is too large is answered with \
400 or 431 and no body, and its connection is closed. Every other answer has an `X-Request-Id`, under which the \
server's logs know the request.

**Money** is decimal text with an ISO 4217 currency beside it, never a float. **Instants** are RFC 3339 in UTC.

**Idempotency.** An order names its purchase by a key. The same order under the same key is answered with the same \
order id, however often it comes, and with `Idempotency-Replayed: true`; another order under that key is refused. So \
whoever got no answer, or a 503 or 504, repeats the request as it was.

**Users.** A path's `{userId}` must be the user on whose behalf the request is made.";

#[derive(OpenApi)]
#[openapi(
    info(title = "flashsale", description = CONVENTIONS, contact(), license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")),
    servers((url = "/", description = "The server that this document came from")),
    tags(
        (name = "sales", description = "What is on sale now"),
        (name = "cart", description = "What a user means to buy. A cart reserves nothing"),
        (name = "orders", description = "Buying, and what became of it"),
        (name = "operations", description = "For those who run the server: health, metrics, this document"),
    ),
    components(schemas(
        schemas::Currency,
        schemas::FailureReason,
        schemas::IdempotencyKey,
        schemas::Money,
        schemas::OrderId,
        schemas::OrderStatus,
        schemas::ProductId,
        schemas::Quantity,
        schemas::SaleId,
        schemas::UserId,
    ))
)]
struct Frame;

/// What the document says beside the routes: where they are registered, they are added to it.
pub(crate) fn frame() -> openapi::OpenApi {
    Frame::openapi()
}

/// The document of a server that learns in this way who is asking.
pub(crate) fn complete(annotated: &openapi::OpenApi, auth: AuthMode) -> Value {
    let mut document = serde_json::to_value(annotated).expect("a document is JSON");
    let components = &mut document["components"];
    components["schemas"]["Problem"] = refusals::schema();
    components["examples"] = refusals::examples();
    components["responses"] = refusals::of_no_route();
    for response in components["responses"].as_object_mut().expect("responses").values_mut() {
        add_headers_of_all(response);
    }
    components["headers"] = headers();
    components["securitySchemes"] = json!({ "user": user(auth) });
    for (route, operation) in operations(&mut document) {
        complete_operation(operation, &RefusalsOf::route(&route));
    }
    document
}

/// Every operation with its name, such as `GET /healthz`.
fn operations(document: &mut Value) -> impl Iterator<Item = (String, &mut Value)> {
    let paths = document["paths"].as_object_mut().expect("the paths").iter_mut();
    paths.flat_map(|(path, item)| {
        let methods = item.as_object_mut().expect("the methods of a path").iter_mut();
        methods.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
    })
}

fn complete_operation(operation: &mut Value, refusals: &RefusalsOf) {
    if refusals.include(Code::Unauthorized) {
        operation["security"] = json!([{ "user": [] }]);
    }
    let responses = operation["responses"].as_object_mut().expect("the responses");
    responses.extend(refusals.responses());
    responses.values_mut().for_each(add_headers_of_all);
}

fn add_headers_of_all(response: &mut Value) {
    let headers = &mut response["headers"];
    headers["X-Request-Id"] = reference("headers", "RequestId");
    headers["X-Content-Type-Options"] = reference("headers", "NoSniff");
    // What may be kept says so itself.
    if headers["Cache-Control"].is_null() {
        headers["Cache-Control"] = reference("headers", "NoStore");
    }
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "The name under which the server's logs know this request.",
            "required": true,
            "schema": { "type": "string", "minLength": 1, "maxLength": 128 },
            "example": "9f1c40d2a8b3e617",
        },
        "RetryAfter": {
            "description": "Seconds until it is worth trying again.",
            "required": true,
            "schema": { "type": "integer", "minimum": 1 },
            "example": 1,
        },
        "WwwAuthenticate": {
            "description": "How to say who is asking.",
            "required": true,
            "schema": { "type": "string" },
        },
        "Allow": {
            "description": "The methods that the path knows.",
            "required": true,
            "schema": { "type": "string" },
            "example": "GET,HEAD",
        },
        "NoStore": {
            "description": "Not to be kept by anybody.",
            "required": true,
            "schema": { "type": "string", "const": "no-store" },
        },
        "NoSniff": {
            "description": "The content is what its type says.",
            "required": true,
            "schema": { "type": "string", "const": "nosniff" },
        },
    })
}

fn user(auth: AuthMode) -> Value {
    match auth {
        AuthMode::Header => json!({
            "type": "apiKey",
            "in": "header",
            "name": "X-User-Id",
            "description": "The user, by id, as the proxy in front of this server knows it. It is believed only from \
                            a trusted proxy.",
        }),
        AuthMode::Jwt => json!({
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A signed token that has not expired; its `sub` is the user's id.",
        }),
    }
}

#[cfg(test)]
mod tests;
