//! The directory that holds both servers' data: named and kept, or temporary and removed.
//!
//! ```text
//! lock            locked by the living stack, with its process id
//! redis/          append-only files          redis.log      redis.port
//! postgres/       the database cluster       postgres.log   postgres.port
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;

use crate::error::{Kind, StackError, io};
use crate::temp_dir;
use crate::user::{OtherUser, current_uid};

pub(crate) const LOCK_FILE: &str = "lock";

/// Held by one living stack. Dropping it gives up the lock, and removes a temporary directory.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    temporary: bool,
    /// Said to the person who starts the stack.
    note: Option<String>,
    _lock: File,
}

impl DataDir {
    /// `user` is the one Postgres runs as, when it is another than that of this process.
    pub(crate) fn open(named: Option<&Path>, user: Option<OtherUser>) -> Result<Self, StackError> {
        let Some(named) = named else {
            let (path, lock) = temp_dir::create(user)?;
            return Ok(Self { path, temporary: true, note: None, _lock: lock });
        };
        // The servers run with the directory as their working directory.
        let named = std::path::absolute(named).map_err(io(format!("resolve {}", named.display())))?;
        let (path, note) = match user {
            Some(user) if !user.can_enter(existing_ancestor(&named)) => {
                let path = stand_in(&named, user)?;
                let note = format!(
                    "{} is closed to the user that PostgreSQL runs as; the data is in {} instead",
                    named.display(),
                    path.display()
                );
                (path, Some(note))
            }
            user => {
                create(&named, user)?;
                (named, None)
            }
        };
        let lock = lock(&path)?;
        Ok(Self { path, temporary: false, note, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary
    }

    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.temporary {
            temp_dir::remove(&self.path);
        }
    }
}

/// Takes the lock of a data directory, or says who has it.
pub(crate) fn lock(dir: &Path) -> Result<File, StackError> {
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io(format!("open {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
            return Err(Kind::InUse { dir: dir.to_owned(), holder }.into());
        }
        Err(TryLockError::Error(error)) => return Err(io(format!("lock {}", path.display()))(error)),
    }
    // The process id is for people; only the lock itself decides.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", process::id()))
        .map_err(io(format!("write {}", path.display())))?;
    Ok(file)
}

fn existing_ancestor(dir: &Path) -> &Path {
    dir.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

fn create(dir: &Path, user: Option<OtherUser>) -> Result<(), StackError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    let missing: Vec<&Path> = dir.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    builder.create(dir).map_err(io(format!("create {}", dir.display())))?;
    // Whatever the umask says, the other user has to pass through what was created here.
    if let Some(user) = user
        && !user.can_enter(dir)
    {
        for created in missing {
            temp_dir::set_mode(created, 0o711)?;
        }
    }
    Ok(())
}

/// A directory that stands in for one that the other user cannot reach: always the same one for
/// the same name, so that its data is found again, and never one that is swept.
fn stand_in(named: &Path, user: OtherUser) -> Result<PathBuf, StackError> {
    let path = temp_dir::base(Some(user)).join(format!(
        "flashsale-data-{}-{:016x}",
        current_uid(),
        fnv1a(named.as_os_str().as_bytes())
    ));
    // An error here is judged below: the directory is usually there already.
    let created = DirBuilder::new().mode(0o711).create(&path);
    let metadata = fs::symlink_metadata(&path)
        .map_err(|error| io(format!("create {}", path.display()))(created.err().unwrap_or(error)))?;
    // Everybody may create files in a temporary directory: do not put data into a stranger's.
    if !metadata.is_dir() || metadata.uid() != current_uid() {
        let stranger = std::io::Error::other("it belongs to another user");
        return Err(io(format!("use {}", path.display()))(stranger));
    }
    temp_dir::set_mode(&path, 0o711)?;
    Ok(path)
}

/// FNV-1a: a hash that is the same in every process and every release.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
