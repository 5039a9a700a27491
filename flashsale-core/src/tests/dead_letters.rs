//! What cannot be decided is parked, the others go on, and an operator ends it once.

use super::{audit::blamed, by_hand::*, *};
use crate::{
    DeadLetter, Ended, FailureReason, Invariant, OrderState, keys::book_quota, sale::Epoch, scripts,
    sql as statements, sql::dead_letters::Resolution,
};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Puts a damaged copy of the last queue entry in its place. Returns the copy's id.
async fn damage_last(shop: &Shop, damage: impl Fn(&str, &mut Vec<u8>)) -> String {
    let queue = shop.keys().queue;
    let last: Vec<(String, Fields)> = shop.redis(&["XREVRANGE", &queue, "+", "-", "COUNT", "1"]).await;
    let (entry, mut fields) = last.into_iter().next().expect("a queued order");
    for (name, value) in &mut fields {
        damage(std::str::from_utf8(name).unwrap(), value);
    }
    let _: i64 = shop.redis(&["XDEL", &queue, &entry]).await;
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
    add_entry(shop, &fields).await
}

/// Replaces one field's value.
async fn damage_field(shop: &Shop, field: &'static str, value: &'static [u8]) -> String {
    damage_last(shop, |name, stands| {
        if name == field {
            value.clone_into(stands);
        }
    })
    .await
}

async fn letters(shop: &Shop) -> Vec<DeadLetter> {
    shop.engine.operator().dead_letters().await.unwrap()
}

async fn only_letter(shop: &Shop) -> DeadLetter {
    let mut letters = letters(shop).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    letters.remove(0)
}

/// An order of two units whose price cannot be read, parked by a drainer; eight units are left.
async fn damaged_order() -> (Shop, OrderId, i64) {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    let lines = format!("{}:2:free", shop.products[0]);
    damage_last(&shop, |name, value| {
        if name == "lines" {
            *value = lines.clone().into_bytes();
        }
    })
    .await;
    shop.drain().await;
    let letter = only_letter(&shop).await;
    assert_eq!(letter.order, Some(id));
    (shop, id, letter.id)
}

