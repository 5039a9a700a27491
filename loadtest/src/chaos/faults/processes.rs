//! Our own processes die or stop. Nothing may be lost.

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, TAKEN_OVER},
    stage::Stage,
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "worker-killed",
        what: "workers are killed and started again, several times",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(worker_killed(stage, dice)),
    },
    Fault {
        name: "server-killed",
        what: "one of two servers is killed and started again after a while",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(server_killed(stage, dice)),
    },
    Fault {
        name: "no-workers",
        what: "all workers are killed; orders wait until there are some again",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(no_workers(stage, dice)),
    },
    Fault {
        name: "zombie-worker",
        what: "a worker is stopped until others have taken over what it had, and continued",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(zombie_worker(stage, dice)),
    },
];

/// Another one has to take over what each had in hand.
async fn worker_killed(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    for _ in 0..3 {
        let worker = dice.below(stage.workers.len());
        stage.workers[worker].kill().await?;
        stage.workers[worker].start_again().await?;
        stage.hold(dice.ms(0, 300)).await;
    }
    Ok(())
}

async fn server_killed(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let server = dice.below(stage.servers.len());
    stage.servers[server].kill().await?;
    stage.hold(dice.ms(0, 2_000)).await;
    stage.start_server_again(server).await
}

async fn no_workers(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    for worker in &mut stage.workers {
        worker.kill().await?;
    }
    stage.hold(dice.ms(2_000, 5_000)).await;
    for worker in &mut stage.workers {
        worker.start_again().await?;
    }
    Ok(())
}

/// Its entries may be claimed after 5 s, and its session in Postgres is ended after 2.
async fn zombie_worker(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let worker = dice.below(stage.workers.len());
    stage.workers[worker].signal(Signal::SIGSTOP)?;
    stage.hold(dice.ms(6_500, 9_000)).await;
    stage.workers[worker].signal(Signal::SIGCONT)
}
