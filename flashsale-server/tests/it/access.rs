//! Nobody gets what is another's, whichever way a request says whose it is.

use std::{io::Write, time::SystemTime};

use clap::Parser;
use flashsale_server::{Config, Policy};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::shop::{Answer, Buyers, Sale, Server, Shop, ask, limits, policy, until};

const SECRET: &[u8] = b"a secret of this test, 32 bytes!";

/// A policy as these flags make it, without the rate limit.
fn policy_of(flags: &[&str]) -> Policy {
    let config = Config::parse_from([&["flashsale-server", "--rate-limit", "off"], flags].concat());
    config.policy().expect("a policy")
}

fn jwt_policy(more: &[&str]) -> Policy {
    let mut key = NamedTempFile::new().unwrap();
    key.write_all(SECRET).unwrap();
    let flags = ["--auth", "jwt", "--jwt-algorithm", "HS256", "--jwt-key", key.path().to_str().unwrap()];
    policy_of(&[&flags, more].concat())
}

fn in_seconds(seconds: i64) -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed() + seconds
}

fn token_by(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
}

fn token(user: &str) -> String {
    token_by(Algorithm::HS256, SECRET, &json!({"sub": user, "aud": "shop", "exp": in_seconds(3_600)}))
}

/// How a request says whose it is.
#[derive(Clone, Copy, Debug)]
enum As {
    Header,
    Token,
}

impl As {
    fn user(self, user: &str, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Header => request.header("x-user-id", user),
            Self::Token => request.bearer_auth(token(user)),
        }
    }
}

/// Every route that belongs to a user, as asked for this one.
fn routes_of(buyers: &Buyers, user: &str, sale: &Sale) -> Vec<(String, RequestBuilder)> {
    let product = sale.products[0];
    let paths = [
        (Method::GET, format!("/api/orders/{user}")),
        (Method::GET, format!("/api/cart/{user}")),
        (Method::DELETE, format!("/api/cart/{user}/items/{product}")),
        (Method::DELETE, format!("/api/cart/{user}")),
    ];
    let request = |(method, path): (Method, String)| {
        let request = buyers.http.request(method.clone(), format!("{}{path}", buyers.url));
        (format!("{method} {path}"), request)
    };
    paths.into_iter().map(request).collect()
}

/// Every route that acts for whoever asks.
fn acting(buyers: &Buyers, sale: &Sale, key: &str) -> Vec<(String, RequestBuilder)> {
    // Whom a body names is of no interest to anybody.
    let order = json!({"idempotencyKey": key, "items": [sale.line(0, 1)], "userId": "ann"});
    let mut line = sale.line(0, 1);
    line["userId"] = json!("ann");
    [("/api/orders", order), ("/api/cart", line)]
        .map(|(path, body)| (format!("POST {path}"), buyers.post(path).json(&body)))
        .into()
}

/// Every route that has to know who asks.
fn guarded(buyers: &Buyers, sale: &Sale) -> Vec<(String, RequestBuilder)> {
    let mut routes = routes_of(buyers, "ann", sale);
    routes.extend(acting(buyers, sale, "k-0"));
    routes
}

/// What a refusal says, whomever it is said of.
fn said(answer: &Answer) -> Value {
    let mut document = answer.json.clone();
    for own in ["instance", "requestId"] {
        document.as_object_mut().unwrap().remove(own);
    }
    document
}

