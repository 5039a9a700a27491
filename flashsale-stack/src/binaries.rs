//! Finding the server programs, or saying in one message how to install them.

use std::cmp::Reverse;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Kind, StackError};

/// The programs a stack runs.
#[derive(Debug)]
pub(crate) struct Binaries {
    pub(crate) redis_server: PathBuf,
    pub(crate) postgres: PathBuf,
    pub(crate) initdb: PathBuf,
    pub(crate) psql: PathBuf,
}

impl Binaries {
    /// Looks in `dirs` alone if given, else on PATH and then where distributions put them.
    pub(crate) fn find(dirs: Option<&[PathBuf]>) -> Result<Self, StackError> {
        let dirs = dirs.map_or_else(search_path, <[PathBuf]>::to_vec);
        let redis_server = ["redis-server", "valkey-server"].iter().find_map(|name| find_in(&dirs, name));
        // Of one installation: an initdb of another version than its postgres is of no use.
        let servers = dirs.iter().find_map(|dir| Some((program(dir, "postgres")?, program(dir, "initdb")?)));
        // Beside the real postgres first: Debian's /usr/bin/psql is a Perl script that picks a
        // version by the clusters it knows.
        let psql = servers
            .as_ref()
            .and_then(|(postgres, _)| program(fs::canonicalize(postgres).ok()?.parent()?, "psql"))
            .or_else(|| find_in(&dirs, "psql"));
        match (redis_server, servers, psql) {
            (Some(redis_server), Some((postgres, initdb)), Some(psql)) => {
                Ok(Self { redis_server, postgres, initdb, psql })
            }
            (redis_server, servers, psql) => {
                let no_postgres = servers.is_none() || psql.is_none();
                let system = PackageManager::of_this_machine();
                Err(Kind::MissingBinaries(missing(redis_server.is_none(), no_postgres, system)).into())
            }
        }
    }
}

/// PATH, and after it the usual places: Debian keeps the Postgres server off PATH.
fn search_path() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> =
        env::var_os("PATH").iter().flat_map(env::split_paths).filter(|dir| dir.is_absolute()).collect();
    for parent in ["/usr/lib/postgresql", "/usr/libexec", "/opt/homebrew/opt", "/usr/local/opt", "/usr"] {
        dirs.extend(postgres_dirs(Path::new(parent)));
    }
    dirs.extend(
        ["/opt/homebrew/opt/redis/bin", "/opt/homebrew/opt/valkey/bin", "/opt/homebrew/bin"]
            .map(PathBuf::from),
    );
    dirs.extend(
        ["/usr/local/opt/redis/bin", "/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin"]
            .map(PathBuf::from),
    );
    dirs
}

/// The `bin` of every Postgres below `parent`, highest version first: `15`, `postgresql@17`,
/// `postgresql17` and `pgsql-17` are all names that distributions give to such a folder.
fn postgres_dirs(parent: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = ["postgresql", "pgsql", ""].iter().find_map(|prefix| name.strip_prefix(prefix))?;
            let version = version.trim_start_matches(['@', '-']);
            let version = if version.is_empty() { 0 } else { version.parse().ok()? };
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|(version, _)| Reverse(*version));
    found.into_iter().map(|(_, bin)| bin).collect()
}

fn find_in(dirs: &[PathBuf], name: &str) -> Option<PathBuf> {
    dirs.iter().find_map(|dir| program(dir, name))
}

/// Links are not resolved: Debian's redis-server is one to a program that goes by the name it is
/// called by.
fn program(dir: &Path, name: &str) -> Option<PathBuf> {
    // Absolute, for servers run in a directory of their own.
    let path = std::path::absolute(dir.join(name)).ok()?;
    let metadata = fs::metadata(&path).ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(path)
}

#[derive(Clone, Copy, Debug)]
enum PackageManager {
    Apt,
    Dnf,
    Apk,
    Brew,
    Unknown,
}

impl PackageManager {
    fn of_this_machine() -> Self {
        let dirs = search_path();
        let known = [("apt-get", Self::Apt), ("dnf", Self::Dnf), ("apk", Self::Apk), ("brew", Self::Brew)];
        // macOS may have a program called apt; only Homebrew has servers there.
        if cfg!(target_os = "macos") {
            return Self::Brew;
        }
        known
            .into_iter()
            .find_map(|(name, manager)| find_in(&dirs, name).map(|_| manager))
            .unwrap_or(Self::Unknown)
    }

    /// The install command, and the packages of Redis and of Postgres.
    fn packages(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Apt => Some(("sudo apt-get install", "redis-server", "postgresql")),
            Self::Dnf => Some(("sudo dnf install", "valkey", "postgresql-server")),
            Self::Apk => Some(("sudo apk add", "redis", "postgresql")),
            Self::Brew => Some(("brew install", "redis", "postgresql@17")),
            Self::Unknown => None,
        }
    }
}

fn missing(no_redis: bool, no_postgres: bool, manager: PackageManager) -> String {
    let names: Vec<&str> = [
        no_redis.then_some("redis-server (or valkey-server)"),
        no_postgres.then_some("the PostgreSQL server (postgres, initdb, psql)"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let names = names.join(" and ");
    match manager.packages() {
        Some((install, redis, postgres)) => {
            let packages: Vec<&str> =
                [no_redis.then_some(redis), no_postgres.then_some(postgres)].into_iter().flatten().collect();
            format!("cannot find {names}. Install with: {install} {}", packages.join(" "))
        }
        None => format!("cannot find {names}. Install Redis 7 or newer and PostgreSQL, and put them on PATH"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_only_what_is_missing() {
        let both = missing(true, true, PackageManager::Apt);
        assert!(both.ends_with("Install with: sudo apt-get install redis-server postgresql"), "{both}");
        let one = missing(false, true, PackageManager::Brew);
        assert!(one.ends_with("Install with: brew install postgresql@17"), "{one}");
        assert!(!one.contains("redis"), "{one}");
    }

    #[test]
    fn the_highest_version_comes_first() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        for name in ["9", "15", "postgresql@17", "pgsql-16", "unrelated", "postgresql"] {
            fs::create_dir(parent.path().join(name)).expect("a folder");
        }
        let names: Vec<String> = postgres_dirs(parent.path())
            .iter()
            .filter_map(|bin| Some(bin.parent()?.file_name()?.to_str()?.to_owned()))
            .collect();
        assert_eq!(names, ["postgresql@17", "pgsql-16", "15", "9", "postgresql"]);
    }
}
