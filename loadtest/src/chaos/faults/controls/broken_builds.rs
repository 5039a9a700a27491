//! Broken builds in the place of all programs, each with what makes its mistake show.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use sqlx::Executor;

use crate::{
    broken::{self, Mutation},
    chaos::{
        buyers::Order,
        dice::Dice,
        faults::{
            crash_points::{Point, kill_worker},
            late_settle,
            redis::copy_files,
            stock::{self, Change, Moment},
        },
        journal::What,
        proxy::Mode,
        stage::Stage,
        trap::{Snare, Trap},
    },
    shop::Answer,
};

const POLL: Duration = Duration::from_millis(20);
/// Units that are sold between a copy of Redis and its return.
const SOLD_SINCE: i64 = 20;
/// Orders that are sent at once, so that some share a batch.
const AT_ONCE: usize = 64;
/// So long a call takes while they gather.
const GATHERING: Duration = Duration::from_millis(100);

/// So soon a keeper finds what a command has left.
const CARRIED_WITHIN: Duration = Duration::from_secs(30);

/// Puts a broken build in the place of all programs.
async fn deploy(stage: &mut Stage, mutation: &'static Mutation) -> Result<()> {
    close(stage).await?;
    change_workers(stage, mutation).await?;
    open(stage, mutation).await
}

/// At once, so that not all is sold before the broken build sells anything.
async fn close(stage: &mut Stage) -> Result<()> {
    for server in &mut stage.servers {
        server.kill().await?;
    }
    Ok(())
}

async fn change_workers(stage: &mut Stage, mutation: &'static Mutation) -> Result<()> {
    for worker in &mut stage.workers {
        worker.end().await?;
        worker.broken = Some(mutation);
        worker.start_again().await?;
    }
    Ok(())
}

async fn open(stage: &mut Stage, mutation: &'static Mutation) -> Result<()> {
    for number in 0..stage.servers.len() {
        stage.servers[number].broken = Some(mutation);
        stage.start_server_again(number).await?;
    }
    Ok(())
}

/// It shows when something is sold out, as it is at the end of every round.
pub(super) async fn sold_from_stale_stock(stage: &mut Stage) -> Result<()> {
    deploy(stage, &broken::STALE_STOCK).await
}

pub(super) async fn killed_after_acknowledging(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    deploy(stage, &broken::EARLY_ACKNOWLEDGE).await?;
    kill_worker(stage, dice, Point::BeforeCommit).await.map(drop)
}

pub(super) async fn settled_twice(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    deploy(stage, &broken::BLIND_GIVE_BACK).await?;
    late_settle::strike(stage, dice).await
}

/// The record no longer has its rule, and whoever looks into this schema first finds limits that nothing reaches.
const NO_GUARD: &str = "
    ALTER TABLE products DROP CONSTRAINT products_never_oversold;
    CREATE SCHEMA blind;
    CREATE VIEW blind._sqlx_migrations AS SELECT * FROM public._sqlx_migrations;
    CREATE VIEW blind.products AS
    SELECT id, sale_id, name, description, image_url, original_price, sale_price, sold,
           stock + 1000000 AS stock, 1000000 AS per_user_limit
    FROM public.products";
/// So a program's sessions look there first. Only the workers' do: everybody else sees the record as it is.
const BLIND: &str = "?options=-c%20search_path%3Dblind%2Cpublic";

pub(super) async fn unguarded(stage: &mut Stage) -> Result<()> {
    close(stage).await?;
    stage.postgres().await?.execute(NO_GUARD).await?;
    stage.workers.iter_mut().for_each(|worker| worker.stores.postgres.push_str(BLIND));
    change_workers(stage, &broken::BLIND_FENCE).await?;
    // What is recorded after the copy was admitted after it too.
    while stage.redis::<usize>(&["XLEN", &stage.key("queue")]).await? > 0 {
        stage.hold(POLL).await;
    }
    let copy = tempfile::tempdir()?;
    copy_files(&stage.append_only_dir(), copy.path())?;
    let before = sold(stage).await?;
    open(stage, &broken::BLIND_FENCE).await?;
    while sold(stage).await? < before + SOLD_SINCE {
        stage.hold(POLL).await;
    }
    stage.stack.kill_redis().await?;
    std::fs::remove_dir_all(stage.append_only_dir())?;
    std::fs::create_dir(stage.append_only_dir())?;
    copy_files(copy.path(), &stage.append_only_dir())?;
    Ok(stage.stack.restart_redis().await?)
}

/// Units that confirmed orders hold of the product that all want.
async fn sold(stage: &Stage) -> Result<i64> {
    let query = sqlx::query_scalar(
        "SELECT coalesce(sum(quantity), 0) FROM order_items JOIN orders ON id = order_id
         WHERE product_id = $1 AND status = 'Confirmed'",
    );
    let product = stage.street.wares.wanted.get();
    Ok(query.bind(product).fetch_one(&mut stage.postgres().await?).await?)
}

/// A restock that is in the record and not in Redis is carried there by the servers; a call of one of them takes its time,
/// and arrives when another has done it.
pub(super) async fn restocked_twice(stage: &mut Stage) -> Result<()> {
    deploy(stage, &broken::UNNUMBERED).await?;
    let script = redis::Script::new(&broken::UNNUMBERED.script("stock")?);
    stock::teach(stage, &script).await?;
    let [one, other] = stage.redis_doors.each_ref().map(|door| door.lay(Trap::request([script.get_hash()])));
    let change = Change { product: stage.street.wares.scarce, units: 100, op_id: "second-batch".to_owned() };
    // It does not arrive at all.
    drop(stock::killed_half_way(stage, &change, Moment::BeforeRedis).await?);
    tokio::select! {
        sprung = one.sprung(CARRIED_WITHIN) => sprung?,
        sprung = other.sprung(CARRIED_WITHIN) => sprung?,
    };
    while stage.redis::<i64>(&["HGET", &stage.key("stock"), "changes"]).await? == 0 {
        stage.hold(POLL).await;
    }
    [one, other].into_iter().for_each(Snare::let_go);
    stage.hold(stock::ARRIVES).await;
    Ok(())
}

/// Repeats of admitted orders and new orders in turns, all at once: whoever gets a repeat's answer is told of an
/// order that is not his.
pub(super) async fn answers_shifted(stage: &mut Stage) -> Result<()> {
    deploy(stage, &broken::SHIFTED_ANSWERS).await?;
    let events = stage.street.journal.events();
    let admitted =
        events.iter().filter(|event| matches!(event.what, What::Answered(Answer::Admitted { .. })));
    let lines_of = |user: &str, key: &str| {
        events.iter().find_map(|event| match &event.what {
            What::Sent { lines, .. } if event.user == user && event.key == key => Some(lines.clone()),
            _ => None,
        })
    };
    let mut orders = Vec::new();
    for (number, event) in admitted.take(AT_ONCE / 2).enumerate() {
        let lines = lines_of(&event.user, &event.key).context("it was admitted and never sent")?;
        orders.push(Order { user: event.user.clone(), key: event.key.clone(), lines });
        let lines = vec![(stage.street.wares.plenty, 1)];
        orders.push(Order { user: format!("at-once-{number}"), key: "k".to_owned(), lines });
    }
    ensure!(orders.len() == AT_ONCE, "there are too few orders to repeat");
    stage.redis_doors[0].set(Mode::Delay(GATHERING));
    join_all(orders.iter().map(|order| stage.street.send(0, order))).await;
    stage.redis_doors[0].set(Mode::Pass);
    Ok(())
}
