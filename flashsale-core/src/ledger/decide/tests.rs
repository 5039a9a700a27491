//! The decision, first by examples, then by what holds for every batch.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    ids::SaleId,
    ledger::tests::{order, product},
    sale::Seq,
};

fn sale() -> SaleId {
    SaleId::try_from(1).unwrap()
}

/// Three products are sold: 1 (five left, three per user), 2 (two left, two per user), 3 (all gone).
fn shop() -> Known {
    let limits = [(1, 5, 3), (2, 2, 2), (3, 0, 1)];
    let products = limits.map(|(id, left, per_user)| (product(id), Limits { left, per_user }));
    Known { products: products.into(), ..Known::default() }
}

fn verdicts(batch: &[QueuedOrder], known: &Known) -> Vec<Verdict> {
    let batch: Vec<_> = batch.iter().collect();
    decide(&batch, known.clone()).into_iter().map(|decision| decision.verdict).collect()
}

fn failed(reason: FailureReason) -> Verdict {
    Verdict::Failed { reason, key_holder: None }
}

fn duplicate_of(first: &QueuedOrder) -> Verdict {
    let key_holder = Some((first.id, first.fingerprint));
    Verdict::Failed { reason: FailureReason::Duplicate, key_holder }
}

#[test]
fn the_limits_are_kept_within_a_batch() {
    let batch = [
        order(sale(), 1, "ann", "a", &[(1, 2)]),
        order(sale(), 2, "ann", "b", &[(1, 2)]),
        order(sale(), 3, "ann", "c", &[(1, 1)]),
        order(sale(), 4, "bob", "a", &[(1, 3)]),
        order(sale(), 5, "bob", "b", &[(1, 2), (2, 1)]),
    ];
    let expected = [
        Verdict::Confirmed,
        failed(FailureReason::OverQuota),
        Verdict::Confirmed,
        failed(FailureReason::SoldOut),
        Verdict::Confirmed,
    ];
    assert_eq!(verdicts(&batch, &shop()), expected);
}

#[test]
fn an_order_is_all_or_nothing() {
    let batch = [
        order(sale(), 1, "ann", "a", &[(1, 1), (3, 1)]),
        order(sale(), 2, "ann", "b", &[(1, 1), (4, 1)]),
        order(sale(), 3, "bob", "a", &[(1, 3)]),
        order(sale(), 4, "cid", "a", &[(1, 2)]),
    ];
    let expected = [
        failed(FailureReason::SoldOut),
        failed(FailureReason::UnknownProduct),
        Verdict::Confirmed,
        Verdict::Confirmed,
    ];
    assert_eq!(verdicts(&batch, &shop()), expected);
}

#[test]
fn what_users_hold_already_counts() {
    let mut known = shop();
    known.held.insert(("ann".parse().unwrap(), product(1)), 2);
    let batch = [order(sale(), 1, "ann", "a", &[(1, 2)]), order(sale(), 2, "ann", "b", &[(1, 1)])];
    assert_eq!(verdicts(&batch, &known), [failed(FailureReason::OverQuota), Verdict::Confirmed]);
}

#[test]
fn a_key_stands_for_one_order() {
    let recorded = order(sale(), 1, "ann", "a", &[(1, 1)]);
    let mut known = shop();
    let holder = (recorded.id, recorded.fingerprint);
    known.key_holders.insert((recorded.user.clone(), recorded.key.clone()), holder);
    let batch = [
        order(sale(), 2, "ann", "a", &[(1, 1)]),
        order(sale(), 3, "bob", "a", &[(3, 1)]),
        order(sale(), 4, "bob", "a", &[(1, 1)]),
        order(sale(), 5, "cid", "a", &[(1, 1)]),
    ];
    let expected = [
        duplicate_of(&recorded),
        failed(FailureReason::SoldOut),
        // A failed order keeps its key.
        duplicate_of(&batch[1]),
        Verdict::Confirmed,
    ];
    assert_eq!(verdicts(&batch, &known), expected);
}

#[test]
fn what_was_decided_stands() {
    let first = order(sale(), 1, "ann", "a", &[(1, 1)]);
    let batch = [
        order(sale(), 2, "ann", "a", &[(1, 1)]),
        order(sale(), 3, "bob", "a", &[(1, 1)]),
        order(sale(), 4, "cid", "a", &[(1, 1)]),
        order(sale(), 5, "dan", "a", &[(1, 1)]),
    ];
    let mut known = shop();
    known.recorded.insert(batch[0].id, duplicate_of(&first));
    known.recorded.insert(batch[1].id, failed(FailureReason::Rejected));
    known.recorded.insert(batch[2].id, Verdict::Confirmed);
    known.parked.extend([batch[3].id, batch[2].id]);
    let expected =
        [duplicate_of(&first), failed(FailureReason::Rejected), Verdict::Confirmed, Verdict::Parked];
    assert_eq!(verdicts(&batch, &known), expected);
    let refs: Vec<_> = batch.iter().collect();
    assert!(decide(&refs, known).iter().all(|decision| decision.write == Write::Nothing));
}

#[test]
fn an_order_twice_in_a_batch_is_one() {
    let mut again = order(sale(), 1, "ann", "a", &[(1, 3)]);
    let first = again.clone();
    again.seq = Seq(9);
    let decisions = decide(&[&again, &first], shop());
    assert_eq!(decisions[0], Decision::new(Verdict::Confirmed, Write::Nothing));
    assert_eq!(decisions[1], Decision::new(Verdict::Confirmed, Write::RowWithItems));
}

