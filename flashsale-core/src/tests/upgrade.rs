//! A sale that processes of version 1 have left, with a backlog, is taken over.

use super::{audit::blamed, by_hand::*, *};
use crate::{Ended, Invariant, OrderState, keys::BookField, packed::BookState, queue::Entry};

const UUID: &str = "0190f5fe-7c00-7a00-8000-0000000001ab";

/// What Redis holds becomes what version 1 would have made of it: everything is text, and of an entry nothing
/// is left out.
async fn as_version_1(shop: &Shop) {
    let keys = shop.keys();
    let book: Vec<(Vec<u8>, Vec<u8>)> = shop.book("HGETALL", &[]).await;
    let _: i64 = shop.redis(&["DEL", &keys.book]).await;
    for (field, value) in book {
        let (field, value) = match BookField::read(&field, shop.sale).expect("a field of the book") {
            // It had none.
            BookField::Epoch => continue,
            BookField::Key(user, key) => (format!("k/{user}/{key}"), text_of_key(shop, &value)),
            BookField::Quota(user, product) => {
                (format!("q/{user}/{product}"), String::from_utf8(value).unwrap())
            }
            BookField::Order(id) => (format!("o/{id}"), text_of_state(&value)),
        };
        let _: i64 = shop.redis(&["HSET", &keys.book, &field, &value]).await;
    }
    let entries = crate::load::read_stream(&shop.stores().link, &keys).await.unwrap();
    let _: i64 = shop.redis(&["DEL", &keys.queue]).await;
    let _: String = shop.redis(&["XGROUP", "CREATE", &keys.queue, "drain", "0", "MKSTREAM"]).await;
    for entry in entries {
        let fields = text_of_entry(shop, &entry);
        let words = fields.iter().map(|field| std::str::from_utf8(field).unwrap());
        let add = ["XADD", &keys.queue, &entry.id].into_iter().chain(words).collect::<Vec<_>>();
        let _: String = shop.redis(&add).await;
    }
    let letters = crate::sql::dead_letters::list(&shop.stores().pg).await.unwrap();
    for letter in letters {
        sqlx::query("UPDATE dead_letters SET fields = $2 WHERE id = $1")
            .bind(letter.id)
            .bind(text_of_entry(shop, &letter.entry))
            .execute(&shop.stores().pg)
            .await
            .unwrap();
    }
    let _: i64 = shop.redis(&["HSET", &keys.sale, "version", "1"]).await;
}

fn text_of_key(shop: &Shop, value: &[u8]) -> String {
    let (id, hash) = value.split_at(12);
    let hash = u64::from_be_bytes(hash[1..].try_into().unwrap());
    format!("{} 1{hash:016x}", OrderId::unpack(id, shop.sale).unwrap())
}

fn text_of_state(value: &[u8]) -> String {
    let state = BookState::unpack(value).unwrap();
    let reason = state.failure.map_or_else(String::new, |reason| format!(" {reason}"));
    format!("{}{}{reason}", char::from(value[0]), state.since.timestamp_millis())
}

fn text_of_entry(shop: &Shop, entry: &Entry) -> Vec<Vec<u8>> {
    let order = entry.decode(shop.sale).unwrap();
    let lines = entry.fields.chunks(2).find(|pair| pair[0] == b"lines").unwrap()[1].clone();
    let fields = [
        ("order", order.id.to_string().into()),
        ("seq", order.seq.to_string().into()),
        ("epoch", order.epoch.to_string().into()),
        ("user", order.user.to_string().into()),
        ("key", order.key.to_string().into()),
        ("fingerprint", order.fingerprint.to_string().into()),
        ("at", order.admitted_at.timestamp_millis().to_string().into()),
        ("lines", lines),
    ];
    fields.into_iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_of_version_1_with_a_backlog_survives_the_upgrade() {
    let shop = Shop::open(&[(10, 3)]).await;
    let confirmed = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    shop.drain().await;
    let parked = parked_order(&shop, "bob").await;
    let queued = admitted(shop.buy("cat", UUID, &[(0, 1)]).await);
    let in_hand = admitted(shop.buy("dan", "/k", &[(0, 2)]).await);
    let entries = crate::load::read_stream(&shop.stores().link, &shop.keys()).await.unwrap();
    as_version_1(&shop).await;
    // Processes of version 1 were killed with both of them in hand.
    let mut drainer = shop.engine.drainer();
    assert_eq!(drainer.read(shop.sale).await.unwrap().len(), 2);
    drop(drainer);

    assert_fenced(&shop, "another version").await;
    assert!(shop.engine.order_status(queued).await.unwrap_err().is_fenced());
    kept_open(&shop).await;
    assert_eq!(state(&shop, confirmed).await, OrderState::Confirmed);
    for id in [parked, queued, in_hand] {
        assert_eq!(state(&shop, id).await, OrderState::Processing);
    }
    assert_eq!(shop.left(0).await, 4);
    assert_eq!(blamed(&shop.audit().await), [Invariant::I7], "all it says is that two are waiting");
    for (user, key, units, id) in [
        ("ann", "k", 1, confirmed),
        ("bob", "k", 2, parked),
        ("cat", UUID, 1, queued),
        ("dan", "/k", 2, in_hand),
    ] {
        assert_eq!(shop.buy(user, key, &[(0, units)]).await.unwrap(), Admission::Replayed(id), "{user}");
        let other = shop.buy(user, key, &[(0, 3)]).await.unwrap();
        assert_eq!(other, Admission::Refused(Refusal::KeyReused), "{user}");
    }

    shop.drain().await;
    for id in [queued, in_hand] {
        assert_eq!(state(&shop, id).await, OrderState::Confirmed);
    }
    let created_at = shop.engine.operator().order(queued).await.unwrap().created_at;
    assert!(
        entries[0].id.starts_with(&created_at.timestamp_millis().to_string()),
        "{created_at} {entries:?}"
    );
    let letter = shop.engine.operator().dead_letters().await.unwrap().remove(0);
    assert_eq!(letter.order, Some(parked));
    assert_eq!(shop.engine.operator().replay(letter.id).await.unwrap(), Ended::Confirmed);
    assert_eq!((shop.left(0).await, recorded(&shop).await), (4, vec![6]));
    shop.assert_sound().await;
}
