//! The ledger on a real PostgreSQL.

mod announced;
mod refused;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::{PgPool, Row, postgres::PgPoolOptions};

use super::*;
use crate::{
    Created, NewProduct, NewSale,
    money::Money,
    order::{Fingerprint, Items},
    queue::{Entry, QueuedLine},
    sale::Seq,
    test_support::database,
};

pub(super) fn product(id: i64) -> ProductId {
    id.try_into().unwrap()
}

/// An order of epoch 1, each unit at 2.50.
pub(crate) fn order(sale: SaleId, seq: i64, user: &str, key: &str, lines: &[(i64, u32)]) -> QueuedOrder {
    let line = |&(id, quantity): &(i64, u32)| QueuedLine { product: product(id), quantity, unit_price: 250 };
    let units = lines.iter().map(|&(id, quantity)| (product(id), quantity)).collect();
    QueuedOrder {
        id: OrderId::new(sale),
        seq: Seq(seq),
        epoch: Epoch(1),
        user: user.parse().unwrap(),
        key: key.parse().unwrap(),
        fingerprint: Fingerprint::of(sale, &Items::of_merged(units)),
        admitted_at: DateTime::from_timestamp_millis(1_800_000_000_000 + seq).unwrap(),
        lines: lines.iter().map(line).collect(),
    }
}

/// As it stands in the stream.
pub(crate) fn queued(order: QueuedOrder) -> Decoded {
    let lines: Vec<String> = order
        .lines
        .iter()
        .map(|line| format!("{}:{}:{}", line.product, line.quantity, line.unit_price))
        .collect();
    let fields = [
        ("order", order.id.packed().to_vec()),
        ("seq", order.seq.to_string().into()),
        ("epoch", order.epoch.to_string().into()),
        ("user", order.user.to_string().into()),
        ("key", order.key.packed()),
        ("lines", lines.join(",").into()),
    ];
    let fields = fields.into_iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value]);
    let id = format!("{}-{}", order.admitted_at.timestamp_millis(), order.seq);
    let entry = Entry { id, fields: fields.collect() };
    assert_eq!(entry.decode(order.id.sale()), Ok(order.clone()));
    Decoded { entry, order }
}

fn failed(reason: FailureReason) -> Verdict {
    Verdict::Failed { reason, key_holder: None }
}

/// A transaction of epoch 1 that has everything but its end.
async fn uncommitted(ledger: &Ledger, sale: SaleId, orders: &[&QueuedOrder]) -> Prepared {
    let session = ledger.lock(sale, Epoch(1), None).await.unwrap();
    prepare(session, sale, orders, decide::decide).await.unwrap()
}

/// A database of one's own with a sale under epoch 1: product 1 (stock 10, 3 per user), 2 (stock 1, 1 per user).
struct Shop {
    pg: PgPool,
    url: String,
    ledger: Ledger,
    sale: SaleId,
}

impl Shop {
    async fn open() -> Self {
        let url = database().await;
        let pg = PgPool::connect(&url).await.unwrap();
        let Created::New(sale) = sql::new_sale::create_sale(&pg, &new_sale(), "ann").await.unwrap() else {
            panic!("an empty database has no sale")
        };
        assert_eq!(sql::sales::raise_epoch(&pg, sale, Epoch(0)).await.unwrap(), Epoch(1));
        assert!(sql::sales::set_loaded_epoch(&pg, sale, Epoch(1)).await.unwrap());
        let ledger = Ledger::new(drain_pool(url.parse().unwrap()));
        Self { pg, url, ledger, sale }
    }

    fn order(&self, seq: i64, user: &str, key: &str, lines: &[(i64, u32)]) -> Decoded {
        queued(order(self.sale, seq, user, key, lines))
    }

