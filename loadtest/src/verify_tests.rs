//! Each way in which a run fails, tried on a run that passes.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use flashsale_core::{OrderId, ProductId, SaleId};

use super::*;
use crate::{evidence::ProductEvidence, history::Diary, history::History};

fn product() -> ProductId {
    ProductId::try_from(1).unwrap()
}

fn new_id() -> OrderId {
    OrderId::new(SaleId::try_from(1).unwrap())
}

/// Three users, two units: the first two get one each, the last finds none left.
fn passing() -> Evidence {
    let opened_at = Instant::now();
    let starts_at = Utc::now();
    let mut history = History::new();
    let mut orders = Vec::new();
    for number in 0..3 {
        let mut diary = Diary::new(format!("u{number}"));
        let answered = opened_at + Duration::from_millis(10 * (number + 1));
        diary.measured(opened_at, opened_at, answered);
        if number < 2 {
            let id = new_id();
            diary.admitted("k", id);
            orders.push(RecordedOrder {
                id,
                user: format!("u{number}"),
                key: Some("k".to_owned()),
                confirmed: true,
                failure: None,
                admitted_at: starts_at + TimeDelta::milliseconds(5),
                units: vec![(product(), 1)],
            });
        } else {
            diary.refused("k", "sold-out");
        }
        history.add(diary);
    }
    let check = |invariant: Invariant| Check {
        name: invariant.to_string(),
        title: invariant.title().to_owned(),
        holds: true,
        why: Vec::new(),
    };
    Evidence {
        users_asked: 3,
        history,
        opened_at,
        starts_at,
        products: vec![ProductEvidence { id: product(), stock: 2, sold: 2, left: Some(0) }],
        orders,
        parked: HashSet::new(),
        unrest: None,
        audit: Ok(Invariant::ALL.map(check).to_vec()),
    }
}

/// The run fails, and every reason it gives holds one of these texts.
#[track_caller]
fn assert_fails(evidence: &Evidence, texts: &[&str]) -> Report {
    let report = verify(evidence);
    assert!(!report.passed());
    for text in texts {
        assert!(report.failures.iter().any(|f| f.contains(text)), "{text}: {:?}", report.failures);
    }
    for failure in &report.failures {
        assert!(texts.iter().any(|text| failure.contains(text)), "unexpected: {failure}");
    }
    report
}

#[test]
fn a_run_that_sells_exactly_its_stock_passes() {
    let report = verify(&passing());
    assert!(report.passed(), "{:?}", report.failures);
    assert_eq!((report.users, report.stock, report.sold, report.admitted, report.confirmed), (3, 2, 2, 2, 2));
    assert_eq!(report.refused, [("sold-out".to_owned(), 1)].into());
    assert_eq!((report.oversold, report.duplicates, report.lost, report.unknown), (0, 0, 0, 0));
    let near = |figure: Option<f64>, ms: f64| (figure.unwrap() - ms).abs() < 0.1;
    assert!(near(report.p50_ms, 20.0) && near(report.p99_ms, 30.0) && near(report.p99_from_opening_ms, 30.0));
    assert!(near(report.seconds, 0.03));
}

#[test]
fn an_oversell_fails() {
    let mut evidence = passing();
    evidence.products[0].sold = 3;
    evidence.orders[0].units[0].1 = 2;
    assert_eq!(assert_fails(&evidence, &["oversold by 1"]).oversold, 1);
}

#[test]
fn an_oversell_that_only_the_orders_show_fails() {
    let mut evidence = passing();
    evidence.orders[0].units[0].1 = 4;
    assert_eq!(assert_fails(&evidence, &["oversold by 3", "confirmed orders have 5"]).oversold, 3);
}

#[test]
fn an_undersell_fails() {
    let mut evidence = passing();
    evidence.products[0].sold = 1;
    evidence.orders[1].confirmed = false;
    evidence.orders[1].failure = Some("rejected");
    let report = assert_fails(&evidence, &["undersold: 1 of 2"]);
    assert_eq!((report.failed, report.failed_for), (1, [("rejected", 1)].into()));
}

#[test]
fn a_sale_that_never_sold_out_fails() {
    let mut evidence = passing();
    evidence.products[0].left = Some(1);
    assert_fails(&evidence, &["never sold out"]);
    evidence.products[0].left = None;
    assert_fails(&evidence, &["Redis does not say"]);
    evidence.products.clear();
    assert_fails(&evidence, &["no products"]);
}

