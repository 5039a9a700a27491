//! Every SQL statement of the crate, one small named function each. Nothing else talks to PostgreSQL.
//!
//! Functions that take a connection are steps of somebody's transaction; those that take a pool are a whole
//! one. Limits are not judged here: the ledger decides, the constraints stand behind it.

pub(crate) mod audit;
pub(crate) mod dead_letters;
pub(crate) mod history;
pub(crate) mod new_sale;
pub(crate) mod orders;
pub(crate) mod products;
pub(crate) mod sales;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;

use std::fmt;

use sqlx::PgPool;

pub(crate) use self::{
    history::{orders, statuses_of},
    sales::{request_recover, sales},
};
use crate::{error::Result, ids::SaleId};

/// Brings the tables up to date. Safe to call from several processes at once.
pub(crate) async fn migrate(pool: &PgPool) -> Result<()> {
    static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");
    Ok(MIGRATIONS.run(pool).await.map_err(sqlx::Error::from)?)
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
