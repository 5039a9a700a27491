//! What needs a Redis of its own, because it concerns the whole server.

use std::time::Duration;

use flashsale_stack::{Stack, StackOptions};
use redis::Value;

use super::scene::{EPOCH, SEQ, Scene, error_text, fingerprint, server};
use crate::{
    FailureReason, Items, Quantity, cart,
    link::CallError,
    queue::{Entry, Holding, Verdict},
    sale::{Epoch, SaleState},
    scripts::{
        Answer, Begun, LoadStep, Reservation, Reserved, Settled, Settlement, audit, begin, carry_state,
        leave, load_start, load_step, look, purge, rate_limit, read_cart, remove_from_cart, reserve,
        set_in_cart, settle,
    },
};

async fn redis(scene: &Scene, words: &[&str]) -> Value {
    scene.link.query(redis::cmd(words[0]).arg(&words[1..])).await.unwrap()
}

async fn buy(scene: &Scene, order: &Reservation) -> Result<Vec<Answer>, CallError> {
    let deadline = Duration::from_secs(20);
    match reserve(&scene.link, &scene.keys, EPOCH, SEQ, i64::MAX, &[order], deadline).await? {
        Reserved::Decided { answers, .. } => Ok(answers),
        Reserved::Late { .. } => panic!("in time"),
    }
}

fn order(scene: &Scene, name: &str) -> Reservation {
    let line = ("1".parse().unwrap(), Quantity::try_from(2).unwrap());
    Reservation {
        id: scene.order(name),
        user: "ann".parse().unwrap(),
        key: name.parse().unwrap(),
        fingerprint: fingerprint("$1"),
        items: Items::merge([line]).unwrap(),
        request_id: None,
    }
}

#[tokio::test]
async fn a_forgotten_script_is_loaded_again() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let scene = Scene::open_on(stack.redis_url()).await;
    for flushed in ["before the first call", "and once more"] {
        redis(&scene, &["SCRIPT", "FLUSH"]).await;
        let answer = buy(&scene, &order(&scene, "@A")).await.unwrap();
        assert!(matches!(answer[..], [Answer::Admitted | Answer::Replayed(_)]), "{flushed}: {answer:?}");
    }
    assert!(scene.state().await.contains("stock 1 8"));
    stack.stop().await;
}

/// A full Redis refuses what takes memory as a whole, and lets everything run that frees some.
#[tokio::test]
async fn a_full_redis_sells_nothing_and_drains() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let scene = Scene::open_on(stack.redis_url()).await;
    let (link, keys) = (&scene.link, &scene.keys);
    assert_eq!(buy(&scene, &order(&scene, "@A")).await.unwrap(), [Answer::Admitted]);
    let address = "2001:db8::1".parse().unwrap();
    rate_limit(link, address, 9, Duration::from_mins(1)).await.unwrap();
    redis(&scene, &["CONFIG", "SET", "maxmemory", "1"]).await;

    let before = scene.state().await;
    assert_full(&buy(&scene, &order(&scene, "@B")).await);
    assert_full(&rate_limit(link, address, 9, Duration::from_mins(1)).await);
    let (user, usd) = ("ann".parse().unwrap(), "USD".parse().unwrap());
    let (product, one) = ("1".parse().unwrap(), Quantity::try_from(1).unwrap());
    assert_full(&set_in_cart(link, &user, product, one, usd, Duration::from_mins(1)).await);
    assert!(read_cart(link, &user).await.is_ok(), "a cart can still be read");
    remove_from_cart(link, &user, product, Duration::from_mins(1)).await.unwrap();
    assert_eq!(scene.state().await, before);

    assert_eq!(look(link, keys, &[]).await.unwrap().sale.unwrap().seq.get(), 5);
    let entries: Vec<Entry> = audit(link, keys, EPOCH, &[], &[])
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|(entry, _)| entry)
        .collect();
    assert_eq!(begin(link, keys, EPOCH, &entries).await.unwrap(), [Begun::Processing]);
    let holding: Holding = entries[0].holding(scene.sale).unwrap();
    let verdict = Verdict::Failed { reason: FailureReason::Rejected, key_holder: None };
    let settlement = Settlement { entry: entries[0].clone(), holding: Some(holding), verdict };
    let settled = settle(link, keys, EPOCH, &[settlement]).await.unwrap();
    assert_eq!(settled, Settled { missing: vec![], given_back: 1 });
    assert!(scene.state().await.contains("stock 1 10"));
    leave(link, keys, "nobody").await.unwrap();
    carry_state(link, keys, EPOCH, SaleState::Paused, 1, 2).await.unwrap();

    let fields = |text: &str| vec![(b"1".to_vec(), text.as_bytes().to_vec())];
    load_start(link, keys, Epoch(8), "t", &server(link, keys).await).await.unwrap();
    let steps = [
        LoadStep::Clear,
        LoadStep::Fields("stock", &fields("10")),
        LoadStep::Fields("product", &fields("3:1000")),
        LoadStep::Queue(&[]),
        LoadStep::Open { state: SaleState::Closed, starts_ms: 1, ends_ms: 2, seq: SEQ },
    ];
    for (number, step) in (1..).zip(&steps) {
        load_step(link, keys, Epoch(8), "t", number, step).await.unwrap();
    }
    assert!(purge(link, keys, Epoch(8)).await.unwrap());
    assert!(scene.state().await.is_empty());
    stack.stop().await;
}

fn assert_full<T: std::fmt::Debug>(answer: &Result<T, CallError>) {
    match answer {
        Err(CallError::Refused(error)) => {
            assert!(error_text(error).starts_with("error OOM"), "{}", error_text(error));
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// A pipeline has no error of its own: what each of its commands was refused with tells that the server cannot
/// serve any of them.
#[tokio::test]
async fn a_demoted_redis_fails_the_call_and_loses_the_connection() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let scene = Scene::open_on(stack.redis_url()).await;
    let bought = |name: &str| Holding {
        id: scene.order("@A"),
        user: name.parse().unwrap(),
        key: "k".parse().unwrap(),
        fingerprint: fingerprint("$1"),
        seq: SEQ,
        units: vec![("1".parse().unwrap(), 1)],
    };
    let (ann, bob) = (bought("ann"), bought("bob"));
    let take = async || cart::take_bought(&scene.link, &[&ann, &bob]).await;
    take().await.unwrap();
    let connection = redis(&scene, &["CLIENT", "ID"]).await;
    redis(&scene, &["REPLICAOF", "127.0.0.1", "1"]).await;
    match take().await {
        Err(CallError::Refused(error)) => assert_eq!(error.code(), Some("READONLY")),
        other => panic!("not refused: {other:?}"),
    }
    assert_ne!(redis(&scene, &["CLIENT", "ID"]).await, connection, "the next one may lead to the master");
    redis(&scene, &["REPLICAOF", "NO", "ONE"]).await;
    take().await.unwrap();
    stack.stop().await;
}
