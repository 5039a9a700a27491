//! Each way in which the proxy misbehaves, before a server that answers each piece with itself, twice.

use std::io::ErrorKind;

use super::*;

/// A proxy in front of an echo, and a connection through it that has been used.
async fn proxied() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 1_024];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let reply = [&buffer[..read], &buffer[..read]].concat();
                    let _ = stream.write_all(&reply).await;
                }
            });
        }
    });
    let proxy = Proxy::start(target).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(asked(&mut stream, b"hi").await.unwrap(), b"hihi");
    assert_eq!(proxy.hits(), 0);
    (proxy, stream)
}

/// The whole answer; what came of it in an error's stead.
async fn asked(stream: &mut TcpStream, piece: &[u8]) -> Result<Vec<u8>, (ErrorKind, Vec<u8>)> {
    stream.write_all(piece).await.map_err(|error| (error.kind(), Vec::new()))?;
    answer(stream, piece.len() * 2).await
}

async fn answer(stream: &mut TcpStream, length: usize) -> Result<Vec<u8>, (ErrorKind, Vec<u8>)> {
    let mut answer = Vec::new();
    while answer.len() < length {
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err((ErrorKind::UnexpectedEof, answer)),
            Ok(_) => {}
            Err(error) => return Err((error.kind(), answer)),
        }
    }
    Ok(answer)
}

async fn hit(proxy: &Proxy) {
    let hit = async {
        while proxy.hits() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), hit).await.expect("the mode hits the connection");
}

#[tokio::test]
async fn an_idle_connection_is_reset_and_a_new_one_too() {
    let (proxy, mut stream) = proxied().await;
    proxy.set(Mode::Reset);
    assert_eq!(answer(&mut stream, 1).await.unwrap_err().0, ErrorKind::ConnectionReset);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(asked(&mut stream, b"hi").await.is_err());
    proxy.set(Mode::Pass);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(asked(&mut stream, b"hi").await.unwrap(), b"hihi");
    assert!(proxy.hits() >= 2);
}

#[tokio::test]
async fn what_is_swallowed_never_arrives_and_its_connection_is_reset() {
    let (proxy, mut stream) = proxied().await;
    proxy.set(Mode::Swallow);
    stream.write_all(b"gone").await.unwrap();
    hit(&proxy).await;
    proxy.set(Mode::Pass);
    let (kind, came) = answer(&mut stream, 1).await.unwrap_err();
    assert_eq!((kind, came), (ErrorKind::ConnectionReset, Vec::new()));
}

#[tokio::test]
async fn what_was_stalled_arrives_late() {
    let (proxy, mut stream) = proxied().await;
    proxy.set(Mode::Stall);
    stream.write_all(b"late").await.unwrap();
    hit(&proxy).await;
    proxy.set(Mode::Pass);
    assert_eq!(answer(&mut stream, 8).await.unwrap(), b"latelate");
}

#[tokio::test]
async fn slow_ways_pass_everything_on() {
    let (proxy, mut stream) = proxied().await;
    for mode in [Mode::Delay(Duration::from_millis(5)), Mode::Drip] {
        proxy.set(mode);
        let before = proxy.hits();
        // The same bytes, in whatever pieces the server got them.
        assert_eq!(asked(&mut stream, b"zzzz").await.unwrap(), b"zzzzzzzz", "{mode:?}");
        assert!(proxy.hits() >= before + 2, "{mode:?}");
    }
}

#[tokio::test]
async fn a_reply_is_cut_in_the_middle() {
    let (proxy, mut stream) = proxied().await;
    proxy.set(Mode::CutReply);
    let (kind, came) = asked(&mut stream, b"1234").await.unwrap_err();
    assert_eq!((kind, came), (ErrorKind::UnexpectedEof, b"1234".to_vec()));
}

#[tokio::test]
async fn only_the_answer_to_a_commit_is_lost() {
    let (proxy, mut stream) = proxied().await;
    proxy.set(Mode::LoseCommit);
    assert_eq!(asked(&mut stream, b"SELECT").await.unwrap(), b"SELECTSELECT");
    let (kind, came) = asked(&mut stream, b"COMMIT").await.unwrap_err();
    assert_eq!((kind, came), (ErrorKind::UnexpectedEof, Vec::new()));
    assert_eq!(proxy.hits(), 1);
}

#[tokio::test]
async fn new_connections_lead_elsewhere() {
    let (proxy, mut old) = proxied().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    proxy.lead_to(listener.local_addr().unwrap().to_string());
    assert!(asked(&mut old, b"hi").await.is_err());
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut there, _) = listener.accept().await.unwrap();
    there.write_all(b"elsewhere").await.unwrap();
    assert_eq!(answer(&mut stream, 9).await.unwrap(), b"elsewhere");
}

#[tokio::test]
async fn a_trapped_request_arrives_late_or_never() {
    let (proxy, mut stream) = proxied().await;
    let within = Duration::from_secs(30);
    let snare = proxy.lay(Trap::request(["COMMIT"]).after(1));
    assert_eq!(asked(&mut stream, b"COMMIT").await.unwrap(), b"COMMITCOMMIT");
    stream.write_all(b"INSERT; COMMIT").await.unwrap();
    snare.sprung(within).await.unwrap();
    assert_eq!(answer(&mut stream, 16).await.unwrap(), b"INSERT; INSERT; ");
    // Others pass meanwhile.
    let mut other = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(asked(&mut other, b"COMMIT").await.unwrap(), b"COMMITCOMMIT");
    snare.let_go();
    assert_eq!(answer(&mut stream, 12).await.unwrap(), b"COMMITCOMMIT");

    let snare = proxy.lay(Trap::request(["COMMIT"]));
    stream.write_all(b"COMMIT").await.unwrap();
    snare.sprung(within).await.unwrap();
    drop(snare);
    assert_eq!(answer(&mut stream, 12).await.unwrap_err(), (ErrorKind::UnexpectedEof, Vec::new()));
}

#[tokio::test]
async fn a_trapped_answer_was_given_and_never_arrives() {
    let (proxy, mut stream) = proxied().await;
    let snare = proxy.lay(Trap::request(["settle"]).answered("ok"));
    assert_eq!(asked(&mut stream, b"begin ok").await.unwrap(), b"begin okbegin ok");
    assert_eq!(asked(&mut stream, b"settle").await.unwrap(), b"settlesettle");
    stream.write_all(b"settle, ok").await.unwrap();
    snare.sprung(Duration::from_secs(30)).await.unwrap();
    drop(snare);
    let (kind, came) = answer(&mut stream, 20).await.unwrap_err();
    assert_eq!((kind, came), (ErrorKind::UnexpectedEof, b"settle, ".to_vec()));
    assert_eq!(proxy.hits(), 0);
}

#[tokio::test]
async fn a_trap_that_nothing_comes_by_says_so() {
    let (proxy, _stream) = proxied().await;
    let snare = proxy.lay(Trap::request(["COMMIT"]));
    assert!(snare.sprung(Duration::from_millis(1)).await.is_err());
}
