//! Who is asking, and from where.
//!
//! Both answers can be claimed by a header, and a header is believed only from a proxy that the operator
//! trusts: everybody else could claim to be anybody.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, HeaderName, request::Parts},
};
use flashsale_core::UserId;
use ipnet::{IpNet, Ipv4Net};

use crate::{
    app::App,
    jwt::{JwtArgs, Tokens},
    problem::{Code, Problem},
};

const USER: HeaderName = HeaderName::from_static("x-user-id");
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// As a refusal names it.
const USER_HEADER: &str = "X-User-Id";

/// There is no registered scheme for a header that a proxy sets; a 401 needs one nevertheless.
const HEADER_CHALLENGE: &str = r#"TrustedHeader name="X-User-Id""#;

/// Who is asking.
#[derive(Debug, Clone, clap::Args)]
pub struct AccessArgs {
    /// How a request says whose it is
    #[arg(long, env = "FLASHSALE_AUTH", value_enum, default_value_t = AuthMode::Header)]
    pub auth: AuthMode,

    /// Networks whose X-User-Id and X-Forwarded-For are believed
    #[arg(
        long,
        env = "FLASHSALE_TRUSTED_PROXIES",
        value_name = "CIDR,…",
        default_value = "127.0.0.0/8,::1/128"
    )]
    pub trusted_proxies: TrustedProxies,

    /// Which bearer tokens are believed.
    #[command(flatten)]
    pub jwt: JwtArgs,
}

impl AccessArgs {
    /// How a request says whose it is, with the keys read. Fails when a flag is missing, has no effect or names a
    /// file that holds no key; the message names the flag.
    pub fn auth(&self) -> Result<Auth, String> {
        match (self.auth, self.jwt.given()) {
            (AuthMode::Header, None) => Ok(Auth::Header),
            (AuthMode::Header, Some(flag)) => Err(format!("{flag} has no effect without --auth jwt")),
            (AuthMode::Jwt, _) => self.jwt.tokens().map(Auth::Jwt),
        }
    }
}

/// How a request says whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AuthMode {
    /// By the `X-User-Id` header, believed from trusted proxies only
    Header,
    /// By a bearer token in the `Authorization` header, whoever sends it
    Jwt,
}

/// How a request says whose it is, ready to be checked. What the other way would say is not looked at.
#[derive(Debug, Clone)]
pub enum Auth {
    /// By the `X-User-Id` header, believed from trusted proxies only.
    Header,
    /// By the `sub` of a bearer token.
    Jwt(Tokens),
}

/// The networks whose headers are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// This machine.
impl Default for TrustedProxies {
    fn default() -> Self {
        "127.0.0.0/8,::1/128".parse().expect("networks")
    }
}

impl TrustedProxies {
    pub(crate) fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Networks or single addresses with commas between them; an empty text trusts nobody.
impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = |part: &str| {
            let part = part.trim();
            let address = || part.parse::<IpAddr>().map(IpNet::from);
            let network = part
                .parse::<IpNet>()
                .or_else(|_| address())
                .map_err(|_| format!("{part:?} is neither an address nor a network such as 10.0.0.0/8"))?;
            canonical(network).ok_or_else(|| {
                format!("{part:?} names an IPv4 address, and a network that is larger than IPv4")
            })
        };
        let parts = text.split(',').filter(|part| !part.trim().is_empty());
        parts.map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// A network of IPv4 addresses that is written as one of IPv6 (`::ffff:10.0.0.0/104`), as what it is: peers are
/// compared by their IPv4 addresses. `None` for one that reaches beyond those, which would match none of them.
fn canonical(network: IpNet) -> Option<IpNet> {
    match network {
        IpNet::V6(v6) => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len().checked_sub(96)?).ok().map(IpNet::V4),
            None => Some(network),
        },
        IpNet::V4(_) => Some(network),
    }
}

/// The user on whose behalf a request is made.
#[derive(Debug)]
pub(crate) struct Caller(pub(crate) UserId);

impl Caller {
    /// Refuses whoever asks for what belongs to another user. To be called before any store is asked: then the
    /// refusal is the same whether there is something to be had or not.
    pub(crate) fn must_be(&self, user: &UserId) -> Result<(), Problem> {
        if self.0 == *user {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden, "A user's own things are shown to that user only."))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let user = match &app.policy.auth {
            Auth::Header => user_of(peer(parts)?, &parts.headers, &app.policy.trusted_proxies),
            Auth::Jwt(tokens) => tokens.user_of(&parts.headers),
        };
        user.map(Self)
    }
}

/// The address that a request came from, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl FromRequestParts<App> for ClientAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Self(client_address(peer(parts)?, &parts.headers, &app.policy.trusted_proxies)))
    }
}

/// The other end of the socket. A listener on `[::]` sees IPv4 peers as IPv6 addresses: undone here, or
/// 127.0.0.1 would not be loopback.
fn peer(parts: &Parts) -> Result<IpAddr, Problem> {
    let connected = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let peer = connected.ok_or_else(|| Problem::new(Code::Internal, "The client's address is not known."))?;
    Ok(peer.0.ip().to_canonical())
}

