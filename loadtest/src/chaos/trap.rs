//! A trap in a proxy: it holds one message on its way, the one that somebody waits for, so that what sent it can
//! be killed at just that point of its work. Everything else passes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{sync::watch, time::timeout};

/// What a trap waits for.
#[derive(Debug, Clone)]
pub(crate) struct Trap {
    /// A request that holds these, in this order.
    request: Vec<Vec<u8>>,
    /// `None`: it is the request that is held, from the last of these on. Else the answer to it, if that holds
    /// these bytes: then it was carried out, and whoever sent it does not know.
    answer: Option<Vec<u8>>,
    /// So many are let by first.
    let_by: usize,
}

impl Trap {
    /// Holds a request.
    pub(crate) fn request<T: AsRef<[u8]>>(holds: impl IntoIterator<Item = T>) -> Self {
        let request = holds.into_iter().map(|bytes| bytes.as_ref().to_vec()).collect();
        Self { request, answer: None, let_by: 0 }
    }

    /// Holds the answer to it instead.
    pub(crate) fn answered(self, holds: impl AsRef<[u8]>) -> Self {
        Self { answer: Some(holds.as_ref().to_vec()), ..self }
    }

    /// Lets so many by first.
    pub(crate) fn after(self, let_by: usize) -> Self {
        Self { let_by, ..self }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Set,
    /// It holds something, since then.
    Sprung(Instant),
    /// What it held goes on its way, late.
    LetGo,
    /// What it held is gone, and the connection with it.
    Cut,
}

/// A trap that was laid. Dropping it cuts what it holds.
pub(crate) struct Snare(Arc<Laid>);

/// What the connections of a proxy see of a trap.
#[derive(Debug)]
pub(super) struct Laid {
    trap: Trap,
    let_by: AtomicUsize,
    state: watch::Sender<State>,
}

impl Snare {
    pub(super) fn new(trap: Trap) -> (Self, Arc<Laid>) {
        let let_by = AtomicUsize::new(trap.let_by);
        let laid = Arc::new(Laid { trap, let_by, state: watch::Sender::new(State::Set) });
        (Self(Arc::clone(&laid)), laid)
    }

    /// Waits until it holds something. Since when it does.
    pub(crate) async fn sprung(&self, within: Duration) -> Result<Instant> {
        let mut state = self.0.state.subscribe();
        let sprung = timeout(within, state.wait_for(|state| matches!(state, State::Sprung(_)))).await;
        match *sprung.context("what the trap waits for did not come by")?? {
            State::Sprung(since) => Ok(since),
            State::Set | State::LetGo | State::Cut => unreachable!("it was waited for"),
        }
    }

    pub(crate) fn has_sprung(&self) -> bool {
        matches!(*self.0.state.borrow(), State::Sprung(_))
    }

    /// Passes on what it holds, late.
    pub(crate) fn let_go(self) {
        self.0.state.send_replace(State::LetGo);
    }
}

impl Drop for Snare {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let held = *state != State::LetGo;
            if held {
                *state = State::Cut;
            }
            held
        });
    }
}

impl Laid {
    /// Whether this is the message that is held.
    fn springs(&self) -> bool {
        if self.let_by.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            return false;
        }
        self.state.send_if_modified(|state| {
            let is_set = *state == State::Set;
            if is_set {
                *state = State::Sprung(Instant::now());
            }
            is_set
        })
    }

    /// Waits for the end of the trap: whether what it holds is passed on.
    pub(super) async fn end(&self) -> bool {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| matches!(state, State::LetGo | State::Cut)).await;
        ended.is_ok_and(|state| *state == State::LetGo)
    }
}

/// What one connection remembers of what came by. A message may come in several pieces.
#[derive(Debug, Default)]
pub(super) struct Track {
    laid: Option<Arc<Laid>>,
    /// How many of the request's marks have come by.
    marks: usize,
    /// The end of what came by, where a mark may have begun; of the requests and of the answers.
    tails: [Vec<u8>; 2],
    /// The whole request came by; this is its answer.
    answering: bool,
}

impl Track {
    /// From which byte on this piece of a request is held, and by what.
    pub(super) fn request(&mut self, laid: Option<&Arc<Laid>>, piece: &[u8]) -> Option<(usize, Arc<Laid>)> {
        self.follow(laid);
        let laid = self.laid.clone()?;
        // One request at a time is under way on a connection.
        self.answering = false;
        let mut from = 0;
        while let Some(mark) = laid.trap.request.get(self.marks) {
            let (start, end) = find(&mut self.tails[0], &piece[from..], mark)?;
            let (start, end) = (from + start, from + end);
            self.marks += 1;
            from = end;
            if self.marks < laid.trap.request.len() {
                continue;
            }
            self.marks = 0;
            if laid.trap.answer.is_some() {
                self.answering = true;
                return None;
            }
            return laid.springs().then_some((start, laid));
        }
        None
    }

