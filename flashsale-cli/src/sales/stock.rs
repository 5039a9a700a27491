//! `flashsale sales restock` and `reduce`: stock changed by difference, while it sells.

use anyhow::{anyhow, bail};
use flashsale_core::{
    ChangeOutcome, Error, IdempotencyKey, NewStockChange, Operator, Product, ProductId, Sale, StockChange,
};
use serde_json::json;

use crate::{ask::Consent, call::Call, failure::tell, output, sale_ref::SaleRef};

/// Put more units on sale
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flashsale sales restock 1 3 50                        50 more units of product 3
  flashsale sales restock 1 3 50 --op-id second-batch   counts once, however often it is repeated")]
pub(crate) struct Restock {
    #[command(flatten)]
    change: Change,
}

/// Take units off sale that nobody has bought
///
/// Never below what is sold, or claimed by orders that wait: it is refused whole if fewer are left.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flashsale sales reduce 1 3 20 --dry-run
  flashsale sales reduce 1 3 20 --op-id broken-units --yes")]
pub(crate) struct Reduce {
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, clap::Args)]
struct Change {
    /// The sale: its id or its slug
    sale: SaleRef,
    /// The product's id
    product: ProductId,
    /// How many units
    #[arg(allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    units: u32,
    /// A name for this change, unique in its sale: repeated under it, also after a timeout, it counts once. Without
    /// one, one is made and told
    #[arg(long, value_name = "ID")]
    op_id: Option<IdempotencyKey>,
    /// Show what would change
    #[arg(long)]
    dry_run: bool,
}

/// Most products that a message lists.
const LISTED: usize = 8;

impl Restock {
    pub(super) async fn run(&self, operator: &Operator, call: &Call) -> anyhow::Result<()> {
        self.change.make(operator, call, i64::from(self.change.units), None).await
    }
}

impl Reduce {
    pub(super) async fn run(&self, operator: &Operator, call: &Call) -> anyhow::Result<()> {
        self.change.make(operator, call, -i64::from(self.change.units), Some(self.consent)).await
    }
}

impl Change {
    async fn make(
        &self,
        operator: &Operator,
        call: &Call,
        units: i64,
        consent: Option<Consent>,
    ) -> anyhow::Result<()> {
        let sale = self.sale.find(operator).await?;
        let product = self.product_of(&sale)?;
        let left = operator.live_stock(sale.id).await.unwrap_or_default();
        let left = left.into_iter().find(|stock| stock.product == product.id).and_then(|stock| stock.left);
        let plan = plan(&sale, product, left, units);
        if self.dry_run {
            let (from, to) = (product.stock, i64::from(product.stock) + units);
            let value = json!({ "sale": sale.id, "product": product.id, "dryRun": true, "from": from, "to": to, "left": left });
            return call.output.show(&value, || format!("{plan}\nNothing was changed."));
        }
        if let Some(consent) = consent {
            consent.ask("units would be taken off sale", &plan, "Take them off?")?;
        }
        let op_id = self.op_id.clone().map_or_else(new_op_id, Ok)?;
        if self.op_id.is_none() {
            tell(&format!("operation id {op_id}: if this is interrupted, repeat it with --op-id {op_id}"));
        }
        let change = NewStockChange { sale: sale.id, product: product.id, units, op_id };
        let changed =
            operator.change_stock(&change).await.map_err(|error| unanswered(error, &change.op_id))?;
        let now = operator.sale(sale.id).await;
        tell_outcome(call, &sale, &changed, now.ok().and_then(|sale| sale.product(product.id).cloned()))
    }

    fn product_of<'a>(&self, sale: &'a Sale) -> anyhow::Result<&'a Product> {
        let Some(product) = sale.product(self.product) else {
            let known = sale.products.iter().take(LISTED);
            let known: Vec<_> = known.map(|product| format!("{} ({})", product.id, product.name)).collect();
            bail!(
                "product {} is not of sale {sale}, which has {}; `flashsale sales show {sale}` shows them all",
                self.product,
                known.join(", "),
                sale = sale.id
            );
        };
        Ok(product)
    }
}

/// It may have been noted, or not yet: asking again under its name tells, and counts it once.
fn unanswered(error: Error, op_id: &IdempotencyKey) -> anyhow::Error {
    if error.outcome_unknown() {
        return anyhow!(
            "no answer came in time. Repeat the command with --op-id {op_id}: it tells, and counts once"
        );
    }
    if error.is_transient() {
        let again = format!("repeat the command with --op-id {op_id} when that is mended; it counts once");
        return anyhow::Error::from(error).context(again);
    }
    error.into()
}

/// The changes of a sale's stock, if there were any.
pub(super) fn as_text(changes: &[StockChange]) -> Option<String> {
    let row = |change: &StockChange| {
        [
            change.number.to_string(),
            change.product.to_string(),
            format!("{:+}", change.units),
            outcome(change.outcome).to_owned(),
            change.op_id.to_string(),
            output::instant(change.requested_at),
        ]
    };
    let header = ["change", "product", "units", "outcome", "operation id", "requested"];
    (!changes.is_empty()).then(|| output::table(header, changes.iter().map(row)))
}

fn outcome(outcome: ChangeOutcome) -> &'static str {
    match outcome {
        ChangeOutcome::Applied => "applied",
        ChangeOutcome::Refused => "refused",
        // It counts once Redis was asked for the units.
        _ => "waiting",
    }
}

/// One that nobody else makes.
fn new_op_id() -> anyhow::Result<IdempotencyKey> {
    Ok(uuid::Uuid::new_v4().to_string().parse()?)
}

fn plan(sale: &Sale, product: &Product, left: Option<i64>, units: i64) -> String {
    let left =
        left.map_or_else(|| "Redis does not say how many are left".to_owned(), |left| format!("{left} left"));
    let (stock, to) = (product.stock, i64::from(product.stock) + units);
    format!(
        "sale {} ({}), product {} ({}): stock {stock} -> {to} ({units:+}); {} sold by the record, {left}",
        sale.id, sale.slug, product.id, product.name, product.sold
    )
}

fn tell_outcome(call: &Call, sale: &Sale, change: &StockChange, now: Option<Product>) -> anyhow::Result<()> {
    let mut value = serde_json::to_value(change)?;
    value["stock"] = json!(now.as_ref().map(|product| product.stock));
    let stock = output::or_dash(now.map(|product| product.stock));
    let (product, units, op_id) = (change.product, change.units.abs(), &change.op_id);
    match change.outcome {
        ChangeOutcome::Applied => call.output.show(&value, || {
            let verb = if change.units > 0 { "more" } else { "fewer" };
            format!(
                "product {product} of sale {} has {units} units {verb}, {stock} in all (change {}, {op_id})",
                sale.id, change.number
            )
        }),
        ChangeOutcome::Refused => bail!(
            "fewer than {units} units of product {product} were left when {op_id} was decided; nothing was changed. \
             `flashsale sales show {}` shows what is left; try fewer under another operation id",
            sale.id
        ),
        _ => bail!(
            "{op_id} is noted, but Redis cannot be asked for the units now; a running flashsale-server does it as soon \
             as it can. Repeat the command with --op-id {op_id} to see what came of it"
        ),
    }
}
