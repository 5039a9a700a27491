//! A TCP proxy in front of a store, which can be told to misbehave.
//!
//! What it is told counts at once for the connections that there are, idle ones too.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use super::trap::{Laid, Snare, Track, Trap};

/// What the proxy does with what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Pass,
    /// Resets every connection.
    Reset,
    /// Takes everything and passes nothing on, as if the other side had vanished. Connections that lost
    /// something are reset when this ends.
    Swallow,
    /// Passes nothing on until this ends, and then all of it: late.
    Stall,
    /// Passes each piece on after this time.
    Delay(Duration),
    /// Passes everything on, one byte at a time.
    Drip,
    /// Closes a connection in the middle of its next reply.
    CutReply,
    /// Keeps the answer to `COMMIT`, and closes the connection instead.
    LoseCommit,
}

/// A proxy on a port of its own. Dropping it closes the port; its connections end with their own ends.
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    target: watch::Sender<String>,
    trap: watch::Sender<Option<Arc<Laid>>>,
    hits: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of this address.
    pub(crate) async fn start(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, target) = (watch::Sender::new(Mode::Pass), watch::Sender::new(target));
        let (trap, hits) = (watch::Sender::new(None), Arc::<AtomicUsize>::default());
        let wire = Wire {
            mode: mode.subscribe(),
            target: target.subscribe(),
            trap: trap.subscribe(),
            hits: Arc::clone(&hits),
        };
        let accepting = tokio::spawn(async move {
            loop {
                // Out of files for a moment, perhaps: the next one may do.
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(connect(client, wire.clone()));
            }
        });
        Ok(Self { address, mode, target, trap, hits, accepting })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Leads new connections elsewhere, and resets those that there are.
    pub(crate) fn lead_to(&self, target: String) {
        self.target.send_replace(target);
    }

    /// Lays a trap, for the connections that there are too. A new one takes the place of the last one.
    pub(crate) fn lay(&self, trap: Trap) -> Snare {
        let (snare, laid) = Snare::new(trap);
        self.trap.send_replace(Some(laid));
        snare
    }

    /// How often a mode other than [`Mode::Pass`] has hit a connection: a fault that hit nothing was none.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// How a connection ends.
enum End {
    /// In good order, after all that came was passed on.
    Finished,
    Closed,
    Reset,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Requests,
    Replies,
}

/// What all connections share.
#[derive(Clone)]
struct Wire {
    mode: watch::Receiver<Mode>,
    target: watch::Receiver<String>,
    trap: watch::Receiver<Option<Arc<Laid>>>,
    hits: Arc<AtomicUsize>,
}

async fn connect(mut client: TcpStream, mut wire: Wire) {
    let target = wire.target.borrow_and_update().clone();
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (committing, track) = (AtomicBool::new(false), Mutex::default());
    let mut target = wire.target.clone();
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let pump =
            |side| Pump { side, wire: wire.clone(), committing: &committing, track: &track, lost: false };
        let (mut requests, mut replies) = (pump(Side::Requests), pump(Side::Replies));
        let requests = async {
            match requests.run(from_client, to_server).await {
                // What was sent may still be answered; the server's end ends the connection.
                End::Finished => std::future::pending().await,
                end => end,
            }
        };
        tokio::select! {
            end = requests => end,
            end = replies.run(from_server, to_client) => end,
            // The connection must not go on with the old server.
            Ok(()) = target.changed() => End::Reset,
        }
    };
    if matches!(end, End::Reset) {
        // The peer sees a reset instead of an end.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// One direction of a connection.
struct Pump<'a> {
    side: Side,
    wire: Wire,
    /// A COMMIT was passed on whose answer is to be lost.
    committing: &'a AtomicBool,
    track: &'a Mutex<Track>,
    /// Something of this connection was swallowed.
    lost: bool,
}

impl Pump<'_> {
    async fn run(&mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
        let mut buffer = vec![0; 64 * 1024];
        let mut modes = self.wire.mode.clone();
        loop {
            let lost = self.lost;
            let doomed = |mode: &Mode| *mode == Mode::Reset || (lost && *mode != Mode::Swallow);
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                _ = modes.wait_for(doomed) => {
                    self.hit();
                    return End::Reset;
                }
            };
            let Ok(read) = read else { return End::Closed };
            if read == 0 {
                let _ = to.shutdown().await;
                return End::Finished;
            }
            if let Err(end) = self.pass_or_hold(&buffer[..read], &mut to, &mut modes).await {
                return end;
            }
        }
    }

    /// Passes a piece on, but for what a trap holds of it.
    async fn pass_or_hold(
        &mut self,
        piece: &[u8],
        to: &mut WriteHalf<'_>,
        modes: &mut watch::Receiver<Mode>,
    ) -> Result<(), End> {
        let Some((at, laid)) = self.trapped(piece) else { return self.pass(piece, to, modes).await };
        if at > 0 {
            self.pass(&piece[..at], to, modes).await?;
        }
        if laid.end().await { self.pass(&piece[at..], to, modes).await } else { Err(End::Closed) }
    }

    /// From which byte on a trap holds this piece.
    fn trapped(&self, piece: &[u8]) -> Option<(usize, Arc<Laid>)> {
        let laid = self.wire.trap.borrow();
        let mut track = self.track.lock().unwrap_or_else(PoisonError::into_inner);
        match self.side {
            Side::Requests => track.request(laid.as_ref(), piece),
            Side::Replies => track.answer(laid.as_ref(), piece),
        }
    }

    async fn pass(
        &mut self,
        piece: &[u8],
        to: &mut WriteHalf<'_>,
        modes: &mut watch::Receiver<Mode>,
    ) -> Result<(), End> {
        let mut mode = *modes.borrow_and_update();
        if mode == Mode::Stall {
            self.hit();
            mode = *modes.wait_for(|mode| *mode != Mode::Stall).await.map_err(|_| End::Closed)?;
        }
        match (mode, self.side) {
            (Mode::Reset, _) => {
                self.hit();
                return Err(End::Reset);
            }
            (Mode::Swallow, _) => {
                self.hit();
                self.lost = true;
                return Ok(());
            }
            (Mode::Delay(time), _) => {
                self.hit();
                sleep(time).await;
            }
            (Mode::Drip, _) => {
                self.hit();
                for byte in piece {
                    written(to, &[*byte]).await?;
                    tokio::task::yield_now().await;
                }
                return Ok(());
            }
            (Mode::CutReply, Side::Replies) => {
                self.hit();
                written(to, &piece[..piece.len() / 2]).await?;
                return Err(End::Closed);
            }
            (Mode::LoseCommit, Side::Requests) if holds_commit(piece) => {
                self.committing.store(true, Relaxed);
            }
            (_, Side::Replies) if self.committing.load(Relaxed) => {
                self.hit();
                return Err(End::Closed);
            }
            _ => {}
        }
        written(to, piece).await
    }

    fn hit(&self) {
        self.wire.hits.fetch_add(1, Relaxed);
    }
}

async fn written(to: &mut WriteHalf<'_>, bytes: &[u8]) -> Result<(), End> {
    to.write_all(bytes).await.map_err(|_| End::Closed)
}

fn holds_commit(piece: &[u8]) -> bool {
    piece.windows(b"COMMIT".len()).any(|window| window == b"COMMIT")
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
