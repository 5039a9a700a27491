//! `flashsale subscribers`: who is told of final orders.

use flashsale_core::{Operator, Subscriber};
use serde_json::{Value, json};

use crate::{ask::Consent, call::Call, failure::usage, output};

/// Look at the consumers of final orders, and end those that do not come back
///
/// Programs that embed the engine register them. What a consumer was not told waits in PostgreSQL until it is.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  flashsale subscribers list")]
pub(crate) enum Command {
    /// List all consumers, with what they have not been told yet
    #[command(after_help = "Example:\n  flashsale subscribers list --output json")]
    List,
    /// End a consumer for good, and forget what it was not told
    #[command(after_help = "Example:\n  flashsale subscribers remove old-mailer --yes")]
    Remove {
        /// Its name
        name: String,
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        consent: Consent,
    },
}

const REMOVING: &str = "removing a consumer cannot be undone";

pub(crate) async fn run(command: Command, call: &Call) -> anyhow::Result<()> {
    if let Command::Remove { dry_run: false, consent, .. } = command {
        consent.require_somebody(REMOVING)?;
    }
    let engine = call.connect().await?;
    let operator = call.operator(&engine);
    match command {
        Command::List => list(&operator, call).await?,
        Command::Remove { name, dry_run, consent } => {
            let what_happens = what_happens(&find(&operator, &name).await?);
            if dry_run {
                let value = json!({ "subscriber": name, "dryRun": true });
                call.output.show(&value, || format!("{what_happens}\n{}", output::UNCHANGED))?;
            } else {
                consent.ask(REMOVING, &what_happens, "Remove it?")?;
                operator.unsubscribe(&name).await?;
                call.output
                    .show(&json!({ "subscriber": name, "removed": true }), || format!("{name} is removed"))?;
            }
        }
    }
    engine.close().await;
    Ok(())
}

async fn find(operator: &Operator, name: &str) -> anyhow::Result<Subscriber> {
    let mut subscribers = operator.subscribers().await?;
    if let Some(at) = subscribers.iter().position(|subscriber| subscriber.name == name) {
        return Ok(subscribers.swap_remove(at));
    }
    let known: Vec<_> = subscribers.into_iter().map(|subscriber| subscriber.name).collect();
    Err(usage(match known.as_slice() {
        [] => format!("there is no consumer {name:?}; there is none at all"),
        known => format!("there is no consumer {name:?}; there are: {}", known.join(", ")),
    }))
}

fn what_happens(subscriber: &Subscriber) -> String {
    let Subscriber { name, waiting, since, .. } = subscriber;
    let since = output::instant(*since);
    format!(
        "{name}, registered at {since}, is never told of {waiting} orders that wait for it, nor of any later one."
    )
}

async fn list(operator: &Operator, call: &Call) -> anyhow::Result<()> {
    let subscribers = operator.subscribers().await?;
    let value: Vec<_> = subscribers.iter().map(as_json).collect();
    call.output.show(&value, || {
        if subscribers.is_empty() {
            return "nobody wants to be told of final orders".to_owned();
        }
        let rows = subscribers.iter().map(|subscriber| {
            [
                subscriber.name.clone(),
                output::instant(subscriber.since),
                subscriber.waiting.to_string(),
                subscriber.failing.to_string(),
                output::or_dash(subscriber.error.as_ref()),
            ]
        });
        output::table(["name", "since", "waiting", "failing", "last error"], rows)
    })
}

fn as_json(subscriber: &Subscriber) -> Value {
    json!({
        "name": subscriber.name,
        "since": subscriber.since,
        "waiting": subscriber.waiting,
        "failing": subscriber.failing,
        "error": subscriber.error,
    })
}
