//! `flashsale orders`: who bought what.

mod export;

use std::time::Duration;

use anyhow::bail;
use clap::{ValueEnum, value_parser};
use flashsale_core::{
    Engine, Operator, OrderFilter, OrderId, OrderLine, OrderRecord, OrderState, OrderStatus, UserId,
};
use serde_json::{Value, json};

use crate::{
    call::Call,
    output::{self, Output},
    sale_ref::SaleRef,
};

const ELSEWHERE: &str = "Is it an order of these stores? `flashsale orders list` shows the newest";
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Look at orders, and export them
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  flashsale orders list --user alice")]
pub(crate) enum Command {
    /// List recorded orders, newest first; those that still wait are in `flashsale queue`
    #[command(after_help = "Example:\n  flashsale orders list --sale 1 --status failed --limit 10")]
    List(ListArgs),
    Export(export::Args),
    /// Show one order with its items
    #[command(after_help = "Example:\n  flashsale orders show 01997f2e-5b1c-8a6e-9d3f-5c7e00000100")]
    Show {
        /// The order's id
        id: OrderId,
    },
    /// Follow one order until it is final: a line for each change
    #[command(after_help = "Example:\n  flashsale orders watch 01997f2e-5b1c-8a6e-9d3f-5c7e00000100")]
    Watch {
        /// The order's id
        id: OrderId,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

/// Which orders.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only orders of this user
    #[arg(long)]
    user: Option<UserId>,
    /// Only orders of this sale
    #[arg(long, value_name = "ID")]
    sale: Option<SaleRef>,
    /// Only orders that ended so
    #[arg(long, value_enum, ignore_case = true)]
    status: Option<Final>,
}

impl Which {
    async fn filter(&self, operator: &Operator, limit: u32) -> anyhow::Result<OrderFilter> {
        Ok(OrderFilter {
            user: self.user.clone(),
            sale: SaleRef::id_of(self.sale.as_ref(), operator).await?,
            state: self.status.map(OrderState::from),
            limit,
            before: None,
        })
    }
}

/// The states that a recorded order can have.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Final {
    Confirmed,
    Failed,
}

impl From<Final> for OrderState {
    fn from(state: Final) -> Self {
        match state {
            Final::Confirmed => Self::Confirmed,
            Final::Failed => Self::Failed,
        }
    }
}

pub(crate) async fn run(command: Command, call: &Call) -> anyhow::Result<()> {
    let engine = call.connect().await?;
    let output = call.output;
    match command {
        Command::List(args) => list(&engine, &args, output).await?,
        Command::Export(args) => export::run(&args, &engine.operator(), output).await?,
        Command::Show { id } => show(&engine, id, output).await?,
        Command::Watch { id } => watch(&engine, id, output).await?,
    }
    engine.close().await;
    Ok(())
}

async fn list(engine: &Engine, args: &ListArgs, output: Output) -> anyhow::Result<()> {
    let operator = engine.operator();
    let orders = operator.orders(&args.which.filter(&operator, args.limit).await?).await?;
    let value: Vec<_> = orders.iter().map(record_as_json).collect();
    output.show(&value, || {
        if orders.is_empty() {
            return "no orders".to_owned();
        }
        let row = |order: &OrderRecord| {
            [
                order.id.to_string(),
                order.sale.to_string(),
                order.user.to_string(),
                state_with_reason(order),
                format!("{} {}", order.total, order.total.currency),
                output::instant(order.created_at),
                order
                    .lines
                    .iter()
                    .map(|line| format!("{}: {}", line.product, line.quantity))
                    .collect::<Vec<_>>()
                    .join(", "),
            ]
        };
        output::table(
            ["order", "sale", "user", "status", "total", "created", "product: units"],
            orders.iter().map(row),
        )
    })
}

async fn show(engine: &Engine, id: OrderId, output: Output) -> anyhow::Result<()> {
    match engine.operator().order(id).await {
        Ok(order) => output.show(&record_as_json(&order), || record_as_text(&order)),
        // Not recorded yet is not unknown: it may wait in the queue, or be parked.
        Err(error) if error.is_not_found() => match engine.order_status(id).await? {
            Some(status) => output
                .show(&status_as_json(&status), || format!("{}; not recorded yet", status_as_line(&status))),
            None => bail!("order {id} not found: neither queued nor recorded. {ELSEWHERE}"),
        },
        Err(error) => Err(error.into()),
    }
}

async fn watch(engine: &Engine, id: OrderId, output: Output) -> anyhow::Result<()> {
    let waiting = output::spinner(format!("watching order {id}"));
    let (mut shown, mut told) = (None, false);
    loop {
        match engine.order_status(id).await {
            Ok(None) => bail!("order {id} not found: neither queued nor recorded. {ELSEWHERE}"),
            Ok(Some(status)) => {
                if shown != Some(status.state) {
                    shown = Some(status.state);
                    waiting
                        .suspend(|| output.show_line(&status_as_json(&status), || status_as_line(&status)))?;
                }
                if status.state.is_final() {
                    return Ok(());
                }
            }
            // The order is safe wherever it is: go on until the stores answer again.
            Err(error) if error.is_transient() => {
                if !told {
                    told = true;
                    waiting
                        .suspend(|| crate::failure::tell(&format!("{error}; trying again, Ctrl-C to stop")));
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn record_as_json(order: &OrderRecord) -> Value {
    json!({
        "id": order.id,
        "saleId": order.sale,
        "userId": order.user,
        "idempotencyKey": order.key,
        "status": order.state,
        "failureReason": order.failure,
        "duplicateOf": order.duplicate_of,
        "totalAmount": order.total,
        "currency": order.total.currency,
        "createdAt": order.created_at,
        "recordedAt": order.recorded_at,
        "items": order.lines.iter().map(line_as_json).collect::<Vec<_>>(),
    })
}

fn line_as_json(line: &OrderLine) -> Value {
    json!({
        "productId": line.product,
        "productName": line.product_name,
        "quantity": line.quantity,
        "unitPrice": line.unit_price,
        "lineTotal": line.line_total,
    })
}

fn record_as_text(order: &OrderRecord) -> String {
    let facts = output::facts([
        ("order", order.id.to_string()),
        ("sale", order.sale.to_string()),
        ("user", order.user.to_string()),
        ("key", output::or_dash(order.key.as_ref())),
        ("status", state_with_reason(order)),
        ("duplicate of", output::or_dash(order.duplicate_of)),
        ("total", format!("{} {}", order.total, order.total.currency)),
        ("created", output::instant(order.created_at)),
        ("recorded", output::instant(order.recorded_at)),
    ]);
    let rows = order.lines.iter().map(|line| {
        [
            line.product.to_string(),
            line.product_name.clone(),
            line.quantity.to_string(),
            line.unit_price.to_string(),
            line.line_total.to_string(),
        ]
    });
    format!("{facts}\n{}", output::table(["id", "product", "quantity", "price", "total"], rows))
}

fn state_with_reason(order: &OrderRecord) -> String {
    match order.failure {
        Some(reason) => format!("{} ({reason})", order.state),
        None => order.state.to_string(),
    }
}

fn status_as_json(status: &OrderStatus) -> Value {
    json!({
        "orderId": status.id,
        "status": status.state,
        "failureReason": status.failure,
        "lastUpdatedAt": status.updated_at,
    })
}

fn status_as_line(status: &OrderStatus) -> String {
    let reason = status.failure.map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{}  {}{reason}", output::instant(status.updated_at), status.state)
}
