//! The size of the world that is searched, and the clauses of the protocol that can be left out of it.

use crate::state::{CHANGES, KEYS, ORDERS, USERS};

/// What the world does with an admitted order once a drainer has its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The ledger decides by key, quota and stock.
    Plain,
    /// A constraint of the database refuses it: recorded as `Failed`, whatever stock and quota say.
    Refused,
    /// Its entry cannot be decoded any further than user, key and lines: it is parked.
    Undecodable,
    /// Its entry does not say what it holds: a drainer parks it, or the load that meets it, which gives its unit back.
    Unreadable,
}

impl Kind {
    pub(crate) fn is_parked(self) -> bool {
        matches!(self, Self::Undecodable | Self::Unreadable)
    }
}

/// One `POST /api/orders`: one unit of the one product, under an order id of its own (its place in the list).
///
/// Two requests with the same key are one client that repeats; it waits for its first answer before it does.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub user: u8,
    pub key: u8,
    pub kind: Kind,
}

impl Request {
    pub const fn plain(user: u8, key: u8) -> Self {
        Self { user, key, kind: Kind::Plain }
    }
}

/// What a Redis that lost writes looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It restarted or was promoted: another `run_id`.
    Restart,
    /// The same server went back in time. Nothing but the admission sequence can tell.
    Silent,
    /// A replica that was behind is promoted, and the old master still answers whoever is connected to it.
    Failover,
    /// The book is overwritten by a key of another type; stock and stream stay.
    Damage,
}

/// How much of everything there is. A search visits every schedule within these bounds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub stock: i8,
    pub limit: i8,
    pub requests: &'static [Request],
    /// How often a lane sends one order: 2 = once more after a timeout.
    pub sendings: u8,
    /// Whether the reply of a reservation can get lost after the script ran.
    pub replies_lost: bool,
    /// At most 2. Crashes are not counted: each may die any number of times, anywhere.
    pub drainers: usize,
    /// Recoverers that can be at work at once, at most 2; each may be killed anywhere.
    pub recoverers: usize,
    /// How many recoveries are started in all (each takes the next epoch).
    pub recovers: u8,
    /// How often Redis loses writes (an older copy comes back, or nothing at all).
    pub losses: u8,
    pub loss: Loss,
    /// Calls of a recoverer that are delayed and arrive (again) at any later moment.
    pub late_calls: u8,
    /// Whether a client polls the status of the first request.
    pub status_reads: bool,
    /// Whether an operator discards what is parked.
    pub discards: bool,
    /// By how much operators change the stock, each change once, in any order; at most 2.
    pub changes: &'static [i8],
    /// Processes that ask for such changes and carry them, at most 2. Each may be killed any number of times.
    pub carriers: usize,
}

impl Bounds {
    pub(crate) fn assert_fit(&self) {
        assert!(self.requests.len() <= ORDERS && self.drainers <= 2 && self.recoverers <= 2);
        assert!((1..=2).contains(&self.sendings));
        assert!(self.changes.len() <= CHANGES && self.carriers <= 2);
        for request in self.requests {
            assert!(usize::from(request.user) < USERS && usize::from(request.key) < KEYS);
        }
    }
}

