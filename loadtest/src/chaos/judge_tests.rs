//! Each way in which a round fails, tried on a round that passes.

use chrono::Utc;
use flashsale_core::SaleId;

use super::*;
use crate::chaos::fault::{NOTHING, PARKED, RETURNED, UNRECORDED};

const HEALED: Duration = Duration::from_secs(10);
const HEALTHY: Duration = Duration::from_secs(12);
const REST: Duration = Duration::from_secs(20);

fn product() -> ProductId {
    ProductId::try_from(1).unwrap()
}

fn new_id() -> OrderId {
    OrderId::new(SaleId::try_from(1).unwrap())
}

fn at(seconds: u64, user: &str, what: What) -> Event {
    Event { at: Duration::from_secs(seconds), user: user.to_owned(), key: "k".to_owned(), what }
}

fn sent() -> What {
    What::Sent { server: 0, lines: vec![(product(), 1)] }
}

fn admitted(id: OrderId) -> What {
    What::Answered(Answer::Admitted { id, replayed: false })
}

fn unknown() -> What {
    What::Answered(Answer::Unknown { code: "outcome-unknown".to_owned() })
}

fn refused() -> What {
    What::Answered(Answer::Refused { status: 409, code: "sold-out".to_owned() })
}

fn confirmed(id: OrderId, user: &str) -> RecordedOrder {
    RecordedOrder {
        id,
        user: user.to_owned(),
        key: Some("k".to_owned()),
        confirmed: true,
        failure: None,
        admitted_at: Utc::now(),
        units: vec![(product(), 1)],
    }
}

/// Ann buys at once, bob finds out by asking again, cat is refused, and dan was turned away before.
fn passing() -> Evidence {
    let (ann, bob, dan) = (new_id(), new_id(), new_id());
    let turned_away = What::Answered(Answer::TurnedAway { code: "fenced".to_owned() });
    let seen = |id, state| What::Seen { id, state: Some(state) };
    let events = vec![
        at(1, "ann", sent()),
        at(2, "ann", admitted(ann)),
        at(2, "ann", seen(ann, OrderState::Queued)),
        at(3, "ann", seen(ann, OrderState::Confirmed)),
        at(4, "bob", sent()),
        at(5, "bob", unknown()),
        at(5, "bob", sent()),
        at(6, "bob", admitted(bob)),
        at(6, "cat", sent()),
        at(7, "cat", refused()),
        at(8, "dan", sent()),
        at(9, "dan", turned_away),
        at(14, "dan", sent()),
        at(15, "dan", admitted(dan)),
    ];
    let check = |invariant: Invariant| Check {
        name: invariant.to_string(),
        title: invariant.title().to_owned(),
        holds: true,
        why: Vec::new(),
    };
    Evidence {
        cost: NOTHING,
        events,
        healed_at: HEALED,
        healthy_at: Some(HEALTHY),
        rest_at: REST,
        products: vec![ProductEvidence { id: product(), stock: 3, sold: 3, left: Some(0) }],
        limit: 1,
        orders: vec![confirmed(ann, "ann"), confirmed(bob, "bob"), confirmed(dan, "dan")],
        parked: 0,
        taken_over: Some(Duration::from_secs(6)),
        audit: Ok(Invariant::ALL.map(check).to_vec()),
        trouble: Vec::new(),
    }
}

/// The same under a fault that may lose what is not recorded.
fn losing() -> Evidence {
    Evidence { cost: UNRECORDED, ..passing() }
}

/// The round fails, and every problem holds one of these texts.
#[track_caller]
fn assert_fails(evidence: &Evidence, texts: &[&str]) -> Verdict {
    let verdict = judge(evidence);
    for text in texts {
        assert!(verdict.problems.iter().any(|p| p.what.contains(text)), "{text}: {:?}", verdict.problems);
    }
    for problem in &verdict.problems {
        assert!(texts.iter().any(|text| problem.what.contains(text)), "unexpected: {problem:?}");
    }
    verdict
}

#[track_caller]
fn assert_passes(evidence: &Evidence) -> Verdict {
    let verdict = judge(evidence);
    assert_eq!(verdict.problems, []);
    verdict
}

/// Takes an order's row away, and its units.
fn forget(evidence: &mut Evidence, order: usize) -> RecordedOrder {
    evidence.products[0].sold -= 1;
    evidence.orders.remove(order)
}

