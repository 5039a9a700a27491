//! The protocol without one of its clauses: the search must find the promise that breaks. This is how the model shows
//! that it can fail.

use flashsale_model::properties::{
    ACCEPTED_FOUND, ADMITTED_STANDS, CHANGES_COUNT_ONCE, GIVES_BACK_FAILED_ONLY, GIVES_BACK_ONCE,
    KEYS_NAME_ORDERS, NEVER_OVERSOLD, NO_REPEAT_OF_ITSELF, NONE_DROPPED, ONE_ID_PER_KEY, ONE_ROW_PER_KEY,
    QUOTA_ADDS_UP, REFUSAL_HOLDS, SEQUENCE_AHEAD, STATUS_FORWARD, STOCK_ADDS_UP, WITHIN_QUOTA,
};
use flashsale_model::worlds::{
    CHANGES, CHANGES_RECOVER, CHANGES_SILENT, DAMAGE, DISCARD, DRAIN, FAILOVER, GIVE_BACK, LOSS_PARKED,
    LOSS_REPEAT, LOSS_UNREADABLE, RACE_LOSS, REPEATS, SILENT_CROWD, SILENT_ONE, SILENT_QUOTA, SILENT_REPEAT,
    STATUS,
};
use flashsale_model::{Bounds, Clause, Protocol, Search};

/// Without this clause, in this world, this promise breaks.
const NEEDED: &[(Clause, Bounds, &str)] = &[
    (Clause::ReserveLooksForKey, REPEATS, ONE_ID_PER_KEY),
    (Clause::OwnReplayIsAdmitted, DRAIN, NO_REPEAT_OF_ITSELF),
    (Clause::RefusedResendIsUnknown, GIVE_BACK, REFUSAL_HOLDS),
    (Clause::NotAfter, GIVE_BACK, REFUSAL_HOLDS),
    (Clause::RunId, LOSS_REPEAT, STOCK_ADDS_UP),
    (Clause::Seen, SILENT_ONE, ONE_ID_PER_KEY),
    (Clause::Loading, SILENT_ONE, STOCK_ADDS_UP),
    (Clause::BeginChecksEntry, LOSS_REPEAT, STOCK_ADDS_UP),
    (Clause::SettleChecksEntry, SILENT_REPEAT, NONE_DROPPED),
    (Clause::SettleChecksState, SILENT_REPEAT, GIVES_BACK_ONCE),
    (Clause::AcknowledgeAfterCommit, DRAIN, NONE_DROPPED),
    (Clause::LostCommitIsNoVerdict, DRAIN, GIVES_BACK_FAILED_ONLY),
    (Clause::RecordUnderLock, LOSS_REPEAT, KEYS_NAME_ORDERS),
    (Clause::RecordChecksEpoch, LOSS_REPEAT, KEYS_NAME_ORDERS),
    (Clause::LedgerChecksStock, SILENT_CROWD, NEVER_OVERSOLD),
    (Clause::LedgerChecksQuota, SILENT_QUOTA, WITHIN_QUOTA),
    (Clause::LedgerChecksKey, SILENT_REPEAT, ONE_ROW_PER_KEY),
    (Clause::ParkChecksEpoch, LOSS_PARKED, STOCK_ADDS_UP),
    (Clause::EnterChecksRunId, RACE_LOSS, STOCK_ADDS_UP),
    (Clause::ChunkChecksToken, RACE_LOSS, QUOTA_ADDS_UP),
    (Clause::ChunkChecksNumber, RACE_LOSS, QUOTA_ADDS_UP),
    (Clause::ReadLedgerAfterFence, RACE_LOSS, STOCK_ADDS_UP),
    (Clause::RecoverCountsParked, LOSS_PARKED, QUOTA_ADDS_UP),
    (Clause::SequenceRises, SILENT_REPEAT, SEQUENCE_AHEAD),
    (Clause::Epoch, FAILOVER, NONE_DROPPED),
    (Clause::DamageFences, DAMAGE, ACCEPTED_FOUND),
    (Clause::LoadParksUnreadable, LOSS_UNREADABLE, NONE_DROPPED),
    (Clause::LetterStaysUntilTold, DISCARD, STOCK_ADDS_UP),
    (Clause::StatusFromOpenOnly, STATUS, STATUS_FORWARD),
    (Clause::StatusChecksEpoch, FAILOVER, STATUS_FORWARD),
    (Clause::RecordedChecksEpoch, FAILOVER, ACCEPTED_FOUND),
    (Clause::StatusLooksAgain, STATUS, STATUS_FORWARD),
    (Clause::ChangeOncePerOperation, CHANGES, CHANGES_COUNT_ONCE),
    (Clause::OneChangeAtATime, CHANGES, STOCK_ADDS_UP),
    (Clause::IncreaseRecordFirst, CHANGES, ADMITTED_STANDS),
    (Clause::ReduceRedisFirst, CHANGES, ADMITTED_STANDS),
    (Clause::ChangeNumbered, CHANGES, STOCK_ADDS_UP),
    (Clause::OutcomeIsNoted, CHANGES, STOCK_ADDS_UP),
    (Clause::SettlesWantedOnly, CHANGES, CHANGES_COUNT_ONCE),
    (Clause::ChangeSettleChecksEpoch, CHANGES_RECOVER, STOCK_ADDS_UP),
    (Clause::StockCoversSold, CHANGES_SILENT, NEVER_OVERSOLD),
    (Clause::LoadSetsSettledChanges, CHANGES_RECOVER, STOCK_ADDS_UP),
    (Clause::LoadReadsOneSnapshot, CHANGES_RECOVER, STOCK_ADDS_UP),
];

