//! PostgreSQL: its version, role, durability, tables and connections.

use super::{Finding, Verdict, ahead};
use crate::{
    error::{Error, Result},
    keeper::LOADS_AT_ONCE,
    ledger::DRAIN_CONNECTIONS,
    sql::preflight::{self as sql, Migrations, Settings},
    stores::Stores,
};

/// PostgreSQL 12: `plan_cache_mode`, `tcp_user_timeout`.
const OLDEST: i32 = 120_000;
/// The locks that a process may have at once, each with a connection beside the pools: of its loads, of the auditor.
const LOCKS: u32 = LOADS_AT_ONCE + 1;

/// What PostgreSQL says of itself, and which migrations it has and we bring.
#[derive(Debug, Clone)]
pub(super) struct PostgresFacts {
    settings: Settings,
    applied: Migrations,
    own: Migrations,
    pub ahead_ms: i64,
    /// Connections that one process opens at most.
    needed: i64,
}

impl PostgresFacts {
    pub(super) async fn read(stores: &Stores) -> Result<Self, Finding> {
        Self::ask(stores).await.map_err(|error| unreadable(&error))
    }

    async fn ask(stores: &Stores) -> Result<Self> {
        let pool = &stores.pg;
        // Making the connection is not to count as a difference of the clocks.
        let applied = sql::applied_migrations(pool).await?;
        let before = chrono::Utc::now();
        let settings = sql::settings(pool).await?;
        let ahead_ms = ahead(before, settings.now_ms);
        let needed = (pool.options().get_max_connections() + DRAIN_CONNECTIONS + LOCKS).into();
        Ok(Self { settings, applied, own: sql::own_migrations(), ahead_ms, needed })
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        vec![self.version(), self.role(), self.durability(), self.tables(), self.connections()]
    }

    fn version(&self) -> Finding {
        let (check, version) = ("postgres version", &self.settings.version);
        if self.settings.version_number >= OLDEST {
            return Finding::ok(check, version);
        }
        let found = format!("{version}: it lacks settings that draining depends on");
        Finding::new(check, Verdict::Refused, found, "use PostgreSQL 12 or newer")
    }

    fn role(&self) -> Finding {
        let check = "postgres role";
        if self.settings.in_recovery {
            let remedy = "name the primary in the database URL";
            return Finding::new(check, Verdict::Refused, "a standby: it takes no writes", remedy);
        }
        Finding::ok(check, "primary")
    }

    fn durability(&self) -> Finding {
        let check = "postgres durability";
        let Settings { fsync, full_page_writes, synchronous_commit, session_commit, .. } = &self.settings;
        let off: Vec<_> = [("fsync", fsync), ("full_page_writes", full_page_writes)]
            .into_iter()
            .filter_map(|(name, on)| (!on).then_some(name))
            .collect();
        if !off.is_empty() {
            let found = format!("{} off: a crash of its machine can damage the record", off.join(" and "));
            return Finding::new(check, Verdict::Warning, found, "set fsync and full_page_writes to on");
        }
        if session_commit == "off" {
            let found = "synchronous_commit off, also on the connections of the pool that was passed in";
            let remedy = "leave it on there: an order that was shown as confirmed must survive a crash";
            return Finding::new(check, Verdict::Refused, found, remedy);
        }
        match synchronous_commit.as_str() {
            "off" => Finding::ok(check, "synchronous_commit off; our own sessions commit with on"),
            commit => Finding::ok(check, format!("synchronous_commit {commit}")),
        }
    }

    fn tables(&self) -> Finding {
        let check = "postgres tables";
        let newest = self.own.keys().last().copied().unwrap_or_default();
        let refused = |found, remedy| Finding::new(check, Verdict::Refused, found, remedy);
        if let Some(newer) = self.applied.keys().rfind(|version| !self.own.contains_key(version)) {
            let found =
                format!("made by a newer version of this program: migration {newer}, ours end at {newest}");
            return refused(found, "upgrade this program");
        }
        let other = self.applied.iter().find(|(version, checksum)| self.own.get(version) != Some(checksum));
        if let Some((version, _)) = other {
            let found = format!("migration {version} was another one when it was applied");
            return refused(found, "use the program that made the tables, or another database");
        }
        let missing = self.own.len() - self.applied.len();
        if missing > 0 {
            let found = format!("{missing} of {} migrations are not applied yet", self.own.len());
            let remedy = "run `flashsale migrate`, or start a server or worker, which does it too";
            return Finding::new(check, Verdict::Warning, found, remedy);
        }
        Finding::ok(check, format!("current, migration {newest}"))
    }

