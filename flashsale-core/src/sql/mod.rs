//! Every SQL statement of the crate, one small named function each. Nothing else talks to PostgreSQL, but for the
//! ledger's session, which begins and ends its transactions itself.
//!
//! Functions that take a connection are steps of somebody's transaction; those that take a pool are a whole
//! one. Limits are not judged here: the ledger decides, the constraints stand behind it.

pub(crate) mod actions;
pub(crate) mod audit;
pub(crate) mod dead_letters;
pub(crate) mod deliveries;
pub(crate) mod history;
pub(crate) mod lock;
pub(crate) mod new_sale;
pub(crate) mod orders;
pub(crate) mod preflight;
pub(crate) mod products;
pub(crate) mod sales;
pub(crate) mod snapshot;
pub(crate) mod stock;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use sqlx::{Connection, PgConnection, PgPool, migrate::MigrateError};

pub(crate) use self::{
    history::{orders, statuses_of},
    sales::{request_recover, sales},
};
use crate::{
    error::{Error, Result},
    ids::SaleId,
};

/// What the tables are made by.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Makes every commit of this session survive a crash of PostgreSQL, also where the server's default does not.
/// A default that asks for more than that, such as `remote_apply`, stays.
pub(crate) async fn commit_durably(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    let raise = "SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') = 'off'";
    sqlx::query(raise).execute(conn).await.map(drop)
}

/// Gives a question up that is not answered in time: the server's own limit on a statement ends none whose
/// server has vanished, and who waits for it would wait for as long as the system tries to reach its host.
pub(crate) fn within<T>(
    deadline: Duration,
    question: impl Future<Output = Result<T>>,
) -> impl Future<Output = Result<T>> {
    // Boxed, since a question is some kilobytes large, and so would be whatever asks it.
    let question = Box::pin(question);
    let late = move |_| Err(Error::unavailable(format!("PostgreSQL did not answer within {deadline:?}")));
    async move { tokio::time::timeout(deadline, question).await.unwrap_or_else(late) }
}

/// A sign of life from a connection before it goes back to its pool, or it is closed: one on which a question
/// was given up would keep its place in the pool for as long as its server is silent.
pub(crate) async fn still_alive(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    const PATIENCE: Duration = Duration::from_secs(1);
    tokio::time::timeout(PATIENCE, conn.ping())
        .await
        .map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))??;
    Ok(true)
}

/// Brings the tables up to date. Safe to call from several processes at once.
pub(crate) async fn migrate(pool: &PgPool) -> Result<()> {
    let migrated = MIGRATIONS.run(pool).await;
    // A database that cannot be reached is no migration that does not fit.
    Ok(migrated.map_err(|error| match error {
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => cause,
        other => other.into(),
    })?)
}

/// The column type of a sale's id.
fn sale_key(sale: SaleId) -> i32 {
    // At most 2^24 - 1.
    sale.get().cast_signed()
}

/// A column that holds what this version cannot read: a newer version's word, or a hand's work.
fn unreadable(column: &str, why: impl fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column}: {why}").into())
}

/// A column through the type that guards its values.
fn parsed<T, V>(column: &str, value: V) -> Result<T, sqlx::Error>
where
    T: TryFrom<V>,
    T::Error: fmt::Display,
{
    T::try_from(value).map_err(|error| unreadable(column, error))
}
