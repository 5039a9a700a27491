//! Carts: what buyers mean to order. A cart is a note in Redis and reserves nothing.

use std::{sync::Arc, time::Duration};

use crate::{
    catalog::Reading,
    engine::Engine,
    error::{Error, Result},
    ids::{ProductId, UserId},
    keys::{self, SaleKeys},
    link::{CallError, Link},
    money::Money,
    order::{Quantity, Refusal},
    queue::Holding,
    sale::{Product, Sale, SaleState},
    scripts::{self, CartReply, DOUBTFUL, KeptCart, look},
    stores::Stores,
};

/// How long a cart is kept after its last change.
const KEPT_FOR: Duration = Duration::from_hours(2);

/// What a buyer means to order, at today's prices.
///
/// It reserves nothing: what is in a cart can be sold out, or above the buyer's limit, when it is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cart {
    /// Whose it is.
    pub user: UserId,
    /// At most as many as an order may have, by product.
    pub lines: Vec<CartLine>,
    /// The sum of its lines, which have one currency; `None` for an empty cart, which has none.
    pub total: Option<Money>,
}

/// One product in a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CartLine {
    /// The product.
    pub product: ProductId,
    /// Its name.
    pub product_name: String,
    /// Units.
    pub quantity: u32,
    /// The price of one unit in its sale.
    pub unit_price: Money,
    /// Units times price.
    pub line_total: Money,
}

/// The answer to a change of a cart that could be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CartChange {
    /// This is the cart now.
    Updated(Cart),
    /// Nothing was changed: it holds as many products as an order may have.
    Full,
    /// Nothing was changed.
    Refused(Refusal),
}

impl Engine {
    /// A user's cart; an empty one where there is none. Products of sales that are over, by Redis's clock,
    /// leave it when it is read.
    pub async fn cart(&self, user: &UserId) -> Result<Cart> {
        self.stores().cart(user).await
    }

    /// Sets how many units of a product are in a user's cart, and keeps the cart for two hours from now.
    ///
    /// Refused where no sale sells the product, where its sale is not open now, and where fewer units are left.
    /// All products of a cart have one currency ([`Refusal::ItemsSpanSales`]), but may be of several sales. The
    /// change may be repeated; an error that [is transient](Error::is_transient) does not say that it was not
    /// made.
    pub async fn set_in_cart(
        &self,
        user: &UserId,
        product: ProductId,
        quantity: Quantity,
    ) -> Result<CartChange> {
        self.stores().set_in_cart(user, product, quantity).await
    }

    /// Takes a product out of a user's cart, whether it is in it or not, and keeps the cart for two hours from
    /// now. Works on a full Redis too.
    pub async fn remove_from_cart(&self, user: &UserId, product: ProductId) -> Result<()> {
        Ok(scripts::remove_from_cart(&self.stores().carts, user, product, KEPT_FOR).await?)
    }

    /// Empties a user's cart.
    pub async fn clear_cart(&self, user: &UserId) -> Result<()> {
        let delete = redis::cmd("DEL").arg(keys::cart(user)).to_owned();
        Ok(self.stores().carts.ask(&delete).await?)
    }
}

impl Stores {
    async fn cart(&self, user: &UserId) -> Result<Cart> {
        self.show(user, scripts::read_cart(&self.carts, user).await?).await
    }

    async fn set_in_cart(&self, user: &UserId, product: ProductId, quantity: Quantity) -> Result<CartChange> {
        let catalog = self.catalog.reading()?;
        let sale = catalog.sale_of(product).and_then(|sale| catalog.sales.get(&sale));
        let Some(sale) = sale else { return Ok(CartChange::Refused(Refusal::UnknownProduct(product))) };
        if let Some(refusal) = self.judge(sale, product, quantity).await? {
            return Ok(CartChange::Refused(refusal));
        }
        let set = || scripts::set_in_cart(&self.carts, user, product, quantity, sale.currency, KEPT_FOR);
        let mut reply = set().await?;
        if matches!(reply, CartReply::Full | CartReply::OtherCurrency) {
            // Products of sales that are over may be in the way; they leave the cart when it is read.
            self.cart(user).await?;
            reply = set().await?;
        }
        match reply {
            CartReply::OtherCurrency => Ok(CartChange::Refused(Refusal::ItemsSpanSales)),
            CartReply::Full => Ok(CartChange::Full),
            CartReply::Kept(kept) => Ok(CartChange::Updated(self.show(user, kept).await?)),
        }
    }

