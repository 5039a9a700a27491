use std::time::SystemTime;

use aws_lc_rs::signature;
use axum::response::IntoResponse;
use clap::Parser;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use self::keys::{ec, file, p256, pem, rsa};
use super::*;
use crate::{Auth, Config};

mod keys;

const SECRET: &[u8] = b"a secret of this test, 32 bytes!";

/// What the server makes of these flags.
fn auth(flags: &[&str]) -> Result<Auth, String> {
    Config::parse_from([&["flashsale-server"], flags].concat()).access.auth()
}

fn tokens(algorithm: &str, keys: &[&[u8]], more: &[&str]) -> Tokens {
    let files: Vec<_> = keys.iter().map(file).collect();
    let mut flags = vec!["--auth", "jwt", "--jwt-algorithm", algorithm];
    flags.extend(files.iter().flat_map(|file| ["--jwt-key", file.path().to_str().unwrap()]));
    flags.extend(more);
    let Auth::Jwt(tokens) = auth(&flags).unwrap() else { panic!("not by tokens") };
    tokens
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    now.cast_signed() + seconds
}

fn claims() -> Value {
    json!({"sub": "ann", "exp": in_seconds(60)})
}

/// The usual claims, some of them changed; `null` takes one away.
fn with(changes: Value) -> Value {
    let mut claims = claims();
    let Value::Object(changes) = changes else { panic!("an object") };
    for (claim, value) in changes {
        claims[claim] = value;
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// Of two claims of one name, each reader takes another one for true.
struct Twice;

impl serde::Serialize for Twice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let exp = ("exp", json!(in_seconds(60)));
        serializer.collect_map([("sub", json!("ann")), exp, ("sub", json!("bob"))])
    }
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET), claims)
}

fn asking(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, value.parse().unwrap());
    }
    headers
}

/// The user, or why not.
fn judged(tokens: &Tokens, values: &[&str]) -> Result<String, String> {
    match tokens.user_of(&asking(values)) {
        Ok(user) => Ok(user.to_string()),
        Err(problem) => {
            let detail = json!(problem.document("/"))["detail"].as_str().unwrap().to_owned();
            let response = problem.into_response();
            assert_eq!(response.status(), 401);
            let challenge = response.headers()["www-authenticate"].to_str().unwrap();
            let came = !detail.starts_with("There is no bearer token");
            assert_eq!(challenge, if came { INVALID_TOKEN } else { NO_TOKEN }, "{detail}");
            Err(detail)
        }
    }
}

#[track_caller]
fn refuses(tokens: &Tokens, token: &str, because: &str) {
    let detail = judged(tokens, &[&format!("Bearer {token}")]).unwrap_err();
    assert!(detail.contains(because), "{detail:?}, not for {because:?}");
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!detail.contains(part), "{detail}");
    }
}

#[track_caller]
fn takes(tokens: &Tokens, token: &str) {
    assert_eq!(judged(tokens, &[&format!("Bearer {token}")]).as_deref(), Ok("ann"));
}

#[test]
fn one_bearer_token_is_read() {
    let tokens = tokens("HS256", &[SECRET], &[]);
    let token = hs256(&claims());
    for good in ["Bearer ", "bearer ", "BEARER   "] {
        assert_eq!(judged(&tokens, &[&format!("{good}{token}")]).as_deref(), Ok("ann"), "{good}");
    }
    let (basic, good) = ("Basic YW5uOmFubg==", format!("Bearer {token}"));
    for none in [vec![], vec![""], vec![basic], vec![&token], vec!["X-User-Id ann"]] {
        assert!(judged(&tokens, &none).unwrap_err().contains("no bearer token"), "{none:?}");
    }
    for bad in [vec![&*good, &good], vec![&good, basic], vec![basic, &good]] {
        assert!(judged(&tokens, &bad).unwrap_err().contains("given once"), "{bad:?}");
    }
    for (garbage, because) in [
        ("", "is not a JSON Web Token"),
        ("ann", "is not a JSON Web Token"),
        ("a.b", "is not a JSON Web Token"),
        ("...", "is not a JSON Web Token"),
        (&format!("{token}.{token}"), "is not a JSON Web Token"),
        (&format!("{token}, Bearer {token}"), "is not a JSON Web Token"),
        (&format!("{token}="), "cannot be read"),
        (&"a".repeat(MAX_TOKEN_BYTES + 1), "too long"),
    ] {
        refuses(&tokens, garbage, because);
    }
    let bytes = axum::http::HeaderValue::from_bytes(b"Bearer \xff").unwrap();
    assert!(tokens.user_of(&HeaderMap::from_iter([(AUTHORIZATION, bytes)])).is_err());
}

