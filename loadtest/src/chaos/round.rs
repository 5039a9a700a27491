//! One round: buyers buy, something breaks and is mended, all becomes well again, and the stores are judged.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use flashsale_core::{Operator, OrderId, OrderState};
use flashsale_stack::Stack;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    buyers::{Buyers, Order, Street},
    dice::Dice,
    fault::{Cost, Fault},
    faults::poison::POISONER,
    journal::{Event, What},
    judge::{self, Evidence, Verdict},
    stage::{LIMIT, Stage},
};
use crate::{
    evidence::{self, RecordedOrder},
    shop::Answer,
};

/// Before anything breaks, so many orders are admitted.
const WARM_UP: usize = 100;
const WARM_UP_WITHIN: Duration = Duration::from_mins(1);
/// No fault takes so long to be brought about and mended.
const STRIKE_WITHIN: Duration = Duration::from_mins(3);
/// How long it may take to become well again before the round is given up: longer than what is promised.
const HEALTHY_WITHIN: Duration = Duration::from_mins(4);
const REST_WITHIN: Duration = Duration::from_mins(2);
const AUDIT_PATIENCE: Duration = Duration::from_secs(15);
const LOOKING_AT_ONCE: usize = 16;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a round came to, with what it takes to understand a failure.
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) events: Vec<Event>,
    pub(crate) orders: Vec<RecordedOrder>,
    pub(crate) struck_at: Duration,
    pub(crate) healed_at: Duration,
    /// Where the programs' logs were kept, if the round failed.
    pub(crate) logs: Option<std::path::PathBuf>,
}

/// Plays a round on this stack. An error is one of the machine: nothing can be said of the product then.
pub(crate) async fn play(
    stack: &Arc<Stack>,
    fault: &Fault,
    seed: u64,
    round: usize,
    buyers: usize,
) -> Result<Outcome> {
    let mut stage = Stage::set(stack, round).await.context("cannot set the stage")?;
    let mut dice = Dice::new(seed, fault.name);
    let street = Arc::clone(&stage.street);
    let herd = Buyers::start(&street, buyers, seed);
    if !herd.have_bought(WARM_UP, WARM_UP_WITHIN).await {
        let logs = stage.keep_logs();
        anyhow::bail!("nobody can buy, although nothing is broken yet; logs in {}", logs.display());
    }
    sleep(dice.ms(0, 1_500)).await;

    let struck_at = street.journal.now();
    let struck = timeout(STRIKE_WITHIN, (fault.strike)(&mut stage, &mut dice)).await;
    if let Err(error) = struck.context("it does not come to an end").flatten() {
        let logs = stage.keep_logs();
        return Err(
            error.context(format!("the fault could not be brought about; logs in {}", logs.display()))
        );
    }
    let healed_at = street.journal.now();

    let (evidence, logs) = wait_and_look(stage, fault.cost, healed_at, herd, dice).await?;
    let verdict = judge::judge(&evidence);
    let logs = (!fault.expected.is_met(&verdict.problems)).then(|| logs.keep());
    Ok(Outcome { verdict, events: evidence.events, orders: evidence.orders, struck_at, healed_at, logs })
}

/// Waits until all is well and at rest again, and collects what there is to be judged; and the programs' logs.
async fn wait_and_look(
    mut stage: Stage,
    cost: Cost,
    healed_at: Duration,
    herd: Buyers,
    mut dice: Dice,
) -> Result<(Evidence, TempDir)> {
    let street = Arc::clone(&stage.street);
    let mut trouble = std::mem::take(&mut stage.found);
    // Without an operator: what is parked is ended when all is at rest.
    let healthy = become_healthy(&stage, &street).await.map(|()| street.journal.now());
    herd.last_call().await;
    let healthy_at = healthy.as_ref().ok().copied();
    trouble.extend(healthy.err().map(|error| format!("{error:#}")));

    let engine = stage.engine().await?;
    let operator = engine.operator();
    trouble.extend(come_to_rest(&stage, &operator).await.err().map(|error| format!("{error:#}")));
    let parked = end_parked(&operator).await.unwrap_or_else(|error| {
        trouble.push(format!("parked orders could not be ended: {error:#}"));
        0
    });
    trouble.extend(come_to_rest(&stage, &operator).await.err().map(|error| format!("{error:#}")));
    let audit = operator.audit(stage.sale, AUDIT_PATIENCE).await;
    let mut orders = evidence::recorded_orders(&operator, stage.sale, |_| {}).await?;
    orders.retain(|order| order.user != POISONER);
    let rest_at = street.journal.now();
    last_look(&street, &mut dice).await;
    let products = evidence::products(&operator, stage.sale).await?;
    engine.close().await;
    let taken_over = stage.taken_over();
    let (found, logs) = stage.strike_set().await;
    trouble.extend(found);

    let evidence = Evidence {
        cost,
        events: street.journal.events(),
        healed_at,
        healthy_at,
        rest_at,
        products,
        limit: LIMIT,
        orders,
        parked,
        taken_over,
        audit: audit.map(|report| evidence::checks(&report)).map_err(|error| error.to_string()),
        trouble,
    };
    Ok((evidence, logs))
}

