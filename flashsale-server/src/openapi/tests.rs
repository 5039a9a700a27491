use std::collections::{BTreeMap, BTreeSet};

use axum::Router;

use super::*;
use crate::app::{self, App};

fn document() -> Value {
    complete(&app::routes().into_openapi(), AuthMode::Header)
}

/// The methods of every path that a router serves. It has no list of them to give, but its debug output has: of
/// each route the methods, then of each route the path.
fn served(router: &Router<App>) -> BTreeMap<String, BTreeSet<String>> {
    let text = format!("{router:?}");
    let (handlers, paths) = text.split_once("paths: {").expect("the paths of a router");
    let upto_quote = |text: &str| text.split('"').next().unwrap().to_owned();
    let methods_of = |route: &str| {
        let (_, methods) = handlers.split_once(&format!("{route}: ")).expect(route);
        let (_, methods) = methods.split_once("allow_header: Bytes(b\"").expect(route);
        upto_quote(methods).split(',').map(str::to_owned).collect()
    };
    // Fallbacks stand there too, under a path that nobody can ask for.
    let entries = paths.split("RouteId(").filter(|entry| !entry.contains("__private__"));
    let entries = entries.filter_map(|entry| entry.split_once("): \""));
    entries.map(|(id, path)| (upto_quote(path), methods_of(&format!("RouteId({id})")))).collect()
}

#[test]
fn what_is_served_is_documented_and_nothing_else() {
    let mut documented = BTreeMap::<String, BTreeSet<String>>::new();
    for (route, _) in operations(&mut document()) {
        let (method, path) = route.split_once(' ').unwrap();
        let methods = documented.entry(path.to_owned()).or_default();
        methods.insert(method.to_owned());
        if method == "GET" {
            methods.insert("HEAD".to_owned());
        }
    }
    assert_eq!(served(&app::routes().into()), documented);
}

#[test]
fn a_route_beside_the_documented_ones_is_seen() {
    let router: Router<App> = app::routes().route("/beside", axum::routing::get(async || ())).into();
    assert_eq!(served(&router)["/beside"], BTreeSet::from(["GET", "HEAD"].map(str::to_owned)));
}

#[test]
fn every_operation_is_complete() {
    let mut document = document();
    let tags: BTreeSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].clone().to_string()).collect();
    let mut names = BTreeSet::new();
    for (route, operation) in operations(&mut document) {
        for member in ["operationId", "summary", "description"] {
            assert!(operation[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {route}");
        }
        assert!(
            names.insert(operation["operationId"].clone().to_string()),
            "{route} has another's operationId"
        );
        assert!(tags.contains(&operation["tags"][0].to_string()), "the tag of {route}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = &parameter["name"];
            assert!(parameter["description"].is_string(), "a description of {name} in {route}");
            assert!(parameter["schema"].is_object(), "a schema of {name} in {route}");
        }
        if operation["requestBody"].is_object() {
            assert_shown(&operation["requestBody"], &route);
        }
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with(['2', '3'])), "a success of {route}");
        for (status, response) in responses {
            assert!(!response["description"].as_str().unwrap().is_empty(), "{route} {status}");
            assert_shown(response, &format!("{route} {status}"));
        }
        for (status, response) in RefusalsOf::route(&route).responses() {
            assert_eq!(responses[&status]["content"], response["content"], "{route} {status}");
        }
    }
}

/// Every content has a schema and, if it is text, an example.
fn assert_shown(content: &Value, what: &str) {
    for (kind, content) in content["content"].as_object().into_iter().flatten() {
        if kind.starts_with("image/") {
            continue;
        }
        assert!(content["schema"].is_object(), "a schema of {kind} in {what}");
        let shown = !content["example"].is_null() || !content["examples"].is_null();
        assert!(shown, "an example of {kind} in {what}");
    }
}

#[test]
fn every_code_and_every_row_is_used() {
    let mut document = document();
    let routes: BTreeSet<_> = operations(&mut document).map(|(route, _)| route).collect();
    let mut rows = BTreeSet::new();
    for route in refusals::routes() {
        assert!(rows.insert(route), "two rows for {route}, of which only the first counts");
        assert!(routes.contains(route), "a row for {route}, which is not served");
    }
    for route in &routes {
        assert!(refusals::routes().any(|row| row == route), "no row in openapi/refusals.rs for {route}");
    }
    let text = format!("{}{}", document["paths"], document["components"]["responses"]);
    for code in Code::ALL {
        let used = format!("\"#/components/examples/{}\"", code.word());
        assert!(text.contains(&used), "no route refuses with {}", code.word());
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(value: &Value, document: &Value) {
        if let Some(reference) = value["$ref"].as_str() {
            let pointer = reference.strip_prefix('#').expect(reference);
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        match value {
            Value::Object(members) => members.values().for_each(|value| check(value, document)),
            Value::Array(items) => items.iter().for_each(|value| check(value, document)),
            _ => {}
        }
    }
    check(&document(), &document());
}

#[test]
fn it_tells_how_to_say_who_is_asking() {
    let scheme =
        |auth| complete(&app::routes().into_openapi(), auth)["components"]["securitySchemes"]["user"].clone();
    assert_eq!(scheme(AuthMode::Header)["name"], "X-User-Id");
    assert_eq!(scheme(AuthMode::Jwt)["scheme"], "bearer");
    let mut document = document();
    for (route, operation) in operations(&mut document) {
        // The status of an order is for everybody who knows its id.
        let names_a_user =
            route.contains("{userId}") || ["POST /api/orders", "POST /api/cart"].contains(&&*route);
        assert_eq!(operation["security"].is_array(), names_a_user, "{route}");
    }
}
