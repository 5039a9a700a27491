//! The client, a process of its own: many connections that stay open, each with one order under way.
//!
//! Written by hand on sockets, because it shares the machine with what it measures: a client library would take
//! as much of a core as the server does.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::crowd::{Buyer, per_second};

/// What the client is to do.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    pub(crate) address: String,
    #[arg(long)]
    pub(crate) connections: usize,
    #[arg(long)]
    pub(crate) orders: usize,
    #[arg(long)]
    pub(crate) product: i64,
}

/// What it got.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Got {
    pub(crate) per_second: f64,
    /// How many answers of each status.
    pub(crate) statuses: BTreeMap<u16, usize>,
}

/// Sends all orders and prints what came back.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let mut requests = requests(args).into_iter();
    let share = args.orders.div_ceil(args.connections);
    let mut connected = Vec::new();
    for _ in 0..args.connections {
        let socket = TcpStream::connect(&args.address).await?;
        socket.set_nodelay(true)?;
        connected.push((socket, requests.by_ref().take(share).collect::<Vec<_>>()));
    }
    let began = Instant::now();
    let asking: Vec<_> =
        connected.into_iter().map(|(socket, requests)| tokio::spawn(ask_all(socket, requests))).collect();
    let mut statuses = BTreeMap::new();
    for asked in asking {
        for status in asked.await?? {
            *statuses.entry(status).or_default() += 1;
        }
    }
    let got = Got { per_second: per_second(args.orders, began.elapsed()), statuses };
    println!("{}", serde_json::to_string(&got)?);
    Ok(())
}

/// Each from an address of its own, so that a limit per address counts each and refuses none.
fn requests(args: &Args) -> Vec<Vec<u8>> {
    let request = |(number, Buyer { user, key }): (usize, Buyer)| {
        let body = format!(
            r#"{{"idempotencyKey":"{key}","items":[{{"productId":{},"quantity":1}}]}}"#,
            args.product
        );
        let [_, a, b, c] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
        let head = format!(
            "POST /api/orders HTTP/1.1\r\nHost: {}\r\nX-User-Id: {user}\r\nX-Forwarded-For: 10.{a}.{b}.{c}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            args.address,
            body.len()
        );
        (head + &body).into_bytes()
    };
    Buyer::all(0..args.orders).into_iter().enumerate().map(request).collect()
}

async fn ask_all(mut socket: TcpStream, requests: Vec<Vec<u8>>) -> Result<Vec<u16>> {
    let mut statuses = Vec::with_capacity(requests.len());
    let mut buffer = Vec::with_capacity(4_096);
    for request in requests {
        socket.write_all(&request).await?;
        statuses.push(answer(&mut socket, &mut buffer).await?);
    }
    Ok(statuses)
}

/// Reads one whole answer and gives its status.
async fn answer(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<u16> {
    buffer.clear();
    let mut head = None;
    loop {
        if head.is_none() {
            head = read_head(buffer)?;
        }
        if let Some((status, length)) = head
            && buffer.len() >= length
        {
            ensure!(buffer.len() == length, "more came than was asked for");
            return Ok(status);
        }
        ensure!(socket.read_buf(buffer).await? > 0, "the server hung up");
    }
}

/// The status, and how long the whole answer is; `None` as long as the headers are not there.
fn read_head(buffer: &[u8]) -> Result<Option<(u16, usize)>> {
    let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&buffer[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let Some(length) = length else { bail!("an answer without Content-Length: {head}") };
    Ok(Some((status, end + 4 + length?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn answers_are_read_whole_however_they_arrive() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let serving = tokio::spawn(async move {
            for part in ["HTTP/1.1 202 Accep", "ted\r\ncontent-Length: 5\r\n", "\r\nhe", "llo"] {
                server.write_all(part.as_bytes()).await.unwrap();
                server.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            server
        });
        let mut buffer = Vec::new();
        assert_eq!(answer(&mut client, &mut buffer).await.unwrap(), 202);
        assert!(buffer.ends_with(b"hello"));
        drop(serving.await.unwrap());
        assert!(answer(&mut client, &mut buffer).await.is_err(), "an answer that never comes is none");
    }

    #[test]
    fn a_head_says_how_long_the_answer_is() {
        assert_eq!(read_head(b"HTTP/1.1 409 Conflict\r\nContent-Length: 7").unwrap(), None);
        let head = b"HTTP/1.1 409 Conflict\r\nA: b\r\nContent-Length: 7\r\n\r\n123";
        assert_eq!(read_head(head).unwrap(), Some((409, head.len() - 3 + 7)));
        assert!(read_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(read_head(b"nonsense\r\n\r\n").is_err());
    }
}
