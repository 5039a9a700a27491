//! The ledger on a real PostgreSQL.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::{PgPool, Row};

use super::*;
use crate::{
    Created, NewProduct, NewSale,
    money::Money,
    order::{Fingerprint, OrderState},
    queue::{Entry, QueuedLine},
    sale::Seq,
    sql::dead_letters::{self, Resolution},
    test_support::database,
};

pub(super) fn product(id: i64) -> ProductId {
    id.try_into().unwrap()
}

/// An order of epoch 1, each unit at 2.50.
pub(crate) fn order(sale: SaleId, seq: i64, user: &str, key: &str, lines: &[(i64, u32)]) -> QueuedOrder {
    let line = |&(id, quantity): &(i64, u32)| QueuedLine { product: product(id), quantity, unit_price: 250 };
    QueuedOrder {
        id: OrderId::new(sale),
        seq: Seq(seq),
        epoch: Epoch(1),
        user: user.parse().unwrap(),
        key: key.parse().unwrap(),
        fingerprint: Fingerprint::from_store(&format!("1{seq:016x}")),
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
        ("order", order.id.to_string()),
        ("seq", order.seq.to_string()),
        ("epoch", order.epoch.to_string()),
        ("user", order.user.to_string()),
        ("key", order.key.to_string()),
        ("fingerprint", order.fingerprint.as_str().to_owned()),
        ("at", order.admitted_at.timestamp_millis().to_string()),
        ("lines", lines.join(",")),
    ];
    let fields = fields.into_iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value.into_bytes()]);
    let entry = Entry { id: format!("{}-0", order.seq), fields: fields.collect() };
    assert_eq!(entry.decode(order.id.sale()), Ok(order.clone()));
    Decoded { entry, order }
}

fn failed(reason: FailureReason) -> Verdict {
    Verdict::Failed { reason, key_holder: None }
}

fn recorded<const N: usize>(verdicts: [Verdict; N]) -> Recorded {
    Recorded { verdicts: verdicts.into(), distrust: false }
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
        let Created::New(sale) = sql::new_sale::create_sale(&pg, &new_sale()).await.unwrap() else {
            panic!("an empty database has no sale")
        };
        assert_eq!(sql::sales::raise_epoch(&pg, sale).await.unwrap(), Epoch(1));
        assert!(sql::sales::set_loaded_epoch(&pg, sale, Epoch(1)).await.unwrap());
        let ledger = Ledger::new(drain_pool(&url).unwrap());
        Self { pg, url, ledger, sale }
    }

    fn order(&self, seq: i64, user: &str, key: &str, lines: &[(i64, u32)]) -> Decoded {
        queued(order(self.sale, seq, user, key, lines))
    }

    async fn record(&self, batch: &[Decoded]) -> Recorded {
        self.ledger.record(self.sale, Epoch(1), batch).await.unwrap()
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
    let key_holder = Some((first.id, first.fingerprint.clone()));
    let duplicate = Verdict::Failed { reason: FailureReason::Duplicate, key_holder };
    let expected = Recorded {
        verdicts: vec![
            failed(FailureReason::SoldOut),
            Verdict::Confirmed,
            failed(FailureReason::OverQuota),
            failed(FailureReason::UnknownProduct),
            duplicate,
        ],
        distrust: true,
    };
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
        let refused = shop.ledger.record(shop.sale, epoch, &batch).await;
        assert!(matches!(refused, Err(LedgerError::Fenced { epoch: Epoch(1) })), "{refused:?}");
        let refused = shop.ledger.park(shop.sale, epoch, &batch[0].entry, "why").await;
        assert!(matches!(refused, Err(LedgerError::Fenced { .. })), "{refused:?}");
    }
    let nowhere = SaleId::try_from(99).unwrap();
    assert!(matches!(shop.ledger.record(nowhere, Epoch(1), &batch).await, Err(LedgerError::Fenced { .. })));
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 0);
    assert_eq!(shop.count("SELECT count(*) FROM dead_letters").await, 0);
    assert_eq!(shop.sold().await, [0, 0]);
}

#[tokio::test]
async fn a_batch_that_was_not_committed_is_not_there() {
    let shop = Shop::open().await;
    let batch = [shop.order(1, "ann", "a", &[(1, 1)])];
    let prepared =
        shop.ledger.prepare(shop.sale, Epoch(1), &[&batch[0].order], decide::decide).await.unwrap();
    drop(prepared);
    assert_eq!(shop.record(&batch).await, recorded([Verdict::Confirmed]));
    assert_eq!(shop.sold().await, [1, 0]);
    // Committed, but nobody was told.
    let batch = [shop.order(2, "ann", "b", &[(1, 1)])];
    let prepared =
        shop.ledger.prepare(shop.sale, Epoch(1), &[&batch[0].order], decide::decide).await.unwrap();
    drop(prepared.commit().await.unwrap());
    assert_eq!(shop.record(&batch).await, recorded([Verdict::Confirmed]));
    assert_eq!(shop.sold().await, [2, 0]);
    shop.audit().await;
}