/// The clauses of the protocol that a test can leave out, to see the search find what each one prevents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clause {
    /// `reserve` looks for the key before anything else. Without it a repeat becomes a second order.
    ReserveLooksForKey,
    /// `replayed` with one's own id is `admitted`. Without it a lane's second sending, which found what the first one
    /// had done, is answered as the repeat of a request that the client never sent.
    OwnReplayIsAdmitted,
    /// A refusal of a second sending is an unknown outcome: the first one may still arrive and be admitted.
    RefusedResendIsUnknown,
    /// A reservation that arrives after its lane answered "unknown" is refused whole: its not-after instant has passed.
    /// Without it a client that repeats the key, and is refused, has an order all the same. For this the lane must not
    /// answer "unknown" before that instant, also where a connection broke early.
    NotAfter,
    /// Scripts compare the sale's `run_id` with the server's. Without it a restored copy goes on selling.
    RunId,
    /// `reserve` carries the highest sequence its process saw. Without it a Redis that went back in time unnoticed
    /// gives a second id to a key whose first order is just being recorded.
    ///
    /// It is worth less than `run_id`: once requests of others, sent before, have pushed the sequence up again, or at a
    /// process that saw nothing, it does not tell. So a silent loss keeps P3 here only with a single client.
    Seen,
    /// Scripts compare the sale's epoch with the caller's. An old request is refused before it does
    /// anything.
    ///
    /// With one master no promise breaks without it: what an old drainer records is refused by
    /// [`RecordChecksEpoch`](Self::RecordChecksEpoch), what it settles meets the states that the recovery wrote, and a
    /// reservation may enter any sale that is open and loaded into this server. But an old master that still answers
    /// is open, and loaded into itself: without it, it goes on accepting orders of which nobody will hear again.
    Epoch,
    /// Scripts refuse while the sale is `loading`.
    Loading,
    /// `begin` compares entry id *and* order id. Without it the entry of an order that is lost, whose id another order
    /// got since, is taken up again.
    BeginChecksEntry,
    /// `settle` compares entry id *and* order id. Entry ids repeat after a rollback: without it the entry of another
    /// order is deleted.
    SettleChecksEntry,
    /// `settle` gives back only for a state that is not final. Without it an entry that a recovery left in the stream
    /// gives its unit back a second time.
    SettleChecksState,
    /// The entry is acknowledged after the commit.
    AcknowledgeAfterCommit,
    /// A lost answer to COMMIT is no verdict. Without it an order that stands is compensated.
    LostCommitIsNoVerdict,
    /// `record` reads, decides and writes under the lock of the sale's row. Without it two drainers decide on one state.
    RecordUnderLock,
    /// `record` compares the epoch of its `begin` under that lock. Without it an order is recorded that a recovery did
    /// not count.
    RecordChecksEpoch,
    /// The ledger decides on the stock again: a Redis that forgot sells what is gone.
    LedgerChecksStock,
    /// The ledger decides on the quota again.
    LedgerChecksQuota,
    /// The ledger decides on the key again.
    LedgerChecksKey,
    /// A duplicate's key is pointed to the first order, so that the next repeat names the order that stands.
    ///
    /// No promise breaks without it here: a duplicate needs a Redis that went back unnoticed, and until that is
    /// recovered (which writes every key anew) nothing is promised about its keys.
    DuplicateKeyToFirst,
    /// Parking compares the epoch under the row lock. Without it an order is parked that a recovery did not count.
    ParkChecksEpoch,
    /// An order that has a row is settled, not parked.
    ///
    /// No promise breaks without it here: an entry is either recorded by all drainers or parked by all. It takes two
    /// that disagree on what can be decoded.
    ParkChecksRow,
    /// Load, step 2: refused unless its epoch is higher, or it is the same call again while loading. Without it a slow
    /// recoverer takes the sale back from a newer one.
    ///
    /// Alone it is not missed here: such a recoverer stops at [`LoadedChecksEpoch`](Self::LoadedChecksEpoch). Without
    /// both, the sale opens under the old epoch and sells, and a delayed call lets the newer load overwrite it.
    EnterChecksEpoch,
    /// Load, step 2, names the server that the recoverer looked at. Without it a delayed step 2 that reaches a Redis
    /// which restarted meanwhile makes it take chunks computed from the stream that it lost.
    EnterChecksRunId,
    /// A chunk is refused unless epoch and token are its own. Without it the loads of two recoverers mix.
    ChunkChecksToken,
    /// A chunk is refused unless it is the next one or the last one written. Without it a delayed first chunk wipes
    /// what the second one wrote.
    ChunkChecksNumber,
    /// Before the sale opens, `loaded_epoch` is written, and only if the epoch is still this load's.
    ///
    /// Alone it is not missed here either; see [`EnterChecksEpoch`](Self::EnterChecksEpoch).
    LoadedChecksEpoch,
    /// A recovery reads Postgres after it has taken the epoch. Without it an order that is recorded in between counts
    /// neither as recorded nor as queued.
    ReadLedgerAfterFence,
    /// A recovery reads the stream before Postgres.
    ///
    /// No promise breaks without it here: once the epoch is taken nobody records or parks, so both reads see one truth
    /// in either order. [`ReadLedgerAfterFence`](Self::ReadLedgerAfterFence) is what counts.
    ReadStreamBeforeLedger,
    /// A recovery counts parked orders as held.
    RecoverCountsParked,
    /// The admission sequence goes on above everything recorded.
    SequenceRises,
    /// A book of another type fences the sale. Without it a queued order, whose state cannot be read, is not found.
    DamageFences,
    /// A load parks an entry of which it cannot be read what it holds, before it deletes it. Without it the order is
    /// nowhere.
    LoadParksUnreadable,
    /// Ending a dead letter compares the epoch under the row lock. Without it an order is failed that a load, which has
    /// read the record before, writes as held.
    ///
    /// No promise breaks without it here: the letter is still there, so that the keeper ends it once more, and until
    /// then it counts as parked.
    DiscardChecksEpoch,
    /// A dead letter stays until Redis has been told how it ended. Without it a command that is killed in between leaves
    /// a unit that is held by nobody.
    LetterStaysUntilTold,
    /// A status is read from Redis only when it is open under the known epoch, on its own server.
    StatusFromOpenOnly,
    /// That epoch is compared. Without it an old master shows what was true before it was replaced.
    StatusChecksEpoch,
    /// What the record says of an order that an open Redis does not know is shown only if the epoch is still the one
    /// under which that Redis was read. Without it an old master denies what the new one has accepted since, or has a
    /// verdict shown that the new one does not show yet.
    RecordedChecksEpoch,
    /// A status that Postgres gave while Redis was fenced is shown only if Redis still is in that same load.
    StatusLooksAgain,
    /// A change of the stock is known by its operation's id. Without it a command that is repeated changes it again.
    ChangeOncePerOperation,
    /// A change is requested only when the one before has its outcome. Without it nobody can tell from a Redis that
    /// has the later one whether it has the earlier one.
    OneChangeAtATime,
    /// More stock is in the record before it is in Redis. Without it Redis admits what the ledger has not, and orders
    /// fail that were promised a unit.
    IncreaseRecordFirst,
    /// Less stock is taken in Redis before the record has it. Without it the record takes units that admitted orders
    /// hold.
    ReduceRedisFirst,
    /// Redis takes a change only if it is the next one. Without it a change that two processes carry counts twice.
    ChangeNumbered,
    /// Redis notes whether it gave the units of a reduction, and says so again to who asks again. Without it a
    /// reduction is recorded as refused whose units are gone.
    OutcomeIsNoted,
    /// A change is settled only while it has no outcome. Without it two processes that carried it settle it twice.
    SettlesWantedOnly,
    /// A reduction is settled only under the epoch in which Redis answered. Without it a load that does not know of it
    /// sells its units meanwhile.
    ChangeSettleChecksEpoch,
    /// The record refuses a stock below what is sold. Without it a Redis that forgot what it sold gives units away.
    StockCoversSold,
    /// A load writes up to which change its stock reaches. Without it that one is added again.
    LoadSetsSettledChanges,
    /// It reads that number in one snapshot with the stock. Without it a change that comes between is added again.
    LoadReadsOneSnapshot,
}

