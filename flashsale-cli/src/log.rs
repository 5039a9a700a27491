//! `flashsale log`: who changed what, and when.

use clap::value_parser;
use flashsale_core::OperatorAction;
use serde_json::{Value, json};

use crate::{call::Call, output, sale_ref::SaleRef};

/// Show what operators changed, newest first: who, when, what
///
/// Every command that changes something leaves a line, under the name that --as or `FLASHSALE_OPERATOR` gives, else
/// user@host. It says who they said they are: who may change the database may write anything there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  flashsale log\n  flashsale log --sale 1 --limit 10")]
pub(crate) struct Args {
    /// Only what was done to this sale
    #[arg(long, value_name = "ID")]
    sale: Option<SaleRef>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

pub(crate) async fn run(args: &Args, call: &Call) -> anyhow::Result<()> {
    let engine = call.connect().await?;
    let operator = engine.operator();
    let sale = SaleRef::id_of(args.sale.as_ref(), &operator).await?;
    let actions = operator.actions(sale, args.limit).await?;
    engine.close().await;
    let value: Vec<_> = actions.iter().map(as_json).collect();
    call.output.show(&value, || {
        if actions.is_empty() {
            return "nothing was changed yet".to_owned();
        }
        let row = |action: &OperatorAction| {
            [
                output::instant(action.at),
                action.actor.clone(),
                action.action.clone(),
                output::or_dash(action.sale),
                action.detail.clone(),
            ]
        };
        output::table(["at", "who", "what", "sale", "detail"], actions.iter().map(row))
    })
}

fn as_json(action: &OperatorAction) -> Value {
    json!({
        "id": action.id,
        "at": action.at,
        "who": action.actor,
        "what": action.action,
        "saleId": action.sale,
        "detail": action.detail,
    })
}