#[tokio::test]
async fn one_order_that_the_database_refuses_fails_alone() {
    let shop = Shop::open().await;
    shop.refuse("order_items").await;
    let users = ["ann", "bob", "evil", "cid", "dan", "eve", "evil"];
    let batch: Vec<_> = (1..).zip(users).map(|(seq, user)| shop.order(seq, user, "a", &[(1, 1)])).collect();
    let outcome = shop.record(&batch).await;
    let evil = &batch[2].order;
    let expected = [
        Verdict::Confirmed,
        Verdict::Confirmed,
        failed(FailureReason::Rejected),
        Verdict::Confirmed,
        Verdict::Confirmed,
        Verdict::Confirmed,
        Verdict::Failed {
            reason: FailureReason::Duplicate,
            key_holder: Some((evil.id, evil.fingerprint.clone())),
        },
    ];
    assert_eq!(outcome, recorded(expected.clone()));
    assert_eq!(shop.record(&batch).await, recorded(expected));
    assert_eq!(shop.sold().await, [5, 0]);
    shop.audit().await;
}

#[tokio::test]
async fn an_order_that_cannot_even_fail_is_parked() {
    let shop = Shop::open().await;
    shop.refuse("orders").await;
    let batch = [
        shop.order(1, "ann", "a", &[(1, 1)]),
        shop.order(2, "evil", "a", &[(1, 1)]),
        shop.order(3, "bob", "a", &[(1, 1)]),
    ];
    let expected = || recorded([Verdict::Confirmed, Verdict::Parked, Verdict::Confirmed]);
    assert_eq!(shop.record(&batch).await, expected());
    assert_eq!(shop.record(&batch).await, expected());
    let letters = dead_letters::list(&shop.pg).await.unwrap();
    let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
    assert_eq!((letter.order, &letter.entry), (Some(batch[1].order.id), &batch[1].entry));
    assert!(letter.reason.contains("not for this user"), "{}", letter.reason);
    let status = sql::status_of(&shop.pg, batch[1].order.id).await.unwrap().unwrap();
    assert_eq!(status.state, OrderState::Processing);

    // Refused still: it stays parked. Without the trigger it ends.
    let end = |how| shop.ledger.end_parked(shop.sale, Epoch(1), letter.id, &batch[1].order, how);
    assert_eq!(end(Resolution::Replayed).await.unwrap(), Some(Verdict::Parked));
    assert_eq!(dead_letters::unfinished(&shop.pg).await.unwrap().len(), 0);
    sqlx::raw_sql("DROP TRIGGER refuse ON orders").execute(&shop.pg).await.unwrap();
    assert_eq!(end(Resolution::Replayed).await.unwrap(), Some(Verdict::Confirmed));
    // The first ending stands, also after the letter is gone.
    assert_eq!(end(Resolution::Discarded).await.unwrap(), Some(Verdict::Confirmed));
    let unfinished = dead_letters::unfinished(&shop.pg).await.unwrap();
    assert_eq!(unfinished[0].resolved, Some(Resolution::Replayed));
    dead_letters::finish_dead_letter(&shop.pg, letter.id).await.unwrap();
    assert_eq!(end(Resolution::Discarded).await.unwrap(), Some(Verdict::Confirmed));
    assert_eq!(shop.sold().await, [3, 0]);
    shop.audit().await;
}

#[tokio::test]
async fn a_value_that_the_database_cannot_hold_is_parked() {
    let shop = Shop::open().await;
    let mut early = order(shop.sale, 1, "ann", "a", &[(1, 1)]);
    // Before PostgreSQL's calendar begins.
    early.admitted_at = DateTime::from_timestamp_millis(-300_000_000_000_000).unwrap();
    let batch = [queued(early), shop.order(2, "bob", "a", &[(1, 1)])];
    assert_eq!(shop.record(&batch).await, recorded([Verdict::Parked, Verdict::Confirmed]));
    shop.audit().await;
}

