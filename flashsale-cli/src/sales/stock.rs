//! `flashsale sales restock` and `reduce`: stock changed by difference, while it sells.

use anyhow::{anyhow, bail};
use flashsale_core::{
    ChangeOutcome, Error, IdempotencyKey, NewStockChange, Operator, Product, ProductId, Sale, SaleState,
    StockChange,
};
use serde_json::json;

use crate::{
    ask::Consent,
    call::Call,
    failure::tell,
    output::{self, UNCHANGED},
    sale_ref::SaleRef,
};

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
        // Nothing more comes of a change that is asked for again: there is nothing to show first, nor to ask.
        let noted = self.noted(operator, &sale, units).await?;
        if let (true, Some(noted)) = (self.dry_run, &noted) {
            let mut value = serde_json::to_value(noted)?;
            value["dryRun"] = true.into();
            return call.output.show(&value, || format!("{}.\n{UNCHANGED}", before(noted, Some(product))));
        }
        if noted.is_none() {
            let left = left_of(operator, &sale, product.id).await.ok().flatten();
            let to = i64::from(product.stock) + units;
            let plan = plan(&sale, product, left, units)?;
            if self.dry_run {
                let value = json!({
                    "saleId": sale.id,
                    "productId": product.id,
                    "dryRun": true,
                    "from": product.stock,
                    "to": to,
                    "left": left,
                });
                return call.output.show(&value, || format!("{plan}\n{UNCHANGED}"));
            }
            if let Some(consent) = consent {
                consent.ask("units would be taken off sale", &plan, "Take them off?")?;
            }
        }
        let op_id = self.op_id.clone().map_or_else(new_op_id, Ok)?;
        if self.op_id.is_none() {
            tell(&format!("operation id {op_id}: if this is interrupted, repeat it with --op-id {op_id}"));
        }
        let change = NewStockChange { sale: sale.id, product: product.id, units, op_id };
        let changed =
            operator.change_stock(&change).await.map_err(|error| unanswered(error, &change.op_id))?;
        let now = operator.sale(sale.id).await.ok().and_then(|sale| sale.product(product.id).cloned());
        let left = left_of(operator, &sale, product.id).await;
        let repeated = noted.is_some_and(|noted| noted.outcome == changed.outcome);
        Told { sale: &sale, change: &changed, repeated, now, left }.show(call)
    }

    /// The change that was noted under the name that was given, if one was.
    async fn noted(
        &self,
        operator: &Operator,
        sale: &Sale,
        units: i64,
    ) -> anyhow::Result<Option<StockChange>> {
        let Some(op_id) = &self.op_id else { return Ok(None) };
        let changes = operator.stock_changes(sale.id).await?;
        let Some(noted) = changes.into_iter().find(|change| change.op_id == *op_id) else { return Ok(None) };
        if (noted.product, noted.units) != (self.product, units) {
            bail!(
                "the operation id {op_id} stands for another change already: {:+} units of product {}. Repeat that \
                 one, or give this one an id of its own",
                noted.units,
                noted.product
            );
        }
        Ok(Some(noted))
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

/// What Redis has left of it; `None`: its word does not count now.
async fn left_of(
    operator: &Operator,
    sale: &Sale,
    product: ProductId,
) -> flashsale_core::Result<Option<i64>> {
    let left = operator.live_stock(sale.id).await?;
    Ok(left.into_iter().find(|stock| stock.product == product).and_then(|stock| stock.left))
}

/// What would change. An error for what cannot be: noting it would only use its name up.
fn plan(sale: &Sale, product: &Product, left: Option<i64>, units: i64) -> anyhow::Result<String> {
    let to = i64::from(product.stock) + units;
    if to < 0 {
        bail!(
            "product {} of sale {} has {} units, {} of them sold by the record: {} cannot be taken off. Nothing was \
             changed",
            product.id,
            sale.id,
            product.stock,
            product.sold,
            -units
        );
    }
    let left =
        left.map_or_else(|| "Redis does not say how many are left".to_owned(), |left| format!("{left} left"));
    Ok(format!(
        "sale {} ({}), product {} ({}): stock {} -> {to} ({units:+}); {} sold by the record, {left}",
        sale.id, sale.slug, product.id, product.name, product.stock, product.sold
    ))
}

/// A change that was asked for before.
fn before(change: &StockChange, now: Option<&Product>) -> String {
    let became = match change.outcome {
        ChangeOutcome::Applied => "was made already",
        ChangeOutcome::Refused => "was refused already",
        _ => "waits for Redis already",
    };
    format!(
        "change {} ({}), asked for {}, {became}: {} units {} of product {} of sale {}; its stock is {}",
        change.number,
        change.op_id,
        output::instant(change.requested_at),
        change.units.abs(),
        verb(change),
        change.product,
        change.sale,
        output::or_dash(now.map(|product| product.stock))
    )
}

fn verb(change: &StockChange) -> &'static str {
    if change.units > 0 { "more" } else { "fewer" }
}

/// What came of it.
struct Told<'a> {
    sale: &'a Sale,
    change: &'a StockChange,
    /// It stood so before it was asked for this time.
    repeated: bool,
    now: Option<Product>,
    left: flashsale_core::Result<Option<i64>>,
}

impl Told<'_> {
    fn show(&self, call: &Call) -> anyhow::Result<()> {
        let (sale, change) = (self.sale.id, self.change);
        let (product, units, op_id) = (change.product, change.units.abs(), &change.op_id);
        match change.outcome {
            ChangeOutcome::Applied => {
                let mut value = serde_json::to_value(change)?;
                value["stock"] = json!(self.now.as_ref().map(|product| product.stock));
                value["left"] = json!(self.left.as_ref().ok());
                value["repeated"] = self.repeated.into();
                call.output.show(&value, || self.applied())
            }
            ChangeOutcome::Refused => bail!(
                "fewer than {units} units of product {product} were left when {op_id} was decided; nothing was \
                 changed. `flashsale sales show {sale}` shows what is left; try fewer under another operation id"
            ),
            _ => bail!(
                "{op_id} is noted, but Redis cannot be asked for the units now; a running flashsale-server does it as \
                 soon as it can. Repeat the command with --op-id {op_id} to see what came of it"
            ),
        }
    }

    fn applied(&self) -> String {
        let change = self.change;
        let done = if self.repeated {
            format!("{}. Nothing more was changed", before(change, self.now.as_ref()))
        } else {
            format!(
                "product {} of sale {} has {} units {}, {} in all (change {}, {})",
                change.product,
                change.sale,
                change.units.abs(),
                verb(change),
                output::or_dash(self.now.as_ref().map(|product| product.stock)),
                change.number,
                change.op_id
            )
        };
        match self.not_on_sale() {
            Some(why) => format!("{done}\n{why}"),
            None => done,
        }
    }

    /// Why buyers may not see the units that came to the stock: the record has them first.
    fn not_on_sale(&self) -> Option<String> {
        let over = self.sale.state == SaleState::Closed || self.sale.purged_at.is_some();
        if over || self.change.units < 0 {
            return None;
        }
        let why = match &self.left {
            Ok(Some(_)) => return None,
            Ok(None) => "the sale is not loaded into Redis".to_owned(),
            Err(error) => error.to_string(),
        };
        Some(format!(
            "Buyers may not see them yet ({why}): a running flashsale-server puts them on sale as soon as it can"
        ))
    }
}