    async fn record(&self, batch: &[Decoded]) -> Vec<Verdict> {
        self.ledger.record(self.sale, Epoch(1), batch, None).await.unwrap()
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pg).await.unwrap()
    }

    async fn sold(&self) -> [i64; 2] {
        [
            self.count("SELECT sold::bigint FROM products WHERE id = 1").await,
            self.count("SELECT sold::bigint FROM products WHERE id = 2").await,
        ]
    }

    /// Makes a table refuse the rows of user "evil".
    async fn refuse(&self, table: &'static str) {
        let user = match table {
            "orders" => "NEW.user_id",
            _ => "(SELECT user_id FROM orders WHERE id = NEW.order_id)",
        };
        let trigger = format!(
            "CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF {user} = 'evil' THEN RAISE EXCEPTION 'not for this user'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_{table}();"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(&self.pg).await.unwrap();
    }

    /// What must hold after everything: the constraints say the rest.
    async fn audit(&self) {
        let wrong = "SELECT count(*) FROM products p WHERE sold <> (
            SELECT COALESCE(sum(quantity), 0) FROM order_items i JOIN orders o ON o.id = i.order_id
            WHERE i.product_id = p.id AND o.status = 'Confirmed')";
        assert_eq!(self.count(wrong).await, 0, "sold units are those of confirmed orders");
    }
}

fn new_sale() -> NewSale {
    let currency = "USD".parse().unwrap();
    let price = Money::from_minor(250, currency);
    let product = |id, stock, per_user_limit| NewProduct {
        id: Some(product(id)),
        name: format!("Product {id}"),
        description: String::new(),
        image_url: String::new(),
        original_price: price,
        sale_price: price,
        stock,
        per_user_limit,
    };
    NewSale {
        slug: "noon".to_owned(),
        name: "Noon".to_owned(),
        currency,
        starts_at: Utc::now(),
        ends_at: Utc::now() + chrono::Duration::hours(1),
        products: vec![product(1, 10, 3), product(2, 1, 1)],
    }
}

#[tokio::test]
async fn a_batch_is_recorded_with_its_failures() {
    let shop = Shop::open().await;
    let batch = [
        // The batch does not come in the order of admission.
        shop.order(4, "cid", "a", &[(2, 1)]),
        shop.order(1, "ann", "a", &[(1, 2), (2, 1)]),
        shop.order(2, "ann", "b", &[(1, 2)]),
        shop.order(3, "bob", "a", &[(9, 1)]),
        shop.order(5, "ann", "a", &[(1, 1)]),
    ];
    let first = &batch[1].order;
    let key_holder = Some((first.id, first.fingerprint));
    let duplicate = Verdict::Failed { reason: FailureReason::Duplicate, key_holder };
    let expected = [
        failed(FailureReason::SoldOut),
        Verdict::Confirmed,
        failed(FailureReason::OverQuota),
        failed(FailureReason::UnknownProduct),
        duplicate,
    ];
    assert_eq!(shop.record(&batch).await, expected);
    assert_eq!(shop.sold().await, [2, 1]);
    assert_eq!(shop.count("SELECT count(*) FROM order_items").await, 6);
    assert_eq!(shop.count("SELECT recorded_seq FROM sales").await, 5);
    // A lost answer: asking again gives the same and writes nothing.
    assert_eq!(shop.record(&batch).await, expected);
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 5);
    assert_eq!(shop.sold().await, [2, 1]);

    let row = sqlx::query("SELECT * FROM orders WHERE id = $1")
        .bind(first.id.as_uuid())
        .fetch_one(&shop.pg)
        .await
        .unwrap();
    assert_eq!(row.get::<String, _>("status"), "Confirmed");
    assert_eq!(row.get::<i64, _>("total"), 750);
    assert_eq!(row.get::<DateTime<Utc>, _>("created_at"), first.admitted_at);
    assert_eq!((row.get::<i64, _>("epoch"), row.get::<i64, _>("seq")), (1, 1));
    shop.audit().await;
}

