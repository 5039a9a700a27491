//! Another Redis takes the place of the one that sold: a replica that was behind when it was promoted. It may cost
//! accepted orders that were not recorded yet, and nothing else.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::chaos::{
    buyers::Order,
    dice::Dice,
    fault::{Expected, Fault, RETURNED, UNRECORDED},
    faults::recovery::recovered,
    relay::Relay,
    stage::{self, Stage},
};
use crate::shop::Answer;

const POLL: Duration = Duration::from_millis(20);

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "failover",
        what: "half of the processes go to a promoted replica that was behind, while the old master still sells",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(failover(stage, dice)),
    },
    Fault {
        name: "redis-swapped-unseen",
        what: "a proxy leads all processes to such a replica and keeps their connections: they cannot see the change",
        cost: UNRECORDED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(swapped_unseen(stage, dice)),
    },
    Fault {
        name: "old-master-back",
        what: "after a failover all processes are led back to the old master: it sells nothing until an operator recovers it",
        cost: RETURNED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(old_master_back(stage, dice)),
    },
];

/// Server 0 and its worker stay with the old master; the others have gone to the new one.
async fn failover(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let new = promote(stage, dice).await?;
    let address = stage::address_of(&new)?;
    stage.redis_moved(new);
    stage.redis_doors[1].lead_to(address.clone());
    stage.hold(dice.ms(500, 4_000)).await;
    stage.redis_doors[0].lead_to(address);
    Ok(())
}

async fn swapped_unseen(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let relay = Relay::start(stage::address_of(&stage.redis_url)?).await?;
    stage.redis_doors.iter().for_each(|door| door.lead_to(relay.address()));
    // Until all have come back over it.
    let admitted = stage.street.journal.admitted();
    while stage.street.journal.admitted() < admitted + 50 {
        stage.hold(POLL).await;
    }
    let new = promote(stage, dice).await?;
    relay.switch(stage::address_of(&new)?);
    stage.redis_moved(new);
    while relay.moved() == 0 {
        stage.hold(POLL).await;
    }
    stage.relay = Some(relay);
    Ok(())
}

async fn old_master_back(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let epoch = async |stage: &Stage, url: &str| -> Result<String> {
        stage::redis(url, &["HGET", &stage.key("sale"), "epoch"]).await
    };
    let (old, new) = (stage.redis_url.clone(), promote(stage, dice).await?);
    let before = epoch(stage, &old).await?;
    stage.lead_all_to(&new)?;
    // A load that is not completed leaves the old master the last one that sold, and a server that has not heard of
    // it yet would rightly go on there.
    for server in 0..stage.street.servers() {
        while !sells_elsewhere(stage, server, &new, &before).await? {
            stage.hold(POLL).await;
        }
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
    recovered(stage).await
}

/// Whether this server sells in the Redis that was loaded last.
async fn sells_elsewhere(stage: &Stage, server: usize, new: &str, before: &str) -> Result<bool> {
    let epoch: String = stage::redis(new, &["HGET", &stage.key("sale"), "epoch"]).await?;
    let order = Order {
        user: format!("scout{server}"),
        key: "scout".to_owned(),
        lines: vec![(stage.street.wares.plenty, 1)],
    };
    let answer = stage.street.send(server, &order).await;
    Ok(epoch != before && matches!(answer, Answer::Admitted { .. }))
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
