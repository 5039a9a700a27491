//! Redis dies, stops, or loses what it had acknowledged. It may then cost accepted orders that were not recorded
//! yet, and nothing else.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, NOTHING, UNRECORDED},
    stage::Stage,
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "redis-killed",
        what: "Redis is killed and started on its append-only file, with appendfsync always",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(killed(stage, dice)),
    },
    Fault {
        name: "redis-killed-everysec",
        what: "the same with appendfsync everysec: what it acknowledged while the disk was busy may be gone",
        // While an fsync is under way, it answers for up to two seconds without having written.
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(killed_as_it_is(stage, dice)),
    },
    Fault {
        name: "redis-frozen",
        what: "Redis is stopped and continued: it runs late what timed out meanwhile",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(frozen(stage, dice)),
    },
    Fault {
        name: "flushall",
        what: "somebody empties Redis",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, _| Box::pin(flushed(stage)),
    },
    Fault {
        name: "redis-empty",
        what: "Redis is started on an empty disk",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(emptied(stage, dice)),
    },
    Fault {
        name: "redis-rolled-back",
        what: "Redis is started on an older copy of its append-only file",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(rolled_back(stage, dice)),
    },
    Fault {
        name: "aof-tail-cut",
        what: "Redis is started on an append-only file whose end is missing",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(tail_cut(stage, dice)),
    },
    Fault {
        name: "redis-full",
        what: "Redis reaches maxmemory: it admits nobody, and is drained all the same",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(full(stage, dice)),
    },
];

/// With `kill -9` the page cache survives, so that the file has every acknowledged write.
async fn killed(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    stage.redis::<()>(&["CONFIG", "SET", "appendfsync", "always"]).await?;
    stage.hold(dice.ms(200, 500)).await;
    killed_as_it_is(stage, dice).await
}

async fn killed_as_it_is(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    stage.stack.kill_redis().await?;
    stage.hold(dice.ms(0, 2_000)).await;
    Ok(stage.stack.restart_redis().await?)
}

async fn frozen(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let pid = stage.stack.redis_pid().context("Redis does not run")?;
    let pid = Pid::from_raw(i32::try_from(pid)?);
    kill(pid, Signal::SIGSTOP)?;
    stage.hold(dice.ms(500, 4_000)).await;
    Ok(kill(pid, Signal::SIGCONT)?)
}

async fn flushed(stage: &mut Stage) -> Result<()> {
    stage.redis(&["FLUSHALL"]).await
}

async fn emptied(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    stage.stack.kill_redis().await?;
    fs::remove_dir_all(stage.append_only_dir())?;
    stage.hold(dice.ms(0, 1_000)).await;
    Ok(stage.stack.restart_redis().await?)
}

async fn rolled_back(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let copy = tempfile::tempdir()?;
    copy_files(&stage.append_only_dir(), copy.path())?;
    stage.hold(dice.ms(100, 2_000)).await;
    stage.stack.kill_redis().await?;
    fs::remove_dir_all(stage.append_only_dir())?;
    fs::create_dir(stage.append_only_dir())?;
    copy_files(copy.path(), &stage.append_only_dir())?;
    Ok(stage.stack.restart_redis().await?)
}

pub(super) fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

async fn tail_cut(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    stage.stack.kill_redis().await?;
    let file = last_increment(&stage.append_only_dir())?;
    let length = fs::metadata(&file)?.len();
    // From half a command to hundreds of orders.
    let cut = [1, 100, 10_000, 200_000][dice.below(4)] + dice.below(100) as u64;
    OpenOptions::new().write(true).open(&file)?.set_len(length.saturating_sub(cut))?;
    Ok(stage.stack.restart_redis().await?)
}

/// The part of the append-only file that is written to.
fn last_increment(directory: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    let increments = files.filter(|path| {
        path.extension() == Some(OsStr::new("aof")) && path.to_string_lossy().contains(".incr.")
    });
    increments.max().context("there is no append-only file")
}

async fn full(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    stage.redis::<()>(&["CONFIG", "RESETSTAT"]).await?;
    stage.redis::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    stage.hold(dice.ms(1_000, 4_000)).await;
    let refused: String = stage.redis(&["INFO", "errorstats"]).await?;
    ensure!(refused.contains("errorstat_OOM"), "Redis refused nobody for want of memory");
    stage.redis(&["CONFIG", "SET", "maxmemory", "0"]).await
}
