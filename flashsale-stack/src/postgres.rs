//! What is particular to Postgres: making a cluster, its settings, readiness, databases.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Output;

use nix::sys::signal::Signal;

use crate::binaries::Binaries;
use crate::error::{Kind, StackError, io};
use crate::process::{Launch, Tether};
use crate::user::OtherUser;

/// The role, a superuser, and the database that every stack has.
pub(crate) const NAME: &str = "flashsale";

/// Makes the cluster in `parent/postgres` if there is none. It is made under another name first,
/// so that one whose making was cut short is never taken for a whole one.
pub(crate) async fn init(
    tether: &Tether,
    binaries: &Binaries,
    parent: &Path,
    cluster: &Path,
    user: Option<OtherUser>,
) -> Result<(), StackError> {
    if cluster.join("PG_VERSION").exists() {
        return Ok(());
    }
    let unfinished = parent.join("postgres.new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(io(format!("remove {}", unfinished.display())))?;
    }
    fs::create_dir(&unfinished).map_err(io(format!("create {}", unfinished.display())))?;
    if let Some(user) = user {
        user.own(&unfinished)?;
    }
    let mut arguments: Vec<OsString> = vec!["-D".into(), unfinished.clone().into(), "-U".into(), NAME.into()];
    arguments.extend(["-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"].map(OsString::from));
    let launch = Launch {
        program: &binaries.initdb,
        arguments,
        directory: &unfinished,
        user,
        at_parent_death: Signal::SIGKILL,
    };
    let output = tether.run(&launch).await.map_err(io("run initdb"))?;
    succeeded("initdb failed", output)?;
    fs::rename(&unfinished, cluster).map_err(io(format!("rename {}", unfinished.display())))
}

/// The server runs in its cluster's directory.
pub(crate) fn arguments(port: u16) -> Vec<OsString> {
    let port = port.to_string();
    let settings: &[(&str, &str)] = &[
        ("listen_addresses", "127.0.0.1"),
        ("port", &port),
        // Their path has a limit of about 100 bytes, and nobody needs them.
        ("unix_socket_directories", ""),
        ("max_connections", "200"),
        ("synchronous_commit", "on"),
        ("fsync", "on"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("logging_collector", "off"),
    ];
    let mut arguments: Vec<OsString> = vec!["-D".into(), ".".into()];
    arguments
        .extend(settings.iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}").into()]));
    arguments
}

/// Whether the process `pid` accepts connections: its pid file says so, as `pg_ctl --wait` reads
/// it. A connection could reach another server that took the port first.
pub(crate) fn is_ready(cluster: &Path, pid: u32) -> bool {
    let Ok(file) = fs::read_to_string(cluster.join("postmaster.pid")) else { return false };
    let mut lines = file.lines().map(str::trim);
    lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
}

/// Makes the database `name`, unless `or_keep` and there is one.
pub(crate) async fn create_database(
    tether: &Tether,
    psql: &Path,
    port: u16,
    name: &str,
    or_keep: bool,
) -> Result<(), StackError> {
    if !is_name(name) {
        return Err(Kind::BadName(name.to_owned()).into());
    }
    let exists = format!("SELECT 'yes' FROM pg_database WHERE datname = '{name}'");
    if or_keep && query(tether, psql, port, &exists).await?.trim() == "yes" {
        return Ok(());
    }
    query(tether, psql, port, &format!(r#"CREATE DATABASE "{name}""#)).await.map(drop)
}

async fn query(tether: &Tether, psql: &Path, port: u16, sql: &str) -> Result<String, StackError> {
    let url = format!("postgres://{NAME}@127.0.0.1:{port}/postgres");
    let launch = Launch {
        program: psql,
        arguments: ["--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql]
            .map(OsString::from)
            .into(),
        directory: Path::new("/"),
        user: None,
        at_parent_death: Signal::SIGKILL,
    };
    let output = tether.run(&launch).await.map_err(io("run psql"))?;
    succeeded("psql failed", output)
}

fn succeeded(what: &str, output: Output) -> Result<String, StackError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let log = [output.stdout, output.stderr].concat();
    let log = String::from_utf8_lossy(&log).trim().to_owned();
    Err(Kind::Failed { what: format!("{what} ({})", output.status), log }.into())
}

/// A name that needs no quoting, in SQL or in a URL, and that Postgres does not shorten.
fn is_name(name: &str) -> bool {
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    let goes_on = name.chars().all(|each| each.is_ascii_lowercase() || each.is_ascii_digit() || each == '_');
    starts_well && goes_on && name.len() <= 63
}
