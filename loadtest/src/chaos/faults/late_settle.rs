//! A verdict comes twice: the first time so late that its sender has given up on it and has settled again.

use std::time::Duration;

use anyhow::{Context, Result};
use flashsale_core::OrderState;
use sqlx::Executor;
use tokio::time::timeout;

use crate::{
    chaos::{
        buyers::Order,
        dice::Dice,
        fault::{Expected, Fault, UNRECORDED},
        faults::crash_points::{OwnNetwork, script},
        stage::Stage,
        trap::{Snare, Trap},
    },
    shop::Answer,
};

const POLL: Duration = Duration::from_millis(20);
const WITHIN: Duration = Duration::from_mins(1);

pub(crate) const FAULTS: &[Fault] = &[Fault {
    name: "settle-late",
    what: "verdicts reach Redis late, after they came once more: what failed is given back once",
    // Its orders fail because the machine has Postgres refuse them, which no other cost excuses.
    cost: UNRECORDED,
    expected: Expected::Survived,
    strike: |stage, dice| Box::pin(strike(stage, dice)),
}];

/// A rule of the database that refuses the orders of the machine's own buyers.
const REFUSE: &str = "
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      RAISE EXCEPTION 'this buyer is refused';
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW
    WHEN (NEW.status = 'Confirmed' AND NEW.user_id LIKE 'refused-%') EXECUTE FUNCTION refuse()";
const REFUSE_NO_MORE: &str = "DROP TRIGGER refuse ON orders";
/// So the failed orders' reason is told to Redis.
const REASON: &str = "rejected";

pub(super) async fn strike(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let number = dice.below(stage.workers.len());
    let worker = &mut stage.workers[number];
    let usual = worker.stores.clone();
    let network = OwnNetwork::of(worker).await?;
    worker.end().await?;
    worker.start_again().await?;
    let settle = script(worker, "settle")?;

    let mut postgres = stage.postgres().await?;
    postgres.execute(REFUSE).await?;
    let snare = network.redis.lay(Trap::request([&*settle, REASON]));
    let failing = async {
        // The other worker gets some of them too.
        for number in 0.. {
            if fails(stage, number, &snare).await {
                return;
            }
        }
    };
    timeout(WITHIN, failing).await.context("the worker settles nothing that failed")?;
    let queue = stage.key("queue");
    let newest: Vec<(String, redis::Value)> =
        stage.redis(&["XREVRANGE", &queue, "+", "-", "COUNT", "1"]).await?;
    let (newest, _) = newest.first().context("what is in hand is not in the queue")?;
    // Until what it had in hand is settled over another connection.
    while !stage
        .redis::<Vec<redis::Value>>(&["XPENDING", &queue, "drain", "-", newest, "1"])
        .await?
        .is_empty()
    {
        stage.hold(POLL).await;
    }
    snare.let_go();
    postgres.execute(REFUSE_NO_MORE).await?;
    // It arrives before its connection is closed.
    stage.hold(Duration::from_millis(200)).await;
    let worker = &mut stage.workers[number];
    worker.end().await?;
    worker.stores = usual;
    worker.start_again().await
}

/// Sends an order that Redis takes and Postgres will not, and waits until it is final or the trap holds its verdict;
/// whether it does. One at a time: each costs the ledger many small transactions.
async fn fails(stage: &Stage, number: usize, snare: &Snare) -> bool {
    let lines = vec![(stage.street.wares.plenty, 1)];
    let order = Order { user: format!("refused-{number}"), key: "k".to_owned(), lines };
    loop {
        match stage.street.send(0, &order).await {
            Answer::Admitted { id, .. } => loop {
                if snare.has_sprung() {
                    return true;
                }
                if stage.street.look(0, &order, id).await.is_some_and(OrderState::is_final) {
                    return false;
                }
                stage.hold(POLL).await;
            },
            Answer::Unknown { .. } | Answer::TurnedAway { .. } => stage.hold(POLL).await,
            Answer::Refused { .. } | Answer::Strange(_) => return false,
        }
    }
}
