//! Redis dies, stops, or loses what it had acknowledged. It may then cost accepted orders that were not recorded
//! yet, and nothing else.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, NOTHING, UNRECORDED},
    programs::said,
    stage::{self, Stage},
};

const POLL: Duration = Duration::from_millis(20);

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "redis-killed",
        what: "Redis is killed and started on its append-only file",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(killed(stage, dice)),
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
    Fault {
        name: "script-flush",
        what: "Redis forgets all scripts, several times",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(scripts_flushed(stage, dice)),
    },
    Fault {
        name: "wrong-type",
        what: "one of the sale's keys is overwritten with a string",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(wrong_type(stage, dice)),
    },
    Fault {
        name: "failover",
        what: "half of the processes go to a promoted replica that was behind, while the old master still sells",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(failover(stage, dice)),
    },
    Fault {
        name: "old-master-back",
        what: "after a failover all processes are led back to the old master: it sells nothing until an operator recovers it",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(old_master_back(stage, dice)),
    },
];

/// With `kill -9` the page cache survives, so that the file has every acknowledged write.
async fn killed(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
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

fn copy_files(from: &Path, to: &Path) -> Result<()> {
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

async fn scripts_flushed(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    for _ in 0..5 {
        stage.redis::<()>(&["SCRIPT", "FLUSH"]).await?;
        stage.hold(dice.ms(50, 500)).await;
    }
    Ok(())
}

async fn wrong_type(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let keys = ["sale", "stock", "product", "book", "queue"];
    let key = stage.key(keys[dice.below(keys.len())]);
    stage.redis(&["SET", &key, "damaged"]).await
}

/// Server 0 and its worker stay with the old master; the others have gone to the new one.
async fn failover(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let new = promote(stage, dice).await?;
    stage.redis_url.clone_from(&new);
    let new = stage::address_of(&new)?;
    stage.redis_doors[1].lead_to(new.clone());
    stage.hold(dice.ms(500, 4_000)).await;
    stage.redis_doors[0].lead_to(new);
    Ok(())
}

async fn old_master_back(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let epoch = async |stage: &Stage, url: &str| -> Result<String> {
        stage::redis(url, &["HGET", &stage.key("sale"), "epoch"]).await
    };
    let (old, new) = (stage.redis_url.clone(), promote(stage, dice).await?);
    stage.lead_all_to(&new)?;
    let before = epoch(stage, &old).await?;
    while epoch(stage, &new).await? == before {
        stage.hold(POLL).await;
    }
    stage.hold(dice.ms(500, 1_500)).await;
    stage.lead_all_to(&old)?;
    // What is in flight is answered first.
    stage.hold(dice.ms(100, 200)).await;
    let admitted: String = stage.redis(&["HGET", &stage.key("sale"), "seq"]).await?;
    stage.hold(dice.ms(2_000, 4_000)).await;
    let since: String = stage.redis(&["HGET", &stage.key("sale"), "seq"]).await?;
    if since != admitted || epoch(stage, &old).await? != before {
        stage.found.push("an old master that came back sells, or was recovered by itself".to_owned());
    }
    let output = stage.doors.flashsale(&["recover", &stage.sale.to_string()])?.output().await?;
    ensure!(output.status.success(), "recover failed: {}", said(&output));
    Ok(())
}

/// A replica of the Redis that counts, cut off from it some time ago, that takes itself for a master.
async fn promote(stage: &mut Stage, dice: &mut Dice) -> Result<String> {
    // Its Postgres is not used.
    let replica = stage::start_stack().await?;
    let new = replica.redis_url().to_owned();
    let old = stage::address_of(&stage.redis_url)?;
    let (host, port) = old.split_once(':').context("no port")?;
    stage::redis::<()>(&new, &["REPLICAOF", host, port]).await?;
    while !stage::redis::<String>(&new, &["INFO", "replication"]).await?.contains("master_link_status:up") {
        stage.hold(POLL).await;
    }
    stage::redis::<()>(&new, &["REPLICAOF", "NO", "ONE"]).await?;
    stage.other = Some(replica);
    // It gets no more of what the old master acknowledges.
    stage.hold(dice.ms(50, 500)).await;
    Ok(new)
}
