//! Redis: its version, kind, role, eviction and persistence, and what we may do there.

use std::collections::HashMap;

use redis::{FromRedisValue, Value};

use super::{Finding, Verdict, ahead};
use crate::{
    link::{CallError, Link},
    scripts,
};

const MAJOR: u32 = 7;

/// What Redis says of itself. Most of it stands in INFO, for many services do not allow CONFIG.
#[derive(Debug, Clone)]
pub(super) struct RedisFacts {
    info: HashMap<String, String>,
    /// When snapshots are taken (empty: never) and when the append-only file is written to disk; not there where
    /// CONFIG is not allowed.
    config: HashMap<String, String>,
    /// The commands that are not allowed, or why scripts do not run at all.
    denied: Result<Vec<String>, String>,
    pub ahead_ms: i64,
}

impl RedisFacts {
    pub(super) async fn read(link: &Link) -> Result<Self, Finding> {
        let info: String = link.ask(&redis::cmd("INFO")).await.map_err(|error| unreadable(&error))?;
        let info = parse(&info);
        // Then it answers little else.
        if info.get("loading").is_some_and(|loading| loading != "0") {
            return Err(Finding::new(
                "redis",
                Verdict::Away,
                "it is loading its data",
                "wait until it is done",
            ));
        }
        let before = chrono::Utc::now();
        let config = |name| redis::cmd("CONFIG").arg("GET").arg(name).to_owned();
        let asked = vec![redis::cmd("TIME"), config("save"), config("appendfsync")];
        let mut answers = link.ask_all(asked).await.map_err(|error| unreadable(&error))?.into_iter();
        let time =
            answers.next().and_then(Result::ok).and_then(|time| <(i64, i64)>::from_redis_value(time).ok());
        let ahead_ms = time.map_or(0, |(seconds, micros)| ahead(before, seconds * 1_000 + micros / 1_000));
        let config = answers.flatten().filter_map(pairs).flatten().collect();
        let denied = match scripts::denied(link).await {
            Ok(denied) => Ok(denied),
            Err(CallError::Refused(error)) => Err(error.to_string()),
            Err(error) => return Err(unreadable(&error)),
        };
        Ok(Self { info, config, denied, ahead_ms })
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        vec![self.version(), self.role(), self.eviction(), self.persistence(), self.permissions()]
    }

    fn get(&self, name: &str) -> &str {
        self.info.get(name).map_or("", String::as_str)
    }