/// Waits until each server admits an order that then becomes final, and until what was queued before is settled.
async fn become_healthy(stage: &Stage, street: &Street) -> Result<()> {
    let healed = Instant::now();
    for server in 0..street.servers() {
        let mut asked = 0;
        let mut last = String::new();
        while !probe(street, server, asked, &mut last).await {
            asked += 1;
            ensure!(healed.elapsed() < HEALTHY_WITHIN, "server {server} sells nothing: {last}");
            sleep(LOOK_EVERY).await;
        }
    }
    let engine = stage.engine().await?;
    let operator = engine.operator();
    loop {
        let queue = operator.queue().await;
        let oldest = queue.as_ref().ok().map(|queues| queues.iter().filter_map(|queue| queue.oldest).max());
        match oldest {
            Some(oldest) if oldest.is_none_or(|oldest| oldest < healed.elapsed()) => break,
            _ if healed.elapsed() < HEALTHY_WITHIN => sleep(LOOK_EVERY).await,
            _ => {
                engine.close().await;
                anyhow::bail!("orders of before the end of the fault are still queued: {queue:?}");
            }
        }
    }
    engine.close().await;
    Ok(())
}

/// Whether an order at this server is admitted and becomes final.
async fn probe(street: &Street, server: usize, number: usize, last: &mut String) -> bool {
    let order = Order {
        user: format!("probe{server}-{number}"),
        key: "probe".to_owned(),
        lines: vec![(street.wares.plenty, 1)],
    };
    let began = Instant::now();
    let mut answer = street.send(server, &order).await;
    // Its outcome must become known, as everybody's.
    while matches!(answer, Answer::Unknown { .. } | Answer::TurnedAway { .. }) {
        *last = format!("{answer:?}");
        if began.elapsed() > HEALTHY_WITHIN {
            return false;
        }
        sleep(LOOK_EVERY).await;
        answer = street.send(server, &order).await;
    }
    let Answer::Admitted { id, .. } = answer else {
        *last = format!("{answer:?}");
        return false;
    };
    while began.elapsed() < HEALTHY_WITHIN {
        let state = street.look(server, &order, id).await;
        *last = format!("order {id} is {state:?}");
        if state.is_some_and(OrderState::is_final) {
            return true;
        }
        sleep(LOOK_EVERY).await;
    }
    false
}

async fn come_to_rest(stage: &Stage, operator: &Operator) -> Result<()> {
    let give_up = Instant::now() + REST_WITHIN;
    loop {
        let queue = operator.queue().await;
        match &queue {
            Ok(queues) if queues.iter().all(|queue| queue.backlog == 0 && queue.pending == 0) => {
                return Ok(());
            }
            _ if Instant::now() < give_up => sleep(LOOK_EVERY).await,
            _ => anyhow::bail!("sale {} does not come to rest: {queue:?}", stage.sale),
        }
    }
}

/// Looks once more at every order that a buyer was told of, each at one of the servers.
async fn last_look(street: &Arc<Street>, dice: &mut Dice) {
    let mut told: BTreeMap<OrderId, Order> = BTreeMap::new();
    for event in street.journal.events() {
        if let What::Answered(Answer::Admitted { id, .. }) = event.what {
            told.insert(id, Order { user: event.user, key: event.key, lines: Vec::new() });
        }
    }
    let told: Vec<_> = told.into_iter().collect();
    let mut looking = JoinSet::new();
    for part in told.chunks(told.len().div_ceil(LOOKING_AT_ONCE).max(1)) {
        let (street, part, first) = (Arc::clone(street), part.to_vec(), dice.below(street.servers()));
        looking.spawn(async move {
            for (number, (id, order)) in part.into_iter().enumerate() {
                street.look((first + number) % street.servers(), &order, id).await;
            }
        });
    }
    looking.join_all().await;
}

/// Ends what is parked, as an operator would: replayed if it can be read, else discarded. How many there were.
async fn end_parked(operator: &Operator) -> Result<usize> {
    let mut letters = operator.dead_letters().await?;
    // What is ended already is finished by a keeper.
    letters.retain(|letter| letter.resolved.is_none());
    for letter in &letters {
        if operator.replay(letter.id).await.is_err() {
            let give_up = Instant::now() + HEALTHY_WITHIN;
            while let Err(error) = operator.discard(letter.id).await {
                // Fenced for a moment, for instance: discarding garbage asks for a recovery.
                ensure!(Instant::now() < give_up, "dead letter {}: {error}", letter.id);
                sleep(LOOK_EVERY).await;
            }
        }
    }
    Ok(letters.len())
}
