//! Listening, serving and ending in good order.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, extract::connect_info::IntoMakeServiceWithConnectInfo};
use axum_server::{Handle, Server, accept::NoDelayAcceptor};
use hyper_util::rt::TokioTimer;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Buyers who arrive in the same second wait here instead of being turned away. The kernel caps it at its
/// own limit (`net.core.somaxconn`).
const BACKLOG: u32 = 65_535;

/// The most that a request's line and headers may take.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For sending a request's headers; an idle connection is closed after it, too.
    pub headers: Duration,
    /// For a request that is being answered when the server is told to end.
    pub in_flight: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { headers: Duration::from_secs(30), in_flight: Duration::from_secs(10) }
    }
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
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let mut servers = JoinSet::new();
    for listener in listeners {
        servers.spawn(serve_one(listener, service.clone(), patience, shutdown.clone()));
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
    service: IntoMakeServiceWithConnectInfo<Router, SocketAddr>,
    patience: Patience,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let handle = Handle::new();
    // HTTP/1 only, and said last: a builder that guesses the version waits for the first bytes without a timer.
    let server = Server::<SocketAddr>::from_listener(listener).handle(handle.clone());
    let mut server = server.acceptor(NoDelayAcceptor::new()).http1_only();
    let mut http1 = server.http_builder().http1();
    http1.timer(TokioTimer::new()).header_read_timeout(patience.headers).max_buf_size(MAX_HEADER_BYTES);
    let serving = server.serve(service);
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => ended,
        () = shutdown.cancelled() => {
            handle.graceful_shutdown(Some(patience.in_flight));
            serving.await
        }
    }
}
