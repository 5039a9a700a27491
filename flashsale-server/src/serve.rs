//! Listening, serving and ending in good order.

use std::{
    future::{Ready, ready},
    io,
    net::SocketAddr,
    time::Duration,
};

use axum::Router;
use axum_server::{Handle, Server, accept::Accept};
use hyper_util::rt::TokioTimer;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::door::Door;

/// Buyers who arrive in the same second wait here instead of being turned away. The kernel caps it at its
/// own limit (`net.core.somaxconn`).
const BACKLOG: u32 = 65_535;

/// The most that a request's line and headers may take.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// How much clients may take: time, and room.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For sending a request's headers; an idle connection is closed after it, too.
    pub headers: Duration,
    /// For taking in what was sent to them.
    pub unread: Duration,
    /// For a request that is being answered when the server is told to end.
    pub in_flight: Duration,
    /// Connections at once, over all listeners. Further ones wait to be accepted.
    pub connections: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(30),
            unread: Duration::from_secs(30),
            in_flight: Duration::from_secs(10),
            connections: connections_that_fit(),
        }
    }
}

/// What the limit of open files has room for, less what the stores' connections and the rest of the process
/// need: a herd that holds every file would keep a lost connection to Redis from ever coming back.
fn connections_that_fit() -> usize {
    const OTHER_FILES: u64 = 256;
    const MOST: u64 = 1_000_000;
    let files = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1_024, |(soft, _)| soft);
    let fit = files.saturating_sub(OTHER_FILES).max(files / 2).clamp(1, MOST);
    usize::try_from(fit).unwrap_or(usize::MAX)
}

/// Opens a socket. Connections wait in its backlog until [`serve`] takes them.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server must not wait for the old one's connections to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown` is cancelled; then accepts nothing more, and returns when the requests in flight
/// are answered or patience is over. Fails only if it cannot accept connections.
pub async fn serve(
    listeners: Vec<TcpListener>,
    app: Router,
    patience: Patience,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let door = Door::new(app, patience.connections, shutdown.clone());
    let mut servers = JoinSet::new();
    for listener in listeners {
        servers.spawn(serve_one(listener, door.clone(), patience, shutdown.clone()));
    }
    let mut result = Ok(());
    while let Some(ended) = servers.join_next().await {
        let ended = ended.map_err(io::Error::other).flatten();
        if ended.is_err() {
            // Half a server is worse than none: whoever watches it starts it again.
            shutdown.cancel();
            result = ended;
        }
    }
    result
}

async fn serve_one(
    listener: TcpListener,
    door: Door,
    patience: Patience,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let handle = Handle::new();
    // HTTP/1 only, and said last: a builder that guesses the version waits for the first bytes without a timer.
    let server = Server::<SocketAddr>::from_listener(listener).handle(handle.clone());
    let mut server = server.acceptor(Tuned { unread: patience.unread }).http1_only();
    let mut http1 = server.http_builder().http1();
    http1.timer(TokioTimer::new()).header_read_timeout(patience.headers).max_buf_size(MAX_HEADER_BYTES);
    let serving = server.serve(door);
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => ended,
        () = shutdown.cancelled() => {
            handle.graceful_shutdown(Some(patience.in_flight));
            serving.await
        }
    }
}

/// Sets the options of an accepted socket.
#[derive(Clone, Copy)]
struct Tuned {
    unread: Duration,
}

impl<S> Accept<TcpStream, S> for Tuned {
    type Stream = TcpStream;
    type Service = S;
    type Future = Ready<io::Result<(TcpStream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let tuned = stream.set_nodelay(true).and_then(|()| self.end_when_unread(&stream));
        ready(tuned.map(|()| (stream, service)))
    }
}

impl Tuned {
    /// Who asks and does not read the answer, or has vanished, would keep the connection for as long as it
    /// likes: no timer of HTTP runs while an answer is being sent.
    #[cfg(target_os = "linux")]
    fn end_when_unread(self, stream: &TcpStream) -> io::Result<()> {
        SockRef::from(stream).set_tcp_user_timeout(Some(self.unread))
    }

    /// Only Linux lets go of a peer that answers probes and reads nothing. One that has vanished is noticed.
    #[cfg(not(target_os = "linux"))]
    fn end_when_unread(self, stream: &TcpStream) -> io::Result<()> {
        let keepalive = socket2::TcpKeepalive::new().with_time(self.unread);
        SockRef::from(stream).set_tcp_keepalive(&keepalive)
    }
}
