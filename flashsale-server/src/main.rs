//! `flashsale-server`

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
};

use flashsale_server::{
    App, Config, Ending, Patience, Policy, Stores, check_health, connect, end_on_signal, listen,
    operations_router, router, run, serve, settings,
};
use mimalloc::MiMalloc;
use tokio::net::TcpListener;

/// Under a herd the system's allocator takes a quarter of the server's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Connections at the address for metrics: a few scrapers and load balancers.
const METRICS_CONNECTIONS: usize = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let (config, matches) = Config::read();
    if let Some(url) = config.health_check() {
        return match url {
            Ok(url) => ended(check_health(&url).await.and_then(|said| print(&said))),
            Err(usage) => wrong_usage(&usage),
        };
    }
    let policy = match config.policy() {
        Ok(policy) => policy,
        Err(usage) => return wrong_usage(&usage),
    };
    if config.instead.print_config {
        return ended(print(&settings(&config, &matches)));
    }
    let stores = match config.stores.clone().resolve_stores() {
        Ok(stores) => stores,
        Err(usage) => return wrong_usage(&usage.to_string()),
    };
    config.logs.init();
    ended(start(config, policy, stores).await)
}

fn ended<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flashsale-server: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever started it has to change something about the call.
fn wrong_usage(message: &str) -> ExitCode {
    eprintln!("flashsale-server: {message}\n\nFor more information, try '--help'.");
    ExitCode::from(2)
}

/// `print!` would panic where nobody reads it any more.
fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())
}

async fn start(config: Config, policy: Policy, stores: Stores) -> Result<(), Box<dyn std::error::Error>> {
    // Every buyer who waits for an answer is an open file.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let Ending { draining, shutdown } = end_on_signal(config.drain_for())?;
    let engine = tokio::select! {
        engine = connect(&stores, config.store_wait(), config.preflight) => engine?,
        () = draining.cancelled() => return Ok(()),
    };
    let mut said = String::new();
    let mut listeners = Vec::new();
    for &address in &config.listen {
        let listener = opened(address)?;
        writeln!(said, "listening on http://{}", listener.local_addr()?)?;
        listeners.push(listener);
    }
    let mut operations = Vec::new();
    if let Some(address) = config.metrics_listen {
        let listener = opened(address)?;
        writeln!(said, "metrics on http://{}/metrics", listener.local_addr()?)?;
        operations.push(listener);
    }
    print(&said)?;
    let patience = Patience { connections: METRICS_CONNECTIONS, ..Patience::default() };
    let operated = operations_router(engine.clone(), draining.clone());
    let operated = serve(operations, operated, patience, shutdown.clone());
    let app = router(App::new(engine.clone(), policy, draining));
    // Each of them ends the other one, and what it has begun is finished.
    let running = run(engine, app, listeners, config.drainers, config.check_every(), shutdown);
    let (ran, operated) = tokio::join!(running, operated);
    ran?;
    Ok(operated?)
}

fn opened(address: SocketAddr) -> Result<TcpListener, String> {
    listen(address).map_err(|error| format!("cannot listen on {address}: {error}"))
}
