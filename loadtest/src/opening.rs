//! The sale that the herd waits for: creating it, and waiting until the server knows it.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, TimeDelta, Utc};
use flashsale_core::{Created, Currency, Money, NewProduct, NewSale, Operator, Sale, SaleId};
use reqwest::Client;
use tokio::time::sleep;

use crate::{
    mix::{self, LIMIT, Wares},
    shop::{self, Answer},
};

/// From creating the sale to its opening. Every server knows a new sale within 2 s.
const LEAD: Duration = Duration::from_secs(4);
/// How long the server may take to show the sale.
const SHOWN_WITHIN: Duration = Duration::from_mins(1);
const PROBE_EVERY: Duration = Duration::from_millis(250);

/// What the herd falls on.
#[derive(Debug, Clone)]
pub(crate) struct Goods {
    pub(crate) sale: SaleId,
    pub(crate) slug: String,
    pub(crate) wares: Wares,
    /// The opening as the sale has it, which the server's clock decides.
    pub(crate) starts_at: DateTime<Utc>,
    /// When the buyers start, by the clock of this process.
    pub(crate) opens_at: Instant,
}

/// Creates the sale and waits until the server knows it; the buyers are released by `opens_at`.
pub(crate) async fn announce(operator: &Operator, stock: u32, base: &str) -> Result<Goods> {
    let created_at = Instant::now();
    let new = new_sale(stock);
    let id = match operator.create_sale(&new).await.context("cannot create the sale")? {
        Created::New(id) => id,
        Created::Exists(id) => bail!("sale {} exists already, as sale {id}", new.slug),
    };
    let sale = operator.sale(id).await?;
    let wares = wares(&sale)?;
    wait_until_shown(base, &new.slug, &wares).await?;
    // A sale that was shown late is open already.
    let opens_at = (created_at + LEAD).max(Instant::now());
    Ok(Goods { sale: id, slug: new.slug, wares, starts_at: new.starts_at, opens_at })
}

fn new_sale(stock: u32) -> NewSale {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let currency: Currency = "USD".parse().expect("USD is a currency");
    let product = |name: &str, stock, sale_price| NewProduct {
        id: None,
        name: name.to_owned(),
        description: String::new(),
        image_url: String::new(),
        original_price: Money::from_minor(39_999, currency),
        sale_price: Money::from_minor(sale_price, currency),
        stock,
        per_user_limit: LIMIT,
    };
    let second = mix::second_stock(stock);
    let mut products = vec![product("Headphones", stock - second, 24_999)];
    if second > 0 {
        products.push(product("Speaker", second, 9_999));
    }
    let starts_at = Utc::now() + LEAD;
    NewSale {
        slug: format!("herd-{}-{}", now.as_millis(), std::process::id()),
        name: "Load test".to_owned(),
        currency,
        starts_at,
        ends_at: starts_at + TimeDelta::days(1),
        products,
    }
}

fn wares(sale: &Sale) -> Result<Wares> {
    // Not by their order: that of the ids is the database's affair.
    let find = |name| sale.products.iter().find(|product| product.name == name).map(|product| product.id);
    let first = find("Headphones").context("the sale that was created has lost its product")?;
    Ok(Wares { first, second: find("Speaker") })
}

/// Asks the server itself: it may read Postgres at its own pace.
async fn wait_until_shown(base: &str, slug: &str, wares: &Wares) -> Result<()> {
    let client = Client::builder().timeout(shop::REQUEST_TIMEOUT).build()?;
    let give_up = Instant::now() + SHOWN_WITHIN;
    // A new address for each question, for the rate limit. No buyer has one of these.
    let mut address = Ipv4Addr::new(172, 16, 0, 0);
    loop {
        address = Ipv4Addr::from_bits(address.to_bits() + 1);
        let answer = probe(&client, base, slug, address, wares).await;
        match &answer {
            Answer::Refused { code, .. } if code == "sale-not-open" || code == "over-quota" => return Ok(()),
            _ if Instant::now() > give_up => bail!("the server does not show the new sale: {answer:?}"),
            _ => sleep(PROBE_EVERY).await,
        }
    }
}

/// Asks for more than anybody may have, so that nothing is bought if the sale turns out to be open.
async fn probe(client: &Client, base: &str, slug: &str, address: Ipv4Addr, wares: &Wares) -> Answer {
    let products = [Some(wares.first), wares.second].into_iter().flatten();
    let items: Vec<_> = products.map(|product| (product, LIMIT + 1)).collect();
    let request = client
        .post(format!("{base}/api/orders"))
        .header("X-User-Id", format!("{slug}:probe"))
        .header("X-Forwarded-For", address.to_string())
        .header("Content-Type", "application/json")
        .body(shop::order_body("probe", &items));
    shop::ask(request).await
}