#[tokio::test]
async fn another_epoch_writes_nothing() {
    let shop = Shop::open().await;
    let batch = [shop.order(1, "ann", "a", &[(1, 1)])];
    for epoch in [Epoch(0), Epoch(2)] {
        let refused = shop.ledger.record(shop.sale, epoch, &batch, None).await;
        assert!(matches!(refused, Err(LedgerError::Fenced { epoch: Epoch(1) })), "{refused:?}");
        let refused = shop.ledger.park(shop.sale, epoch, &batch[0].entry, "why").await;
        assert!(matches!(refused, Err(LedgerError::Fenced { .. })), "{refused:?}");
    }
    let nowhere = SaleId::try_from(99).unwrap();
    assert!(matches!(
        shop.ledger.record(nowhere, Epoch(1), &batch, None).await,
        Err(LedgerError::Fenced { .. })
    ));
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 0);
    assert_eq!(shop.count("SELECT count(*) FROM dead_letters").await, 0);
    assert_eq!(shop.sold().await, [0, 0]);
}

#[tokio::test]
async fn a_batch_that_was_not_committed_is_not_there() {
    let shop = Shop::open().await;
    let batch = [shop.order(1, "ann", "a", &[(1, 1)])];
    let prepared = uncommitted(&shop.ledger, shop.sale, &[&batch[0].order]).await;
    drop(prepared);
    assert_eq!(shop.record(&batch).await, [Verdict::Confirmed]);
    assert_eq!(shop.sold().await, [1, 0]);
    // Committed, but nobody was told.
    let batch = [shop.order(2, "ann", "b", &[(1, 1)])];
    let prepared = uncommitted(&shop.ledger, shop.sale, &[&batch[0].order]).await;
    drop(prepared.commit().await.unwrap());
    assert_eq!(shop.record(&batch).await, [Verdict::Confirmed]);
    assert_eq!(shop.sold().await, [2, 0]);
    shop.audit().await;
}

#[tokio::test]
async fn two_ledgers_never_oversell() {
    let shop = Shop::open().await;
    let other = Ledger::new(drain_pool(shop.url.parse().unwrap()));
    let batch = |ledger: usize, round: usize| -> Vec<Decoded> {
        let user = |place: usize| format!("u{ledger}-{round}-{place}");
        let seq = |place: usize| i64::try_from(ledger * 1000 + round * 10 + place).unwrap();
        (0..3).map(|place| shop.order(seq(place), &user(place), "a", &[(1, 1)])).collect()
    };
    let sell = async |ledger: &Ledger, number| {
        let mut confirmed = 0;
        for round in 0..5 {
            let outcome = ledger.record(shop.sale, Epoch(1), &batch(number, round), None).await.unwrap();
            confirmed += outcome.iter().filter(|verdict| **verdict == Verdict::Confirmed).count();
        }
        confirmed
    };
    let (one, two) = tokio::join!(sell(&shop.ledger, 1), sell(&other, 2));
    assert_eq!(one + two, 10);
    assert_eq!(shop.sold().await, [10, 0]);
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 30);
    let oversell = sqlx::query("UPDATE products SET sold = stock + 1 WHERE id = 1").execute(&shop.pg).await;
    let error = oversell.unwrap_err();
    let constraint = error.as_database_error().and_then(sqlx::error::DatabaseError::constraint);
    assert_eq!(constraint, Some("products_never_oversold"));
    shop.audit().await;
}