impl Clause {
    pub const ALL: &[Self] = &[
        Self::ReserveLooksForKey,
        Self::OwnReplayIsAdmitted,
        Self::RefusedResendIsUnknown,
        Self::NotAfter,
        Self::RunId,
        Self::Seen,
        Self::Epoch,
        Self::Loading,
        Self::BeginChecksEntry,
        Self::SettleChecksEntry,
        Self::SettleChecksState,
        Self::AcknowledgeAfterCommit,
        Self::LostCommitIsNoVerdict,
        Self::RecordUnderLock,
        Self::RecordChecksEpoch,
        Self::LedgerChecksStock,
        Self::LedgerChecksQuota,
        Self::LedgerChecksKey,
        Self::DuplicateKeyToFirst,
        Self::ParkChecksEpoch,
        Self::ParkChecksRow,
        Self::EnterChecksEpoch,
        Self::EnterChecksRunId,
        Self::ChunkChecksToken,
        Self::ChunkChecksNumber,
        Self::LoadedChecksEpoch,
        Self::ReadLedgerAfterFence,
        Self::ReadStreamBeforeLedger,
        Self::RecoverCountsParked,
        Self::SequenceRises,
        Self::DamageFences,
        Self::LoadParksUnreadable,
        Self::DiscardChecksEpoch,
        Self::LetterStaysUntilTold,
        Self::StatusFromOpenOnly,
        Self::StatusChecksEpoch,
        Self::RecordedChecksEpoch,
        Self::StatusLooksAgain,
        Self::ChangeOncePerOperation,
        Self::OneChangeAtATime,
        Self::IncreaseRecordFirst,
        Self::ReduceRedisFirst,
        Self::ChangeNumbered,
        Self::OutcomeIsNoted,
        Self::SettlesWantedOnly,
        Self::ChangeSettleChecksEpoch,
        Self::StockCoversSold,
        Self::LoadSetsSettledChanges,
        Self::LoadReadsOneSnapshot,
    ];
}
