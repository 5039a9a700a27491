//! The worlds that are searched. Each one is about one kind of trouble; all of them check every promise.

use crate::bounds::{Bounds, Kind, Loss, Request};

const ONE: &[Request] = &[Request::plain(0, 0)];
const TWO_USERS: &[Request] = &[Request::plain(0, 0), Request::plain(1, 1)];
const REPEAT: &[Request] = &[Request::plain(0, 0), Request::plain(0, 0)];
const REPEAT_AND_OTHER: &[Request] = &[Request::plain(0, 0), Request::plain(0, 0), Request::plain(1, 1)];
const TWO_KEYS_AND_OTHER: &[Request] = &[Request::plain(0, 0), Request::plain(0, 1), Request::plain(1, 2)];
const REFUSED_THEN_REPEAT: &[Request] =
    &[Request { kind: Kind::Refused, ..Request::plain(0, 0) }, Request::plain(1, 1), Request::plain(1, 1)];
const UNDECODABLE_AND_OTHER: &[Request] =
    &[Request { kind: Kind::Undecodable, ..Request::plain(0, 0) }, Request::plain(1, 1)];
const UNREADABLE_AND_OTHER: &[Request] =
    &[Request { kind: Kind::Unreadable, ..Request::plain(0, 0) }, Request::plain(1, 1)];
const TWO_AND_REFUSED: &[Request] =
    &[Request::plain(0, 0), Request::plain(1, 1), Request { kind: Kind::Refused, ..Request::plain(0, 2) }];
const REFUSED_AND_OTHER: &[Request] =
    &[Request { kind: Kind::Refused, ..Request::plain(0, 0) }, Request::plain(1, 1)];

/// Nothing lost: two drainers that crash, lost commits, lost replies, re-sending, a repeated key.
pub const DRAIN: Bounds = Bounds {
    stock: 1,
    limit: 1,
    requests: REPEAT_AND_OTHER,
    sendings: 2,
    replies_lost: true,
    drainers: 2,
    recoverers: 0,
    recovers: 0,
    losses: 0,
    loss: Loss::Restart,
    late_calls: 0,
    status_reads: false,
    discards: false,
    changes: &[],
    carriers: 0,
};

/// As [`DRAIN`], with stock for everybody: the quota refuses.
pub const QUOTA: Bounds = Bounds { stock: 2, limit: 1, requests: TWO_KEYS_AND_OTHER, ..DRAIN };

/// As [`DRAIN`], with enough for everybody: only the key tells a repeat from a second order.
pub const REPEATS: Bounds = Bounds { stock: 3, limit: 3, drainers: 1, ..DRAIN };

/// The unit of a failed order comes back and is sold again.
pub const GIVE_BACK: Bounds = Bounds { requests: REFUSED_THEN_REPEAT, ..DRAIN };

/// Redis loses its last writes or all of them; recoveries that are killed.
pub const LOSS: Bounds =
    Bounds { requests: TWO_USERS, recoverers: 1, recovers: 2, losses: 1, sendings: 1, ..DRAIN };

/// The same for a client that repeats its key, and lanes that send again under a newer epoch.
pub const LOSS_REPEAT: Bounds = Bounds { requests: REPEAT, sendings: 2, drainers: 1, ..LOSS };

/// An order that fails, around a loss.
pub const LOSS_GIVE_BACK: Bounds = Bounds { requests: REFUSED_AND_OTHER, recovers: 1, ..LOSS };

/// An entry that is parked, around a loss.
pub const LOSS_PARKED: Bounds = Bounds { requests: UNDECODABLE_AND_OTHER, recovers: 1, ..LOSS };

/// An entry that nobody can read, around a loss: a drainer or a load parks it.
pub const LOSS_UNREADABLE: Bounds = Bounds { requests: UNREADABLE_AND_OTHER, drainers: 1, ..LOSS_PARKED };

/// An operator discards what is parked while the sale is recovered.
pub const DISCARD: Bounds =
    Bounds { drainers: 1, losses: 0, recovers: 2, discards: true, replies_lost: false, ..LOSS_PARKED };

/// A replica is promoted while the old master still answers buyers, and who asks for a status.
pub const FAILOVER: Bounds =
    Bounds { requests: ONE, drainers: 1, recovers: 1, loss: Loss::Failover, status_reads: true, ..LOSS };

/// The same with two buyers, and without the status.
pub const FAILOVER_TWO: Bounds = Bounds { requests: TWO_USERS, status_reads: false, ..FAILOVER };

/// The book is overwritten.
pub const DAMAGE: Bounds = Bounds { loss: Loss::Damage, recovers: 2, ..FAILOVER };

