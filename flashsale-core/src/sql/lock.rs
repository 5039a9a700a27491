//! Locks that keep processes from doing the same work at once. They only save work: nothing may be wrong when
//! two processes believe that they have one.

use std::{convert::Infallible, future::pending, time::Duration};

use sqlx::{PgConnection, PgPool};

use crate::error::Result;

/// A lock that nobody else has until it is released or its process ends.
#[derive(Debug)]
pub(crate) struct SessionLock {
    /// The lock is its session's: closing it lets go too, but only when the server gets to notice.
    session: PgConnection,
    limit: Duration,
    what: &'static str,
}

impl SessionLock {
    /// Whether the session that has it still stands.
    pub(crate) async fn is_held(&mut self) -> bool {
        let alive = sqlx::query("SELECT 1").execute(&mut self.session);
        tokio::time::timeout(self.limit, alive).await.is_ok_and(|alive| alive.is_ok())
    }

    /// Keeps the lock for as long as this is polled, which a frozen process does not. Never returns: a lock
    /// that was lost costs work and nothing else.
    pub(crate) async fn keep(&mut self) -> Infallible {
        loop {
            tokio::time::sleep(self.limit / 3).await;
            if !self.is_held().await {
                tracing::warn!(lock = self.what, "a lock is lost; another process may begin the same work");
                return pending().await;
            }
        }
    }

    /// Lets go at once: who asks for it in the next moment must not be refused for this one.
    pub(crate) async fn release(mut self) {
        let unlock = sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut self.session);
        if !tokio::time::timeout(self.limit, unlock).await.is_ok_and(|unlocked| unlocked.is_ok()) {
            tracing::debug!(lock = self.what, "a lock ends with its connection");
        }
    }
}

/// The lock of doing `what` with this number; `None` if another process has it.
///
/// A process that is frozen, or whose host is gone, loses it after `limit`. (Since PostgreSQL 14; an older
/// server keeps the lock until it notices.)
pub(crate) async fn try_lock(
    pool: &PgPool,
    what: &'static str,
    number: i32,
    limit: Duration,
) -> Result<Option<SessionLock>> {
    // Not the pool's from here on: if this is given up half way, the lock must not stay with a pooled connection.
    let mut session = pool.acquire().await?.detach();
    let got: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtext($1), $2)")
        .bind(what)
        .bind(number)
        .fetch_one(&mut session)
        .await?;
    if !got {
        return Ok(None);
    }
    let set = sqlx::query("SELECT set_config('idle_session_timeout', $1, false)")
        .bind(limit.as_millis().to_string())
        .execute(&mut session)
        .await;
    if let Err(error) = set {
        tracing::debug!(%error, lock = what, "a lock has no limit of its own");
    }
    Ok(Some(SessionLock { session, limit, what }))
}
