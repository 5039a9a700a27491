//! Your own code is called for every order that became final: here it "sends a mail", exactly once, although it may
//! be called more often.
//!
//! ```sh
//! REDIS_URL=… DATABASE_URL=… cargo run --example custom_notification
//! ```

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context;
use flashsale_core::{
    Admission, Created, Engine, EngineConfig, Items, Money, NewProduct, NewSale, OrderRecord, OrderRequest,
    OrderState, ProductId, Quantity,
    sqlx::{self, PgPool},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The mail server is away when it is asked for the first time.
static AWAY: AtomicBool = AtomicBool::new(true);

/// Notes the mail under the order's id, and sends it. An error means: call me again later.
async fn send_mail(pool: PgPool, order: OrderRecord) -> anyhow::Result<()> {
    let mut tx = pool.begin().await?;
    let new = sqlx::query("INSERT INTO mails (order_id) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(order.id.to_string())
        .execute(&mut *tx)
        .await?;
    if new.rows_affected() == 0 {
        // We were called before, and did not get round to saying so.
        return Ok(());
    }
    if AWAY.swap(false, Ordering::Relaxed) {
        anyhow::bail!("the mail server is away");
    }
    match order.state {
        OrderState::Confirmed => println!("to {}: it is yours, for {}", order.user, order.total),
        _ => println!("to {}: it is not yours, and costs nothing", order.user),
    }
    Ok(tx.commit().await?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pool = PgPool::connect(&env::var("DATABASE_URL").context("DATABASE_URL")?).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS mails (order_id text PRIMARY KEY)").execute(&pool).await?;
    let engine =
        Engine::connect(EngineConfig::new(env::var("REDIS_URL").context("REDIS_URL")?, pool.clone())).await?;
    engine.migrate().await?;

    // From here on every order that becomes final is told, whichever process records it.
    let mails = pool.clone();
    let notifier = engine.notifier("mail", move |order| send_mail(mails.clone(), order)).await?;
    let product = create_sale(&engine).await?;
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let mut keeper = engine.keeper();
    keeper.keep_once().await?;
    tasks.spawn(keeper.run(shutdown.clone()));
    tasks.spawn(engine.drainer().run(shutdown.clone()));
    tasks.spawn(notifier.run(shutdown.clone()));

    for user in ["ann", "bob", "cid"] {
        let items = Items::merge([(product, Quantity::try_from(1)?)])?;
        let key = format!("{user}-1").parse()?;
        match engine.reserve(OrderRequest::new(user.parse()?, key, items)).await? {
            Admission::Admitted(_) | Admission::Replayed(_) => println!("{user} is in"),
            other => println!("{user}: {other:?}"),
        }
    }
    all_told(&engine).await?;

    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    engine.close().await;
    pool.close().await;
    Ok(())
}

/// Waits until every order is final, and the mail of each is acknowledged.
async fn all_told(engine: &Engine) -> anyhow::Result<()> {
    let operator = engine.operator();
    loop {
        let queued: u64 = operator.queue().await?.iter().map(|queue| queue.backlog).sum();
        let waiting: u64 = operator.subscribers().await?.iter().map(|subscriber| subscriber.waiting).sum();
        if queued + waiting == 0 {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn create_sale(engine: &Engine) -> anyhow::Result<ProductId> {
    let currency = "EUR".parse()?;
    let product = NewProduct {
        id: None,
        name: "Print".to_owned(),
        description: "Signed".to_owned(),
        image_url: String::new(),
        original_price: Money::parse("120.00", currency)?,
        sale_price: Money::parse("80.00", currency)?,
        stock: 100,
        per_user_limit: 1,
    };
    let sale = NewSale {
        slug: "prints".to_owned(),
        name: "Prints".to_owned(),
        currency,
        starts_at: "2026-01-01T12:00:00Z".parse()?,
        ends_at: "2099-01-01T12:00:00Z".parse()?,
        products: vec![product],
    };
    let (Created::New(id) | Created::Exists(id)) = engine.operator().create_sale(&sale).await?;
    Ok(engine.operator().sale(id).await?.products[0].id)
}
