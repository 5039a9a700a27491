//! The network between our processes and a store misbehaves. Nothing may be lost.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, NOTHING},
    proxy::{Mode, Proxy},
    relay::Relay,
    stage::{self, Stage},
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "net-reset",
        what: "connections are reset, and new ones too, for a while",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(misbehave(stage, dice, Mode::Reset)),
    },
    Fault {
        name: "net-half-open",
        what: "the other side vanishes without a word, and its connections are reset when it is back",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(misbehave(stage, dice, Mode::Swallow)),
    },
    Fault {
        name: "net-stalled",
        what: "nothing arrives for a while, then all of it, late",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(misbehave(stage, dice, Mode::Stall)),
    },
    Fault {
        name: "net-delayed",
        what: "everything arrives some time later",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| {
            let delay = dice.ms(20, 900);
            Box::pin(misbehave(stage, dice, Mode::Delay(delay)))
        },
    },
    Fault {
        name: "net-drip",
        what: "everything arrives one byte at a time",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(misbehave(stage, dice, Mode::Drip)),
    },
    Fault {
        name: "net-cut",
        what: "connections are closed in the middle of a reply",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(misbehave(stage, dice, Mode::CutReply)),
    },
    Fault {
        name: "late-batch",
        what: "batches of orders reach Redis long after their senders have given up: it refuses each as a whole",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(late_batch(stage, dice)),
    },
];

/// Which network: that of one half of the processes to Redis, that of all of them, that to Postgres.
fn victims<'a>(stage: &'a Stage, dice: &mut Dice) -> Vec<&'a Proxy> {
    let [one, two] = &stage.redis_doors;
    match dice.below(5) {
        0 => vec![one],
        1 => vec![two],
        2 => vec![one, two],
        3 => vec![&stage.postgres_door],
        _ => vec![one, two, &stage.postgres_door],
    }
}

/// Nobody waits longer than a second for Redis, and nothing of what it was sent before may happen afterwards.
async fn late_batch(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let redis = stage::address_of(&stage.redis_url)?;
    let relay = Relay::start(redis.clone()).await?;
    stage.redis_doors.iter().for_each(|door| door.lead_to(relay.address()));
    let admitted = stage.street.journal.admitted();
    while stage.street.journal.admitted() < admitted + 50 {
        stage.hold(Duration::from_millis(20)).await;
    }
    relay.hold_scripts(dice.ms(1_500, 3_000));
    stage.hold(dice.ms(4_000, 6_000)).await;
    relay.hold_scripts(Duration::ZERO);
    ensure!(relay.late() > 0, "no batch came too late");
    stage.redis_doors.iter().for_each(|door| door.lead_to(redis.clone()));
    Ok(())
}

async fn misbehave(stage: &mut Stage, dice: &mut Dice, mode: Mode) -> Result<()> {
    let victims = victims(stage, dice);
    let hits: Vec<_> = victims.iter().map(|proxy| proxy.hits()).collect();
    for proxy in &victims {
        proxy.set(mode);
    }
    stage.hold(dice.ms(1_000, 4_000)).await;
    for proxy in &victims {
        proxy.set(Mode::Pass);
    }
    // A reset is noticed by an idle connection too, but in its own time.
    stage.hold(Duration::from_millis(50)).await;
    let spared = victims.iter().zip(hits).filter(|(proxy, before)| proxy.hits() == *before).count();
    ensure!(spared == 0, "{mode:?} hit nothing on {spared} of {} networks", victims.len());
    Ok(())
}
