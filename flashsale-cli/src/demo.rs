//! `flashsale demo`: the whole story in one command.

use std::{
    env,
    path::{Path, PathBuf},
    process::{self, ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::value_parser;
use flashsale_core::{Engine, EngineConfig};
use flashsale_stack::{Stack, StackOptions};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{audit, output, signals::Signals};

/// How long the herd may take to end in good order once it is asked to.
const END_WITHIN: Duration = Duration::from_secs(20);

/// Start private stores and a server, let a herd of buyers fall on one sale, and prove the outcome
///
/// Needs redis-server (or valkey-server) and Postgres installed, but none running. Everything is private,
/// temporary, and gone at the end. Exit code 0 only if the sale sold exactly its stock and every invariant holds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  flashsale demo --users 10000 --stock 50")]
pub(crate) struct Args {
    /// How many buyers fall on the sale
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    /// How many units there are; without it, one for 200 users
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=10_000_000))]
    stock: Option<u32>,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let loadtest = sibling("flashsale-loadtest")?;
    // The load test starts it; told here, before anything runs, rather than by it in the middle.
    sibling("flashsale-server")?;
    let mut signals = Signals::install()?;

    let starting = output::spinner("starting a private Redis and PostgreSQL");
    let stack = Stack::start(StackOptions::default()).await?;
    starting.finish_and_clear();
    eprintln!("a private Redis and PostgreSQL are running");
    let outcome = tell(args, &loadtest, &stack, &mut signals).await;
    stack.stop().await;
    outcome
}

async fn tell(
    args: &Args,
    loadtest: &Path,
    stack: &Stack,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    let mut herd = start_herd(args, loadtest, stack)?;
    let status = tokio::select! {
        status = herd.wait() => status.context("cannot wait for the load test")?,
        signal = signals.next() => {
            end(&mut herd, signal).await?;
            bail!("interrupted");
        }
        exit = stack.child_exited() => {
            end(&mut herd, Signal::SIGTERM).await?;
            bail!("{exit}");
        }
    };
    // Also after a failed run: what the stores say is then of most interest.
    let engine = Engine::connect(EngineConfig::new(stack.redis_url(), stack.database_url())).await?;
    let audited = audit::run_briefly(&engine).await;
    engine.close().await;
    if status.success() { audited } else { Ok(exit_code(status)) }
}

/// A program that is built together with this one and lies beside it.
fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("cannot find out where this program is")?;
    let path = own.with_file_name(name);
    if !path.is_file() {
        let release = if cfg!(debug_assertions) { "" } else { " --release" };
        bail!(
            "{name} is not beside this program ({})\nBuild all of them: cargo build --workspace --bins{release}",
            path.display()
        );
    }
    Ok(path)
}

fn start_herd(args: &Args, loadtest: &Path, stack: &Stack) -> anyhow::Result<Child> {
    let mut command = dying_with_us(loadtest);
    command.args(["--users", &args.users.to_string()]);
    if let Some(stock) = args.stock {
        command.args(["--stock", &stock.to_string()]);
    }
    command
        .args(["--redis-url", stack.redis_url(), "--database-url", stack.database_url()])
        .stdin(Stdio::null())
        // A group of its own: Ctrl-C reaches it once, through us, and ending the group ends its server too.
        .process_group(0)
        .kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {}", loadtest.display()))
}

/// A command that is killed with this process. `kill_on_drop` does not help when we are killed ourselves;
/// where there is a `setpriv` that knows `--pdeathsig` (not `BusyBox`'s), the kernel sees to it. That fires when
/// the spawning thread ends, and `main` spawns on the main thread.
fn dying_with_us(program: &Path) -> Command {
    const SETPRIV: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];
    let setpriv = |program: &Path| {
        let mut command = process::Command::new(SETPRIV[0]);
        command.args(&SETPRIV[1..]).arg(program);
        command
    };
    let mut trial = setpriv(Path::new("true"));
    let trial = trial.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let known = trial.is_ok_and(|status| status.success());
    if known { setpriv(program) } else { process::Command::new(program) }.into()
}

/// Asks the herd and its server to end, and kills them when they do not.
async fn end(herd: &mut Child, signal: Signal) -> anyhow::Result<()> {
    let Some(pid) = herd.id() else { return Ok(()) };
    let group = Pid::from_raw(pid.try_into().context("a process id out of range")?);
    // An error means that the group is gone already, which is what is wanted.
    let _ = killpg(group, signal);
    let ended = timeout(END_WITHIN, herd.wait()).await;
    let _ = killpg(group, Signal::SIGKILL);
    if ended.is_err() {
        herd.wait().await?;
    }
    Ok(())
}

/// The load test's own code; 1 if a signal ended it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    if code.is_none() {
        eprintln!("error: the load test ended with {status}");
    }
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