async fn b_gets_nothing_of_a(shop: &Shop, sale: &Sale, server: &Server, by: As) {
    let buyers = &server.buyers;
    let (ann, bob) = (format!("ann.{by:?}"), format!("bob.{by:?}"));
    for (route, request) in acting(buyers, sale, "k-1") {
        let answer = ask(by.user(&ann, request)).await;
        assert!([200, 202].contains(&answer.status), "{route}: {}", answer.json);
    }
    let orders = async |user: &str| {
        let answer = ask(by.user(user, buyers.get(&format!("/api/orders/{user}")))).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        answer.json.as_array().unwrap().clone()
    };
    until("the order is recorded", async || (orders(&ann).await.len() == 1).then_some(())).await;
    let cart = async |user: &str| ask(by.user(user, buyers.get(&format!("/api/cart/{user}")))).await.json;
    // The order took its product out of the cart.
    let (_, add) = acting(buyers, sale, "").pop().unwrap();
    assert_eq!(ask(by.user(&ann, add)).await.status, 200);
    let before = cart(&ann).await;
    assert_eq!(before["items"].as_array().unwrap().len(), 1, "{before}");

    // The very same answer about somebody who has something, and about nobody.
    for other in [&*ann, "nobody-at-all", "Bob", "status"] {
        for (route, request) in routes_of(buyers, other, sale) {
            let answer = ask(by.user(&bob, request)).await;
            answer.is_problem(403, "forbidden");
            let (_, nobody) = routes_of(buyers, "nobody", sale).remove(0);
            let nobody = ask(by.user(&bob, nobody)).await;
            assert_eq!(said(&answer), said(&nobody), "{route}");
            assert_eq!(answer.headers.len(), nobody.headers.len(), "{route}");
        }
    }
    // The user in the path is the decoded one.
    let path = format!("/api/orders/%61nn.{by:?}");
    assert_eq!(ask(by.user(&ann, buyers.get(&path))).await.status, 200);
    ask(by.user(&bob, buyers.get(&path))).await.is_problem(403, "forbidden");

    // The key is the user's own: it is no way to somebody else's order.
    for (route, request) in acting(buyers, sale, "k-1") {
        let answer = ask(by.user(&bob, request)).await;
        assert!([200, 202].contains(&answer.status), "{route}: {}", answer.json);
        assert_eq!(answer.header("idempotency-replayed"), None, "{route}");
    }
    until("bob's order is recorded", async || (orders(&bob).await.len() == 1).then_some(())).await;
    assert_ne!(orders(&bob).await[0]["id"], orders(&ann).await[0]["id"]);
    assert_eq!(cart(&ann).await, before);
    shop.audit(sale).await;
}

async fn nobody_is_told_to_say_who(buyers: &Buyers, sale: &Sale, challenge: &str) {
    for (route, request) in guarded(buyers, sale) {
        let answer = ask(request).await;
        answer.is_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some(challenge), "{route}");
    }
}

