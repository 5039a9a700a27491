//! Whether the stores are such that what is promised holds on them.
//!
//! Reading is one thing, judging another: what was read is judged by pure functions, each with a table test.

mod again;
mod postgres;
mod redis;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub(crate) use self::again::{Standing, tell};
use self::{postgres::PostgresFacts, redis::RedisFacts};
use crate::stores::Stores;

/// Clocks may be apart by so much.
const CLOCKS_APART_MS: u64 = 5_000;

/// What a preflight makes of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The engine works, but not as well as it might.
    Warning,
    /// This Redis may lose accepted orders or sell nothing although nobody made a mistake. To be refused, unless
    /// whoever runs it knows that.
    Unsafe,
    /// The engine cannot work, or not as promised.
    Refused,
    /// The store did not answer, or is starting: what it is like is not known yet.
    Away,
}

/// One thing that a preflight looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at, such as `redis eviction`.
    pub check: &'static str,
    /// What is to be made of it.
    pub verdict: Verdict,
    /// What was found and, unless that is as it should be, why it matters.
    pub found: String,
    /// What to change, unless it is as it should be.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    fn new(check: &'static str, verdict: Verdict, found: impl Into<String>, remedy: &str) -> Self {
        Self { check, verdict, found: found.into(), remedy: Some(remedy.to_owned()) }
    }
}

impl Stores {
    pub(crate) async fn preflight(&self) -> Vec<Finding> {
        let (redis, postgres) = futures::join!(RedisFacts::read(&self.link), PostgresFacts::read(self));
        let clocks = match (&redis, &postgres) {
            (Ok(redis), Ok(postgres)) => Some(clocks(redis.ahead_ms, postgres.ahead_ms)),
            _ => None,
        };
        let mut findings = redis.map_or_else(|away| vec![away], |facts| facts.judge());
        findings.extend(postgres.map_or_else(|away| vec![away], |facts| facts.judge()));
        findings.extend(clocks);
        findings
    }
}

/// Judges how far the stores' clocks are ahead of this machine's. No decision compares two of them, but each has
/// something that goes by it alone.
fn clocks(redis_ms: i64, postgres_ms: i64) -> Finding {
    let check = "clocks";
    let apart = |one: i64, other: i64| one.abs_diff(other) > CLOCKS_APART_MS;
    let found = format!("Redis {}, PostgreSQL {} of this machine", seconds(redis_ms), seconds(postgres_ms));
    let remedy = match (apart(redis_ms, postgres_ms), apart(redis_ms, 0), apart(postgres_ms, 0)) {
        (false, false, false) => return Finding::ok(check, found),
        (true, true, false) => "set the clock of Redis's machine: sales open and end by it",
        (true, false, true) => "set the clock of PostgreSQL's machine: the record's instants are of it",
        (false, true, true) => {
            "set the clock of this machine: it judges tokens, and order ids begin with its time"
        }
        _ => {
            "set the clocks of all three machines: sales open and end by Redis's, the record's instants are PostgreSQL's, \
              and this machine's judges tokens"
        }
    };
    Finding::new(check, Verdict::Warning, found, remedy)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(ms: i64) -> String {
    let way = if ms < 0 { "behind" } else { "ahead" };
    format!("{:.1} s {way}", ms.unsigned_abs() as f64 / 1_000.0)
}

/// How far a clock that showed `theirs_ms` between these two instants of ours is ahead.
fn ahead(before: chrono::DateTime<chrono::Utc>, theirs_ms: i64) -> i64 {
    let now = chrono::Utc::now();
    theirs_ms - i64::midpoint(before.timestamp_millis(), now.timestamp_millis())
}
