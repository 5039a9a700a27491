//! What PostgreSQL says of itself.

use std::collections::BTreeMap;

use sqlx::PgPool;

use super::MIGRATIONS;
use crate::error::Result;

/// What the server is set to, by this database and role.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Settings {
    /// As in 150004 for 15.4.
    pub version_number: i32,
    pub version: String,
    /// A standby, which takes no writes.
    pub in_recovery: bool,
    /// With which sessions begin: ours raise it where it is too little.
    pub synchronous_commit: String,
    /// What this session has come to.
    pub session_commit: String,
    pub fsync: bool,
    pub full_page_writes: bool,
    /// Connections that this role may still open.
    pub connections_left: i64,
    pub max_connections: i64,
    pub now_ms: i64,
}

pub(crate) async fn settings(pool: &PgPool) -> Result<Settings> {
    // Who is connected is shown to nobody but administrators; how many are, to everybody.
    let select = "\
        SELECT current_setting('server_version_num')::int AS version_number, \
               current_setting('server_version') AS version, \
               pg_is_in_recovery() AS in_recovery, \
               (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS synchronous_commit, \
               current_setting('synchronous_commit') AS session_commit, \
               current_setting('fsync')::bool AS fsync, \
               current_setting('full_page_writes')::bool AS full_page_writes, \
               current_setting('max_connections')::bigint \
                   - current_setting('superuser_reserved_connections')::bigint \
                   - (SELECT coalesce(sum(numbackends), 0)::bigint FROM pg_stat_database) AS connections_left, \
               current_setting('max_connections')::bigint AS max_connections, \
               (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms";
    Ok(sqlx::query_as(select).fetch_one(pool).await?)
}

/// Migrations by number, each with the checksum of its text.
pub(crate) type Migrations = BTreeMap<i64, Vec<u8>>;

/// Those that this program brings.
pub(crate) fn own_migrations() -> Migrations {
    MIGRATIONS.iter().map(|migration| (migration.version, migration.checksum.to_vec())).collect()
}

/// Those that were applied to the database.
pub(crate) async fn applied_migrations(pool: &PgPool) -> Result<Migrations> {
    let (there,): (bool,) =
        sqlx::query_as("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(pool).await?;
    if !there {
        return Ok(Migrations::new());
    }
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations").fetch_all(pool).await?;
    Ok(rows.into_iter().collect())
}