#[test]
fn a_second_id_for_a_key_fails() {
    let mut evidence = passing();
    let id = new_id();
    let mut diary = Diary::new("u0".to_owned());
    diary.admitted("k", id);
    evidence.history.add(diary);
    evidence.users_asked = 4;
    let mut failed = evidence.orders[0].clone();
    (failed.id, failed.key, failed.confirmed) = (id, None, false);
    evidence.orders.push(failed);
    assert_eq!(assert_fails(&evidence, &["two orders"]).duplicates, 1);
}

#[test]
fn two_confirmed_orders_of_one_key_fail() {
    let mut evidence = passing();
    evidence.products[0].stock = 3;
    evidence.products[0].sold = 3;
    let mut second = evidence.orders[0].clone();
    second.id = new_id();
    evidence.orders.push(second);
    assert_eq!(assert_fails(&evidence, &["two orders"]).duplicates, 1);
}

#[test]
fn a_lost_202_fails() {
    let mut evidence = passing();
    let mut diary = Diary::new("u3".to_owned());
    let id = new_id();
    diary.admitted("k", id);
    evidence.history.add(diary);
    evidence.users_asked = 4;
    assert_eq!(assert_fails(&evidence, &["are lost"]).lost, 1);
    evidence.parked.insert(id);
    assert_eq!(assert_fails(&evidence, &["are parked"]).lost, 0);
}

#[test]
fn an_unknown_order_is_looked_up_and_never_counted_as_failed() {
    let mut evidence = passing();
    evidence.history.keys[0].ids.clear();
    evidence.history.keys[0].unanswered = true;
    let report = verify(&evidence);
    assert!(report.passed(), "{:?}", report.failures);
    assert_eq!((report.unknown, report.unknown_recorded, report.admitted, report.lost), (1, 1, 1, 0));
}

#[test]
fn an_order_that_its_buyer_was_refused_fails() {
    let mut evidence = passing();
    evidence.history.keys[0].ids.clear();
    evidence.history.keys[0].refused = true;
    assert_fails(&evidence, &["no buyer was told of"]);
}

#[test]
fn an_order_before_the_opening_fails() {
    let mut evidence = passing();
    evidence.orders[0].admitted_at = evidence.starts_at - TimeDelta::milliseconds(1);
    assert_fails(&evidence, &["before the opening"]);
}

#[test]
fn a_missing_figure_fails() {
    let mut evidence = passing();
    evidence.history.from_sending.reset();
    evidence.history.from_opening.reset();
    evidence.history.last_answer = None;
    let report = assert_fails(&evidence, &["is missing"]);
    assert_eq!(report.failures.len(), 5);
}

#[test]
fn missing_users_fail() {
    let mut evidence = passing();
    evidence.users_asked = 5;
    assert_fails(&evidence, &["3 of 5 users"]);
}

#[test]
fn an_audit_that_could_not_be_computed_fails() {
    let mut evidence = passing();
    evidence.audit = Err("Postgres is away".to_owned());
    assert_fails(&evidence, &["could not be computed: Postgres is away"]);
}

#[test]
fn each_invariant_that_does_not_hold_or_is_missing_fails() {
    for (index, name) in Invariant::ALL.into_iter().enumerate() {
        let mut evidence = passing();
        let checks = evidence.audit.as_mut().unwrap();
        checks[index].holds = false;
        checks[index].why.push("product 1".to_owned());
        assert_fails(&evidence, &[&format!("{name} does not hold: product 1")]);
        evidence.audit.as_mut().unwrap().remove(index);
        assert_fails(&evidence, &[&format!("{name} was not computed")]);
    }
}

#[test]
fn a_queue_that_is_not_empty_fails() {
    let mut evidence = passing();
    evidence.unrest = Some("3 orders in the queue".to_owned());
    assert_fails(&evidence, &["3 orders in the queue"]);
}

#[test]
fn a_broken_rule_of_the_api_fails() {
    let mut evidence = passing();
    evidence.history.broken = vec!["a".into(), "b".into(), "c".into(), "d".into()];
    assert_fails(&evidence, &["4 answers broke the rules of the API (a; b; c; …)"]);
}
