//! What a sale needs, by what both stores say of it.

use chrono::{DateTime, Utc};

use super::*;

const NOW_MS: i64 = 1_700_000_000_000;

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap()
}

/// A sale that is loaded, healthy and under way, by the record and by Redis.
fn healthy() -> (Sale, LookedSale) {
    let (starts_ms, ends_ms) = (NOW_MS - 1_000, NOW_MS + 1_000);
    let sale = Sale {
        id: SaleId::try_from(1).unwrap(),
        slug: "test".to_owned(),
        name: "Test".to_owned(),
        currency: "USD".parse().unwrap(),
        starts_at: at(starts_ms),
        ends_at: at(ends_ms),
        state: SaleState::Open,
        epoch: Epoch(5),
        loaded_epoch: Epoch(5),
        recorded_seq: Seq(10),
        recover_requested: Epoch(4),
        purged_at: None,
        changes_wanted: 3,
        changes_settled: 3,
        products: Vec::new(),
    };
    let redis = LookedSale {
        epoch: Epoch(5),
        state: Some(SaleState::Open),
        seq: Seq(10),
        token: String::new(),
        sound: true,
        version: scripts::VERSION,
        starts_ms,
        ends_ms,
        stock: HashMap::new(),
        changes: Some(3),
        products: 0,
        intact: true,
        book: Vec::new(),
    };
    (sale, redis)
}

type Change = fn(&mut Sale, &mut LookedSale);

fn judged(change: Change, in_redis: bool) -> String {
    let (mut sale, mut redis) = healthy();
    change(&mut sale, &mut redis);
    let seen = Look { now_ms: NOW_MS, server: String::new(), sale: in_redis.then_some(redis) };
    format!("{:?}", need(&sale, sale.recorded_seq, &seen))
}

fn ended(sale: &mut Sale, redis: &mut LookedSale) {
    redis.ends_ms = NOW_MS - KEEP_AFTER_END_MS;
    redis.starts_ms = redis.ends_ms - 1;
    (sale.starts_at, sale.ends_at) = (at(redis.starts_ms), at(redis.ends_ms));
}

#[test]
fn a_sale_in_redis_needs() {
    let table: [(Change, &str); 31] = [
        (|_, _| {}, "Nothing"),
        (|_, redis| redis.intact = false, "Load"),
        // While it is loading it is not whole, and an old master is not repaired by itself.
        (|_, redis| (redis.intact, redis.state) = (false, None), "Wait"),
        (|_, redis| (redis.intact, redis.epoch) = (false, Epoch(4)), "Alarm"),
        (|sale, redis| (ended(sale, redis), redis.intact = false).1, "Load"),
        (|_, redis| redis.seq = Seq(11), "Nothing"),
        (|_, redis| redis.seq = Seq(9), "Load"),
        (|_, redis| redis.sound = false, "Load"),
        (|_, redis| redis.version -= 1, "Load"),
        (|_, redis| redis.version += 1, "Alarm"),
        (|_, redis| (redis.version, redis.state) = (redis.version + 1, None), "Alarm"),
        (|sale, _| sale.recover_requested = Epoch(5), "Load"),
        (|_, redis| redis.state = None, "Wait"),
        // A server that was restarted while loading: the load that is under way will find out.
        (|_, redis| (redis.state, redis.sound) = (None, false), "Wait"),
        (|sale, _| sale.epoch = Epoch(6), "Load"),
        (|_, redis| redis.epoch = Epoch(6), "Behind"),
        (|_, redis| redis.epoch = Epoch(4), "Alarm"),
        (|sale, redis| (sale.epoch, redis.epoch) = (Epoch(6), Epoch(4)), "Alarm"),
        (|sale, _| sale.state = SaleState::Paused, "Carry"),
        (|sale, _| sale.ends_at = at(NOW_MS + 2_000), "Carry"),
        (|_, redis| redis.changes = None, "Load"),
        (|_, redis| redis.changes = Some(2), "Stock"),
        (|sale, _| sale.changes_wanted = 4, "Stock"),
        (|sale, redis| (sale.changes_wanted, redis.changes) = (4, Some(4)), "Stock"),
        // Our reading of the record may be the older one.
        (|_, redis| redis.changes = Some(4), "Nothing"),
        // Pausing a sale does not wait for a change of its stock; removing it does.
        (|sale, _| (sale.changes_wanted, sale.state) = (4, SaleState::Paused), "Carry"),
        (|sale, redis| (ended(sale, redis), sale.changes_wanted = 4).1, "Stock"),
        (ended, "Purge"),
        (|sale, redis| (ended(sale, redis), sale.purged_at = Some(at(NOW_MS))).1, "Purge"),
        // Redis would not be purged by a window that it does not have yet.
        (|sale, redis| (ended(sale, redis), redis.ends_ms += 1).1, "Carry"),
        (|sale, redis| (ended(sale, redis), redis.sound = false).1, "Load"),
    ];
    for (row, (change, expected)) in table.into_iter().enumerate() {
        let need = judged(change, true);
        assert!(need.starts_with(expected), "row {row}: {need}, not {expected}");
    }
}

#[test]
fn a_sale_that_redis_does_not_hold_needs() {
    let table: [(Change, &str); 5] = [
        (|_, _| {}, "Load"),
        (|sale, _| sale.epoch = Epoch(0), "Load"),
        (|sale, _| sale.purged_at = Some(at(NOW_MS)), "Nothing"),
        // Over, but its orders may wait in the record: it is loaded, then purged.
        (ended, "Load"),
        (|sale, redis| (ended(sale, redis), sale.epoch = Epoch(0)).1, "Purge"),
    ];
    for (row, (change, expected)) in table.into_iter().enumerate() {
        let need = judged(change, false);
        assert!(need.starts_with(expected), "row {row}: {need}, not {expected}");
    }
}
