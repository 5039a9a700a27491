//! `flashsale dead-letters`: queue entries that nobody but an operator can decide.

use flashsale_core::{DeadLetter, Ended, Operator};
use serde_json::{Map, Value, json};

use crate::{
    ask::Consent,
    call::Call,
    output::{self, Output},
};

/// Look at orders that were parked, and end them
///
/// The units of a parked order stay held and its status stays "Processing" until it is replayed or discarded.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  flashsale dead-letters list")]
pub(crate) enum Command {
    /// List all parked entries
    #[command(after_help = "Example:\n  flashsale dead-letters list")]
    List,
    /// Show one parked entry with its fields
    #[command(after_help = "Example:\n  flashsale dead-letters show 3")]
    Show {
        /// The dead letter's number
        #[arg(value_parser = number)]
        id: i64,
    },
    /// Decide the order again, now that what stood against it is mended
    #[command(after_help = "Example:\n  flashsale dead-letters replay 3")]
    Replay {
        /// The dead letter's number
        #[arg(value_parser = number)]
        id: i64,
    },
    /// Let the order fail, and give its units back
    #[command(after_help = "Example:\n  flashsale dead-letters discard 3 --yes")]
    Discard {
        /// The dead letter's number
        #[arg(value_parser = number)]
        id: i64,
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        consent: Consent,
    },
}

fn number(text: &str) -> Result<i64, String> {
    let number = text
        .parse()
        .map_err(|_| "must be a number; `flashsale dead-letters list` shows those that there are")?;
    if number < 1 { Err(format!("{number} is not in 1..")) } else { Ok(number) }
}

const DISCARDING: &str = "discarding cannot be undone";

pub(crate) async fn run(command: Command, call: &Call) -> anyhow::Result<()> {
    if let Command::Discard { dry_run: false, consent, .. } = command {
        consent.require_somebody(DISCARDING)?;
    }
    let engine = call.connect().await?;
    let (operator, output) = (call.operator(&engine), call.output);
    match command {
        Command::List => list(&operator, output).await?,
        Command::Show { id } => {
            let letter = operator.dead_letter(id).await?;
            output.show(&as_json(&letter), || as_text(&letter))?;
        }
        Command::Replay { id } => show_end(id, operator.replay(id).await?, output)?,
        Command::Discard { id, dry_run, consent } => {
            let letter = operator.dead_letter(id).await?;
            let what_happens = format!("{}\n{}", as_text(&letter), what_happens(&letter));
            if dry_run {
                output.show(&json!({ "deadLetter": id, "dryRun": true }), || {
                    format!("{}\n{}", what_happens.trim_end(), output::UNCHANGED)
                })?;
            } else {
                consent.ask(DISCARDING, &what_happens, "Discard it?")?;
                show_end(id, operator.discard(id).await?, output)?;
            }
        }
    }
    engine.close().await;
    Ok(())
}

async fn list(operator: &Operator, output: Output) -> anyhow::Result<()> {
    let letters = operator.dead_letters().await?;
    let value: Vec<_> = letters.iter().map(as_json).collect();
    output.show(&value, || {
        if letters.is_empty() {
            return "no dead letters".to_owned();
        }
        let rows = letters.iter().map(|letter| {
            [
                letter.id.to_string(),
                letter.sale.to_string(),
                output::or_dash(letter.order),
                output::instant(letter.parked_at),
                output::or_dash(letter.resolved.as_ref()),
                letter.reason.clone(),
            ]
        });
        output::table(["id", "sale", "order", "parked", "resolved", "reason"], rows)
    })
}

fn what_happens(letter: &DeadLetter) -> &'static str {
    if letter.order.is_some() {
        "Its order fails, and its units go back."
    } else {
        "It does not say which order it is: it is dropped."
    }
}

fn show_end(id: i64, ended: Ended, output: Output) -> anyhow::Result<()> {
    let (status, reason, words) = match ended {
        Ended::Confirmed => (Some("Confirmed"), None, "the order is Confirmed".to_owned()),
        Ended::Failed(reason) => (Some("Failed"), Some(reason), format!("the order is Failed ({reason})")),
        Ended::Dropped => (
            None,
            None,
            "dropped; it did not say what it holds, so the sale is recovered if it was an order".to_owned(),
        ),
        _ => (None, None, "it is ended".to_owned()),
    };
    let value = json!({ "deadLetter": id, "status": status, "failureReason": reason });
    output.show(&value, || format!("dead letter {id}: {words}"))
}

fn as_json(letter: &DeadLetter) -> Value {
    let fields = letter.fields.iter().map(|(name, value)| (name.clone(), json!(value)));
    json!({
        "id": letter.id,
        "saleId": letter.sale,
        "entryId": letter.entry_id,
        "orderId": letter.order,
        "fields": fields.collect::<Map<_, _>>(),
        "reason": letter.reason,
        "parkedAt": letter.parked_at,
        "resolved": letter.resolved,
    })
}

fn as_text(letter: &DeadLetter) -> String {
    let facts = output::facts([
        ("dead letter", letter.id.to_string()),
        ("sale", letter.sale.to_string()),
        ("order", output::or_dash(letter.order)),
        ("queue entry", letter.entry_id.clone()),
        ("parked", output::instant(letter.parked_at)),
        ("reason", letter.reason.clone()),
        ("resolved", output::or_dash(letter.resolved.as_ref())),
    ]);
    let rows = letter.fields.iter().map(|(name, value)| [name.clone(), value.clone()]);
    format!("{facts}\n{}", output::table(["field", "value"], rows))
}