    /// The same of a piece of an answer.
    pub(super) fn answer(&mut self, laid: Option<&Arc<Laid>>, piece: &[u8]) -> Option<(usize, Arc<Laid>)> {
        self.follow(laid);
        let laid = self.laid.clone()?;
        if !self.answering {
            // Of the request that this answers not all marks had come by.
            self.forget();
            return None;
        }
        let mark = laid.trap.answer.as_ref()?;
        let (start, _) = find(&mut self.tails[1], piece, mark)?;
        self.forget();
        laid.springs().then_some((start, laid))
    }

    /// What came by before this trap was laid says nothing of it.
    fn follow(&mut self, laid: Option<&Arc<Laid>>) {
        let is_same = match (&self.laid, laid) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        if !is_same {
            self.laid = laid.cloned();
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.marks = 0;
        self.tails.iter_mut().for_each(Vec::clear);
        self.answering = false;
    }
}

/// Where in this piece the mark begins and ends; one that began in an earlier piece begins at 0. Without it, the
/// end of the piece is remembered.
fn find(tail: &mut Vec<u8>, piece: &[u8], mark: &[u8]) -> Option<(usize, usize)> {
    let before = tail.len();
    tail.extend_from_slice(piece);
    if let Some(at) = tail.windows(mark.len()).position(|window| window == mark) {
        tail.clear();
        return Some((at.saturating_sub(before), at + mark.len() - before));
    }
    let keep = tail.len().min(mark.len() - 1);
    tail.drain(..tail.len() - keep);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(trap: Trap) -> (Track, Arc<Laid>, Snare) {
        let (snare, laid) = Snare::new(trap);
        (Track::default(), laid, snare)
    }

    fn at(found: Option<(usize, Arc<Laid>)>) -> Option<usize> {
        found.map(|(at, _)| at)
    }

    #[test]
    fn a_request_is_held_from_its_mark_on_and_only_the_first() {
        let (mut one, laid, _snare) = track(Trap::request(["COMMIT"]));
        let mut other = Track::default();
        assert_eq!(at(one.request(Some(&laid), b"SELECT")), None);
        assert_eq!(at(one.answer(Some(&laid), b"COMMIT")), None);
        assert_eq!(at(one.request(Some(&laid), b"INSERT; COMMIT; BEGIN")), Some(8));
        assert_eq!(at(one.request(Some(&laid), b"COMMIT")), None);
        assert_eq!(at(other.request(Some(&laid), b"COMMIT")), None);
    }

    #[test]
    fn a_mark_may_come_in_pieces() {
        let (mut track, laid, _snare) = track(Trap::request(["COMMIT"]));
        for piece in [&b"COMCO"[..], b"M", b"MI"] {
            assert_eq!(at(track.request(Some(&laid), piece)), None);
        }
        assert_eq!(at(track.request(Some(&laid), b"T and more")), Some(0));
    }

    #[test]
    fn all_marks_stand_in_one_request_in_their_order() {
        let (mut track, laid, _snare) = track(Trap::request(["settle", "failed"]));
        for piece in [&b"failed settle"[..], b"confirmed"] {
            assert_eq!(at(track.request(Some(&laid), piece)), None);
        }
        assert_eq!(at(track.answer(Some(&laid), b"ok")), None);
        // The answer has ended that request.
        assert_eq!(at(track.request(Some(&laid), b"failed")), None);
        assert_eq!(at(track.answer(Some(&laid), b"ok")), None);
        assert_eq!(at(track.request(Some(&laid), b"settle confirmed, failed")), Some(18));
    }

    #[test]
    fn an_answer_is_held_if_it_says_what_is_waited_for() {
        let (mut track, laid, _snare) = track(Trap::request(["settle"]).answered("ok").after(1));
        assert_eq!(at(track.answer(Some(&laid), b"ok")), None);
        for answer in [&b"fenced"[..], b"it is ok"] {
            // The first says something else, the second is let by.
            assert_eq!(at(track.request(Some(&laid), b"settle it")), None);
            assert_eq!(at(track.answer(Some(&laid), answer)), None);
        }
        assert_eq!(at(track.request(Some(&laid), b"begin it")), None);
        assert_eq!(at(track.answer(Some(&laid), b"ok")), None);
        assert_eq!(at(track.request(Some(&laid), b"settle it")), None);
        assert_eq!(at(track.answer(Some(&laid), b"it is o")), None);
        assert_eq!(at(track.answer(Some(&laid), b"k.")), Some(0));
    }

    #[test]
    fn what_came_before_the_trap_says_nothing() {
        let (mut track, laid, _snare) = track(Trap::request(["COMMIT"]));
        assert_eq!(at(track.request(None, b"COM")), None);
        assert_eq!(at(track.request(Some(&laid), b"MIT")), None);
        assert_eq!(at(track.request(Some(&laid), b"COM")), None);
        let (_other, newer) = Snare::new(Trap::request(["COMMIT"]));
        assert_eq!(at(track.request(Some(&newer), b"MIT")), None);
    }
}