/// Without this clause alone nothing breaks, in the world where it is most at stake. Its comment says why it is there.
const SPARE: &[(Clause, Bounds)] = &[
    (Clause::DuplicateKeyToFirst, SILENT_REPEAT),
    (Clause::ParkChecksRow, LOSS_PARKED),
    (Clause::EnterChecksEpoch, RACE_LOSS),
    (Clause::LoadedChecksEpoch, RACE_LOSS),
    (Clause::ReadStreamBeforeLedger, RACE_LOSS),
    (Clause::DiscardChecksEpoch, DISCARD),
];

#[test]
fn without_a_needed_clause_a_promise_breaks() {
    for &(clause, bounds, promise) in NEEDED {
        let found = Search::UntilBroken.run(&Protocol::new(bounds).without(clause));
        println!(
            "without {clause:?}: {:?} after {} states, {:?}",
            found.broken.keys(),
            found.states,
            found.took
        );
        assert!(found.broken.contains_key(promise), "without {clause:?} {promise:?} still holds\n{found}");
    }
}

#[test]
fn without_a_spare_clause_nothing_breaks() {
    for &(clause, bounds) in SPARE {
        let found = Search::UntilBroken.run(&Protocol::new(bounds).without(clause));
        println!("without {clause:?}: {} states, {:?}", found.states, found.took);
        assert!(found.broken.is_empty(), "{clause:?} is needed after all: say so\n{found}");
    }
}

/// Each of the two guards against a recoverer that was overtaken stands in for the other. One is needed.
#[test]
fn without_both_guards_an_overtaken_recoverer_does_harm() {
    let neither =
        Protocol::new(RACE_LOSS).without(Clause::EnterChecksEpoch).without(Clause::LoadedChecksEpoch);
    let found = Search::UntilBroken.run(&neither);
    assert!(found.broken.contains_key(STOCK_ADDS_UP), "{found}");
}

#[test]
fn every_clause_is_needed_or_said_to_be_spare() {
    for clause in Clause::ALL {
        let needed = NEEDED.iter().filter(|(c, ..)| c == clause).count();
        let spare = SPARE.iter().filter(|(c, _)| c == clause).count();
        assert_eq!(needed + spare, 1, "{clause:?}");
    }
}

/// A counterexample names the steps and what they changed.
#[test]
fn a_counterexample_can_be_read() {
    let found = Search::UntilBroken.run(&Protocol::new(DRAIN).without(Clause::AcknowledgeAfterCommit));
    let path = &found.broken[NONE_DROPPED];
    assert!(path.contains("1. Send(0)"), "{path}");
    assert!(path.contains("stream     #1 order 0 seq 1 (delivered)"), "{path}");
}