    fn connections(&self) -> Finding {
        let check = "postgres connections";
        let Settings { connections_left, max_connections, .. } = self.settings;
        let found = format!("{connections_left} of {max_connections} are free");
        if connections_left >= self.needed {
            return Finding::ok(check, found);
        }
        let found = format!("{found}: a server or worker may take {}", self.needed);
        Finding::new(check, Verdict::Warning, found, "raise max_connections, or run fewer processes")
    }
}

/// What it means that PostgreSQL did not say how it is.
fn unreadable(error: &Error) -> Finding {
    let (verdict, remedy) = if error.is_transient() {
        (Verdict::Away, "start it, or correct the database URL")
    } else {
        (Verdict::Refused, "correct the database URL, or what its user may do")
    };
    Finding::new("postgres", verdict, error.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{Row, judged},
        *,
    };

    /// A PostgreSQL that is set up as it should be, and a program that brings migrations 1 and 2.
    fn sound() -> PostgresFacts {
        let settings = Settings {
            version_number: 160_001,
            version: "16.1".to_owned(),
            in_recovery: false,
            synchronous_commit: "on".to_owned(),
            session_commit: "on".to_owned(),
            fsync: true,
            full_page_writes: true,
            connections_left: 90,
            max_connections: 100,
            now_ms: 0,
        };
        let own: Migrations = [(1, vec![1]), (2, vec![2])].into();
        PostgresFacts { settings, applied: own.clone(), own, ahead_ms: 0, needed: 16 }
    }

    #[test]
    fn postgres_is_judged() {
        let rows: [Row; 17] = [
            ("", "ok postgres version: 16.1"),
            ("", "ok postgres tables: current, migration 2"),
            ("", "ok postgres connections: 90 of 100 are free"),
            ("version_number=120000", "ok postgres version: 16.1"),
            ("version_number=110022", "refused postgres version: 16.1"),
            ("in_recovery=true", "refused postgres role: a standby"),
            ("synchronous_commit=remote_apply", "ok postgres durability: synchronous_commit remote_apply"),
            ("synchronous_commit=off", "ok postgres durability: synchronous_commit off; our own sessions"),
            (
                "session_commit=off",
                "refused postgres durability: synchronous_commit off, also on the connections",
            ),
            ("fsync=false", "warning postgres durability: fsync off"),
            ("full_page_writes=false", "warning postgres durability: full_page_writes off"),
            ("applied=", "warning postgres tables: 2 of 2 migrations"),
            ("applied=1:1", "warning postgres tables: 1 of 2 migrations"),
            (
                "applied=1:1,2:2,3:3",
                "refused postgres tables: made by a newer version of this program: migration 3",
            ),
            ("applied=1:1,2:9", "refused postgres tables: migration 2 was another one"),
            ("left=16", "ok postgres connections: 16 of"),
            ("left=15", "warning postgres connections: 15 of 100 are free: a server or worker may take 16"),
        ];
        for row in rows {
            judged(row, |changes| {
                let mut facts = sound();
                let settings = &mut facts.settings;
                for (name, value) in changes {
                    match name {
                        "version_number" => settings.version_number = value.parse().unwrap(),
                        "in_recovery" => settings.in_recovery = value.parse().unwrap(),
                        "synchronous_commit" => value.clone_into(&mut settings.synchronous_commit),
                        "session_commit" => value.clone_into(&mut settings.session_commit),
                        "fsync" => settings.fsync = value.parse().unwrap(),
                        "full_page_writes" => settings.full_page_writes = value.parse().unwrap(),
                        "left" => settings.connections_left = value.parse().unwrap(),
                        "applied" => facts.applied = migrations(value),
                        _ => panic!("{name}"),
                    }
                }
                facts.judge()
            });
        }
    }

    fn migrations(text: &str) -> Migrations {
        let one = |pair: &str| {
            pair.split_once(':').map(|(n, sum)| (n.parse().unwrap(), vec![sum.parse().unwrap()]))
        };
        text.split(',').filter_map(one).collect()
    }
}
