//! Connections: slow ones are closed, and a server that ends answers what it has begun. Needs no stores.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
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
    served.shutdown.cancel();
    served.serving.await.unwrap().unwrap();
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
    let patience = Patience { in_flight: Duration::from_millis(200), ..Patience::default() };
    let served = start(Router::new().route("/", stuck), patience);
    let url = format!("http://{}/", served.addresses[0]);
    let answer = tokio::spawn(reqwest::get(url));
    begun.notified().await;

    let told = Instant::now();
    served.shutdown.cancel();
    timeout(BOUND, served.serving).await.expect("ended in time").unwrap().unwrap();
    assert!(told.elapsed() >= patience.in_flight, "it had its time");
    assert!(answer.await.unwrap().is_err());
}
