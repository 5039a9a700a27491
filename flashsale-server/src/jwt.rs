//! Who is asking, by a bearer token: a JSON Web Token (RFC 7519) in the `Authorization` header (RFC 6750).
//!
//! The operator pins the one algorithm; what a token's header claims is only compared with it. Tokens and keys
//! are never logged, and a refusal says what class of thing is wrong, not what the token says.

use std::{fs::File, io::Read, path::Path, path::PathBuf, sync::Arc};

use aws_lc_rs::{
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RsaPublicKeyComponents},
};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use clap::builder::NonEmptyStringValueParser;
use flashsale_core::UserId;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::{Error, ErrorKind},
};
use serde::Deserialize;

use crate::problem::Problem;

/// A token is a few hundred bytes; what is longer is not looked into.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// RFC 7518 asks for a secret at least as long as the hash; a shorter one can be searched for offline.
const MIN_SECRET_BYTES: usize = 32;
/// A key file is far shorter. A device file would never end.
const MAX_KEY_BYTES: u64 = 64 * 1024;
const MIN_RSA_BYTES: usize = 2_048 / 8;

/// To whoever sent no token (RFC 6750, section 3).
const NO_TOKEN: &str = r#"Bearer realm="flashsale""#;
/// To whoever sent one that is not believed.
const INVALID_TOKEN: &str = r#"Bearer error="invalid_token""#;

/// Which bearer tokens are believed; for `--auth jwt` only.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct JwtArgs {
    /// The one algorithm that tokens are signed with; needed with --auth jwt
    #[arg(long, env = "FLASHSALE_JWT_ALGORITHM", value_enum)]
    pub jwt_algorithm: Option<JwtAlgorithm>,

    /// File with a key; needed with --auth jwt, may be repeated while keys change
    ///
    /// A token is believed if any of them fits. HS256: the secret as it is, at least 32 bytes; one newline at
    /// its end does not count. RS256 and ES256: a public key as PEM. Read once, at the start.
    #[arg(long, env = "FLASHSALE_JWT_KEY", value_name = "FILE", value_delimiter = ',')]
    pub jwt_key: Vec<PathBuf>,

    /// The `iss` that a token must have; not looked at without this
    #[arg(long, env = "FLASHSALE_JWT_ISSUER", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub jwt_issuer: Option<String>,

    /// The `aud` that a token must have; without this, a token that names any audience is refused
    #[arg(long, env = "FLASHSALE_JWT_AUDIENCE", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub jwt_audience: Option<String>,

    /// How far the issuer's clock may be off, at most 5 [default: 5]
    #[arg(long, env = "FLASHSALE_JWT_LEEWAY_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u8).range(0..=5))]
    pub jwt_leeway_seconds: Option<u8>,
}

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256: whoever can check tokens can also make them.
    Hs256,
    /// RSA with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl JwtAlgorithm {
    fn pinned(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
        }
    }
}

impl JwtArgs {
    const DEFAULT_LEEWAY_SECONDS: u8 = 5;