#[tokio::test]
async fn a_discarded_order_fails_and_keeps_its_units_out() {
    let shop = Shop::open().await;
    let parked = shop.order(1, "ann", "a", &[(1, 1)]);
    assert_eq!(
        shop.ledger.park(shop.sale, Epoch(1), &parked.entry, "nul\0s").await.unwrap(),
        Verdict::Parked
    );
    let letter = dead_letters::list(&shop.pg).await.unwrap().remove(0);
    assert_eq!(letter.reason, "nuls");
    assert!(letter.parked_at <= Utc::now() && letter.sale == shop.sale);
    let end = |id| shop.ledger.end_parked(shop.sale, Epoch(1), id, &parked.order, Resolution::Discarded);
    assert_eq!(end(letter.id + 1).await.unwrap(), None);
    assert_eq!(end(letter.id).await.unwrap(), Some(failed(FailureReason::Discarded)));
    // The entry that comes again is settled, not parked.
    let again = shop.ledger.park(shop.sale, Epoch(1), &parked.entry, "again").await.unwrap();
    assert_eq!(again, failed(FailureReason::Discarded));
    assert_eq!(shop.sold().await, [0, 0]);
    let order = sql::history::order(&shop.pg, parked.order.id).await.unwrap().unwrap();
    assert_eq!((order.lines.len(), order.failure), (1, Some(FailureReason::Discarded)));
}

#[tokio::test]
async fn garbage_is_parked_once_and_stays_discarded() {
    let shop = Shop::open().await;
    let other_sale = OrderId::new(SaleId::try_from(7).unwrap()).to_string();
    let garbage = [
        Entry { id: "1-0".to_owned(), fields: vec![b"\0\xff".to_vec(), b"x".to_vec()] },
        Entry { id: "2-0".to_owned(), fields: vec![b"order".to_vec(), other_sale.into_bytes()] },
        Entry { id: "2-0".to_owned(), fields: vec![] },
    ];
    let park = || async {
        for entry in &garbage {
            let verdict = shop.ledger.park(shop.sale, Epoch(1), entry, "garbage").await.unwrap();
            assert_eq!(verdict, Verdict::Parked);
        }
        dead_letters::list(&shop.pg).await.unwrap()
    };
    let letters = park().await;
    assert_eq!(
        letters.iter().map(|letter| &letter.entry).collect::<Vec<_>>(),
        garbage.iter().collect::<Vec<_>>()
    );
    assert!(letters.iter().all(|letter| letter.order.is_none()));
    assert!(dead_letters::discard_garbage(&shop.pg, letters[0].id).await.unwrap());
    let resolved: Vec<_> = park().await.iter().map(|letter| letter.resolved).collect();
    assert_eq!(resolved, [Some(Resolution::Discarded), None, None]);
}

#[tokio::test]
async fn two_ledgers_never_oversell() {
    let shop = Shop::open().await;
    let other = Ledger::new(drain_pool(&shop.url).unwrap());
    let batch = |ledger: usize, round: usize| -> Vec<Decoded> {
        let user = |place: usize| format!("u{ledger}-{round}-{place}");
        let seq = |place: usize| i64::try_from(ledger * 1000 + round * 10 + place).unwrap();
        (0..3).map(|place| shop.order(seq(place), &user(place), "a", &[(1, 1)])).collect()
    };
    let sell = async |ledger: &Ledger, number| {
        let mut confirmed = 0;
        for round in 0..5 {
            let outcome = ledger.record(shop.sale, Epoch(1), &batch(number, round)).await.unwrap();
            confirmed += outcome.verdicts.iter().filter(|verdict| **verdict == Verdict::Confirmed).count();
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
    let outcome = shop.ledger.record(shop.sale, Epoch(1), &batch).await;
    assert!(matches!(outcome, Err(LedgerError::Away(_))), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    holder.rollback().await.unwrap();
    assert_eq!(shop.record(&batch).await, recorded([Verdict::Confirmed]));
}

/// A worker that is stopped inside its transaction holds the sale's row; the server ends its session.
#[tokio::test]
async fn a_stopped_worker_is_taken_over() {
    let shop = Shop::open().await;
    let batch = [shop.order(1, "ann", "a", &[(1, 1)])];
    let stopped = Ledger::new(drain_pool(&shop.url).unwrap());
    let prepared = stopped.prepare(shop.sale, Epoch(1), &[&batch[0].order], decide::decide).await.unwrap();
    // Waits for the row until the server has ended that session after two seconds, and gets it.
    assert_eq!(shop.record(&batch).await, recorded([Verdict::Confirmed]));
    let late = prepared.commit().await;
    assert!(matches!(late, Err(Failure::Away(_))), "{late:?}");
    assert_eq!(shop.sold().await, [1, 0]);
    // The pool does not hand the dead connection out again.
    assert_eq!(stopped.record(shop.sale, Epoch(1), &batch).await.unwrap(), recorded([Verdict::Confirmed]));
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
    assert_eq!(shop.record(&batch).await, recorded([Verdict::Confirmed]));
    assert_eq!(shop.sold().await, [1, 0]);
}
