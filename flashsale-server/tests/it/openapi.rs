//! The document and the pages that show it, as a client gets them, and a server that keeps to it.

use std::collections::BTreeSet;

use reqwest::{Method, redirect::Policy as Redirects};
use serde_json::{Value, json};

use crate::shop::{Answer, Buyers, Sale, Server, Shop, ask, policy};

/// Said of the connection and of the body, not by the API.
const OF_HTTP: [&str; 5] = ["connection", "content-length", "content-type", "date", "transfer-encoding"];

async fn document(buyers: &Buyers) -> Value {
    let answer = ask(buyers.get("/openapi.json")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json
}

/// A path of the document with something in the place of its parameters.
fn filled(path: &str) -> String {
    path.replace("{orderId}", "01a2030b-433f-86f7-8ef0-46ca00000100")
        .replace("{userId}", "ann")
        .replace("{productId}", "1")
        .replace("{file}", "index.css")
}

fn lower(names: &Value) -> impl Iterator<Item = String> {
    names.as_object().into_iter().flatten().map(|(name, _)| name.to_lowercase())
}

/// The answer is one that the operation's documentation has: status, content type and every header.
#[track_caller]
fn is_documented(answer: &Answer, operation: &Value, document: &Value) {
    let name = &operation["operationId"];
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{name} says nothing of {}: {}", answer.status, answer.json);
    let essence = |kind: &str| kind.split(';').next().unwrap().to_owned();
    let known: Vec<_> = lower(&response["content"]).map(|kind| essence(&kind)).collect();
    let content = answer.header("content-type").map(essence);
    assert!(content.as_ref().is_none_or(|kind| known.contains(kind)), "{name}: {content:?} {known:?}");
    let sent: BTreeSet<_> = answer.headers.keys().map(|header| header.as_str().to_owned()).collect();
    let mut known: BTreeSet<_> = lower(&response["headers"]).collect();
    known.extend(OF_HTTP.map(str::to_owned));
    let unknown: Vec<_> = sent.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "{name} {} sends {unknown:?}, of which the document says nothing",
        answer.status
    );
    for (header, description) in response["headers"].as_object().into_iter().flatten() {
        let reference = description["$ref"].as_str().and_then(|reference| document.pointer(&reference[1..]));
        let required = reference.unwrap_or(description)["required"] == true;
        assert!(!required || answer.header(header).is_some(), "{name} {} lacks {header}", answer.status);
    }
}

#[tokio::test]
async fn the_document_is_true_and_the_pages_are_inside_the_binary() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(10, 3)]).await;
    let server = Server::start(&shop, policy()).await;
    shop.loaded(&sale).await;
    the_document_is_true(&server.buyers, &sale).await;
    the_pages_are_inside_the_binary(&server.buyers).await;
    shop.audit(&sale).await;
    server.stop().await;
}

async fn the_document_is_true(buyers: &Buyers, sale: &Sale) {
    let document = document(buyers).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));

    let client = reqwest::Client::builder().redirect(Redirects::none()).build().unwrap();
    let request = |method: Method, path: &str| client.request(method, format!("{}{path}", buyers.url));
    for (path, item) in document["paths"].as_object().unwrap() {
        let mut allowed = BTreeSet::new();
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            allowed.insert(method.to_string());
            let answer = ask(request(method.clone(), &filled(path)).header("x-user-id", "ann")).await;
            is_documented(&answer, operation, &document);
            assert_ne!(answer.json["detail"], "There is nothing at this path.", "{method} {path}");
            if operation["security"].is_array() {
                let answer = ask(request(method.clone(), &filled(path))).await;
                answer.is_problem(401, "unauthorized");
                is_documented(&answer, operation, &document);
            }
            if method == Method::GET {
                let answer = ask(request(Method::HEAD, &filled(path)).header("x-user-id", "ann")).await;
                is_documented(&answer, operation, &document);
                allowed.insert("HEAD".to_owned());
            }
        }
        let answer = ask(request(Method::from_bytes(b"BREW").unwrap(), &filled(path))).await;
        answer.is_problem(405, "method-not-allowed");
        is_documented(&answer, &of_no_route(&document, "MethodNotAllowed"), &document);
        let said: BTreeSet<_> = answer.header("allow").unwrap().split(',').map(str::to_owned).collect();
        assert_eq!(said, allowed, "{path}");
    }
    let answer = ask(buyers.get("/nothing")).await;
    answer.is_problem(404, "not-found");
    is_documented(&answer, &of_no_route(&document, "NotFound"), &document);

    let place = &document["paths"]["/api/orders"]["post"];
    for quantity in [1, 1, 4] {
        is_documented(&buyers.order("ann", "k", &[sale.line(0, quantity)]).await, place, &document);
    }
    is_documented(&buyers.order("ann", "l", &[sale.line(0, 4)]).await, place, &document);
}

/// A response that belongs to no operation, in the form of one that has no other.
fn of_no_route(document: &Value, name: &str) -> Value {
    let response = &document["components"]["responses"][name];
    let status =
        &response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["status"];
    json!({ "operationId": name, "responses": { status["const"].to_string(): response } })
}

async fn the_pages_are_inside_the_binary(buyers: &Buyers) {
    for path in ["/", "/docs", "/docs/", "/docs/index.html"] {
        let answer = ask(buyers.get(path)).await;
        let page = answer.json.as_str().unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html")));
        assert!(page.contains("swagger-ui"), "{page}");
        // Whatever the page needs is served here; and its policy would let nothing else in.
        let parts =
            page.split(['"']).filter(|part| [".js", ".css", ".png"].iter().any(|end| part.ends_with(end)));
        let parts: Vec<_> = parts.collect();
        assert!(parts.len() >= 5, "{parts:?}");
        for part in parts {
            assert!(!part.contains(':'), "{part} is elsewhere");
            let part = ask(buyers.get(&format!("/docs/{}", part.trim_start_matches("./")))).await;
            assert_eq!((part.status, part.header("x-content-type-options")), (200, Some("nosniff")));
        }
        let may = answer.header("content-security-policy").unwrap();
        assert!(may.contains("frame-ancestors 'none'") && may.contains("script-src 'self';"), "{may}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert!(
            !page.contains("<script>") && !page.contains("<style>"),
            "the policy forbids scripts in the page"
        );
    }
    let script = ask(buyers.get("/docs/swagger-initializer.js")).await;
    assert!(script.json.as_str().unwrap().contains(r#""/openapi.json""#), "{}", script.json);
    assert!(!script.json.as_str().unwrap().contains("petstore"));
    for nothing in ["/docs/nothing.js", "/docs/..%2f..%2fetc%2fpasswd", "/docs/%00"] {
        ask(buyers.get(nothing)).await.is_problem(404, "not-found");
    }
    ask(buyers.get("/docs/%ff")).await.names("file");
}
