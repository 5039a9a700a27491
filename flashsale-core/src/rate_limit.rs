//! How many requests one client address may make: a fixed window in Redis, so that all processes count
//! together, and beside it what this process was told, so that it need not ask again.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{engine::Engine, error::Result, scripts};

/// Addresses that a process remembers as limited. Further ones are asked about each time.
const MOST_REMEMBERED: usize = 65_536;
/// A full memory is swept at most so often: under an attack from many addresses a sweep finds nothing.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How many requests one client address may make in one fixed window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests allowed in a window.
    pub requests: u32,
    /// The window's length.
    pub window: Duration,
}

/// The answer of [`Engine::rate_limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateDecision {
    /// The request is within the limit.
    Allowed,
    /// It is not; the window ends after this long.
    Limited {
        /// Until the window ends.
        retry_after: Duration,
    },
}

impl Engine {
    /// Counts one request of this address, over all processes that share the Redis.
    ///
    /// An address that is over its limit is told so without asking Redis again, until the window that Redis
    /// spoke of ends and no longer: a flood of refused requests costs Redis one call per process and window.
    ///
    /// An error means that Redis could not be asked. Whether the request is then let through is the caller's
    /// to decide; in front of [`reserve`](Self::reserve), which needs the same Redis, letting it through gains
    /// nothing.
    pub async fn rate_limit(&self, address: IpAddr, limit: RateLimit) -> Result<RateDecision> {
        let stores = self.stores();
        let asked = Instant::now();
        if let Some(retry_after) = self.known_to_be_limited(address, limit) {
            return Ok(RateDecision::Limited { retry_after });
        }
        match scripts::rate_limit(&stores.link, address, limit.requests, limit.window).await? {
            None => Ok(RateDecision::Allowed),
            Some(retry_after) => {
                // Counted from before Redis was asked, it is over here when it is over there, or earlier.
                stores.limited.note(address, limit.requests, asked, retry_after);
                Ok(RateDecision::Limited { retry_after })
            }
        }
    }

    /// How long this address is surely over its limit yet, by what Redis said before: for a caller who wants to
    /// turn it away before waiting for anything. Nothing is asked and nothing counted.
    pub fn known_to_be_limited(&self, address: IpAddr, limit: RateLimit) -> Option<Duration> {
        self.stores().limited.left(address, limit.requests, Instant::now())
    }
}

/// The addresses of which Redis said that they are over their limit, and until when.
#[derive(Default)]
pub(crate) struct Limited(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    addresses: HashMap<IpAddr, Over>,
    swept: Option<Instant>,
}

/// So many requests were made, and none is forgotten before this instant.
struct Over {
    requests: u32,
    until: Instant,
}

impl Limited {
    /// How long an address surely stays over this limit; `None` if Redis is to be asked.
    fn left(&self, address: IpAddr, requests: u32, now: Instant) -> Option<Duration> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = memory.addresses.get(&address)?;
        if over.until <= now {
            memory.addresses.remove(&address);
            return None;
        }
        // A caller with a higher limit is not bound by what one with a lower limit was told.
        (requests <= over.requests).then(|| over.until - now)
    }

    fn note(&self, address: IpAddr, requests: u32, asked: Instant, left: Duration) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = asked.checked_add(left) else { return };
        if memory.has_room(asked) || memory.addresses.contains_key(&address) {
            memory.addresses.insert(address, Over { requests, until });
        }
    }
}

impl Memory {
    fn has_room(&mut self, now: Instant) -> bool {
        let full = self.addresses.len() >= MOST_REMEMBERED;
        if full && self.swept.is_none_or(|swept| now >= swept + SWEEP_EVERY) {
            self.swept = Some(now);
            self.addresses.retain(|_, over| over.until > now);
        }
        self.addresses.len() < MOST_REMEMBERED
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(number: usize) -> IpAddr {
        Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into()
    }

    #[test]
    fn an_address_is_limited_for_as_long_as_was_said() {
        let (limited, asked) = (Limited::default(), Instant::now());
        limited.note(address(1), 10, asked, 3 * SECOND);
        assert_eq!(limited.left(address(1), 10, asked + SECOND), Some(2 * SECOND));
        assert_eq!(limited.left(address(1), 9, asked + SECOND), Some(2 * SECOND));
        assert_eq!(limited.left(address(1), 11, asked + SECOND), None, "a higher limit");
        assert_eq!(limited.left(address(2), 10, asked + SECOND), None, "another address");
        assert_eq!(limited.left(address(1), 10, asked + 3 * SECOND), None, "the window is over");
        assert!(limited.0.lock().unwrap().addresses.is_empty());
    }

    #[test]
    fn the_memory_is_bounded() {
        let (limited, start) = (Limited::default(), Instant::now());
        let known = |number, now| limited.left(address(number), 1, now).is_some();
        for number in 0..MOST_REMEMBERED {
            // Every second one's window is about to end.
            limited.note(address(number), 1, start, if number % 2 == 0 { SECOND } else { 10 * SECOND });
        }
        limited.note(address(MOST_REMEMBERED), 1, start, 10 * SECOND);
        assert!(!known(MOST_REMEMBERED, start), "no room");
        // Who is known already takes no room.
        limited.note(address(0), 1, start, 10 * SECOND);
        assert!(known(0, start + 2 * SECOND));

        let later = start + 2 * SECOND;
        limited.note(address(MOST_REMEMBERED), 1, later, SECOND);
        assert!(known(MOST_REMEMBERED, later), "what is over makes room");
        assert_eq!(limited.0.lock().unwrap().addresses.len(), MOST_REMEMBERED / 2 + 2);
    }
}
