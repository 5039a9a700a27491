//! An axum application of your own that sells, with everything in one process: the engine uses the application's
//! pool, and the keeper, a drainer and the monitor run beside the routes.
//!
//! ```sh
//! REDIS_URL=… DATABASE_URL=… cargo run --example embed_axum
//! curl -X POST http://127.0.0.1:3000/buy/1 -H 'X-User-Id: ann' -H 'Idempotency-Key: ann-1'
//! curl http://127.0.0.1:3000/orders/…
//! ```

use std::env;

use anyhow::Context;
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use flashsale_core::{
    Admission, Created, Engine, EngineConfig, Error, Items, Money, NewProduct, NewSale, OrderId,
    OrderRequest, ProductId, Quantity, sqlx::PgPool,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    // Before the engine, which makes its counters when it is made.
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let pool = PgPool::connect(&env::var("DATABASE_URL").context("DATABASE_URL")?).await?;
    let engine =
        Engine::connect(EngineConfig::new(env::var("REDIS_URL").context("REDIS_URL")?, pool.clone())).await?;
    engine.migrate().await?;
    let product = create_sale(&engine).await?;

    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(engine.keeper().run(shutdown.clone()));
    // Which process does what is yours to choose: a `worker_only` beside this one can make orders final.
    if env::var("DRAIN").as_deref() != Ok("elsewhere") {
        tasks.spawn(engine.drainer().run(shutdown.clone()));
    }
    tasks.spawn(engine.monitor().run(shutdown.clone()));

    let app = Router::new()
        .route("/buy/{product}", post(buy))
        .route("/orders/{id}", get(order))
        .with_state(engine.clone())
        .route("/metrics", get(async move || metrics.render()));
    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(listen).await?;
    println!("product {product} on http://{}", listener.local_addr()?);
    let stopped = async { tokio::signal::ctrl_c().await.expect("a handler of Ctrl-C") };
    axum::serve(listener, app).with_graceful_shutdown(stopped).await?;

    // The last answers are given: now what is in hand is finished, then the connections go.
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    engine.close().await;
    pool.close().await;
    println!("stopped");
    Ok(())
}

/// A sale of one product. Creating it again, when the application starts again, changes nothing.
async fn create_sale(engine: &Engine) -> anyhow::Result<ProductId> {
    let currency = "EUR".parse()?;
    let product = NewProduct {
        id: None,
        name: "Concert ticket".to_owned(),
        description: "Standing room".to_owned(),
        image_url: String::new(),
        original_price: Money::parse("79.00", currency)?,
        sale_price: Money::parse("49.00", currency)?,
        stock: 500,
        per_user_limit: 2,
    };
    let sale = NewSale {
        slug: "tickets".to_owned(),
        name: "Tickets".to_owned(),
        currency,
        starts_at: "2026-01-01T12:00:00Z".parse()?,
        ends_at: "2099-01-01T12:00:00Z".parse()?,
        products: vec![product],
    };
    let (Created::New(id) | Created::Exists(id)) = engine.operator().create_sale(&sale).await?;
    Ok(engine.operator().sale(id).await?.products[0].id)
}

type Answer = Result<(StatusCode, String), Problem>;

async fn buy(State(engine): State<Engine>, Path(product): Path<i64>, headers: HeaderMap) -> Answer {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Who asks has to be known by now: the engine believes what it is told.
    let user = header("x-user-id").parse()?;
    // The client's name for this purchase. Sent again, it is the same order.
    let key = header("idempotency-key").parse()?;
    let items = Items::merge([(ProductId::try_from(product)?, Quantity::try_from(1)?)])?;
    Ok(match engine.reserve(OrderRequest::new(user, key, items)).await? {
        Admission::Admitted(id) | Admission::Replayed(id) => (StatusCode::ACCEPTED, format!("{id}\n")),
        Admission::Refused(refusal) => (StatusCode::CONFLICT, format!("{refusal}\n")),
        other => (StatusCode::NOT_IMPLEMENTED, format!("{other:?}\n")),
    })
}

async fn order(State(engine): State<Engine>, Path(id): Path<OrderId>) -> Answer {
    Ok(match engine.order_status(id).await? {
        Some(order) => (StatusCode::OK, format!("{}\n", order.state)),
        None => (StatusCode::NOT_FOUND, "no such order\n".to_owned()),
    })
}

/// What a caller can do about an error is what its status says.
struct Problem(Error);

impl<E: Into<Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status = if error.invalid().is_some() {
            StatusCode::BAD_REQUEST
        } else if error.outcome_unknown() {
            StatusCode::GATEWAY_TIMEOUT
        } else if error.is_transient() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        (status, format!("{error}\n")).into_response()
    }
}
