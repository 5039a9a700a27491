//! `flashsale recover`, under load, twice at once, killed half way. Nothing may be lost.

use anyhow::{Result, ensure};

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, NOTHING},
    programs::said,
    stage::Stage,
};

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

async fn under_load(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let sale = stage.sale.to_string();
    for _ in 0..3 {
        let output = stage.doors.flashsale(&["recover", &sale])?.output().await?;
        ensure!(output.status.success(), "recover failed: {}", said(&output));
        stage.hold(dice.ms(0, 500)).await;
    }
    Ok(())
}

/// One of them may find that the other one is at it; both must not fail.
async fn twice_at_once(stage: &mut Stage) -> Result<()> {
    let sale = stage.sale.to_string();
    for _ in 0..3 {
        let mut one = stage.doors.flashsale(&["recover", &sale])?;
        let mut two = stage.doors.flashsale(&["recover", &sale])?;
        let (one, two) = tokio::try_join!(one.output(), two.output())?;
        let (one_said, two_said) = (said(&one), said(&two));
        ensure!(one.status.success() || two.status.success(), "both failed: {one_said}; {two_said}");
    }
    Ok(())
}

async fn killed(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let sale = stage.sale.to_string();
    for _ in 0..3 {
        let mut recovery = stage.doors.flashsale(&["recover", &sale])?.spawn()?;
        stage.hold(dice.ms(10, 300)).await;
        recovery.kill().await?;
    }
    Ok(())
}