/// Redis loses data twice.
pub const LOSS_TWICE: Bounds = Bounds { requests: ONE, losses: 2, ..LOSS };

/// Two recoverers against each other and against sale and drain, with delayed calls.
pub const RACE: Bounds =
    Bounds { recoverers: 2, recovers: 2, losses: 0, late_calls: 2, drainers: 1, replies_lost: false, ..LOSS };

/// The same while Redis loses data.
pub const RACE_LOSS: Bounds = Bounds { requests: ONE, losses: 1, late_calls: 1, ..RACE };

/// A Redis that goes back in time unnoticed, and one client.
pub const SILENT_ONE: Bounds = Bounds {
    requests: REPEAT,
    loss: Loss::Silent,
    losses: 1,
    drainers: 2,
    sendings: 1,
    replies_lost: false,
    ..LOSS
};

/// The same with others: here only what the ledger decides is promised.
pub const SILENT_CROWD: Bounds =
    Bounds { requests: TWO_KEYS_AND_OTHER, recovers: 1, drainers: 1, ..SILENT_ONE };

/// The same with stock for everybody: the quota decides.
pub const SILENT_QUOTA: Bounds = Bounds { stock: 2, ..SILENT_CROWD };

/// The same with a repeated key.
pub const SILENT_REPEAT: Bounds = Bounds { requests: REPEAT_AND_OTHER, ..SILENT_CROWD };

/// A status that is polled meanwhile.
pub const STATUS: Bounds = Bounds {
    requests: ONE,
    drainers: 1,
    recoverers: 2,
    losses: 1,
    status_reads: true,
    replies_lost: false,
    ..LOSS
};

/// A status that is polled while an order fails or is parked.
pub const STATUS_PARKED: Bounds =
    Bounds { requests: &[Request { kind: Kind::Undecodable, ..Request::plain(0, 0) }], ..STATUS };

pub const STATUS_FAILED: Bounds =
    Bounds { requests: &[Request { kind: Kind::Refused, ..Request::plain(0, 0) }], ..STATUS };

/// An operator raises and lowers the stock while it sells, and the unit of a failed order comes back. Nothing is lost.
pub const CHANGES: Bounds = Bounds {
    limit: 2,
    requests: TWO_AND_REFUSED,
    sendings: 1,
    replies_lost: false,
    drainers: 1,
    changes: &[1, -1],
    carriers: 2,
    ..DRAIN
};

/// The same while the sale is recovered.
pub const CHANGES_RECOVER: Bounds = Bounds { requests: TWO_USERS, recoverers: 1, recovers: 1, ..CHANGES };

/// The same around a loss.
pub const CHANGES_LOSS: Bounds = Bounds { requests: ONE, losses: 1, ..CHANGES_RECOVER };

/// A Redis that goes back in time unnoticed around a reduction: only what the record decides is promised.
pub const CHANGES_SILENT: Bounds = Bounds { changes: &[-1], loss: Loss::Silent, ..CHANGES_LOSS };

/// A replica is promoted while the old master still answers, also who changes the stock.
pub const CHANGES_FAILOVER: Bounds = Bounds { loss: Loss::Failover, ..CHANGES_SILENT };

/// All of them, by name.
pub const ALL: &[(&str, Bounds)] = &[
    ("drain", DRAIN),
    ("quota", QUOTA),
    ("repeats", REPEATS),
    ("give back", GIVE_BACK),
    ("loss", LOSS),
    ("loss, repeat", LOSS_REPEAT),
    ("loss, give back", LOSS_GIVE_BACK),
    ("loss, parked", LOSS_PARKED),
    ("loss, unreadable", LOSS_UNREADABLE),
    ("discard", DISCARD),
    ("failover", FAILOVER),
    ("failover, two", FAILOVER_TWO),
    ("damage", DAMAGE),
    ("loss, twice", LOSS_TWICE),
    ("race", RACE),
    ("race, loss", RACE_LOSS),
    ("silent, one client", SILENT_ONE),
    ("silent, crowd", SILENT_CROWD),
    ("silent, quota", SILENT_QUOTA),
    ("silent, repeat", SILENT_REPEAT),
    ("status", STATUS),
    ("status, parked", STATUS_PARKED),
    ("status, failed", STATUS_FAILED),
    ("changes", CHANGES),
    ("changes, recover", CHANGES_RECOVER),
    ("changes, loss", CHANGES_LOSS),
    ("changes, silent", CHANGES_SILENT),
    ("changes, failover", CHANGES_FAILOVER),
];
