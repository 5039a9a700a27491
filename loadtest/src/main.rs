//! `flashsale-loadtest`: see `--help`.

use std::process::ExitCode;

use flashsale_loadtest::Task;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let task = Task::parse_or_exit();
    // Before goose installs its own logger, which writes between the results on stdout.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(task.log_filter()));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let passed = match &task {
        Task::Herd(args) => flashsale_loadtest::run(args).await,
        Task::Chaos(args) => flashsale_loadtest::run_chaos(args).await,
        Task::Broken(args) => flashsale_loadtest::run_broken(args).await,
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