#[test]
fn claims_are_demanded_and_compared() {
    let tokens = tokens("HS256", &[SECRET], &[]);
    for good in [
        claims(),
        with(json!({"exp": in_seconds(-1)})),
        with(json!({"nbf": in_seconds(3)})),
        with(json!({"nbf": in_seconds(-60), "iat": in_seconds(3_600), "iss": "anybody", "role": ["x"]})),
        with(json!({"exp": u64::MAX})),
        with(json!({"exp": f64::from(u32::MAX) + 0.5})),
    ] {
        takes(&tokens, &hs256(&good));
    }
    for (bad, because) in [
        (with(json!({"exp": in_seconds(-60)})), "has expired"),
        (with(json!({"exp": in_seconds(-10)})), "has expired"),
        (with(json!({"exp": 0})), "has expired"),
        (with(json!({"exp": null})), "lacks a claim `exp`"),
        (with(json!({"exp": "tomorrow"})), "lacks a claim `exp`"),
        (with(json!({"exp": -1})), "lacks a claim `exp`"),
        (with(json!({"nbf": in_seconds(60)})), "not valid yet"),
        (with(json!({"nbf": "now"})), "lacks a claim `nbf`"),
        (with(json!({"sub": null})), "lacks a claim `sub`"),
        (with(json!({"sub": 7})), "cannot be read"),
        (with(json!({"sub": ""})), "no user id"),
        (with(json!({"sub": ".."})), "no user id"),
        (with(json!({"sub": "ann/bob"})), "no user id"),
        (with(json!({"sub": "ann\u{0}"})), "no user id"),
        (with(json!({"sub": "a".repeat(101)})), "no user id"),
        // It is meant for somebody, and this server was not told that it is the one.
        (with(json!({"aud": "shop"})), "another audience"),
        (json!([claims()]), "cannot be read"),
        (json!("ann"), "cannot be read"),
    ] {
        refuses(&tokens, &hs256(&bad), because);
    }
    let key = EncodingKey::from_secret(SECRET);
    refuses(&tokens, &encode(&Header::new(Algorithm::HS256), &Twice, &key).unwrap(), "cannot be read");
}

#[test]
fn issuer_audience_and_leeway_are_settings() {
    let strict = tokens(
        "HS256",
        &[SECRET],
        &["--jwt-issuer", "https://id.example", "--jwt-audience", "shop", "--jwt-leeway-seconds", "0"],
    );
    let fits = json!({"iss": "https://id.example", "aud": "shop"});
    let with_all = |claim: &str, value: Value| {
        let mut claims = with(fits.clone());
        claims[claim] = value;
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    };
    takes(&strict, &hs256(&with(fits.clone())));
    takes(&strict, &hs256(&with_all("aud", json!(["till", "shop"]))));
    for (claim, value, because) in [
        ("iss", json!(null), "lacks a claim `iss`"),
        ("iss", json!("https://id.example/"), "another issuer"),
        ("iss", json!(7), "lacks a claim `iss`"),
        ("aud", json!(null), "lacks a claim `aud`"),
        ("aud", json!("Shop"), "another audience"),
        ("aud", json!(["till"]), "another audience"),
        ("aud", json!([]), "another audience"),
        ("exp", json!(in_seconds(-2)), "has expired"),
        ("nbf", json!(in_seconds(30)), "not valid yet"),
    ] {
        refuses(&strict, &hs256(&with_all(claim, value)), because);
    }
}