    /// Why so many units cannot be put into a cart now, by Redis's clock and by what Redis has left.
    async fn judge(&self, sale: &Sale, product: ProductId, quantity: Quantity) -> Result<Option<Refusal>> {
        if sale.purged_at.is_some() {
            return Ok(Some(Refusal::Ended));
        }
        let seen = look(&self.carts, &SaleKeys::new(sale.id), &[]).await?;
        let (starts, ends) = sale.window_ms();
        if seen.now_ms >= ends {
            return Ok(Some(Refusal::Ended));
        }
        if seen.now_ms < starts {
            return Ok(Some(Refusal::NotStarted));
        }
        let redis = seen.must_count(sale)?;
        let left = *redis.stock.get(&product).ok_or_else(|| Error::fenced(sale.id, DOUBTFUL))?;
        Ok(match redis.state {
            Some(SaleState::Closed) => Some(Refusal::Ended),
            Some(SaleState::Paused) => Some(Refusal::Paused),
            _ if left < i64::from(quantity.get()) => {
                Some(Refusal::SoldOut { product, left: u32::try_from(left).unwrap_or(0) })
            }
            _ => None,
        })
    }

    /// What a cart shows to its user. What cannot be ordered any more leaves it, also in Redis.
    async fn show(&self, user: &UserId, kept: KeptCart) -> Result<Cart> {
        let (catalog, sure) = self.catalog_for(&kept).await?;
        let (mut lines, mut gone) = (Vec::new(), Vec::new());
        for (field, value) in &kept.lines {
            match line(&catalog, kept.now_ms, field, value)? {
                Some(line) => lines.push(line),
                None => gone.push(field.as_slice()),
            }
        }
        if sure && !gone.is_empty() {
            // Else the next reader does it.
            let _ = self.carts.ask_all(vec![scripts::forget_lines(user, &gone)]).await;
        }
        lines.sort_unstable_by_key(|line| line.product);
        Ok(Cart { user: user.clone(), total: total(&lines)?, lines })
    }

    /// The catalogue to read a cart by, and whether a product that is not in it is known to nobody: another
    /// process may have put it in that has heard of its sale before us.
    async fn catalog_for(&self, kept: &KeptCart) -> Result<(Arc<Reading>, bool)> {
        let catalog = self.catalog.reading()?;
        let is_known = |field: &[u8]| product_of(field).is_some_and(|id| catalog.sale_of(id).is_some());
        if kept.lines.iter().all(|(field, _)| is_known(field)) {
            return Ok((catalog, true));
        }
        Ok(match self.catalog.refresh().await {
            Ok(newer) => (newer, true),
            Err(_) => (catalog, false),
        })
    }
}

/// Takes the products of confirmed orders out of their buyers' carts, before Redis shows the orders as
/// confirmed: who sees that finds the cart without them. It may be repeated, and a cart that is damaged stops
/// nobody.
pub(crate) async fn take_bought(link: &Link, confirmed: &[&Holding]) -> Result<(), CallError> {
    let take = |order: &&Holding| {
        let products: Vec<_> = order.units.iter().map(|(product, _)| product.get()).collect();
        scripts::forget_lines(&order.user, &products)
    };
    let taken = link.ask_all(confirmed.iter().map(take).collect()).await?;
    let mut errors = taken.into_iter().filter_map(Result::err);
    if let Some(error) = errors.next() {
        let carts = 1 + errors.count();
        tracing::warn!(%error, carts, "products of confirmed orders stay in carts");
    }
    Ok(())
}

fn product_of(field: &[u8]) -> Option<ProductId> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// A line as it is shown; `None` if its product is not sold any more, or it cannot be read.
fn line(catalog: &Reading, now_ms: i64, field: &[u8], value: &[u8]) -> Result<Option<CartLine>> {
    let Some((product, quantity)) = orderable(catalog, now_ms, field, value) else { return Ok(None) };
    // It can be ordered, so it must not leave the cart for a number that does not fit.
    let line_total = product.sale_price.times(quantity).ok_or_else(too_dear)?;
    Ok(Some(CartLine {
        product: product.id,
        product_name: product.name.clone(),
        quantity,
        unit_price: product.sale_price,
        line_total,
    }))
}

fn orderable<'a>(
    catalog: &'a Reading,
    now_ms: i64,
    field: &[u8],
    value: &[u8],
) -> Option<(&'a Product, u32)> {
    let sale = catalog.sales.get(&catalog.sale_of(product_of(field)?)?)?;
    let ended = now_ms >= sale.ends_at.timestamp_millis() || sale.state == SaleState::Closed;
    if ended || sale.purged_at.is_some() {
        return None;
    }
    let (quantity, currency) = std::str::from_utf8(value).ok()?.split_once(':')?;
    let quantity = Quantity::try_from(quantity.parse::<i64>().ok()?).ok()?.get();
    let product = sale.product(product_of(field)?).filter(|_| sale.currency.code() == currency)?;
    Some((product, quantity))
}

fn too_dear() -> Error {
    Error::internal("the amounts of a cart do not fit")
}

fn total(lines: &[CartLine]) -> Result<Option<Money>> {
    let Some((first, rest)) = lines.split_first() else { return Ok(None) };
    let add = |sum: Money, line: &CartLine| {
        let minor = sum.minor.checked_add(line.line_total.minor)?;
        (sum.currency == line.line_total.currency).then_some(Money { minor, ..sum })
    };
    let total = rest.iter().try_fold(first.line_total, add);
    total.map(Some).ok_or_else(too_dear)
}
