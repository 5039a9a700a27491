//! `flashsale recover`, under load, twice at once, killed half way. Nothing may be lost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, NOTHING},
    programs::said,
    stage::Stage,
};

const RECOVERED_WITHIN: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "recover",
        what: "a sale is recovered while it sells, several times",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(under_load(stage, dice)),
    },
    Fault {
        name: "recover-twice",
        what: "two recoveries run at once",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, _| Box::pin(twice_at_once(stage)),
    },
    Fault {
        name: "recover-killed",
        what: "recoveries are killed half way; a server finishes them",
        cost: NOTHING,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(killed(stage, dice)),
    },
];

/// Recovers the sale as an operator would, who tries again when a server is at it at that moment.
pub(super) async fn recovered(stage: &Stage) -> Result<()> {
    let give_up = Instant::now() + RECOVERED_WITHIN;
    loop {
        let output = stage.doors.flashsale(&["recover", "--yes", &stage.sale.to_string()])?.output().await?;
        if output.status.success() {
            return Ok(());
        }
        let said = said(&output);
        ensure!(said.contains("another process") && Instant::now() < give_up, "recover failed: {said}");
        stage.hold(POLL).await;
    }
}

async fn under_load(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    for _ in 0..3 {
        recovered(stage).await?;
        stage.hold(dice.ms(0, 500)).await;
    }
    Ok(())
}

/// One of them may find that the other one is at it; both must not fail.
async fn twice_at_once(stage: &mut Stage) -> Result<()> {
    let sale = stage.sale.to_string();
    for _ in 0..3 {
        let mut one = stage.doors.flashsale(&["recover", "--yes", &sale])?;
        let mut two = stage.doors.flashsale(&["recover", "--yes", &sale])?;
        let (one, two) = tokio::try_join!(one.output(), two.output())?;
        let (one_said, two_said) = (said(&one), said(&two));
        ensure!(one.status.success() || two.status.success(), "both failed: {one_said}; {two_said}");
    }
    Ok(())
}

async fn killed(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let sale = stage.sale.to_string();
    for _ in 0..3 {
        let mut recovery = stage.doors.flashsale(&["recover", "--yes", &sale])?.spawn()?;
        stage.hold(dice.ms(10, 300)).await;
        recovery.kill().await?;
    }
    Ok(())
}
