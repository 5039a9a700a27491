//! The protocol as it is: in no state of any world is a promise broken, and what makes trouble is reached.

use flashsale_model::properties::{
    CARRIED_TWICE, DISCARDED, DUPLICATE, GIVEN_BACK, GONE, LOST, LOWERED, OLD_MASTER, OVERTAKEN, PARKED,
    RAISED, RECOVERED, REDUCTION_REFUSED, REPLAYED, SOLD_OUT, TAKEN_OVER,
};
use flashsale_model::{Bounds, Protocol, Search, worlds};

#[track_caller]
fn holds(bounds: Bounds, reaches: &[&str]) {
    let found = Search::Exhaustive.run(&Protocol::new(bounds));
    println!("{found}");
    assert!(found.broken.is_empty(), "{found}");
    for name in reaches {
        assert!(found.reached.contains_key(name), "this world never {name}: it does not test what it should");
    }
}

#[test]
fn two_drainers_crashes_lost_commits_and_resending() {
    holds(worlds::DRAIN, &[SOLD_OUT, TAKEN_OVER, REPLAYED]);
}

#[test]
fn the_quota_binds() {
    holds(worlds::QUOTA, &[TAKEN_OVER]);
}

#[test]
fn repeats_with_stock_for_all() {
    holds(worlds::REPEATS, &[REPLAYED]);
}

#[test]
fn a_failed_order_is_given_back_and_sold_again() {
    holds(worlds::GIVE_BACK, &[GIVEN_BACK, SOLD_OUT, TAKEN_OVER]);
}

#[test]
fn redis_loses_writes() {
    holds(worlds::LOSS, &[RECOVERED, LOST, GONE, SOLD_OUT, TAKEN_OVER]);
}

#[test]
fn redis_loses_writes_twice() {
    holds(worlds::LOSS_TWICE, &[RECOVERED, LOST]);
}

#[test]
fn redis_loses_writes_under_a_repeating_client() {
    holds(worlds::LOSS_REPEAT, &[RECOVERED, LOST, REPLAYED]);
}

#[test]
fn redis_loses_writes_around_a_failed_order() {
    holds(worlds::LOSS_GIVE_BACK, &[RECOVERED, LOST, GIVEN_BACK]);
}

#[test]
fn redis_loses_writes_around_a_parked_order() {
    holds(worlds::LOSS_PARKED, &[RECOVERED, LOST, PARKED]);
}

#[test]
fn redis_loses_writes_around_an_entry_that_nobody_can_read() {
    holds(worlds::LOSS_UNREADABLE, &[RECOVERED, LOST, PARKED]);
}

#[test]
fn a_parked_order_is_discarded_while_the_sale_is_recovered() {
    holds(worlds::DISCARD, &[RECOVERED, PARKED, DISCARDED]);
}

#[test]
fn a_replica_is_promoted_and_the_old_master_still_answers() {
    holds(worlds::FAILOVER, &[RECOVERED, LOST, OLD_MASTER]);
    holds(worlds::FAILOVER_TWO, &[RECOVERED, LOST, OLD_MASTER]);
}

#[test]
fn the_book_is_overwritten() {
    holds(worlds::DAMAGE, &[RECOVERED]);
}

#[test]
fn two_recoverers_race_with_sale_and_drain() {
    holds(worlds::RACE, &[RECOVERED, SOLD_OUT]);
}

#[test]
fn two_recoverers_race_while_redis_loses_writes() {
    holds(worlds::RACE_LOSS, &[RECOVERED, LOST]);
}

#[test]
fn redis_goes_back_unnoticed_under_one_client() {
    holds(worlds::SILENT_ONE, &[RECOVERED, LOST, GONE]);
}

#[test]
fn redis_goes_back_unnoticed_and_the_ledger_decides() {
    holds(worlds::SILENT_CROWD, &[RECOVERED, LOST, GONE]);
    holds(worlds::SILENT_QUOTA, &[RECOVERED, LOST]);
    holds(worlds::SILENT_REPEAT, &[DUPLICATE, LOST]);
}

#[test]
fn a_polled_status_only_moves_forward() {
    holds(worlds::STATUS, &[RECOVERED, LOST]);
    holds(worlds::STATUS_PARKED, &[RECOVERED, PARKED]);
    holds(worlds::STATUS_FAILED, &[RECOVERED, LOST]);
}

#[test]
fn the_stock_is_raised_and_lowered_in_mid_sale() {
    holds(worlds::CHANGES, &[RAISED, LOWERED, REDUCTION_REFUSED, CARRIED_TWICE, SOLD_OUT]);
}

#[test]
fn the_stock_changes_while_the_sale_is_recovered() {
    holds(worlds::CHANGES_RECOVER, &[RAISED, LOWERED, REDUCTION_REFUSED, RECOVERED, OVERTAKEN]);
}

#[test]
fn the_stock_changes_while_redis_loses_writes() {
    holds(worlds::CHANGES_LOSS, &[LOWERED, REDUCTION_REFUSED, CARRIED_TWICE, RECOVERED, OVERTAKEN, LOST]);
}

#[test]
fn the_stock_is_lowered_while_redis_goes_back_unnoticed() {
    holds(worlds::CHANGES_SILENT, &[LOWERED, REDUCTION_REFUSED, RECOVERED, LOST]);
}

#[test]
fn the_stock_is_lowered_by_an_old_master_that_still_answers() {
    holds(worlds::CHANGES_FAILOVER, &[LOWERED, RECOVERED, OVERTAKEN, OLD_MASTER]);
}
