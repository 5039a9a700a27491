//! A whole sale, from its creation to its audit, with one step after the other, as a test would do it.

use std::{env, error::Error, sync::Arc, time::Duration};

use flashsale_core::{
    Admission, ChangeOutcome, Created, Engine, EngineConfig, Items, Money, NewProduct, NewSale,
    NewStockChange, OrderRecord, OrderRequest, OrderState, ProductId, Quantity, Refusal,
};
use tokio::sync::Mutex;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine =
        Engine::connect(EngineConfig::new(env::var("REDIS_URL")?, env::var("DATABASE_URL")?)).await?;
    engine.migrate().await?;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let told = Arc::clone(&told);
        move |order: OrderRecord| {
            let told = Arc::clone(&told);
            async move {
                told.lock().await.push((order.user.to_string(), order.state));
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            }
        }
    };
    let mut notifier = engine.notifier("stranger", hook).await?;

    let operator = engine.operator();
    let Created::New(sale) = operator.create_sale(&new_sale()?).await? else {
        return Err("this database has had the sale before".into());
    };
    let product = operator.sale(sale).await?.products[0].id;
    // Nothing sells before the keeper has loaded it.
    engine.keeper().keep_once().await?;

    // Three units, at most two for each.
    let first = engine.reserve(order("ann", "a-1", product, 2)?).await?;
    let Admission::Admitted(id) = first else { return Err(format!("ann is not in: {first:?}").into()) };
    assert_eq!(engine.reserve(order("ann", "a-1", product, 2)?).await?, Admission::Replayed(id));
    let over = engine.reserve(order("ann", "a-2", product, 1)?).await?;
    assert_eq!(over, Admission::Refused(Refusal::OverQuota { product, limit: 2, held: 2 }));
    let too_many = engine.reserve(order("bob", "b-1", product, 2)?).await?;
    assert_eq!(too_many, Admission::Refused(Refusal::SoldOut { product, left: 1 }));
    assert!(matches!(engine.reserve(order("bob", "b-2", product, 1)?).await?, Admission::Admitted(_)));
    let active = engine.active_products().await?;
    assert!(active.iter().any(|on| on.product.id == product && on.stock_remaining == 0));

    // One more is found. Asked for twice under one name, it is added once.
    let more = NewStockChange { sale, product, units: 1, op_id: "found-one".parse()? };
    for _ in 0..2 {
        assert_eq!(operator.change_stock(&more).await?.outcome, ChangeOutcome::Applied);
    }
    engine.keeper().keep_once().await?;
    assert!(matches!(engine.reserve(order("bob", "b-3", product, 1)?).await?, Admission::Admitted(_)));
    let sold_out = engine.reserve(order("cid", "c-1", product, 1)?).await?;
    assert_eq!(sold_out, Admission::Refused(Refusal::SoldOut { product, left: 0 }));

    // Admitted is not final: that is the record's word.
    assert_eq!(engine.order_status(id).await?.map(|order| order.state), Some(OrderState::Queued));
    let mut drainer = engine.drainer();
    while drainer.drain_once(sale).await?.read > 0 {}
    assert_eq!(engine.order_status(id).await?.map(|order| order.state), Some(OrderState::Confirmed));
    let history = engine.orders_of(&"ann".parse()?, 10, None).await?;
    assert_eq!(history[0].total, Money::parse("499.98", "USD".parse()?)?);

    while notifier.step().await?.delivered > 0 {}
    let mut told = told.lock().await.clone();
    told.sort();
    let confirmed = |user: &str| (user.to_owned(), OrderState::Confirmed);
    assert_eq!(told, [confirmed("ann"), confirmed("bob"), confirmed("bob")]);
    operator.unsubscribe("stranger").await?;

    let report = operator.audit(sale, Duration::from_secs(5)).await?;
    assert!(report.holds(), "{report:#?}");
    engine.close().await;
    println!("sold out, and it adds up");
    Ok(())
}

fn new_sale() -> Result<NewSale, Box<dyn Error>> {
    let usd = "USD".parse()?;
    let headphones = NewProduct {
        id: None,
        name: "Headphones".to_owned(),
        description: String::new(),
        image_url: String::new(),
        original_price: Money::parse("399.99", usd)?,
        sale_price: Money::parse("249.99", usd)?,
        stock: 3,
        per_user_limit: 2,
    };
    let (starts_at, ends_at) = ("2026-01-01T12:00:00Z".parse()?, "2099-01-01T12:00:00Z".parse()?);
    let (slug, name) = ("stranger".to_owned(), "A stranger's sale".to_owned());
    Ok(NewSale { slug, name, currency: usd, starts_at, ends_at, products: vec![headphones] })
}

fn order(user: &str, key: &str, product: ProductId, units: i64) -> Result<OrderRequest, Box<dyn Error>> {
    let items = Items::merge([(product, Quantity::try_from(units)?)])?;
    Ok(OrderRequest::new(user.parse()?, key.parse()?, items))
}
