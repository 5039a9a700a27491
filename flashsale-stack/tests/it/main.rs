//! The promises of a stack, each tried on real servers.

mod env_file;
mod lifecycle;
mod named_dir;
mod parent_death;
mod processes;
mod second_process;
mod users;

use std::io::{Read, Write};
use std::net::TcpStream;

/// What Redis answers to commands that need no quoting.
fn redis(url: &str, commands: &[&str]) -> String {
    let address = url.trim_start_matches("redis://").trim_end_matches('/');
    let mut connection = TcpStream::connect(address).expect("a connection to Redis");
    for command in commands {
        write!(connection, "{command}\r\n").expect("a command sent to Redis");
    }
    connection.write_all(b"QUIT\r\n").expect("a command sent to Redis");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer from Redis");
    answer
}

/// A folder that the user of Postgres can enter, which a plain temporary one is not.
fn open_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(permissions).tempdir().expect("a temporary folder")
}