    /// The first flag that was given, for a server that believes no tokens.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.jwt_algorithm.is_some(), "--jwt-algorithm"),
            (!self.jwt_key.is_empty(), "--jwt-key"),
            (self.jwt_issuer.is_some(), "--jwt-issuer"),
            (self.jwt_audience.is_some(), "--jwt-audience"),
            (self.jwt_leeway_seconds.is_some(), "--jwt-leeway-seconds"),
        ];
        given.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }

    /// Reads the keys.
    pub(crate) fn tokens(&self) -> Result<Tokens, String> {
        let missing = |flag| format!("--auth jwt needs {flag}");
        let algorithm = self.jwt_algorithm.ok_or_else(|| missing("--jwt-algorithm"))?;
        if self.jwt_key.is_empty() {
            return Err(missing("--jwt-key"));
        }
        let key = |file: &PathBuf| {
            let key = read(file).and_then(|bytes| key_of(algorithm, &bytes));
            key.map_err(|reason| format!("--jwt-key {}: {reason}", file.display()))
        };
        let keys = self.jwt_key.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Tokens(Arc::new(Believed { keys, rules: self.rules(algorithm) })))
    }

    fn rules(&self, algorithm: JwtAlgorithm) -> Validation {
        let mut rules = Validation::new(algorithm.pinned());
        let mut required = vec!["exp", "sub"];
        rules.leeway = self.jwt_leeway_seconds.unwrap_or(Self::DEFAULT_LEEWAY_SECONDS).into();
        rules.validate_nbf = true;
        if let Some(issuer) = &self.jwt_issuer {
            rules.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.jwt_audience {
            rules.set_audience(&[audience]);
            required.push("aud");
        }
        rules.set_required_spec_claims(&required);
        rules
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(file).map_err(|error| error.to_string())?;
    file.take(MAX_KEY_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_KEY_BYTES {
        return Err(format!("is longer than {MAX_KEY_BYTES} bytes"));
    }
    Ok(bytes)
}

fn key_of(algorithm: JwtAlgorithm, bytes: &[u8]) -> Result<DecodingKey, String> {
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    let text = String::from_utf8_lossy(bytes);
    let is_pem = text.contains("-----BEGIN ");
    if algorithm == JwtAlgorithm::Hs256 {
        // A public key is public: as a secret it would let everybody sign.
        return if is_pem { Err("holds PEM; HS256 takes a secret".to_owned()) } else { secret(bytes) };
    }
    if !is_pem {
        return Err("is not PEM".to_owned());
    }
    if text.contains("PRIVATE KEY-----") {
        return Err("holds a private key; give the server the public one only".to_owned());
    }
    if !text.contains("PUBLIC KEY-----") {
        return Err("holds no public key".to_owned());
    }
    let (key, wanted) = match algorithm {
        JwtAlgorithm::Rs256 => (rsa_key(bytes), "an RSA public key of 2048 to 8192 bits, for RS256"),
        _ => (p256_key(bytes), "a public key on P-256, for ES256"),
    };
    key.ok_or_else(|| format!("is not {wanted}"))
}

fn secret(bytes: &[u8]) -> Result<DecodingKey, String> {
    // What an editor or `echo` puts there belongs to the file, not to the secret.
    let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.len() < MIN_SECRET_BYTES {
        return Err(format!("holds {} bytes; HS256 needs at least {MIN_SECRET_BYTES}", secret.len()));
    }
    Ok(DecodingKey::from_secret(secret))
}

// The library takes any bytes for a key and then refuses every token. Parsed here as it is when a token comes, a
// wrong key is found at the start.

fn rsa_key(pem: &[u8]) -> Option<DecodingKey> {
    let key = DecodingKey::from_rsa_pem(pem).ok()?;
    let public = rsa::PublicKey::from_der(key.try_get_as_bytes().ok()?).ok()?;
    let bytes = RsaPublicKeyComponents::<Vec<u8>>::from(&public).n.len();
    (MIN_RSA_BYTES..=4 * MIN_RSA_BYTES).contains(&bytes).then_some(key)
}

fn p256_key(pem: &[u8]) -> Option<DecodingKey> {
    let key = DecodingKey::from_ec_pem(pem).ok()?;
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.try_get_as_bytes().ok()?).ok()?;
    Some(key)
}

/// The tokens that are believed: keys and rules.
#[derive(Debug, Clone)]
pub struct Tokens(Arc<Believed>);

#[derive(Debug)]
struct Believed {
    keys: Vec<DecodingKey>,
    rules: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
}

impl Tokens {
    /// The user of the request's bearer token.
    pub(crate) fn user_of(&self, headers: &HeaderMap) -> Result<UserId, Problem> {
        let Some(token) = bearer(headers)? else {
            return Err(Problem::unauthorized(
                NO_TOKEN,
                "There is no bearer token in the Authorization header.",
            ));
        };
        self.subject(token).map_err(invalid)
    }

    fn subject(&self, token: &str) -> Result<UserId, String> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("is too long".to_owned());
        }
        let algorithm = self.0.rules.algorithms[0];
        let foreign = || format!("is not a JSON Web Token that is signed with {algorithm:?}");
        let header = decode_header(token).map_err(|_| foreign())?;
        // The signer says that whoever does not understand these must refuse (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err("asks for extensions (`crit`) that are not known here".to_owned());
        }
        if header.alg != algorithm {
            return Err(foreign());
        }
        let claims = self.claims(token).map_err(|kind| reason(&kind))?;
        let user = claims.sub.and_then(|sub| sub.parse().ok());
        user.ok_or_else(|| "has a `sub` that is no user id".to_owned())
    }

    /// What a token says whose signature fits one of the keys.
    fn claims(&self, token: &str) -> Result<Claims, ErrorKind> {
        let Believed { keys, rules } = &*self.0;
        for key in keys {
            match decode(token, key, rules).map_err(Error::into_kind) {
                Err(ErrorKind::InvalidSignature) => {}
                decided => return decided.map(|token| token.claims),
            }
        }
        Err(ErrorKind::InvalidSignature)
    }
}

/// The token of the one `Authorization` header. Another scheme is as good as none; several headers are not, since
/// whoever stands in between might have checked the other one.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("came with another one: the Authorization header must be given once"));
    }
    let text = value.to_str().map_err(|_| invalid("is not ASCII"))?.trim();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()))
}

fn invalid(reason: impl std::fmt::Display) -> Problem {
    Problem::unauthorized(INVALID_TOKEN, format!("The bearer token {reason}."))
}

/// What is wrong, in words of our own: the library's may quote the token.
fn reason(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::InvalidSignature => "has a signature that fits no key of this server".to_owned(),
        ErrorKind::ExpiredSignature => "has expired".to_owned(),
        ErrorKind::ImmatureSignature => "is not valid yet".to_owned(),
        ErrorKind::InvalidIssuer => "has another issuer (`iss`)".to_owned(),
        ErrorKind::InvalidAudience => "is meant for another audience (`aud`)".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            format!("lacks a claim `{claim}` that can be read")
        }
        _ => "cannot be read".to_owned(),
    }
}

#[cfg(test)]
mod tests;