#[test]
fn only_the_pinned_algorithm_and_the_servers_keys_count() {
    let (rs, other_rsa, es, other_ec) = (rsa(), rsa(), p256(), p256());
    let claims = claims();
    let payload = hs256(&claims);
    let payload = payload.split('.').nth(1).unwrap();
    // {"alg":"none","typ":"JWT"}, {"alg":"None"}, {"alg":"HS1"}, {"typ":"JWT"}
    let nones = [
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0",
        "eyJhbGciOiJOb25lIn0",
        "eyJhbGciOiJIUzEifQ",
        "eyJ0eXAiOiJKV1QifQ",
    ];
    let secret = EncodingKey::from_secret(SECRET);
    let everyone = [
        ("HS256", SECRET, Algorithm::HS256, &secret, &EncodingKey::from_secret(&[7; 32])),
        ("RS256", rs.public.as_bytes(), Algorithm::RS256, &rs.signing, &other_rsa.signing),
        ("ES256", es.public.as_bytes(), Algorithm::ES256, &es.signing, &other_ec.signing),
    ];
    for (name, key, algorithm, signing, stranger) in everyone {
        let tokens = tokens(name, &[key], &[]);
        let good = sign(algorithm, signing, &claims);
        takes(&tokens, &good);
        refuses(&tokens, &sign(algorithm, stranger, &claims), "fits no key");
        let (message, signature) = good.rsplit_once('.').unwrap();
        refuses(&tokens, &format!("{message}."), "fits no key");
        // Somebody else's claims under a signature that was seen.
        let bob = sign(algorithm, stranger, &with(json!({"sub": "bob"})));
        let (bob, _) = bob.rsplit_once('.').unwrap();
        refuses(&tokens, &format!("{bob}.{signature}"), "fits no key");
        for header in nones {
            for signature in ["", signature] {
                refuses(&tokens, &format!("{header}.{payload}.{signature}"), "is not a JSON Web Token");
            }
        }
        // Key confusion: the public key, which everybody has, as the secret of an HMAC.
        let file = EncodingKey::from_secret(key);
        let confused = sign(Algorithm::HS512, &file, &claims);
        refuses(&tokens, &confused, &format!("signed with {name}"));
        if name != "HS256" {
            refuses(&tokens, &sign(Algorithm::HS256, &file, &claims), &format!("signed with {name}"));
        }
        // Signed with the right key, in another way.
        if name == "RS256" {
            refuses(&tokens, &sign(Algorithm::PS256, signing, &claims), "signed with RS256");
            refuses(&tokens, &sign(Algorithm::RS512, signing, &claims), "signed with RS256");
        }
        let header = Header { crit: Some(vec!["exp".to_owned()]), ..Header::new(algorithm) };
        refuses(&tokens, &encode(&header, &claims, signing).unwrap(), "`crit`");
        // A key that the token brings along is anybody's key, and its name is no reason to take another one.
        let header = Header {
            jku: Some("https://evil.example/keys".to_owned()),
            kid: Some("../../dev/null".to_owned()),
            ..Header::new(algorithm)
        };
        refuses(&tokens, &encode(&header, &claims, stranger).unwrap(), "fits no key");
        takes(&tokens, &encode(&header, &claims, signing).unwrap());
    }
}

#[test]
fn any_of_several_keys_may_fit() {
    let (old, new, stranger) = (p256(), p256(), p256());
    let both = tokens("ES256", &[old.public.as_bytes(), new.public.as_bytes()], &[]);
    for pair in [&old, &new] {
        takes(&both, &sign(Algorithm::ES256, &pair.signing, &claims()));
        let expired = with(json!({"exp": in_seconds(-60)}));
        refuses(&both, &sign(Algorithm::ES256, &pair.signing, &expired), "has expired");
    }
    refuses(&both, &sign(Algorithm::ES256, &stranger.signing, &claims()), "fits no key");
}