async fn forged_tokens_are_refused(buyers: &Buyers, sale: &Sale) {
    let claims = |sub: &str, aud: &str, exp: i64| json!({"sub": sub, "aud": aud, "exp": in_seconds(exp)});
    let good = token("ann");
    let parts: Vec<_> = good.split('.').collect();
    let none = |signature: &str| format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.{signature}", parts[1]);
    let hs256 = |claims: &Value| token_by(Algorithm::HS256, SECRET, claims);
    let forged = [
        ("expired", hs256(&claims("ann", "shop", -60))),
        ("of another audience", hs256(&claims("ann", "till", 60))),
        ("of no audience", hs256(&json!({"sub": "ann", "exp": in_seconds(60)}))),
        ("without an end", hs256(&json!({"sub": "ann", "aud": "shop"}))),
        ("without a user", hs256(&json!({"aud": "shop", "exp": in_seconds(60)}))),
        ("with a bad user", hs256(&claims("ann/bob", "shop", 60))),
        (
            "not valid yet",
            hs256(&json!({"sub": "ann", "aud": "shop", "exp": in_seconds(90), "nbf": in_seconds(60)})),
        ),
        ("by another key", token_by(Algorithm::HS256, &[7; 32], &claims("ann", "shop", 60))),
        ("by another algorithm", token_by(Algorithm::HS512, SECRET, &claims("ann", "shop", 60))),
        ("by none", none("")),
        ("by none, with a signature", none(parts[2])),
        ("without a signature", format!("{}.{}.", parts[0], parts[1])),
        ("garbage", "garbage".to_owned()),
        ("empty", String::new()),
        ("huge", "a".repeat(9_000)),
        ("two in one", format!("{good}, Bearer {good}")),
    ];
    for (what, token) in forged {
        for (route, request) in guarded(buyers, sale) {
            // Believed from this address where users come by header, and not looked at here.
            let answer = ask(request.bearer_auth(&token).header("x-user-id", "ann")).await;
            answer.is_problem(401, "unauthorized");
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, Some(r#"Bearer error="invalid_token""#), "{what}: {route}");
            assert!(token.len() < 8 || !answer.json.to_string().contains(&token), "{what}");
        }
    }
    let twice = buyers.get("/api/orders/ann").bearer_auth(&good).bearer_auth(&good);
    ask(twice).await.is_problem(401, "unauthorized");
    let basic = buyers.get("/api/orders/ann").basic_auth("ann", Some("ann"));
    ask(basic).await.is_problem(401, "unauthorized");
}

/// A name that cannot be a user's is said to be none, not to be somebody else's.
async fn bad_names_are_named(by_header: &Buyers) {
    let get = |path: &str, user: &str| by_header.get(path).header("x-user-id", user);
    for bad in ["a b", "a/b", ".", ""] {
        ask(get("/api/orders/ann", bad)).await.names("X-User-Id");
    }
    ask(get("/api/orders/ann", "ann").header("x-user-id", "ann")).await.names("X-User-Id");
    for bad in ["a%20b", "a%2Fb", "%ff", "%C3%A9"] {
        ask(get(&format!("/api/orders/{bad}"), "ann")).await.names("userId");
        ask(get(&format!("/api/cart/{bad}"), "ann")).await.names("userId");
    }
}

/// What the way that is not in use would say is not looked at.
async fn only_one_way_counts(by_header: &Buyers, by_token: &Buyers) {
    let both =
        |buyers: &Buyers, path: &str| buyers.get(path).header("x-user-id", "ann").bearer_auth(token("bob"));
    assert_eq!(ask(both(by_header, "/api/orders/ann")).await.status, 200);
    ask(both(by_header, "/api/orders/bob")).await.is_problem(403, "forbidden");
    assert_eq!(ask(both(by_token, "/api/orders/bob")).await.status, 200);
    ask(both(by_token, "/api/orders/ann")).await.is_problem(403, "forbidden");
    let garbage = by_token.get("/api/orders/ann").bearer_auth(token("ann")).header("x-user-id", "a b");
    assert_eq!(ask(garbage).await.status, 200);
}

#[tokio::test]
async fn everybody_gets_their_own_and_nothing_else() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(100, 10)]).await;
    let by_header = Server::start(&shop, policy()).await;
    let by_token = Server::start(&shop, jwt_policy(&["--jwt-audience", "shop"])).await;
    shop.loaded(&sale).await;

    nobody_is_told_to_say_who(&by_header.buyers, &sale, r#"TrustedHeader name="X-User-Id""#).await;
    nobody_is_told_to_say_who(&by_token.buyers, &sale, r#"Bearer realm="flashsale""#).await;
    forged_tokens_are_refused(&by_token.buyers, &sale).await;
    assert_eq!(shop.left(&sale, 0).await, Some(100));

    b_gets_nothing_of_a(&shop, &sale, &by_header, As::Header).await;
    b_gets_nothing_of_a(&shop, &sale, &by_token, As::Token).await;
    bad_names_are_named(&by_header.buyers).await;
    only_one_way_counts(&by_header.buyers, &by_token.buyers).await;
    strangers_are_not_believed(&shop, &sale).await;
    by_header.stop().await;
    by_token.stop().await;
}

/// To a server that trusts no proxy, or others, this test is anybody.
async fn strangers_are_not_believed(shop: &Shop, sale: &Sale) {
    let left = shop.left(sale, 0).await;
    for trusted in ["", "10.0.0.0/8,2001:db8::/32"] {
        let server = Server::start(shop, policy_of(&["--trusted-proxies", trusted])).await;
        let buyers = &server.buyers;
        for (route, request) in guarded(buyers, sale) {
            let claimed = request.header("x-user-id", "ann");
            // Nor by way of an address that would be trusted.
            for request in [claimed.try_clone().unwrap(), claimed.header("x-forwarded-for", "10.0.0.1")] {
                let answer = ask(request).await;
                answer.is_problem(401, "unauthorized");
                assert!(answer.text("detail").contains("trusted proxy"), "{route}: {}", answer.json);
            }
        }
        server.stop().await;

        // Whatever address is claimed, it is this one's requests that are counted.
        let few = Policy { limits: limits("2/1h"), ..jwt_policy(&["--trusted-proxies", trusted]) };
        let server = Server::start(shop, few).await;
        let order = async |address: &str, key: &str| {
            let body = json!({"idempotencyKey": key, "items": [sale.line(0, 1_000)]});
            let user = json!({"sub": "eve", "exp": in_seconds(60)});
            let request = server.buyers.post("/api/orders").json(&body);
            let request = request.bearer_auth(token_by(Algorithm::HS256, SECRET, &user));
            ask(request.header("x-forwarded-for", address)).await
        };
        let mut codes = Vec::new();
        for address in ["1.1.1.1", "2.2.2.2", "127.0.0.1, 3.3.3.3", "2001:db8::1"] {
            codes.push(order(address, "k-9").await.text("code").to_owned());
        }
        // The window goes on at the second server.
        let counted = if trusted.is_empty() { 2 } else { 0 };
        assert_eq!(codes[..counted], vec!["over-quota"; counted]);
        assert_eq!(codes[counted..], vec!["rate-limited"; 4 - counted]);
        server.stop().await;
    }
    assert_eq!(shop.left(sale, 0).await, left);
}
