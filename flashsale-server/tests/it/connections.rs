//! Connections: slow ones are closed, and a server that ends answers what it has begun. Needs no stores.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use flashsale_server::{Patience, listen, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(10);

struct Served {
    addresses: Vec<SocketAddr>,
    shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Served {
    async fn end(self) {
        self.shutdown.cancel();
        timeout(BOUND, self.serving).await.expect("ended in time").unwrap().unwrap();
    }
}

fn start(routes: Router, patience: Patience) -> Served {
    let listeners: Vec<_> = (0..2).map(|_| listen("127.0.0.1:0".parse().unwrap()).unwrap()).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(listeners, routes, patience, shutdown.clone()));
    Served { addresses, shutdown, serving }
}

#[tokio::test]
async fn who_sends_no_request_is_closed() {
    let patience = Patience { headers: Duration::from_millis(200), ..Patience::default() };
    let served = start(Router::new(), patience);
    for said in ["", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut connection = TcpStream::connect(served.addresses[0]).await.unwrap();
        connection.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(BOUND, connection.read_to_end(&mut answer)).await.expect("closed in time").unwrap();
    }
    served.end().await;
}

#[tokio::test]
async fn idle_and_trickling_connections_are_closed() {
    let patience = Patience { headers: Duration::from_millis(300), ..Patience::default() };
    let served = start(Router::new().route("/", get(async || "hello")), patience);
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut idle = TcpStream::connect(served.addresses[0]).await.unwrap();
    idle.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(BOUND, idle.read_to_end(&mut answer)).await.expect("closed in time").unwrap();
    assert!(String::from_utf8_lossy(&answer).ends_with("hello"));

    // A byte now and then does not buy more time: the whole head has to come within it.
    let mut trickling = TcpStream::connect(served.addresses[0]).await.unwrap();
    trickling.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await.unwrap();
    let trickle = async {
        while trickling.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, trickle).await.expect("closed in time");
    served.end().await;
}

#[tokio::test]
async fn heads_that_are_no_http_or_too_large_are_refused_and_closed() {
    let served = start(Router::new(), Patience::default());
    let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Much: {}\r\n", "x".repeat(100 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Many: 1\r\n".repeat(200));
    for (said, status) in [("hello\r\n\r\n", 400), (&huge, 431), (&many, 431)] {
        let mut connection = TcpStream::connect(served.addresses[0]).await.unwrap();
        // The refusal may come, and the connection end, before all of it is sent.
        let _ = connection.write_all(said.as_bytes()).await;
        let mut answer = String::new();
        timeout(BOUND, connection.read_to_string(&mut answer)).await.expect("closed in time").ok();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
        assert!(answer.contains("connection: close\r\n"), "{answer:?}");
    }
    served.end().await;
}

/// Tells when it is dropped.
struct Gone(Arc<Notify>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Only Linux cuts off a peer that is there and does not read.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_does_not_read_the_answer_is_closed() {
    let gone = Arc::new(Notify::new());
    let told = Arc::clone(&gone);
    let endless = get(async move || {
        let gone = Gone(told);
        Body::from_stream(futures::stream::repeat_with(move || {
            let _kept = &gone;
            Ok::<_, std::io::Error>(Bytes::from_static(&[0; 8 * 1024]))
        }))
    });
    let patience = Patience { unread: Duration::from_millis(500), ..Patience::default() };
    let served = start(Router::new().route("/", endless), patience);
    let mut connection = TcpStream::connect(served.addresses[0]).await.unwrap();
    connection.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    timeout(BOUND, gone.notified()).await.expect("given up in time");
    served.end().await;
}

#[tokio::test]
async fn who_finds_no_place_waits_for_one() {
    let hello = Router::new().route("/{name}", get(async |name: axum::extract::Path<String>| name.0));
    let served = start(hello, Patience { connections: 2, ..Patience::default() });
    let ask = async |connection: &mut TcpStream, name: &str| {
        let request = format!("GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
    };
    let hears = async |connection: &mut TcpStream, name: &str| {
        let mut bytes = [0; 1024];
        let count = timeout(BOUND, connection.read(&mut bytes)).await.expect("an answer in time").unwrap();
        assert!(bytes[..count].ends_with(name.as_bytes()), "{}", String::from_utf8_lossy(&bytes[..count]));
    };
    // Both listeners share the places.
    let mut first = TcpStream::connect(served.addresses[0]).await.unwrap();
    let mut second = TcpStream::connect(served.addresses[1]).await.unwrap();
    for connection in [&mut first, &mut second] {
        ask(connection, "ann").await;
        hears(connection, "ann").await;
    }
    let mut third = TcpStream::connect(served.addresses[0]).await.unwrap();
    ask(&mut third, "bob").await;
    for _ in 0..100 {
        ask(&mut first, "ann").await;
        hears(&mut first, "ann").await;
    }
    let early = third.try_read(&mut [0; 1]);
    assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it was served beside the two");

    drop(second);
    hears(&mut third, "bob").await;
    served.end().await;
}

#[tokio::test]
async fn a_server_that_ends_answers_what_it_has_begun() {
    let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (here, there) = (Arc::clone(&begun), Arc::clone(&finish));
    let slow = get(async move || {
        here.notify_one();
        there.notified().await;
        "done"
    });
    let served = start(Router::new().route("/", slow), Patience::default());
    let url = format!("http://{}/", served.addresses[1]);
    let answer = tokio::spawn(async move { reqwest::get(url).await.unwrap().text().await.unwrap() });
    begun.notified().await;

    served.shutdown.cancel();
    for address in &served.addresses {
        timeout(BOUND, async { while TcpStream::connect(address).await.is_ok() {} })
            .await
            .expect("no new connections");
    }
    finish.notify_one();
    assert_eq!(answer.await.unwrap(), "done");
    timeout(BOUND, served.serving).await.expect("ended in time").unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_hangs_does_not_keep_the_server() {
    let begun = Arc::new(Notify::new());
    let here = Arc::clone(&begun);
    let stuck = get(async move || {
        here.notify_one();
        std::future::pending::<()>().await;
    });
    let patience = Patience { in_flight: Duration::from_millis(200), connections: 1, ..Patience::default() };
    let served = start(Router::new().route("/", stuck), patience);
    let url = format!("http://{}/", served.addresses[0]);
    let answer = tokio::spawn(reqwest::get(url));
    begun.notified().await;
    // Nor does one that waits for its place.
    let waiting = TcpStream::connect(served.addresses[0]).await.unwrap();

    let told = Instant::now();
    served.shutdown.cancel();
    timeout(BOUND, served.serving).await.expect("ended in time").unwrap().unwrap();
    assert!(told.elapsed() >= patience.in_flight, "it had its time");
    assert!(answer.await.unwrap().is_err());
    drop(waiting);
}