#[tokio::test]
async fn a_held_lock_is_no_verdict_and_blocks_for_seconds_only() {
    let shop = Shop::open().await;
    let batch = [shop.order(1, "ann", "a", &[(1, 1)])];
    let mut holder = shop.pg.begin().await.unwrap();
    sql::sales::lock(&mut holder, shop.sale).await.unwrap();
    let began = Instant::now();
    let outcome = shop.ledger.record(shop.sale, Epoch(1), &batch, None).await;
    assert!(matches!(outcome, Err(LedgerError::Away(_))), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    holder.rollback().await.unwrap();
    assert_eq!(shop.record(&batch).await, [Verdict::Confirmed]);
}

/// A worker that is stopped inside its transaction holds the sale's row; the server ends its session.
#[tokio::test]
async fn a_stopped_worker_is_taken_over() {
    let shop = Shop::open().await;
    let batch = [shop.order(1, "ann", "a", &[(1, 1)])];
    let stopped = Ledger::new(drain_pool(shop.url.parse().unwrap()));
    let prepared = uncommitted(&stopped, shop.sale, &[&batch[0].order]).await;
    // Waits for the row until the server has ended that session after two seconds, and gets it.
    assert_eq!(shop.record(&batch).await, [Verdict::Confirmed]);
    let late = prepared.commit().await;
    assert!(matches!(late, Err(Failure::Away(_))), "{late:?}");
    assert_eq!(shop.sold().await, [1, 0]);
    // The pool does not hand the dead connection out again.
    assert_eq!(stopped.record(shop.sale, Epoch(1), &batch, None).await.unwrap(), [Verdict::Confirmed]);
    shop.audit().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_half_used_connection() {
    let shop = Shop::open().await;
    let batch = [shop.order(1, "ann", "a", &[(1, 1)])];
    let mut holder = shop.pg.begin().await.unwrap();
    sql::sales::lock(&mut holder, shop.sale).await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(200), shop.record(&batch)).await;
    assert!(given_up.is_err());
    assert_eq!(shop.ledger.pool.size(), 0);
    holder.rollback().await.unwrap();
    assert_eq!(shop.record(&batch).await, [Verdict::Confirmed]);
    assert_eq!(shop.sold().await, [1, 0]);
}
#[tokio::test]
async fn a_batch_is_recorded_on_the_connection_that_was_reached() {
    let shop = Shop::open().await;
    let only_one = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_millis(200));
    let ledger = Ledger::new(only_one.connect(&shop.url).await.unwrap());
    let reached = ledger.reached().await.unwrap();
    let batch = [shop.order(1, "ann", "a", &[(1, 1)])];
    let elsewhere = ledger.record(shop.sale, Epoch(1), &batch, None).await;
    assert!(matches!(elsewhere, Err(LedgerError::Away(_))), "{elsewhere:?}");
    let here = ledger.record(shop.sale, Epoch(1), &batch, Some(reached)).await.unwrap();
    assert_eq!(here, [Verdict::Confirmed]);
    shop.audit().await;
}

/// Without statistics PostgreSQL would rather read all orders of the sale, for every batch anew.
#[tokio::test]
async fn a_batch_reads_only_what_it_touches() {
    let shop = Shop::open().await;
    let many = "ALTER TABLE orders SET (autovacuum_enabled = off);
        ALTER TABLE order_items SET (autovacuum_enabled = off);
        INSERT INTO orders (id, sale_id, user_id, idempotency_key, fingerprint, epoch, seq, status, total, created_at)
            SELECT ('00000000-0000-8000-8000-' || lpad(to_hex(n), 4, '0') || '00000100')::uuid, 1, 'u' || n, 'a', '1', 0, n, 'Confirmed', 1, now()
            FROM generate_series(1, 20000) AS n;
        INSERT INTO order_items SELECT id, 1, 1, 250 FROM orders;";
    sqlx::raw_sql(many).execute(&shop.pg).await.unwrap();
    let batch: Vec<_> =
        (1..=100).map(|n| order(shop.sale, n, &format!("u{}", n * 7), "a", &[(1, 1)])).collect();
    let batch: Vec<_> = batch.iter().collect();
    let mut prepared = uncommitted(&shop.ledger, shop.sale, &batch).await;
    let read: i64 = sqlx::query_scalar(
        "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables
         WHERE relname IN ('orders', 'order_items')",
    )
    .fetch_one(prepared.session.conn())
    .await
    .unwrap();
    assert!((200..=1_000).contains(&read), "{read} rows read for 100 orders");
    let duplicates = prepared.decisions.iter().filter(|decision| {
        matches!(decision.verdict, Verdict::Failed { reason: FailureReason::Duplicate, .. })
    });
    assert_eq!(duplicates.count(), 100);
}