#[test]
fn a_secret_may_end_in_one_newline() {
    for end in [&b""[..], b"\n", b"\r\n"] {
        takes(&tokens("HS256", &[&[SECRET, end].concat()], &[]), &hs256(&claims()));
    }
    refuses(&tokens("HS256", &[&[SECRET, b"\n\n"].concat()], &[]), &hs256(&claims()), "fits no key");
}

#[test]
fn what_cannot_be_used_is_refused_at_the_start_by_its_flag() {
    let refused = |flags: &[&str], parts: &[&str]| {
        let said = auth(flags).unwrap_err();
        for part in parts {
            assert!(said.contains(part), "{said:?} says nothing of {part:?}");
        }
    };
    refused(&["--auth", "jwt"], &["--jwt-algorithm"]);
    refused(&["--auth", "jwt", "--jwt-algorithm", "RS256"], &["--jwt-key"]);
    for [flag, value] in [
        ["--jwt-algorithm", "RS256"],
        ["--jwt-key", "key"],
        ["--jwt-issuer", "x"],
        ["--jwt-audience", "x"],
        ["--jwt-leeway-seconds", "5"],
    ] {
        refused(&[flag, value], &[flag, "--auth jwt"]);
    }
    for [flag, value] in [
        ["--jwt-algorithm", "none"],
        ["--jwt-algorithm", "HS512"],
        ["--jwt-leeway-seconds", "6"],
        ["--jwt-issuer", ""],
        ["--jwt-audience", ""],
    ] {
        let said = Config::try_parse_from(["flashsale-server", "--auth", "jwt", flag, value]).unwrap_err();
        assert!(said.to_string().contains(flag), "{said}");
    }

    let (rs, es) = (rsa(), p256());
    let p384 = ec(&signature::ECDSA_P384_SHA384_ASN1_SIGNING);
    let k256 = ec(&signature::ECDSA_P256K1_SHA256_ASN1_SIGNING);
    let certificate = pem("CERTIFICATE", b"not looked into");
    let torn = rs.public.replace("MII", "MIJ");
    for (algorithm, content, because) in [
        ("HS256", "", "is empty"),
        ("HS256", "short", "at least 32"),
        ("HS256", &"x".repeat(31), "at least 32"),
        ("HS256", &format!("{}\n", "x".repeat(31)), "at least 32"),
        ("HS256", &"x".repeat(70_000), "longer than"),
        ("HS256", &rs.public, "takes a secret"),
        ("RS256", "", "is empty"),
        ("RS256", &"x".repeat(64), "is not PEM"),
        ("RS256", &rs.private, "private key"),
        ("RS256", &format!("{}{}", rs.public, rs.private), "private key"),
        ("RS256", &certificate, "no public key"),
        ("RS256", &torn, "RSA public key"),
        ("RS256", &es.public, "RSA public key"),
        ("ES256", &es.private, "private key"),
        ("ES256", &rs.public, "P-256"),
        ("ES256", &p384.public, "P-256"),
        ("ES256", &k256.public, "P-256"),
    ] {
        let file = file(content);
        let path = file.path().to_str().unwrap();
        let flags = ["--auth", "jwt", "--jwt-algorithm", algorithm, "--jwt-key", path];
        refused(&flags, &["--jwt-key", path, because]);
    }
    for path in ["/nowhere/key.pem", "/", "/dev/zero"] {
        let flags = ["--auth", "jwt", "--jwt-algorithm", "RS256", "--jwt-key", path];
        refused(&flags, &["--jwt-key", path]);
    }
}

/// `Debug` of a policy may find its way into a log.
#[test]
fn secrets_are_not_printed() {
    let text = format!("{:?}", tokens("HS256", &[SECRET], &[]));
    assert!(!text.contains("secret") && !text.contains("97, 32, 115"), "{text}");
}
