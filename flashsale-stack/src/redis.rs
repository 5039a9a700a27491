//! What is particular to Redis: its settings, and how to see that it is ready.

use std::ffi::OsString;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Settings as arguments: nothing to write, and `ps` shows them.
pub(crate) fn arguments(port: u16) -> Vec<OsString> {
    let port = port.to_string();
    let settings: &[(&str, &str)] = &[
        ("bind", "127.0.0.1"),
        ("port", &port),
        ("dir", "."),
        ("daemonize", "no"),
        // Every write is in the file when its answer is sent, so a killed server loses nothing;
        // the disk itself is at most a second behind.
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        // Eviction would delete stock without a word.
        ("maxmemory-policy", "noeviction"),
        // A herd connects at once; the kernel lowers this to its own limit.
        ("tcp-backlog", "65535"),
        // Lowered by Redis itself when the limit on open files is lower.
        ("maxclients", "20000"),
        // One for each test that shares a stack.
        ("databases", "128"),
    ];
    settings.iter().flat_map(|(name, value)| [format!("--{name}").into(), OsString::from(value)]).collect()
}

/// Whether the process `pid` answers on this port and has loaded its data. Another server may have
/// taken the port first and would answer as well, so the answer has to name the process.
pub(crate) async fn is_ready(port: u16, pid: u32) -> bool {
    ask(port).await.is_ok_and(|answer| {
        let mut lines = answer.lines();
        answer.starts_with("+PONG\r\n")
            && lines.any(|line| line.strip_prefix("process_id:") == Some(&pid.to_string()))
    })
}

async fn ask(port: u16) -> io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    connection.write_all(b"PING\r\nINFO server\r\nQUIT\r\n").await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}
