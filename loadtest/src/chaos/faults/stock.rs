//! An operator changes the stock in mid-sale. The command is repeated, several times at once, and killed half way, and
//! what it had sent arrives late. The change counts once, and takes nothing from who was admitted.

use std::{
    process::Output,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use flashsale_core::{ChangeOutcome, ProductId, StockChange, seam};
use futures::future::try_join_all;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, NOTHING, UNRECORDED},
    faults::crash_points::{COMMIT, OwnNetwork},
    programs::{StoreUrls, said},
    stage::{self, Stage},
    trap::{Snare, Trap},
};

const REPEATS: usize = 50;
const AT_ONCE: usize = 5;
/// About so long a command lives under load.
const LIFE_MS: usize = if cfg!(debug_assertions) { 1_000 } else { 150 };
/// For the command to come to a moment, and for a change to be in both stores.
const WITHIN: Duration = Duration::from_mins(1);
/// How many commands may find that a keeper was faster.
const TRIES: usize = 10;
const POLL: Duration = Duration::from_millis(50);
/// So long what was let go takes to arrive, at the most.
pub(super) const ARRIVES: Duration = Duration::from_millis(200);

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "restock-repeated",
        what: "50 times the same units are put on sale, under one operation id, half of the commands killed",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(restock_repeated(stage, dice)),
    },
    Fault {
        name: "reduce-under-load",
        what: "units are taken off sale while they sell, repeated and killed likewise",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(reduce_under_load(stage, dice)),
    },
    Fault {
        name: "restock-redis-empty",
        what: "a restock is killed when the record has it, and Redis is emptied before it has it",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, _| Box::pin(restock_redis_empty(stage)),
    },
    Fault {
        name: "reduce-postgres-killed",
        what: "Postgres is killed when Redis has given units up, before the record has heard of it",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, _| Box::pin(reduce_postgres_killed(stage)),
    },
];

/// A change of a product's stock, under the name that it has for its operator.
pub(super) struct Change {
    pub(super) product: ProductId,
    pub(super) units: i64,
    pub(super) op_id: String,
}

impl Change {
    fn command(&self, stage: &Stage, stores: &StoreUrls) -> Result<Command> {
        let verb = if self.units > 0 { "restock" } else { "reduce" };
        let (sale, product) = (stage.sale.to_string(), self.product.to_string());
        let units = self.units.unsigned_abs().to_string();
        let mut command =
            stores.flashsale(&["sales", verb, &sale, &product, &units, "--op-id", &self.op_id])?;
        command.args((self.units < 0).then_some("--yes"));
        Ok(command)
    }
}

/// A command that was killed half way, and what it had sent, which is on its way still.
pub(super) struct HalfWay {
    snare: Snare,
    _network: OwnNetwork,
}

impl HalfWay {
    /// It arrives now.
    pub(super) async fn arrives(self, stage: &Stage) {
        self.snare.let_go();
        stage.hold(ARRIVES).await;
    }
}

/// Between two steps of the command's work.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    /// The record has the change, or wants it.
    BeforeRedis,
    /// Redis has it.
    AfterRedis,
    /// What Redis said is on its way to the record.
    BeforeSettled,
}

impl Moment {
    fn trap(self) -> Result<Trap> {
        let stock = script("stock")?;
        Ok(match self {
            Self::BeforeRedis => Trap::request([stock.get_hash()]),
            Self::AfterRedis => Trap::request([stock.get_hash()]).answered("applied"),
            // The first one is that of the request.
            Self::BeforeSettled => Trap::request([COMMIT]).after(1),
        })
    }
}

fn script(name: &str) -> Result<redis::Script> {
    Ok(redis::Script::new(seam::script(name).with_context(|| format!("there is no script {name}"))?))
}

/// So that the call that is held is the one that does it.
pub(super) async fn teach(stage: &Stage, script: &redis::Script) -> Result<()> {
    let mut connection = stage::connect_redis(&stage.redis_url).await?;
    Ok(script.prepare_invoke().load_async(&mut connection).await.map(drop)?)
}