/// How a parked order failed by an operator's word; its units and its quota are free again.
async fn assert_discarded(shop: &Shop, id: OrderId) {
    let status = shop.engine.order_status(id).await.unwrap().unwrap();
    assert_eq!((status.state, status.failure), (OrderState::Failed, Some(FailureReason::Discarded)));
    assert_eq!((shop.left(0).await, recorded(shop).await), (10, vec![0]));
    assert_eq!(letters(shop).await.len(), 0);
    shop.assert_sound().await;
    admitted(shop.buy("ann", "again", &[(0, 3)]).await);
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_parked_and_the_others_go_on() {
    let shop = Shop::open(&[(10, 3)]).await;
    let first = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let other_sale = OrderId::new(SaleId::try_from(i64::from(SaleId::MAX)).unwrap()).to_string();
    let huge = vec![b'x'; 1 << 20];
    let garbage: [&[(&[u8], &[u8])]; 6] = [
        &[(b"hello", b"world")],
        &[(b"order", b"not an id"), (b"user", b"ann")],
        &[(b"order", b"a\0b"), (b"\0", b"\0\xff\xfe")],
        &[(b"order", &huge)],
        &[(b"lines", &huge), (b"user", &huge)],
        &[(b"", b"")],
    ];
    for fields in garbage {
        add_entry(&shop, fields).await;
    }
    let second = admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    let mut drainer = shop.engine.drainer();
    let done = drainer.drain_once(shop.sale).await.unwrap();
    assert_eq!((done.read, done.confirmed, done.parked), (8, 2, 6));
    for id in [first, second] {
        assert_eq!(state(&shop, id).await, OrderState::Confirmed);
    }
    assert_eq!(drainer.drain_once(shop.sale).await.unwrap().read, 0);
    assert_eq!(letters(&shop).await.len(), 6);
    assert!(letters(&shop).await.iter().all(|letter| letter.order.is_none()));
    shop.assert_sound().await;
    // None of it names an order, so nothing has to be recovered for it.
    for letter in letters(&shop).await {
        let refused = shop.engine.operator().replay(letter.id).await.unwrap_err().to_string();
        assert!(refused.contains("dead-letters discard"), "{refused}");
        assert_eq!(shop.engine.operator().discard(letter.id).await.unwrap(), Ended::Dropped);
    }
    assert_eq!(letters(&shop).await.len(), 0);
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(epoch(&shop).await, Epoch(1));
    shop.assert_sound().await;

    // An order of another sale is none of this one's, and shows that something is wrong.
    add_entry(&shop, &[(b"order", other_sale.as_bytes())]).await;
    shop.drain().await;
    let letter = only_letter(&shop).await;
    assert_eq!(letter.order, None);
    shop.engine.operator().discard(letter.id).await.unwrap();
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(epoch(&shop).await, Epoch(2));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_cannot_be_decoded_is_parked_and_keeps_its_units() {
    let cases: [(&str, &[u8]); 3] = [("epoch", b""), ("epoch", b"9223372036854775808"), ("seq", b"1st")];
    for (field, value) in cases {
        let shop = Shop::open(&[(10, 3)]).await;
        let before = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
        let broken = admitted(shop.buy("bob", "k", &[(0, 2)]).await);
        let entry = damage_field(&shop, field, value).await;
        let after = admitted(shop.buy("cat", "k", &[(0, 1)]).await);
        shop.drain().await;
        for id in [before, after] {
            assert_eq!(state(&shop, id).await, OrderState::Confirmed);
        }
        assert_eq!(state(&shop, broken).await, OrderState::Processing);
        let letter = only_letter(&shop).await;
        assert_eq!((letter.order, &letter.entry_id), (Some(broken), &entry));
        assert!(letter.reason.contains(field), "{}", letter.reason);
        assert_eq!(shop.left(0).await, 6);
        if field != "seq" {
            shop.assert_sound().await;
        }
        assert!(shop.engine.operator().replay(letter.id).await.is_err());
        shop.engine.operator().discard(letter.id).await.unwrap();
        kept_open(&shop).await;
        assert_eq!(shop.left(0).await, 8);
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discarding_gives_back_once() {
    let (shop, id, letter) = damaged_order().await;
    let operator = shop.engine.operator();
    assert_eq!(shop.left(0).await, 8);
    let quota: String = shop.book("HGET", &[&quota_of_ann(&shop)]).await;
    assert_eq!(quota, "2");
    shop.assert_sound().await;
    let refused = operator.replay(letter).await.unwrap_err().to_string();
    assert!(refused.contains("price that cannot be read") && refused.contains("discard"), "{refused}");
    assert_eq!(operator.discard(letter).await.unwrap(), Ended::Failed(FailureReason::Discarded));
    for _ in 0..2 {
        assert!(operator.discard(letter).await.unwrap_err().is_not_found());
    }
    assert_discarded(&shop, id).await;
}

fn quota_of_ann(shop: &Shop) -> Vec<u8> {
    book_quota(&user("ann"), shop.products[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaying_decides_anew() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = parked_order(&shop, "ann").await;
    let letter = only_letter(&shop).await;
    let shown = |name: &str| letter.fields.iter().find(|(field, _)| field == name).map(|(_, value)| &**value);
    assert_eq!(
        [shown("order"), shown("key"), shown("user")],
        [Some(&*id.to_string()), Some("k"), Some("ann")]
    );
    assert_eq!(state(&shop, id).await, OrderState::Processing);
    assert_eq!(shop.buy("ann", "k", &[(0, 2)]).await.unwrap(), Admission::Replayed(id));
    shop.assert_sound().await;
    let operator = shop.engine.operator();
    assert_eq!(operator.replay(letter.id).await.unwrap(), Ended::Confirmed);
    assert!(operator.replay(letter.id).await.unwrap_err().is_not_found());
    assert!(operator.discard(letter.id).await.unwrap_err().is_not_found());
    assert_eq!(state(&shop, id).await, OrderState::Confirmed);
    assert_eq!((shop.left(0).await, recorded(&shop).await), (8, vec![2]));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ending_killed_before_redis_was_told_is_finished_by_a_keeper() {
    for how in [Resolution::Replayed, Resolution::Discarded] {
        let shop = Shop::open(&[(10, 3)]).await;
        let id = parked_order(&shop, "ann").await;
        let stored = statements::dead_letters::letter(&shop.stores().pg, only_letter(&shop).await.id);
        let stored = stored.await.unwrap().unwrap();
        let order = stored.entry.decode(shop.sale).unwrap();
        let ledger = &shop.stores().ledger;
        ledger.end_parked(shop.sale, Epoch(1), stored.id, &order, how, "ann").await.unwrap().unwrap();
        // Killed here.
        assert_eq!(state(&shop, id).await, OrderState::Processing);
        assert_eq!(only_letter(&shop).await.resolved, Some(how.as_str()));
        shop.assert_sound().await;
        shop.keeper().keep_once().await.unwrap();
        if how == Resolution::Discarded {
            assert_discarded(&shop, id).await;
        } else {
            assert_eq!(letters(&shop).await.len(), 0);
            assert_eq!((state(&shop, id).await, shop.left(0).await), (OrderState::Confirmed, 8));
            shop.assert_sound().await;
        }
    }
}

/// The same, but Redis is recovered before the keeper comes to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ending_that_a_recovery_overtakes_is_ended_once() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = parked_order(&shop, "ann").await;
    let letter = only_letter(&shop).await.id;
    let stored = statements::dead_letters::letter(&shop.stores().pg, letter).await.unwrap().unwrap();
    let order = stored.entry.decode(shop.sale).unwrap();
    let ledger = &shop.stores().ledger;
    ledger
        .end_parked(shop.sale, Epoch(1), letter, &order, Resolution::Discarded, "ann")
        .await
        .unwrap()
        .unwrap();
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    assert_eq!(shop.left(0).await, 10);
    shop.keeper().keep_once().await.unwrap();
    assert_discarded(&shop, id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_at_once_end_it_once() {
    for round in 0..5 {
        let shop = Shop::open(&[(10, 3)]).await;
        let id = parked_order(&shop, "ann").await;
        let letter = only_letter(&shop).await.id;
        let (one, two) = (shop.engine.operator(), shop.another().await.operator());
        let (replayed, discarded) = tokio::join!(one.replay(letter), two.discard(letter));
        // One word stands, and who comes too late gets to hear it, or that there is nothing left to end.
        let words: Vec<_> = [replayed, discarded]
            .into_iter()
            .filter_map(|end| match end {
                Ok(ended) => Some(ended),
                Err(error) if error.is_not_found() => None,
                Err(error) => panic!("round {round}: {error}"),
            })
            .collect();
        assert!(!words.is_empty() && words.iter().all(|word| *word == words[0]), "{words:?}");
        let (expected, left) = match words[0] {
            Ended::Confirmed => (OrderState::Confirmed, 8),
            _ => (OrderState::Failed, 10),
        };
        assert_eq!((state(&shop, id).await, shop.left(0).await), (expected, left));
        assert_eq!(letters(&shop).await.len(), 0);
        shop.assert_sound().await;
    }
}

/// What an order took cannot be guessed, and one that nobody can read must not keep everybody from buying: it
/// is parked, its buyer sees what was shown before, and a load gives its units back, for it can only fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_order_is_parked_by_a_load_which_goes_on() {
    for parked_before in [false, true] {
        let shop = Shop::open(&[(10, 3)]).await;
        let kept = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
        let damaged = admitted(shop.buy("bob", "k", &[(0, 2)]).await);
        damage_field(&shop, "lines", b"one of each").await;
        if parked_before {
            shop.drain().await;
            assert_eq!(state(&shop, damaged).await, OrderState::Processing);
        }
        let dry_run = shop.engine.operator().recover_dry_run(shop.sale, |_| {}).await.unwrap();
        let says = dry_run.lines.iter().any(|line| line.contains("cannot be read (field \"lines\""));
        assert_eq!(says, !parked_before, "{dry_run:?}");
        for _ in 0..2 {
            shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
            assert_eq!(only_letter(&shop).await.order, Some(damaged));
            assert_eq!(state(&shop, damaged).await, OrderState::Processing);
            assert_eq!(shop.left(0).await, 9);
        }
        assert_eq!(shop.buy("bob", "k", &[(0, 2)]).await.unwrap(), Admission::Replayed(damaged));
        shop.drain().await;
        assert_eq!(state(&shop, kept).await, OrderState::Confirmed);
        let letter = only_letter(&shop).await;
        assert_eq!(blamed(&shop.audit().await), [Invariant::I4], "what it held is not known");
        let discarded = Ended::Failed(crate::FailureReason::Discarded);
        assert_eq!(shop.engine.operator().discard(letter.id).await.unwrap(), discarded);
        // The order is recorded and shown as before until the recovery that was requested.
        shop.assert_sound().await;
        shop.keeper().keep_once().await.unwrap();
        assert_eq!(letters(&shop).await.len(), 0);
        assert_eq!(state(&shop, damaged).await, OrderState::Failed);
        assert_eq!((shop.left(0).await, recorded(&shop).await), (9, vec![1]));
        shop.assert_sound().await;
    }
}

/// The same where only the order's id can be read, and where not even that can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_goes_on_without_what_is_not_even_a_claim() {
    let shop = Shop::open(&[(10, 3)]).await;
    let damaged = admitted(shop.buy("bob", "k", &[(0, 2)]).await);
    damage_field(&shop, "user", b"bob\0").await;
    add_entry(&shop, &[(b"hello", b"world")]).await;
    for _ in 0..2 {
        shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
        assert_eq!(shop.left(0).await, 10);
        assert_eq!(state(&shop, damaged).await, OrderState::Processing);
        assert_eq!(letters(&shop).await.len(), 2);
        assert_eq!(shop.redis::<u64>(&["XLEN", &shop.keys().queue]).await, 0);
    }
    for letter in letters(&shop).await {
        assert_eq!(shop.engine.operator().discard(letter.id).await.unwrap(), Ended::Dropped);
    }
    shop.assert_sound().await;
    shop.keeper().keep_once().await.unwrap();
    assert_eq!((letters(&shop).await.len(), shop.left(0).await), (0, 10));
    shop.assert_sound().await;
}

/// Recovered before it is parked, it would be taken for an order that Redis had admitted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_without_a_state_is_parked_before_a_recovery_is_requested() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    let _: i64 = shop.book("HDEL", &[&crate::keys::book_order(id)]).await;
    let (mut drainer, mut keeper) = (shop.engine.drainer(), shop.keeper());
    let entries = drainer.read(shop.sale).await.unwrap();
    let mut batch = drainer.begin(shop.sale, entries).await.unwrap();
    keeper.keep_once().await.unwrap();
    assert_eq!(epoch(&shop).await, Epoch(1), "nothing was requested yet");
    drainer.record(shop.sale, &mut batch).await.unwrap();
    assert_eq!(only_letter(&shop).await.order, Some(id));
    // Also if the drainer dies now, or is overtaken.
    keeper.keep_once().await.unwrap();
    assert_eq!(epoch(&shop).await, Epoch(2));
    assert!(drainer.settle(shop.sale, batch).await.unwrap_err().is_fenced());
    shop.drain().await;
    assert_eq!(shop.redis::<u64>(&["XLEN", &shop.keys().queue]).await, 0);
    assert_eq!((state(&shop, id).await, shop.left(0).await), (OrderState::Processing, 8));
    shop.assert_sound().await;
    let letter = only_letter(&shop).await;
    assert_eq!(shop.engine.operator().replay(letter.id).await.unwrap(), Ended::Confirmed);
    shop.assert_sound().await;
}

/// While it is open, discarding it frees its units by a recovery from the record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_order_that_is_discarded_gives_back_by_a_recovery() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("bob", "k", &[(0, 2)]).await);
    damage_field(&shop, "lines", b"one of each").await;
    shop.drain().await;
    let letter = only_letter(&shop).await;
    let discarded = Ended::Failed(crate::FailureReason::Discarded);
    for _ in 0..2 {
        assert_eq!(shop.engine.operator().discard(letter.id).await.unwrap(), discarded);
    }
    for _ in 0..2 {
        shop.keeper().keep_once().await.unwrap();
        assert_eq!((epoch(&shop).await, shop.left(0).await), (Epoch(2), 10));
    }
    assert!(shop.engine.operator().discard(letter.id).await.unwrap_err().is_not_found());
    let seen =
        scripts::look(&shop.stores().link, &shop.keys(), &[book_quota(&user("bob"), shop.products[0])])
            .await
            .unwrap();
    assert_eq!(seen.sale.unwrap().book, [b""]);
    // The client was told 202, so the order must end, not be forgotten.
    let status = shop.engine.order_status(id).await.unwrap().unwrap();
    assert_eq!(
        (status.state, status.failure),
        (crate::OrderState::Failed, Some(crate::FailureReason::Discarded))
    );
    shop.assert_sound().await;
}
