//! `flashsale dead-letters`: queue entries that nobody but an operator can decide.

use std::io::{self, IsTerminal, Write};

use anyhow::bail;
use clap::value_parser;
use flashsale_core::{DeadLetter, Ended, Engine};
use flashsale_server::StoreArgs;
use serde_json::{Map, Value, json};

use crate::{
    failure::usage,
    output::{self, Output},
    stores::connect,
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
        #[arg(value_parser = value_parser!(i64).range(1..))]
        id: i64,
    },
    /// Decide the order again, now that what stood against it is mended
    #[command(after_help = "Example:\n  flashsale dead-letters replay 3")]
    Replay {
        /// The dead letter's number
        #[arg(value_parser = value_parser!(i64).range(1..))]
        id: i64,
    },
    /// Let the order fail, and give its units back
    #[command(after_help = "Example:\n  flashsale dead-letters discard 3 --yes")]
    Discard {
        /// The dead letter's number
        #[arg(value_parser = value_parser!(i64).range(1..))]
        id: i64,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(command: Command, stores: &StoreArgs, output: Output) -> anyhow::Result<()> {
    if let Command::Discard { yes: false, .. } = command
        && !io::stdin().is_terminal()
    {
        return Err(usage("discarding cannot be undone, and there is no terminal to ask on: give --yes"));
    }
    let engine = connect(stores).await?;
    match command {
        Command::List => list(&engine, output).await?,
        Command::Show { id } => {
            let letter = engine.operator().dead_letter(id).await?;
            output.show(&as_json(&letter), || as_text(&letter))?;
        }
        Command::Replay { id } => show_end(id, engine.operator().replay(id).await?, output)?,
        Command::Discard { id, yes } => {
            let letter = engine.operator().dead_letter(id).await?;
            if !yes && !confirmed(&letter)? {
                bail!("nothing was discarded");
            }
            show_end(id, engine.operator().discard(id).await?, output)?;
        }
    }
    engine.close().await;
    Ok(())
}

async fn list(engine: &Engine, output: Output) -> anyhow::Result<()> {
    let letters = engine.operator().dead_letters().await?;
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

fn confirmed(letter: &DeadLetter) -> io::Result<bool> {
    eprint!("{}\nDiscard it? Its order fails and its units go back. [y/N] ", as_text(letter));
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
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
        other => (None, None, format!("{other:?}")),
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