/// Starts the command and kills it at this moment. `None` if it came to its end before: another one had done its work.
pub(super) async fn killed_half_way(
    stage: &Stage,
    change: &Change,
    moment: Moment,
) -> Result<Option<HalfWay>> {
    teach(stage, &script("stock")?).await?;
    let mut stores = stage.doors.clone();
    let network = OwnNetwork::before(&mut stores).await?;
    let trap = moment.trap()?;
    let of_postgres = matches!(moment, Moment::BeforeSettled);
    let snare = if of_postgres { network.postgres.lay(trap) } else { network.redis.lay(trap) };
    let mut command: Child = change.command(stage, &stores)?.spawn()?;
    tokio::select! {
        sprung = snare.sprung(WITHIN) => { sprung?; }
        ended = command.wait() => {
            ended?;
            return Ok(None);
        }
    }
    command.kill().await?;
    Ok(Some(HalfWay { snare, _network: network }))
}

/// Runs the command again and again, several at once, and kills one in two at a random moment. What the others said.
async fn repeat(stage: &Stage, dice: &mut Dice, change: &Change, times: usize) -> Result<Vec<Output>> {
    let mut said = Vec::new();
    for _ in 0..times / AT_ONCE {
        let patience = [(); AT_ONCE].map(|()| if dice.percent(50) { dice.ms(0, LIFE_MS) } else { WITHIN });
        let outputs = patience.into_iter().map(async |patience| {
            let mut command = change.command(stage, &stage.doors)?;
            // It is killed when it is dropped.
            timeout(patience, command.output()).await.ok().transpose().map_err(anyhow::Error::from)
        });
        said.extend(try_join_all(outputs).await?.into_iter().flatten());
    }
    Ok(said)
}

/// The product's stock by the record, and what of it is sold.
async fn stock_and_sold(stage: &Stage, product: ProductId) -> Result<(i64, i64)> {
    let row = sqlx::query_as("SELECT stock::bigint, sold::bigint FROM products WHERE id = $1");
    Ok(row.bind(product.get()).fetch_one(&mut stage.postgres().await?).await?)
}

/// What is left by Redis.
async fn left(stage: &Stage, product: ProductId) -> Result<i64> {
    stage.redis(&["HGET", &stage.key("stock"), &product.to_string()]).await
}

/// Waits until all changes have their outcome and Redis has them too; what became of them.
async fn settled(stage: &Stage) -> Result<Vec<StockChange>> {
    let engine = stage.engine().await?;
    let operator = engine.operator();
    let give_up = Instant::now() + WITHIN;
    let noted = loop {
        let noted = operator.stock_changes(stage.sale).await?;
        let open = noted.iter().any(|change| change.outcome == ChangeOutcome::Waiting);
        let in_redis: Option<i64> = stage.redis(&["HGET", &stage.key("stock"), "changes"]).await?;
        let last = noted.last().map_or(0, |change| change.number);
        if (!open && in_redis == Some(last)) || Instant::now() > give_up {
            break noted;
        }
        stage.hold(POLL).await;
    };
    engine.close().await;
    Ok(noted)
}

/// Notes as found what must not be: each of these changes counts once, and nothing else changed the stock.
async fn count_once(stage: &mut Stage, product: ProductId, before: i64, changes: &[Change]) -> Result<()> {
    let noted = settled(stage).await?;
    let mut expected = before;
    for change in changes {
        let of_it: Vec<_> = noted.iter().filter(|noted| noted.op_id.as_str() == change.op_id).collect();
        match of_it[..] {
            [one] if one.outcome == ChangeOutcome::Applied => expected += change.units,
            [one] if one.outcome == ChangeOutcome::Refused && change.units < 0 => {}
            _ => stage.found.push(format!("the change {} became {of_it:?}", change.op_id)),
        }
    }
    let (stock, _) = stock_and_sold(stage, product).await?;
    if stock != expected {
        stage.found.push(format!("product {product} has a stock of {stock}, which should be {expected}"));
    }
    Ok(())
}

/// Waits until the buyers have bought all that there is.
async fn sold_out(stage: &mut Stage, product: ProductId) -> Result<()> {
    let give_up = Instant::now() + WITHIN;
    loop {
        let (stock, sold) = stock_and_sold(stage, product).await?;
        if stock == sold {
            return Ok(());
        }
        if Instant::now() > give_up {
            stage.found.push(format!("of product {product} {sold} of {stock} units are sold"));
            return Ok(());
        }
        stage.hold(POLL).await;
    }
}

