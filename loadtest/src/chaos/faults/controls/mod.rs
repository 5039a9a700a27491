//! Negative controls: what breaks a promise, and what the machine therefore has to catch. One that is survived
//! shows that the machine sees nothing.

pub(super) mod broken_builds;
mod by_hand;

use broken_builds::{
    answers_shifted, killed_after_acknowledging, restocked_twice, settled_twice, sold_from_stale_stock,
    unguarded,
};
use by_hand::{KEYS_FORGOTTEN, STATUS_BACK, book_changed, entry_removed, row_deleted, stock_raised};

use crate::chaos::fault::{Expected, Fault, NOTHING, UNRECORDED};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "control-entry-removed",
        what: "an accepted order is taken out of the queue",
        cost: NOTHING,
        expected: Expected::Caught("is lost"),
        strike: |stage, _| Box::pin(entry_removed(stage)),
    },
    Fault {
        name: "control-stock-raised",
        what: "Redis is told of more stock than there is",
        cost: NOTHING,
        expected: Expected::Caught("was accepted and failed: sold-out"),
        strike: |stage, _| Box::pin(stock_raised(stage)),
    },
    Fault {
        name: "control-keys-forgotten",
        what: "Redis forgets which keys were used",
        cost: NOTHING,
        expected: Expected::Caught("its key has 2 orders"),
        strike: |stage, _| Box::pin(book_changed(stage, KEYS_FORGOTTEN)),
    },
    Fault {
        name: "control-status-back",
        what: "orders that are final are shown as queued again",
        cost: NOTHING,
        expected: Expected::Caught("is shown as Queued for good"),
        strike: |stage, _| Box::pin(book_changed(stage, STATUS_BACK)),
    },
    Fault {
        name: "control-row-deleted",
        what: "a recorded order is deleted, which not even a fault that loses orders may cost",
        cost: UNRECORDED,
        expected: Expected::Caught("confirmed orders hold"),
        strike: |stage, _| Box::pin(row_deleted(stage)),
    },
    Fault {
        name: "control-stale-stock",
        what: "a build that checks stock in one step and takes it in another",
        cost: NOTHING,
        expected: Expected::Caught("was accepted and failed: sold-out"),
        strike: |stage, _| Box::pin(sold_from_stale_stock(stage)),
    },
    Fault {
        name: "control-early-acknowledge",
        what: "a build that acknowledges entries before they are recorded; a worker is killed in between",
        cost: NOTHING,
        expected: Expected::Caught("was accepted and is lost"),
        strike: |stage, dice| Box::pin(killed_after_acknowledging(stage, dice)),
    },
    Fault {
        name: "control-blind-give-back",
        what: "a build that gives units back whatever an order's state; a verdict comes twice",
        cost: UNRECORDED,
        expected: Expected::Caught("I4 does not hold"),
        strike: |stage, dice| Box::pin(settled_twice(stage, dice)),
    },
    Fault {
        name: "control-unguarded",
        what: "Redis is rolled back before a build that does not see it, and Postgres lets everything in",
        cost: UNRECORDED,
        expected: Expected::Caught("is oversold"),
        strike: |stage, _| Box::pin(unguarded(stage)),
    },
    Fault {
        name: "control-shifted-answers",
        what: "a build that gives each caller of a batch the answer of the one before",
        cost: NOTHING,
        expected: Expected::Caught("which is another's"),
        strike: |stage, _| Box::pin(answers_shifted(stage)),
    },
    Fault {
        name: "control-unnumbered",
        what: "a build that applies a change of stock as often as it comes; one comes late",
        cost: NOTHING,
        expected: Expected::Caught("was accepted and failed: sold-out"),
        strike: |stage, _| Box::pin(restocked_twice(stage)),
    },
];