    fn version(&self) -> Finding {
        let check = "redis version";
        // Valkey says of itself that it is a Redis 7.2, and what it is beside it.
        if let Some(valkey) = self.info.get("valkey_version") {
            return Finding::ok(check, format!("Valkey {valkey}"));
        }
        let version = self.get("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse().ok());
        if major.is_some_and(|major: u32| major >= MAJOR) {
            return Finding::ok(check, version);
        }
        let found = format!("{version}: it does not know scripts that declare themselves with #!lua");
        Finding::new(check, Verdict::Refused, found, "use Redis 7.0 or newer, or Valkey")
    }

    fn role(&self) -> Finding {
        let check = "redis role";
        let refused = |found: &str, remedy| Finding::new(check, Verdict::Refused, found, remedy);
        if self.get("cluster_enabled") == "1" {
            return refused(
                "a node of a Redis Cluster: orders go to one node only",
                "use a Redis without cluster mode",
            );
        }
        if self.get("redis_mode") == "sentinel" {
            return refused(
                "a sentinel: it holds no data",
                "name the master that it watches in the Redis URL",
            );
        }
        match self.get("role") {
            "master" => Finding::ok(check, "master"),
            // Redis 7 calls a replica a slave still.
            _ => refused("a replica: it takes no writes", "name the master in the Redis URL"),
        }
    }

    fn eviction(&self) -> Finding {
        let check = "redis eviction";
        let policy = self.get("maxmemory_policy");
        let lost = match policy {
            "noeviction" => return Finding::ok(check, policy),
            // These take only keys that expire anyway.
            _ if policy.starts_with("volatile-") => "carts and rate limits",
            _ => "stock, limits per user and accepted orders",
        };
        let found = format!("maxmemory-policy {policy}: a full Redis deletes {lost} without a word");
        Finding::new(check, Verdict::Unsafe, found, "set maxmemory-policy to noeviction")
    }

    fn persistence(&self) -> Finding {
        const REMEDY: &str = "set appendonly to yes";
        let check = "redis persistence";
        let warning = |found: &str, remedy| Finding::new(check, Verdict::Warning, found, remedy);
        if self.get("aof_enabled") == "1" {
            let fsync = self.config.get("appendfsync").map_or("", String::as_str);
            return match (self.get("aof_last_write_status"), fsync) {
                ("err", _) => warning(
                    "the append-only file could not be written",
                    "see that its disk has room; Redis's log says more",
                ),
                (_, "no") => warning(
                    "appendonly, appendfsync no: a crash of its machine loses half a minute of orders",
                    "set appendfsync to everysec",
                ),
                (_, "") => Finding::ok(check, "appendonly"),
                (_, fsync) => Finding::ok(check, format!("appendonly, appendfsync {fsync}")),
            };
        }
        match self.config.get("save").map(String::as_str) {
            Some("") => Finding::new(
                check,
                Verdict::Unsafe,
                "none: a restart loses every accepted order that is not recorded yet",
                REMEDY,
            ),
            Some(_) => warning(
                "snapshots only: a restart loses the accepted orders since the last one that are not recorded yet",
                REMEDY,
            ),
            // A service that keeps its settings to itself has ways of its own to keep data.
            None => warning(
                "no append-only file; whether anything else is kept cannot be seen, for CONFIG is not allowed",
                "see that a restart of this Redis keeps its data, by appendonly or as the service offers",
            ),
        }
    }

    fn permissions(&self) -> Finding {
        let check = "redis permissions";
        match &self.denied {
            Ok(denied) if denied.is_empty() => Finding::ok(check, "scripts run, all commands are allowed"),
            Ok(denied) => {
                let found = format!("not allowed: {}", denied.join(", "));
                let remedy = "allow these on the keys fs:* to the user in the Redis URL (ACL SETUSER)";
                Finding::new(check, Verdict::Refused, found, remedy)
            }
            Err(why) => {
                let found = format!("scripts do not run: {why}");
                let remedy = "use Redis 7.0 or newer, and allow SCRIPT LOAD, EVALSHA and the keys fs:* to the user in \
                              the Redis URL (ACL SETUSER)";
                Finding::new(check, Verdict::Refused, found, remedy)
            }
        }
    }
}

/// What it means that Redis did not say how it is.
fn unreadable(error: &CallError) -> Finding {
    let (verdict, remedy) = match error {
        CallError::Refused(error) if error.code() == Some("NOPERM") => (
            Verdict::Refused,
            "allow INFO and TIME to the user in the Redis URL (ACL SETUSER): scripts call them too",
        ),
        CallError::Refused(error) if error.code() == Some("NOAUTH") => {
            (Verdict::Refused, "put the password into the Redis URL: redis://:password@host/")
        }
        _ => (Verdict::Away, "start it, or correct the Redis URL"),
    };
    Finding::new("redis", verdict, error.to_string(), remedy)
}

/// INFO: `name:value` lines under headings.
fn parse(info: &str) -> HashMap<String, String> {
    let pairs = info.lines().filter_map(|line| line.trim_end().split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn pairs(value: Value) -> Option<HashMap<String, String>> {
    HashMap::from_redis_value(value).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::tests::{Row, judged},
        *,
    };

    /// As a `redis-server` says that is set up as it should be.
    fn sound() -> RedisFacts {
        let info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\r\n# Memory\r\n\
                    maxmemory_policy:noeviction\r\n# Persistence\r\nloading:0\r\naof_enabled:1\r\n\
                    aof_last_write_status:ok\r\n# Replication\r\nrole:master\r\n# Cluster\r\ncluster_enabled:0\r\n";
        let config = [("save", "3600 1"), ("appendfsync", "everysec")];
        let config = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        RedisFacts { info: parse(info), config, denied: Ok(Vec::new()), ahead_ms: 0 }
    }

    #[test]
    fn redis_is_judged() {
        let rows: [Row; 21] = [
            ("", "ok redis version: 7.0.15"),
            ("", "ok redis eviction: noeviction"),
            ("", "ok redis persistence: appendonly, appendfsync everysec"),
            ("redis_version=10.1.0", "ok redis version: 10.1.0"),
            ("redis_version=6.2.14", "refused redis version: 6.2.14"),
            ("redis_version=", "refused redis version: "),
            ("redis_version=7.2.4 valkey_version=9.0.1", "ok redis version: Valkey 9.0.1"),
            ("valkey_version=8.0.0 redis_version=", "ok redis version: Valkey 8.0.0"),
            ("role=slave", "refused redis role: a replica"),
            ("role=", "refused redis role: a replica"),
            ("cluster_enabled=1", "refused redis role: a node of a Redis Cluster"),
            ("redis_mode=sentinel", "refused redis role: a sentinel"),
            (
                "maxmemory_policy=allkeys-lru",
                "unsafe redis eviction: maxmemory-policy allkeys-lru: a full Redis deletes stock",
            ),
            (
                "maxmemory_policy=volatile-ttl",
                "unsafe redis eviction: maxmemory-policy volatile-ttl: a full Redis deletes carts",
            ),
            ("aof_last_write_status=err", "warning redis persistence: the append-only file could not"),
            ("appendfsync=no", "warning redis persistence: appendonly, appendfsync no"),
            ("appendfsync=-", "ok redis persistence: appendonly"),
            ("aof_enabled=0", "warning redis persistence: snapshots only"),
            ("aof_enabled=0 save=", "unsafe redis persistence: none"),
            ("aof_enabled=0 save=- appendfsync=-", "warning redis persistence: no append-only file; whether"),
            ("denied=XADD,XACK", "refused redis permissions: not allowed: XADD, XACK"),
        ];
        for row in rows {
            judged(row, |changes| {
                let mut facts = sound();
                for (name, value) in changes {
                    let owned = value.to_owned();
                    let _ = match name {
                        "denied" => {
                            facts.denied = Ok(value.split(',').map(str::to_owned).collect());
                            None
                        }
                        "save" | "appendfsync" if value == "-" => facts.config.remove(name),
                        "save" | "appendfsync" => facts.config.insert(name.to_owned(), owned),
                        _ => facts.info.insert(name.to_owned(), owned),
                    };
                }
                facts.judge()
            });
        }
        let facts = RedisFacts { denied: Err("NOPERM".to_owned()), ..sound() };
        let found = facts.permissions();
        assert_eq!((found.verdict, &*found.found), (Verdict::Refused, "scripts do not run: NOPERM"));
    }
}
