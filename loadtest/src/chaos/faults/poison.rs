//! Entries appear in the queue that nobody can read. They are parked; all others are drained.

use anyhow::Result;
use flashsale_core::OrderId;

use crate::chaos::{
    dice::Dice,
    fault::{Expected, Fault, PARKED},
    stage::{self, Stage},
};

/// The user of the entries that the machine makes up.
pub(crate) const POISONER: &str = "poisoner";
const MEGABYTE: usize = 1 << 20;

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "poison-garbage",
        what: "an entry of random bytes",
        cost: PARKED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(garbage(stage, dice)),
    },
    Fault {
        name: "poison-field-missing",
        what: "an entry like an order's, with one field missing",
        cost: PARKED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(field_missing(stage, dice)),
    },
    Fault {
        name: "poison-nul",
        what: "an entry like an order's, with a NUL byte, which Postgres cannot hold",
        cost: PARKED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(nul(stage, dice)),
    },
    Fault {
        name: "poison-megabyte",
        what: "an entry of 1 MB",
        cost: PARKED,
        expected: Expected::Survived,
        strike: |stage, dice| Box::pin(megabyte(stage, dice)),
    },
];

type Fields = Vec<(&'static str, Vec<u8>)>;

/// An entry as an order's would be, of an order that Redis does not know.
fn like_an_order(stage: &Stage) -> Fields {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        // All but the last four bytes, as the sale's own entries have it.
        ("order", OrderId::new(stage.sale).as_uuid().as_bytes()[..12].to_vec()),
        ("seq", text("1000000000")),
        ("epoch", text("1")),
        ("user", text(POISONER)),
        ("key", text("/poison")),
        ("lines", text(&format!("{}:1:1000", stage.street.wares.plenty))),
    ]
}

async fn garbage(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let fields = ["x", "order", "lines"].map(|name| {
        let bytes = (0..dice.below(200)).map(|_| u8::try_from(dice.below(256)).unwrap_or_default()).collect();
        (name, bytes)
    });
    add(stage, fields.into()).await
}

async fn field_missing(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let mut fields = like_an_order(stage);
    fields.remove(dice.below(fields.len()));
    add(stage, fields).await
}

async fn nul(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let mut fields = like_an_order(stage);
    let victim = dice.below(fields.len());
    fields[victim].1.push(0);
    add(stage, fields).await
}

async fn megabyte(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let mut fields = like_an_order(stage);
    let victim = dice.below(fields.len());
    fields[victim].1.resize(MEGABYTE, b'7');
    add(stage, fields).await
}

async fn add(stage: &Stage, fields: Fields) -> Result<()> {
    let mut connection = stage::connect_redis(&stage.redis_url).await?;
    let mut command = redis::cmd("XADD");
    command.arg(stage.key("queue")).arg("*");
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
    Ok(command.query_async(&mut connection).await?)
}
