//! A process dies at one point of its work: not at a random moment, but when just this message is on its way. It
//! is seen from outside, on a network of its own, where the message is held until the process is dead.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flashsale_core::seam;

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, TAKEN_OVER},
    programs::{Program, StoreUrls},
    proxy::Proxy,
    stage::{self, Stage},
    trap::{Snare, Trap},
};

/// For the work to come to the point. Two workers share it, and a machine may be busy.
const WITHIN: Duration = Duration::from_secs(30);
/// Whoever waits for an answer gives up after a second.
const IN_TIME: Duration = Duration::from_millis(900);

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "worker-killed-after-read",
        what: "a worker is killed when it has taken entries, before Redis hears that it begins with them",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(worker_killed(stage, dice, Point::AfterRead)),
    },
    Fault {
        name: "worker-killed-after-begin",
        what: "a worker is killed when its orders are marked as being processed",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(worker_killed(stage, dice, Point::AfterBegin)),
    },
    Fault {
        name: "worker-killed-before-commit",
        what: "a worker is killed with its transaction written and not committed",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(worker_killed(stage, dice, Point::BeforeCommit)),
    },
    Fault {
        name: "worker-killed-after-commit",
        what: "a worker is killed when Postgres has committed, before it knows",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(worker_killed(stage, dice, Point::AfterCommit)),
    },
    Fault {
        name: "worker-killed-before-settle",
        what: "a worker is killed when its orders are recorded, before Redis hears of it",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(worker_killed(stage, dice, Point::BeforeSettle)),
    },
    Fault {
        name: "worker-killed-after-settle",
        what: "a worker is killed when Redis has its orders as final, before it knows",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(worker_killed(stage, dice, Point::AfterSettle)),
    },
    Fault {
        name: "server-killed-after-reserve",
        what: "a server is killed when Redis has admitted orders, before their buyers are told",
        cost: TAKEN_OVER,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(server_killed(stage, dice)),
    },
];

/// Between two steps of a worker's unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    AfterRead,
    AfterBegin,
    BeforeCommit,
    AfterCommit,
    BeforeSettle,
    AfterSettle,
}

impl Point {
    /// The message that is on its way then.
    fn trap(self, worker: &Program) -> Result<Trap> {
        Ok(match self {
            Self::AfterRead => Trap::request([script(worker, "begin")?]),
            Self::AfterBegin => Trap::request([script(worker, "begin")?]).answered(OK),
            Self::BeforeCommit => Trap::request([COMMIT]),
            Self::AfterCommit => Trap::request([COMMIT]).answered(COMMIT),
            Self::BeforeSettle => Trap::request([script(worker, "settle")?]),
            Self::AfterSettle => Trap::request([script(worker, "settle")?]).answered(OK),
        })
    }
}

/// So a script says that it was carried out, and was not fenced.
const OK: &str = "ok\r\n";
/// Both the statement and, if it was carried out, its answer.
pub(super) const COMMIT: &str = "COMMIT\0";

/// How the program calls this script.
pub(super) fn script(program: &Program, name: &str) -> Result<String> {
    let text = match program.broken {
        Some(mutation) => mutation.script(name)?,
        None => seam::script(name).with_context(|| format!("there is no script {name}"))?.to_owned(),
    };
    Ok(redis::Script::new(&text).get_hash().to_owned())
}

/// A network that only one program uses.
pub(super) struct OwnNetwork {
    pub(super) redis: Proxy,
    pub(super) postgres: Proxy,
}

impl OwnNetwork {
    /// Between the program and what it uses now; it is used from the program's next start on.
    pub(super) async fn of(program: &mut Program) -> Result<Self> {
        Self::before(&mut program.stores).await
    }

    /// Before these stores, for whoever is told of them from now on.
    pub(super) async fn before(stores: &mut StoreUrls) -> Result<Self> {
        let redis = Proxy::start(stage::address_of(&stores.redis)?).await?;
        let postgres = Proxy::start(stage::address_of(&stores.postgres)?).await?;
        stores.redis = stage::through(&stores.redis, &redis)?;
        stores.postgres = stage::through(&stores.postgres, &postgres)?;
        Ok(Self { redis, postgres })
    }
}

async fn worker_killed(stage: &mut Stage, dice: &mut Dice, point: Point) -> Result<()> {
    let consumer = kill_worker(stage, dice, point).await?;
    let pending: Vec<redis::Value> =
        stage.redis(&["XPENDING", &stage.key("queue"), "drain", "-", "+", "1", &consumer]).await?;
    // What is settled is acknowledged in the same step; another batch may be in hand by then, or none.
    ensure!(
        point == Point::AfterSettle || !pending.is_empty(),
        "{point:?} was another point: the dead worker had nothing in hand"
    );
    Ok(())
}

/// Kills one of the workers at this point, and says under which name it had taken entries. It is not started again:
/// another one has to take over what it had in hand.
pub(super) async fn kill_worker(stage: &mut Stage, dice: &mut Dice, point: Point) -> Result<String> {
    let worker = dice.below(stage.workers.len());
    let worker = &mut stage.workers[worker];
    let network = OwnNetwork::of(worker).await?;
    worker.end().await?;
    worker.start_again().await?;
    let trap = point.trap(worker)?.after(dice.below(5));
    let of_postgres = matches!(point, Point::BeforeCommit | Point::AfterCommit);
    let snare = if of_postgres { network.postgres.lay(trap) } else { network.redis.lay(trap) };
    let consumer = worker.address().to_owned();
    killed_in(&snare, worker).await.with_context(|| format!("{point:?}"))?;
    drop(snare);
    Ok(consumer)
}

async fn server_killed(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let number = dice.below(stage.servers.len());
    let server = &mut stage.servers[number];
    let usual = server.stores.clone();
    let network = OwnNetwork::of(server).await?;
    server.end().await?;
    stage.start_server_again(number).await?;
    let server = &mut stage.servers[number];
    let admitted = Trap::request([script(server, "reserve")?]).answered("admitted");
    let snare = network.redis.lay(admitted.after(dice.below(20)));
    killed_in(&snare, server).await?;
    drop(snare);
    server.stores = usual;
    stage.start_server_again(number).await
}

/// Kills the program while the trap holds what it sent, or the answer to it.
async fn killed_in(snare: &Snare, program: &mut Program) -> Result<()> {
    let since = snare.sprung(WITHIN).await?;
    program.kill().await?;
    ensure!(since.elapsed() < IN_TIME, "it had given up waiting and had gone on");
    Ok(())
}