#[test]
fn a_total_that_does_not_fit_is_rejected() {
    let mut order = order(sale(), 1, "ann", "a", &[(1, 2)]);
    order.lines[0].unit_price = i64::MAX / 2 + 1;
    assert_eq!(decide(&[&order], shop()), [Decision::new(failed(FailureReason::Rejected), Write::Row)]);
}

/// Few users, keys and products, so that orders meet; every order has an id and a seq of its own.
fn batches() -> impl Strategy<Value = Vec<QueuedOrder>> {
    let lines = proptest::collection::btree_map(1..=4_i64, 1..=3_u32, 1..=3);
    let one = (select(vec!["ann", "bob", "cid"]), select(vec!["a", "b", "c"]), lines);
    vec(one, 0..12).prop_map(|orders| {
        let seqs = 1..;
        let made = seqs.zip(orders).map(|(seq, (user, key, lines))| {
            order(sale(), seq, user, key, &lines.into_iter().collect::<Vec<_>>())
        });
        made.collect()
    })
}

/// Walks a decided batch in the order of admission and checks each answer against what was there.
fn check(batch: &[QueuedOrder], known: &Known, decisions: &[Decision]) -> Result<(), TestCaseError> {
    let mut left: HashMap<_, _> = known.products.iter().map(|(id, limits)| (*id, limits.left)).collect();
    let mut held = known.held.clone();
    let mut holders = known.key_holders.clone();
    for (order, decision) in batch.iter().zip(decisions) {
        let key = (order.user.clone(), order.key.clone());
        let units = |line: &crate::queue::QueuedLine| i64::from(line.quantity);
        let fits_stock =
            order.lines.iter().all(|line| left.get(&line.product).is_some_and(|l| *l >= units(line)));
        let fits_quota = order.lines.iter().all(|line| {
            let held = held.get(&(order.user.clone(), line.product)).copied().unwrap_or(0);
            known.products.get(&line.product).is_none_or(|limits| held + units(line) <= limits.per_user)
        });
        let is_sold = order.lines.iter().all(|line| known.products.contains_key(&line.product));
        match &decision.verdict {
            Verdict::Confirmed => {
                prop_assert!(fits_stock && fits_quota && !holders.contains_key(&key));
                for line in &order.lines {
                    *left.get_mut(&line.product).unwrap() -= units(line);
                    *held.entry((order.user.clone(), line.product)).or_default() += units(line);
                }
            }
            Verdict::Failed { reason: FailureReason::Duplicate, key_holder } => {
                prop_assert_eq!(key_holder.as_ref(), holders.get(&key));
                prop_assert!(key_holder.is_some());
            }
            Verdict::Failed { reason: FailureReason::UnknownProduct, .. } => prop_assert!(!is_sold),
            Verdict::Failed { reason: FailureReason::OverQuota, .. } => prop_assert!(!fits_quota),
            Verdict::Failed { reason: FailureReason::SoldOut, .. } => prop_assert!(!fits_stock),
            other => prop_assert!(false, "{other:?} of a new order"),
        }
        holders.entry(key).or_insert_with(|| (order.id, order.fingerprint));
    }
    prop_assert!(left.values().all(|left| *left >= 0), "oversold");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_answer_is_right_for_what_is_left(batch in batches()) {
        let refs: Vec<_> = batch.iter().collect();
        check(&batch, &shop(), &decide(&refs, shop()))?;
    }

    #[test]
    fn the_order_of_the_batch_does_not_matter(
        (batch, shuffled) in batches().prop_flat_map(|batch| {
            let places: Vec<usize> = (0..batch.len()).collect();
            (Just(batch), Just(places).prop_shuffle())
        }),
    ) {
        let straight = verdicts(&batch, &shop());
        let mixed: Vec<_> = shuffled.iter().map(|&place| batch[place].clone()).collect();
        let expected: Vec<_> = shuffled.iter().map(|&place| straight[place].clone()).collect();
        prop_assert_eq!(verdicts(&mixed, &shop()), expected);
    }

    /// As after a lost answer: what a part of the batch was recorded as is found, the rest is decided.
    #[test]
    fn deciding_again_gives_the_same(batch in batches(), cut in 0_usize..12) {
        let refs: Vec<_> = batch.iter().collect();
        let once = decide(&refs, shop());
        let mut known = shop();
        for (order, decision) in batch.iter().zip(&once).take(cut) {
            known.note(order, &decision.verdict);
        }
        let again = decide(&refs, known);
        for (place, (first, second)) in once.iter().zip(&again).enumerate() {
            prop_assert_eq!(&first.verdict, &second.verdict);
            prop_assert_eq!(second.write == Write::Nothing, place < cut);
        }
    }

    #[test]
    fn failing_a_batch_confirms_nothing(batch in batches()) {
        let refs: Vec<_> = batch.iter().collect();
        for decision in fail(&refs, shop(), FailureReason::Discarded, Write::Row) {
            let reasons = [FailureReason::Discarded, FailureReason::Duplicate];
            let failed = matches!(&decision.verdict, Verdict::Failed { reason, .. } if reasons.contains(reason));
            prop_assert!(failed, "{:?}", decision);
        }
    }
}
