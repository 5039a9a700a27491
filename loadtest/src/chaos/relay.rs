//! A relay before Redis that knows its protocol: clients keep their connections whatever happens behind it, as
//! with the proxies of hosted services. So it can lead them to another Redis between two commands without their
//! noticing, and deliver a command when its sender has given up on it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{self, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// How long the Redis behind it may be away before its clients notice.
const PATIENCE: Duration = Duration::from_secs(5);

/// A relay on a port of its own. Dropping it closes the port.
pub(crate) struct Relay {
    address: SocketAddr,
    target: watch::Sender<Target>,
    hold: watch::Sender<Duration>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

/// The Redis behind it.
#[derive(Clone)]
struct Target {
    address: String,
    /// It is the last one: what goes there is looked at no more, which only costs time.
    last: bool,
}

/// What passed, so that a fault can tell whether it struck.
#[derive(Default)]
struct Counts {
    /// Connections that went on with another Redis.
    moved: AtomicUsize,
    /// Batches of orders that Redis refused because they came too late.
    late: AtomicUsize,
}

impl Relay {
    pub(crate) async fn start(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (target, hold) =
            (watch::Sender::new(Target { address: target, last: false }), watch::Sender::new(Duration::ZERO));
        let counts = Arc::<Counts>::default();
        let wire = (target.subscribe(), hold.subscribe(), Arc::clone(&counts));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let (target, hold, counts) = wire.clone();
                // Ends with its client, or with a Redis that stays away.
                tokio::spawn(async move { Connection { target, hold, counts }.run(client).await });
            }
        });
        Ok(Self { address, target, hold, counts, accepting })
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From the next command on, every connection goes to this Redis, for good.
    pub(crate) fn switch(&self, target: String) {
        self.target.send_replace(Target { address: target, last: true });
    }

    /// Scripts are delivered after this time, whether or not somebody still waits for their answer.
    pub(crate) fn hold_scripts(&self, time: Duration) {
        self.hold.send_replace(time);
    }

    /// Connections whose clients were led to another Redis unawares.
    pub(crate) fn moved(&self) -> usize {
        self.counts.moved.load(Relaxed)
    }

    /// Batches that Redis refused as late.
    pub(crate) fn late(&self) -> usize {
        self.counts.late.load(Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What one client's connection needs.
struct Connection {
    target: watch::Receiver<Target>,
    hold: watch::Receiver<Duration>,
    counts: Arc<Counts>,
}

/// The connection to Redis.
struct Behind {
    replies: BufReader<OwnedReadHalf>,
    requests: OwnedWriteHalf,
    last: bool,
}

impl Connection {
    /// One command after the other: between two of them nothing is under way.
    async fn run(mut self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let (from_client, mut to_client) = client.into_split();
        let mut from_client = BufReader::new(from_client);
        let mut behind = self.connect().await?;
        while !behind.last {
            let command = value(&mut from_client).await?;
            let hold = *self.hold.borrow();
            // Only the beginning is looked at: a long command must not take longer because of us.
            let is_script = command[..command.len().min(32)].windows(4).any(|window| window == b"EVAL");
            if is_script && !hold.is_zero() {
                sleep(hold).await;
            }
            if self.target.has_changed().unwrap_or(false) {
                behind = self.connect().await?;
                behind.requests.write_all(&command).await?;
                self.counts.moved.fetch_add(1, Relaxed);
                break;
            }
            let reply = behind.ask(&command).await?;
            if is_script && reply.starts_with(b"*2\r\n$4\r\nlate\r\n") {
                self.counts.late.fetch_add(1, Relaxed);
            }
            to_client.write_all(&reply).await?;
        }
        let Behind { mut replies, mut requests, .. } = behind;
        tokio::select! {
            ended = io::copy_buf(&mut from_client, &mut requests) => ended,
            ended = io::copy_buf(&mut replies, &mut to_client) => ended,
        }
        .map(drop)
    }

    async fn connect(&mut self) -> io::Result<Behind> {
        let connect = async {
            loop {
                let target = self.target.borrow_and_update().clone();
                match TcpStream::connect(target.address).await {
                    Ok(stream) => return (stream, target.last),
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let (stream, last) = timeout(PATIENCE, connect).await?;
        stream.set_nodelay(true)?;
        let (replies, requests) = stream.into_split();
        Ok(Behind { replies: BufReader::new(replies), requests, last })
    }
}

impl Behind {
    async fn ask(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.requests.write_all(command).await?;
        value(&mut self.replies).await
    }
}

/// One whole value of the protocol (version 2), as its bytes.
async fn value(from: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Values that still have to come: an array adds its own.
    let mut due = 1_u64;
    while due > 0 {
        let start = bytes.len();
        from.read_until(b'\n', &mut bytes).await?;
        if !bytes[start..].ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        due -= 1;
        let line = &bytes[start..];
        let number =
            || std::str::from_utf8(&line[1..]).ok().and_then(|text| text.trim_end().parse::<i64>().ok());
        let bad = || io::Error::new(io::ErrorKind::InvalidData, String::from_utf8_lossy(line).into_owned());
        match line[0] {
            b'+' | b'-' | b':' => {}
            // A length of -1 is nothing, with nothing behind it.
            b'$' => {
                if let Ok(length) = u64::try_from(number().ok_or_else(bad)?) {
                    let end = bytes.len() + usize::try_from(length).unwrap_or_default() + 2;
                    from.take(length + 2).read_to_end(&mut bytes).await?;
                    if bytes.len() < end {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
            b'*' => due += u64::try_from(number().ok_or_else(bad)?).unwrap_or_default(),
            _ => return Err(bad()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Redis of sorts: it answers each command with its name, or says that a script came too late.
    async fn redis(name: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (from, mut to) = stream.into_split();
                tokio::spawn(async move {
                    let mut from = BufReader::new(from);
                    while let Ok(command) = value(&mut from).await {
                        let is_script = command.windows(4).any(|window| window == b"EVAL");
                        let answer = if is_script {
                            "*2\r\n$4\r\nlate\r\n:1\r\n".to_owned()
                        } else {
                            format!("+{name}\r\n")
                        };
                        to.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        address
    }

    struct Client {
        from: BufReader<OwnedReadHalf>,
        to: OwnedWriteHalf,
    }

    impl Client {
        async fn of(relay: &Relay) -> Self {
            let (from, to) = TcpStream::connect(relay.address()).await.unwrap().into_split();
            Self { from: BufReader::new(from), to }
        }

        async fn answer(&mut self) -> String {
            String::from_utf8(value(&mut self.from).await.unwrap()).unwrap()
        }
    }

    #[tokio::test]
    async fn a_value_ends_where_it_ends() {
        let values = [
            "+OK\r\n",
            ":1\r\n",
            "$-1\r\n",
            "$6\r\na\r\n*1$\r\n",
            "*-1\r\n",
            "*3\r\n$1\r\na\r\n*2\r\n:1\r\n$0\r\n\r\n-ERR x\r\n",
        ];
        let text = values.concat();
        let mut bytes = text.as_bytes();
        for expected in values {
            assert_eq!(String::from_utf8(value(&mut bytes).await.unwrap()).unwrap(), expected);
        }
        for cut in 1..values[5].len() {
            assert!(value(&mut &values[5].as_bytes()[..cut]).await.is_err(), "{cut} bytes");
        }
    }

    #[tokio::test]
    async fn a_client_is_led_elsewhere_without_losing_its_connection() {
        let relay = Relay::start(redis("one").await).await.unwrap();
        let mut client = Client::of(&relay).await;
        // Two commands at once: each is answered, in order.
        client.to.write_all(b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n").await.unwrap();
        assert_eq!((client.answer().await, client.answer().await), ("+one\r\n".into(), "+one\r\n".into()));
        relay.switch(redis("two").await);
        assert_eq!(relay.moved(), 0, "nobody has asked yet");
        client.to.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
        assert_eq!(client.answer().await, "+two\r\n");
        assert_eq!(relay.moved(), 1);
    }

    #[tokio::test]
    async fn a_held_script_is_delivered_although_its_sender_is_gone() {
        let relay = Relay::start(redis("one").await).await.unwrap();
        relay.hold_scripts(Duration::from_millis(50));
        let mut client = Client::of(&relay).await;
        client.to.write_all(b"*2\r\n$7\r\nEVALSHA\r\n$1\r\nx\r\n").await.unwrap();
        drop(client);
        let delivered = async {
            while relay.late() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), delivered).await.expect("the script is delivered");
    }
}