fn user_of(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> Result<UserId, Problem> {
    let unauthorized = |detail: &str| Problem::unauthorized(HEADER_CHALLENGE, detail);
    let mut values = headers.get_all(USER).iter();
    let Some(value) = values.next() else {
        return Err(unauthorized("The X-User-Id header is missing."));
    };
    if !trusted.trust(peer) {
        return Err(unauthorized("The X-User-Id header is believed only from a trusted proxy."));
    }
    // A proxy that appends its header to the client's instead of replacing it would let the client choose.
    if values.next().is_some() {
        return Err(Problem::invalid(USER_HEADER, "must be given once"));
    }
    let text = value.to_str().map_err(|_| Problem::invalid(USER_HEADER, "must be ASCII"))?;
    text.parse().map_err(|invalid: flashsale_core::Invalid| invalid.in_field(USER_HEADER).into())
}

/// The right-most hop that is not a trusted proxy: what stands further left is only what that hop claims.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    // A proxy may add a line of its own instead of extending the one that is there: they count as one list.
    let lines = headers.get_all(FORWARDED).iter().rev();
    let mut hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    let mut nearest = peer;
    while trusted.trust(nearest) {
        // A hop that cannot be read leaves it at the proxy that wrote it.
        let Some(hop) = hops.next().and_then(parse_hop) else { break };
        nearest = hop;
    }
    nearest
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse().ok();
    let address = address.or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        http::{Request, header::WWW_AUTHENTICATE},
        response::IntoResponse,
    };

    fn trusted() -> TrustedProxies {
        "127.0.0.0/8, ::1/128,10.0.0.1".parse().unwrap()
    }

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn proxies_are_networks_or_addresses() {
        assert!("".parse::<TrustedProxies>().unwrap().0.is_empty());
        assert_eq!(trusted().0.len(), 3);
        let mapped: TrustedProxies = "::ffff:10.0.0.0/104, ::ffff:1.2.3.4, ::/0".parse().unwrap();
        assert_eq!(mapped, "10.0.0.0/8,1.2.3.4,::/0".parse().unwrap());
        assert!(mapped.trust("10.9.9.9".parse().unwrap()) && !mapped.trust("11.0.0.1".parse().unwrap()));
        for bad in ["x", "10.0.0.0/33", "localhost", "::ffff:10.0.0.0/95", "::ffff:0:0/0"] {
            assert!(bad.parse::<TrustedProxies>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_right_most_untrusted_hop() {
        let table: [(&str, &[&str], &str); 12] = [
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            // Its own claim is further left and does not count.
            ("127.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            ("127.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.1"], "1.1.1.1"),
            ("127.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.1"], "1.1.1.1"),
            ("127.0.0.1", &["127.0.0.9, 10.0.0.1"], "127.0.0.9"),
            // Not from a proxy: not believed at all.
            ("9.9.9.9", &["1.1.1.1"], "9.9.9.9"),
            ("127.0.0.1", &["1.1.1.1, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["1.1.1.1, nonsense, 10.0.0.1"], "10.0.0.1"),
            ("127.0.0.1", &["1.1.1.1:4711"], "1.1.1.1"),
            ("::1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("::1", &["[2001:db8::1], ::ffff:10.0.0.1"], "2001:db8::1"),
        ];
        for (peer, lines, expected) in table {
            let headers = headers("x-forwarded-for", lines);
            let address = client_address(peer.parse().unwrap(), &headers, &trusted());
            assert_eq!(address, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
    }

    #[test]
    fn the_user_is_believed_from_proxies_only() {
        let status = |peer: &str, values: &[&str]| {
            let headers = headers("x-user-id", values);
            let problem = match user_of(peer.parse().unwrap(), &headers, &trusted()) {
                Ok(user) => return Ok(user.to_string()),
                Err(problem) => problem.into_response(),
            };
            let status = problem.status().as_u16();
            assert_eq!(problem.headers().contains_key(WWW_AUTHENTICATE), status == 401);
            Err(status)
        };
        assert_eq!(status("127.0.0.1", &["ann"]), Ok("ann".to_owned()));
        assert_eq!(status("127.0.0.1", &[]), Err(401));
        assert_eq!(status("9.9.9.9", &["ann"]), Err(401));
        for bad in ["", "..", "a/b", "a b"] {
            assert_eq!(status("127.0.0.1", &[bad]), Err(400), "{bad:?}");
        }
        assert_eq!(status("127.0.0.1", &["ann", "ann"]), Err(400));
    }

    #[test]
    fn an_ipv4_peer_is_one_on_an_ipv6_socket_too() {
        let socket: SocketAddr = "[::ffff:127.0.0.1]:4711".parse().unwrap();
        let (parts, ()) = Request::builder().extension(ConnectInfo(socket)).body(()).unwrap().into_parts();
        assert!(trusted().trust(peer(&parts).unwrap()));
        let (parts, ()) = Request::new(()).into_parts();
        assert_eq!(peer(&parts).unwrap_err().into_response().status(), 500);
    }

    #[test]
    fn a_caller_is_one_user_to_the_letter() {
        let caller = Caller("ann".parse().unwrap());
        assert!(caller.must_be(&"ann".parse().unwrap()).is_ok());
        for other in ["Ann", "ann.", "an", "anna", "bob"] {
            let problem = caller.must_be(&other.parse().unwrap()).unwrap_err();
            assert_eq!(problem.into_response().status(), 403, "{other}");
        }
    }
}
