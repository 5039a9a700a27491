//! A TCP proxy in front of a store that can be told to misbehave.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

/// What the proxy does with what it gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Mode {
    /// Passes everything on.
    Pass,
    /// Passes requests on, and closes the connection instead of passing the next reply on.
    CutReply,
    /// Passes requests on and keeps the replies to itself.
    Mute,
}

pub(crate) struct Proxy {
    pub address: SocketAddr,
    mode: Arc<AtomicU8>,
    cut: Arc<AtomicUsize>,
}

impl Proxy {
    /// A proxy in front of this address.
    pub(crate) async fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, cut) = (Arc::new(AtomicU8::new(Mode::Pass as u8)), Arc::<AtomicUsize>::default());
        let proxy = Self { address, mode: Arc::clone(&mode), cut: Arc::clone(&cut) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(requests(from_client, to_server));
                tokio::spawn(replies(from_server, to_client, Arc::clone(&mode), Arc::clone(&cut)));
            }
        });
        proxy
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, SeqCst);
    }

    /// Replies that were cut off so far.
    pub(crate) fn cut(&self) -> usize {
        self.cut.load(SeqCst)
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mode: Arc<AtomicU8>,
    cut: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        match mode.load(SeqCst) {
            mode if mode == Mode::CutReply as u8 => {
                cut.fetch_add(1, SeqCst);
                return;
            }
            mode if mode == Mode::Mute as u8 => {}
            _ => {
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