#[test]
fn a_round_without_a_flaw_passes() {
    let verdict = assert_passes(&passing());
    assert_eq!((verdict.orders, verdict.unknown, verdict.resolved, verdict.lost), (3, 1, 1, 0));
    assert_eq!(verdict.healthy_after, Some(Duration::from_secs(2)));
    assert_eq!(verdict.taken_over, Some(Duration::from_secs(6)));
    assert_eq!(verdict.broken, Some(Vec::new()), "all invariants were computed and hold");
    assert_passes(&losing());
}

#[test]
fn orders_that_a_dead_worker_held_for_too_long_fail_the_round() {
    let late = |by| Evidence { taken_over: Some(TAKEN_OVER_WITHIN + by), ..passing() };
    assert_passes(&late(Duration::ZERO));
    assert_fails(&late(Duration::from_millis(1)), &["to take over what a worker had in hand"]);
}

#[test]
fn an_oversell_fails() {
    let mut evidence = passing();
    evidence.products[0].stock = 2;
    assert_fails(&evidence, &["oversold: 3 of 2"]);
}

#[test]
fn a_count_that_differs_from_the_orders_fails() {
    let mut evidence = passing();
    evidence.products[0].sold = 2;
    assert_fails(&evidence, &["counts 2 sold, its confirmed orders hold 3"]);
    evidence.products.clear();
    assert_fails(&evidence, &["no products"]);
}

#[test]
fn a_user_above_the_limit_fails() {
    let mut evidence = passing();
    evidence.limit = 0;
    assert_fails(&evidence, &["the limit is 0"]);
}

#[test]
fn a_lost_order_fails_unless_the_fault_excuses_it() {
    let mut evidence = passing();
    forget(&mut evidence, 1);
    let verdict = assert_fails(&evidence, &["is lost"]);
    assert_eq!(verdict.problems[0].of, Some(("bob".to_owned(), "k".to_owned())));
    evidence.cost = UNRECORDED;
    assert_eq!(assert_passes(&evidence).lost, 1);
}

#[test]
fn an_order_lost_after_the_fault_is_never_excused() {
    let mut evidence = losing();
    forget(&mut evidence, 2);
    assert_fails(&evidence, &["is lost"]);
}

#[test]
fn a_recorded_order_that_is_lost_is_never_excused() {
    let mut evidence = losing();
    forget(&mut evidence, 0);
    assert_fails(&evidence, &["is lost", "which the record does not say"]);
}

#[test]
fn two_ids_of_a_key_fail_unless_one_is_lost_and_excused() {
    let mut evidence = passing();
    evidence.events.push(at(13, "bob", admitted(new_id())));
    assert_fails(&evidence, &["its key has 2 orders", "is lost"]);
    let mut evidence = losing();
    let id = new_id();
    evidence.events.push(at(13, "bob", admitted(id)));
    evidence.orders[1].id = id;
    assert_eq!(assert_passes(&evidence).lost, 1);
}

#[test]
fn two_confirmed_orders_of_a_key_are_never_excused() {
    let mut evidence = losing();
    let id = new_id();
    evidence.events.push(at(13, "bob", admitted(id)));
    evidence.orders.push(confirmed(id, "bob"));
    (evidence.products[0].stock, evidence.products[0].sold, evidence.limit) = (4, 4, 2);
    assert_fails(&evidence, &["its key has 2 orders", "its key has two recorded orders"]);
}

#[test]
fn an_accepted_order_that_fails_is_a_failure_unless_excused() {
    let mut evidence = passing();
    (evidence.orders[1].confirmed, evidence.orders[1].failure) = (false, Some("sold-out"));
    evidence.products[0].sold = 2;
    assert_fails(&evidence, &["was accepted and failed: sold-out"]);
    evidence.cost = UNRECORDED;
    assert_passes(&evidence);
    evidence.cost = PARKED;
    evidence.orders[1].failure = Some("discarded");
    assert_passes(&evidence);
}

#[test]
fn an_order_whose_outcome_stays_unknown_fails() {
    let mut evidence = passing();
    evidence.events.push(at(16, "eve", sent()));
    evidence.events.push(at(17, "eve", unknown()));
    let verdict = assert_fails(&evidence, &["never became known"]);
    assert_eq!((verdict.unknown, verdict.resolved), (2, 1));
    // Being turned away says nothing of the sending before.
    evidence.events.push(at(18, "eve", What::Answered(Answer::TurnedAway { code: "fenced".to_owned() })));
    assert_fails(&evidence, &["never became known"]);
}

