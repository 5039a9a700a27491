//! A transaction of a drain session.

use std::{future::Future, io, time::Duration};

use sqlx::{
    Executor, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::sql;

/// A bit above what the server allows a statement: an answer that comes later is never waited for.
const DEADLINE: Duration = Duration::from_secs(5);

/// Settings of every drain session. A drainer that stops inside its transaction holds the sale's row: within
/// these limits the server ends its session and another drainer takes over.
const SETTINGS: [(&str, &str); 10] = [
    ("statement_timeout", "3500ms"),
    ("lock_timeout", "3000ms"),
    ("idle_in_transaction_session_timeout", "2000ms"),
    ("tcp_keepalives_idle", "2"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "5000ms"),
    // In the first minutes of a sale the tables are large and have no statistics. A plan that was made and kept
    // when they were small would scan them from then on; every statement here is a look-up by index.
    ("plan_cache_mode", "force_custom_plan"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
];

/// A drainer needs one; several of a process, and parking, may need more at once.
pub(crate) const DRAIN_CONNECTIONS: u32 = 4;

/// Connections for draining, made when they are needed.
pub(crate) fn drain_pool(options: PgConnectOptions) -> PgPool {
    let options = options.application_name("flashsale-drain").options(SETTINGS);
    // Batches of one sale wait for each other anyway.
    let pool =
        PgPoolOptions::new().max_connections(DRAIN_CONNECTIONS).acquire_timeout(Duration::from_secs(3));
    // An order that was shown as confirmed and is gone after a crash would be the worst that can happen here.
    let pool = pool.after_connect(|conn, _| Box::pin(sql::commit_durably(conn)));
    let pool = pool.after_release(|conn, _| Box::pin(sql::still_alive(conn)));
    pool.connect_lazy_with(options)
}

/// A transaction that is either ended in good order, or its connection is closed: a connection on which a
/// statement was given up half way must not serve anybody else, and closing it ends the transaction.
#[derive(Debug)]
pub(super) struct Session {
    /// `None` once the transaction has ended.
    conn: Option<PoolConnection<Postgres>>,
}

impl Session {
    pub(super) async fn begin(conn: PoolConnection<Postgres>) -> Result<Self, sqlx::Error> {
        let mut session = Self { conn: Some(conn) };
        session.conn().execute("BEGIN").await?;
        Ok(session)
    }

    pub(super) fn conn(&mut self) -> &mut PgConnection {
        self.conn.as_mut().expect("it is taken only when the transaction ends")
    }

    /// After an error the outcome is unknown, unless the server itself has answered with it.
    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.conn().execute("COMMIT").await?;
        // Back to the pool.
        drop(self.conn.take());
        Ok(())
    }

    pub(super) async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.conn().execute("ROLLBACK").await?;
        drop(self.conn.take());
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            // The socket closes with it, here and now; there is nobody to wait for a polite good-bye.
            drop(conn.detach());
        }
    }
}

/// Gives a transaction up when it takes longer than the server would let it.
pub(super) async fn within_deadline<T, E: From<sqlx::Error>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {DEADLINE:?}"));
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(sqlx::Error::Io(late()).into()))
}
