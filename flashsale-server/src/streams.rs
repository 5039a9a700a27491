//! How many status streams are open.
//!
//! A stream holds its connection for as long as the order takes, so one client could hold them all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    metrics::EventStream,
    problem::{Code, Problem},
    rate_limit::subject,
};

/// When a place may be free again: most orders are final by then.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A place for each open stream, some per client and some for all.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    taken: Arc<Mutex<Taken>>,
    per_client: u32,
    at_once: u32,
}

#[derive(Debug, Default)]
struct Taken {
    by_client: HashMap<IpAddr, u32>,
    all: u32,
}

/// The place of one stream, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<Mutex<Taken>>,
    client: IpAddr,
    _counted: EventStream,
}

impl Streams {
    pub(crate) fn new(per_client: u32, at_once: u32) -> Self {
        Self { taken: Arc::default(), per_client, at_once }
    }

    /// Takes a place for a stream of this client, or refuses it.
    pub(crate) fn place(&self, client: IpAddr) -> Result<Place, Problem> {
        // As orders are counted: another address of the same home is the same client.
        let client = subject(client);
        let mut taken = locked(&self.taken);
        if taken.by_client.get(&client).is_some_and(|streams| *streams >= self.per_client) {
            let detail = format!("One address may hold {} status streams open.", self.per_client);
            return Err(Problem::new(Code::RateLimited, detail).retry_after(RETRY_AFTER));
        }
        if taken.all >= self.at_once {
            let detail = "Too many status streams are open here. Poll the status, or try again.";
            return Err(Problem::new(Code::Unavailable, detail).retry_after(RETRY_AFTER));
        }
        taken.all += 1;
        *taken.by_client.entry(client).or_default() += 1;
        Ok(Place { taken: Arc::clone(&self.taken), client, _counted: EventStream::open() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = locked(&self.taken);
        taken.all -= 1;
        if let Some(streams) = taken.by_client.get_mut(&self.client) {
            *streams -= 1;
            if *streams == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

fn locked(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn places_run_out_per_client_and_for_all_and_are_free_again() {
        let streams = Streams::new(2, 3);
        let place = |client: &str| streams.place(client.parse().unwrap());
        let refused = |client| {
            let response = place(client).unwrap_err().into_response();
            (response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap().to_owned())
        };
        let (first, second) = (place("2001:db8::1").unwrap(), place("2001:db8::2").unwrap());
        assert_eq!(refused("2001:db8::3"), (429, "2".to_owned()), "of the same network");
        let third = place("1.1.1.1").unwrap();
        assert_eq!(refused("2.2.2.2"), (503, "2".to_owned()));
        drop(first);
        let again = place("2001:db8::3").unwrap();
        drop((second, third, again));
        let taken = locked(&streams.taken);
        assert_eq!((taken.all, taken.by_client.len()), (0, 0), "nothing is kept of who is gone");
    }
}
