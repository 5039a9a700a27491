//! Redis keeps running and loses a part of what it held: its scripts, or one of the sale's keys.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, NOTHING, UNRECORDED},
    stage::Stage,
};

const POLL: Duration = Duration::from_millis(20);

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "script-flush",
        what: "Redis forgets all scripts, several times",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(scripts_flushed(stage, dice)),
    },
    Fault {
        name: "wrong-type",
        what: "each of the sale's keys is overwritten with a string, one after the other",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(each_key(stage, dice, &["SET", "damaged"])),
    },
    Fault {
        name: "key-deleted",
        what: "each of the sale's keys is deleted, one after the other",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(each_key(stage, dice, &["DEL"])),
    },
];

async fn scripts_flushed(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    for _ in 0..5 {
        stage.redis::<()>(&["SCRIPT", "FLUSH"]).await?;
        stage.hold(dice.ms(50, 500)).await;
    }
    Ok(())
}

/// The command, with each key as its first argument. The next one follows when the sale was loaded again.
async fn each_key(stage: &mut Stage, dice: &mut Dice, command: &[&str]) -> Result<()> {
    let mut keys: Vec<String> = stage.redis(&["KEYS", &stage.key("*")]).await?;
    keys.sort_unstable();
    ensure!(keys.len() >= 5, "the sale has only the keys {}", keys.join(", "));
    while !keys.is_empty() {
        let key = keys.swap_remove(dice.below(keys.len()));
        let epoch = epoch(stage).await?;
        let words: Vec<_> = [command[0], &key].into_iter().chain(command[1..].iter().copied()).collect();
        stage.redis::<redis::Value>(&words).await?;
        // The last one is mended while the round waits for all to be well.
        while !keys.is_empty() && self::epoch(stage).await? == epoch {
            stage.hold(POLL).await;
        }
    }
    Ok(())
}

/// Of the last load that was completed.
async fn epoch(stage: &Stage) -> Result<i64> {
    let mut connection = stage.postgres().await?;
    let epoch = sqlx::query_scalar("SELECT loaded_epoch FROM sales WHERE id = $1");
    Ok(epoch.bind(i64::from(stage.sale.get())).fetch_one(&mut connection).await?)
}