#[test]
fn an_order_whose_buyer_was_refused_fails() {
    let mut evidence = passing();
    let order = confirmed(new_id(), "cat");
    evidence.orders.push(order);
    (evidence.products[0].stock, evidence.products[0].sold) = (4, 4);
    assert_fails(&evidence, &["stands, and its buyer was refused"]);
}

#[test]
fn an_order_of_nobody_fails() {
    let mut evidence = passing();
    evidence.orders.push(confirmed(new_id(), "ghost"));
    (evidence.products[0].stock, evidence.products[0].sold) = (4, 4);
    assert_fails(&evidence, &["is nobody's"]);
}

#[test]
fn answers_that_changed_hands_fail() {
    let mut evidence = passing();
    let (ann, bob) = (evidence.orders[0].id, evidence.orders[1].id);
    (evidence.orders[0].id, evidence.orders[1].id) = (bob, ann);
    assert_fails(&evidence, &["which is another's"]);
}

#[test]
fn other_lines_than_were_asked_for_fail() {
    let mut evidence = passing();
    evidence.orders[0].units = vec![(product(), 2)];
    (evidence.products[0].stock, evidence.products[0].sold, evidence.limit) = (4, 4, 2);
    assert_fails(&evidence, &["has other lines"]);
}

#[test]
fn a_status_that_goes_back_fails() {
    let mut evidence = passing();
    let id = evidence.orders[0].id;
    for state in [OrderState::Processing, OrderState::Queued] {
        evidence.events.truncate(14);
        evidence.events.push(at(16, "ann", What::Seen { id, state: Some(state) }));
        assert_fails(&evidence, &[&format!("went from Confirmed to {state}")]);
    }
}

#[test]
fn an_order_that_stays_under_way_fails() {
    let mut evidence = losing();
    let id = forget(&mut evidence, 1).id;
    evidence.events.push(at(21, "bob", What::Seen { id, state: Some(OrderState::Queued) }));
    assert_fails(&evidence, &["is shown as Queued for good"]);
}

#[test]
fn a_final_status_that_is_not_recorded_fails() {
    let mut evidence = losing();
    let id = evidence.orders[1].id;
    evidence.events.push(at(7, "bob", What::Seen { id, state: Some(OrderState::Failed) }));
    assert_fails(&evidence, &["was shown as Failed, which the record does not say"]);
}

#[test]
fn an_accepted_order_that_is_said_not_to_exist_fails_unless_it_is_lost_and_excused() {
    let mut evidence = passing();
    let id = evidence.orders[1].id;
    evidence.events.push(at(11, "bob", What::Seen { id, state: None }));
    assert_fails(&evidence, &["said not to exist"]);
    evidence.cost = UNRECORDED;
    assert_fails(&evidence, &["said not to exist"]);
    // It was lost then, and an operator brought it back.
    evidence.cost = RETURNED;
    assert_passes(&evidence);
    evidence.cost = UNRECORDED;
    forget(&mut evidence, 1);
    assert_passes(&evidence);
}

#[test]
fn a_strange_answer_fails() {
    let mut evidence = passing();
    evidence.events.push(at(16, "ann", What::Strange("teapot".to_owned())));
    assert_fails(&evidence, &["teapot"]);
}

#[test]
fn parked_orders_fail_unless_the_fault_parks() {
    let mut evidence = passing();
    evidence.parked = 2;
    assert_fails(&evidence, &["2 orders were parked"]);
    evidence.cost = PARKED;
    assert_eq!(assert_passes(&evidence).parked, 2);
}

#[test]
fn what_does_not_get_well_in_time_fails() {
    let mut evidence = passing();
    let late = NOTHING.within + Duration::from_secs(1);
    evidence.healthy_at = Some(HEALED + late);
    assert_fails(&evidence, &[&format!("it took {late:.1?} to become healthy")]);
    evidence.healthy_at = None;
    assert_fails(&evidence, &["did not become healthy"]);
}

#[test]
fn trouble_beside_the_orders_fails() {
    let mut evidence = passing();
    evidence.trouble.push("server 1 ended by itself".to_owned());
    assert_fails(&evidence, &["server 1 ended by itself"]);
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
    let evidence = Evidence { audit: Err("Redis is away".to_owned()), ..passing() };
    assert_fails(&evidence, &["could not be computed: Redis is away"]);
}
