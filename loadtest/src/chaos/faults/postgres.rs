//! Postgres dies, stops or refuses. Orders wait; nothing may be lost.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::Executor;
use tokio::process::Command;

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, NOTHING},
    proxy::Mode,
    stage::Stage,
};

/// How long an outage lasts that is meant to be felt.
const OUTAGE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "postgres-killed",
        what: "Postgres is killed in the middle of a batch, whose rows are written and not committed",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(killed(stage, dice)),
    },
    Fault {
        name: "postgres-down",
        what: "Postgres is away for 30 s; the sale goes on",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, _| Box::pin(down(stage)),
    },
    Fault {
        name: "postgres-frozen",
        what: "every process of Postgres is stopped, and continued",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(frozen(stage, dice)),
    },
    Fault {
        name: "postgres-read-only",
        what: "Postgres takes no writes for a while",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(read_only(stage, dice)),
    },
    Fault {
        name: "postgres-locked",
        what: "somebody holds the lock on the sale's row",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(locked(stage, dice)),
    },
    Fault {
        name: "commit-lost",
        what: "answers to COMMIT are lost on the way",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(commit_lost(stage, dice)),
    },
];

/// A batch stands between its rows and its COMMIT: the last rows that it writes are its products', and those are
/// locked.
async fn killed(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let mut connection = stage.postgres().await?;
    connection.execute("BEGIN").await?;
    connection.execute("SELECT FROM products FOR UPDATE").await?;
    // Within a transaction, who waits is what it was at the first look.
    let mut lookout = stage.postgres().await?;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'flashsale-drain' AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut lookout).await? == 0 {
        stage.hold(POLL).await;
    }
    stage.stack.kill_postgres().await?;
    stage.hold(dice.ms(0, 2_000)).await;
    Ok(stage.stack.restart_postgres().await?)
}

async fn down(stage: &mut Stage) -> Result<()> {
    stage.stack.kill_postgres().await?;
    stage.hold(OUTAGE).await;
    Ok(stage.stack.restart_postgres().await?)
}

async fn frozen(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let postmaster = stage.stack.postgres_pid().context("Postgres does not run")?;
    let mut frozen = Frozen::default();
    // The main process first, so that it starts no more.
    frozen.stop(Pid::from_raw(i32::try_from(postmaster)?));
    children(postmaster).await?.into_iter().for_each(|process| frozen.stop(process));
    stage.hold(dice.ms(1_000, 8_000)).await;
    Ok(())
}

/// Processes that stand still until this is dropped: a round that is given up must not leave them so, for a stopped
/// process does not even end when it is told to.
#[derive(Default)]
struct Frozen(Vec<Pid>);

impl Frozen {
    /// One may have ended in between.
    fn stop(&mut self, process: Pid) {
        if kill(process, Signal::SIGSTOP).is_ok() {
            self.0.push(process);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for process in self.0.iter().rev() {
            let _ = kill(*process, Signal::SIGCONT);
        }
    }
}

/// The processes that this one has started.
async fn children(parent: u32) -> Result<Vec<Pid>> {
    let mut command = Command::new("pgrep");
    command.args(["-P", &parent.to_string()]).stdin(Stdio::null());
    let output = command.output().await.context("cannot run pgrep")?;
    let pids: Vec<Pid> = String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
        .collect();
    ensure!(!pids.is_empty(), "Postgres has no processes");
    Ok(pids)
}

async fn read_only(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let mut connection = stage.postgres().await?;
    connection.execute("ALTER SYSTEM SET default_transaction_read_only = on").await?;
    connection.execute("SELECT pg_reload_conf()").await?;
    stage.hold(dice.ms(2_000, 6_000)).await;
    connection.execute("ALTER SYSTEM RESET default_transaction_read_only").await?;
    connection.execute("SELECT pg_reload_conf()").await?;
    Ok(())
}

/// Longer than a drain session waits for it.
async fn locked(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let mut connection = stage.postgres().await?;
    connection.execute("BEGIN").await?;
    let lock = sqlx::query("SELECT FROM sales WHERE id = $1 FOR UPDATE").bind(i64::from(stage.sale.get()));
    lock.execute(&mut connection).await?;
    stage.hold(dice.ms(2_000, 8_000)).await;
    connection.execute("ROLLBACK").await?;
    Ok(())
}

async fn commit_lost(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let before = stage.postgres_door.hits();
    stage.postgres_door.set(Mode::LoseCommit);
    stage.hold(dice.ms(1_000, 3_000)).await;
    stage.postgres_door.set(Mode::Pass);
    ensure!(stage.postgres_door.hits() > before, "no COMMIT came by");
    Ok(())
}
