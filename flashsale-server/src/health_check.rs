//! Asking a running server whether it is ready: for containers, which have nothing else to ask with.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::Url;

/// Longer than a server takes to ask its stores in vain.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// No readiness takes so much; whatever else answers at the address is not read to its end.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Where a server that listens there is asked on the same machine.
pub(crate) fn health_url(listen: SocketAddr) -> Result<Url, String> {
    if listen.port() == 0 {
        return Err("--health-check needs a URL, because --listen names no port".to_owned());
    }
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    let url = format!("http://{}/readyz", SocketAddr::new(ip, listen.port()));
    Url::parse(&url).map_err(|error| error.to_string())
}

/// The URL of a flag: without a path, that of readiness.
pub(crate) fn parse_url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| error.to_string())?;
    // With a password it would be repeated in what this program says.
    if url.scheme() != "http" || !url.has_host() || url.authority().contains('@') {
        return Err("is not a URL such as http://127.0.0.1:5000".to_owned());
    }
    if url.path() == "/" {
        url.set_path("/readyz");
    }
    Ok(url)
}

/// What the server says, as an error unless its status is 200.
pub async fn check_health(url: &Url) -> Result<String, String> {
    let asked = timeout(ANSWER_WITHIN, ask(url)).await;
    let answer = asked.map_err(|_| format!("{url} did not answer within {} s", ANSWER_WITHIN.as_secs()))?;
    let answer = answer.map_err(|error| format!("{url} does not answer: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        Some(status) => Err(format!("{url} answers {status}\n{body}")),
        None => Err(format!("{url} does not speak HTTP")),
    }
}

/// HTTP/1.0, so that the answer comes in one piece and ends with the connection.
async fn ask(url: &Url) -> std::io::Result<String> {
    let host = url.host_str().unwrap_or_default();
    let authority = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
    let mut stream = TcpStream::connect(&authority).await?;
    let request = format!("GET {} HTTP/1.0\r\nHost: {authority}\r\n\r\n", url.path());
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_where_it_listens() {
        for (listen, url) in [
            ("127.0.0.1:5000", "http://127.0.0.1:5000/readyz"),
            ("0.0.0.0:80", "http://127.0.0.1/readyz"),
            ("[::]:5000", "http://[::1]:5000/readyz"),
            ("10.0.0.1:1", "http://10.0.0.1:1/readyz"),
        ] {
            assert_eq!(health_url(listen.parse().unwrap()).unwrap().as_str(), url);
        }
        assert!(health_url("127.0.0.1:0".parse().unwrap()).is_err());
    }

    #[test]
    fn urls_are_read() {
        let read = |text: &str| parse_url(text).map(String::from);
        assert_eq!(read("http://h:1").unwrap(), "http://h:1/readyz");
        assert_eq!(read("http://h:1/healthz").unwrap(), "http://h:1/healthz");
        for bad in ["h:1", "https://h", "/readyz", "", "http://user:secret@h:1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
