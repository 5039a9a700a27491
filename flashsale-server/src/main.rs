//! `flashsale-server`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use flashsale_server::{
    App, Config, Policy, Stores, check_health, connect, listen, router, run, settings, shutdown_on_signal,
};

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
    io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}

async fn start(config: Config, policy: Policy, stores: Stores) -> Result<(), Box<dyn std::error::Error>> {
    // Every buyer who waits for an answer is an open file.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let shutdown = shutdown_on_signal()?;
    let engine = tokio::select! {
        engine = connect(&stores, config.store_wait()) => engine?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let mut listeners = Vec::new();
    let mut out = io::stdout().lock();
    for &address in &config.listen {
        let listener = listen(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
        writeln!(out, "listening on http://{}", listener.local_addr()?)?;
        listeners.push(listener);
    }
    out.flush()?;
    drop(out);
    let app = router(App::new(engine.clone(), policy, shutdown.clone()));
    run(engine, app, listeners, config.drainers, shutdown).await?;
    Ok(())
}
