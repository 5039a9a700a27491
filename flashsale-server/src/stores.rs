//! Which stores to use: the same flags and the same fallback for every program.

use std::path::Path;

use clap::Args;
use url::Url;

/// Where a stack that runs in the foreground says how to reach it.
const STACK_FILE: &str = ".flashsale/stack.env";
/// By either of its names: who gave a flag knows of no variable.
const REDIS: &str = "--redis-url (REDIS_URL)";
const DATABASE: &str = "--database-url (DATABASE_URL)";

/// Which stores to use: the same flags for every program.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArgs {
    /// Redis, as redis://… or rediss://…
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL", global = true)]
    pub redis_url: Option<String>,
    /// PostgreSQL, as postgres://…
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", global = true)]
    pub database_url: Option<String>,
}

/// The stores' addresses. They may hold passwords; shown without them.
#[derive(Clone, PartialEq, Eq)]
pub struct Stores {
    /// `redis://…` or `rediss://…`.
    pub redis_url: String,
    /// `postgres://…`.
    pub database_url: String,
}

/// It is not known which stores to use. The message says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoStores {
    /// Only one of the two was given.
    #[error("{given} is given and {missing} is not: give both, or neither to use a running `flashsale up`")]
    OnlyOne {
        /// The option that is there, and its variable.
        given: &'static str,
        /// The option that is not, and its variable.
        missing: &'static str,
    },
    /// Nothing was given, and the file of a stack is of one that is gone, or is damaged.
    #[error(
        "no stores to use: {STACK_FILE} is there, but the `flashsale up` that wrote it is gone, or the file is damaged. \
         Start `flashsale up` in this directory (again), or give --redis-url and --database-url (REDIS_URL, DATABASE_URL)"
    )]
    LeftBehind,
    /// Nothing was given and no stack runs here.
    #[error(
        "no stores to use: start `flashsale up` in this directory, or give --redis-url and --database-url \
         (REDIS_URL, DATABASE_URL)"
    )]
    Neither,
}

impl StoreArgs {
    /// The stores that were named, or else those of a `flashsale up` that runs in this directory.
    pub fn resolve_stores(self) -> Result<Stores, NoStores> {
        self.resolve_in(Path::new("."))
    }

    fn resolve_in(self, directory: &Path) -> Result<Stores, NoStores> {
        // An empty variable is how a compose file says that there is none.
        let given = |value: Option<String>| value.filter(|url| !url.is_empty());
        match (given(self.redis_url), given(self.database_url)) {
            (Some(redis_url), Some(database_url)) => Ok(Stores { redis_url, database_url }),
            (Some(_), None) => Err(NoStores::OnlyOne { given: REDIS, missing: DATABASE }),
            (None, Some(_)) => Err(NoStores::OnlyOne { given: DATABASE, missing: REDIS }),
            (None, None) => {
                let file = directory.join(STACK_FILE);
                match flashsale_stack::read_env_file(&file) {
                    Some((redis_url, database_url)) => Ok(Stores { redis_url, database_url }),
                    None if file.exists() => Err(NoStores::LeftBehind),
                    None => Err(NoStores::Neither),
                }
            }
        }
    }
}

impl std::fmt::Display for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} and {}", without_password(&self.redis_url), without_password(&self.database_url))
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stores({self})")
    }
}

/// A URL fit for a log. Its query goes too: PostgreSQL takes a password there. What has no host is none: in
/// `user:password@host`, where the scheme was forgotten, all behind the colon would pass for a path.
pub(crate) fn without_password(url: &str) -> String {
    let Some(mut url) = Url::parse(url).ok().filter(Url::has_host) else {
        return "(a URL that cannot be read)".to_owned();
    };
    url.set_query(None);
    url.set_fragment(None);
    if url.password().is_some() && url.set_password(None).is_err() {
        return format!("{}://…", url.scheme());
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(redis: Option<&str>, database: Option<&str>) -> StoreArgs {
        StoreArgs { redis_url: redis.map(str::to_owned), database_url: database.map(str::to_owned) }
    }

    #[test]
    fn both_stores_or_none_are_given() {
        let nowhere = tempfile::tempdir().unwrap();
        let resolve = |redis, database| args(redis, database).resolve_in(nowhere.path());
        assert_eq!(resolve(Some("r"), Some("d")).unwrap().redis_url, "r");
        assert!(matches!(resolve(Some("r"), None), Err(NoStores::OnlyOne { missing: DATABASE, .. })));
        assert!(matches!(resolve(None, Some("d")), Err(NoStores::OnlyOne { missing: REDIS, .. })));
        assert_eq!(resolve(Some(""), None), Err(NoStores::Neither));
        std::fs::create_dir(nowhere.path().join(".flashsale")).unwrap();
        std::fs::write(nowhere.path().join(STACK_FILE), "REDIS_URL=").unwrap();
        assert_eq!(resolve(None, None), Err(NoStores::LeftBehind));
    }

    #[test]
    fn passwords_are_not_shown() {
        let table = [
            ("redis://:secret@h:1/0", "redis://h:1/0"),
            ("postgres://u:secret@h/db?sslmode=require&password=secret", "postgres://u@h/db"),
            ("postgres://h/d?x#password=secret", "postgres://h/d"),
            ("secret", "(a URL that cannot be read)"),
            ("user:secret@h:1", "(a URL that cannot be read)"),
            ("redis:user:secret@h", "(a URL that cannot be read)"),
        ];
        for (url, shown) in table {
            assert_eq!(without_password(url), shown);
        }
    }
}