/// Changes the stock by commands of which one was killed half way, and what that one had sent. A keeper may be there
/// first, with which a command has nothing more to do: then again, under another name.
async fn held(stage: &Stage, change: Change, moment: Moment) -> Result<(Vec<Change>, HalfWay)> {
    let mut changes = vec![change];
    loop {
        let change = changes.last().expect("it begins with one");
        if let Some(held) = killed_half_way(stage, change, moment).await? {
            return Ok((changes, held));
        }
        ensure!(changes.len() < TRIES, "no command came to this moment: {moment:?}");
        changes.push(Change { op_id: format!("{}-again", change.op_id), ..*change });
    }
}

async fn restock_repeated(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let product = stage.street.wares.scarce;
    let (before, _) = stock_and_sold(stage, product).await?;
    let raced = Change { product, units: 60, op_id: "second-batch".to_owned() };
    let mut outputs = repeat(stage, dice, &raced, REPEATS).await?;
    let late = Change { product, units: 20, op_id: "late-batch".to_owned() };
    let (mut changes, held) = held(stage, late, Moment::BeforeRedis).await?;
    let late = changes.last().context("it has a name")?;
    outputs.extend(repeat(stage, dice, late, AT_ONCE).await?);
    held.arrives(stage).await;
    for output in outputs.iter().filter(|output| !output.status.success()) {
        stage.found.push(format!("a repeated restock failed: {}", said(output)));
    }
    changes.push(raced);
    count_once(stage, product, before, &changes).await?;
    sold_out(stage, product).await
}

async fn reduce_under_load(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let product = stage.street.wares.wanted;
    let (before, _) = stock_and_sold(stage, product).await?;
    let mut changes = Vec::new();
    for moment in [Moment::BeforeRedis, Moment::AfterRedis, Moment::BeforeSettled] {
        let more = Change { product, units: 300, op_id: format!("more-{moment:?}") };
        let output = more.command(stage, &stage.doors)?.output().await?;
        ensure!(output.status.success(), "the restock failed: {}", said(&output));
        // Sometimes more than are left by the time that Redis is asked.
        let units = 1 + dice.below(usize::try_from(left(stage, product).await?)?);
        let fewer = Change { product, units: -i64::try_from(units)?, op_id: format!("fewer-{moment:?}") };
        let held = killed_half_way(stage, &fewer, moment).await?;
        repeat(stage, dice, &fewer, 2 * AT_ONCE).await?;
        // If it is refused, or a keeper is there first, it does not come to each of these moments.
        if let Some(held) = held {
            held.arrives(stage).await;
        }
        changes.extend([more, fewer]);
    }
    let least = Change { product, units: -1, op_id: "one-fewer".to_owned() };
    let (at_last, held) = held(stage, least, Moment::BeforeRedis).await?;
    held.arrives(stage).await;
    changes.extend(at_last);
    count_once(stage, product, before, &changes).await
}

async fn restock_redis_empty(stage: &mut Stage) -> Result<()> {
    let product = stage.street.wares.scarce;
    let (before, _) = stock_and_sold(stage, product).await?;
    let change = Change { product, units: 100, op_id: "second-batch".to_owned() };
    let (changes, held) = held(stage, change, Moment::BeforeRedis).await?;
    stage.redis::<()>(&["FLUSHALL"]).await?;
    held.arrives(stage).await;
    count_once(stage, product, before, &changes).await?;
    sold_out(stage, product).await
}

async fn reduce_postgres_killed(stage: &mut Stage) -> Result<()> {
    let product = stage.street.wares.plenty;
    let (before, _) = stock_and_sold(stage, product).await?;
    let change = Change { product, units: -1_000, op_id: "broken".to_owned() };
    let (changes, held) = held(stage, change, Moment::AfterRedis).await?;
    stage.stack.kill_postgres().await?;
    drop(held);
    stage.stack.restart_postgres().await?;
    count_once(stage, product, before, &changes).await
}
