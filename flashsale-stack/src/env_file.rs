//! A small file that tells other processes where a running stack is.
//!
//! It counts only as long as the stack that wrote it lives: that one keeps the file locked, and the
//! kernel gives the lock up with the process, however that ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Kind, StackError, io};

/// A reader holds the lock for microseconds, to see whether it can.
const LOCK_WITHIN: Duration = Duration::from_millis(500);
const LOCK_EVERY: Duration = Duration::from_millis(5);

/// The file of a living stack; dropping it removes the file.
#[derive(Debug)]
#[must_use = "the file is removed when this is dropped"]
pub struct EnvFile {
    path: PathBuf,
    _locked: File,
}

impl EnvFile {
    pub(crate) fn write(path: &Path, redis_url: &str, database_url: &str) -> Result<Self, StackError> {
        let path = std::path::absolute(path).map_err(io(format!("resolve {}", path.display())))?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io(format!("create {}", parent.display())))?;
        }
        let mut file = lock(&path)?;
        let content = format!("REDIS_URL={redis_url}\nDATABASE_URL={database_url}\n");
        file.set_len(0)
            .and_then(|()| file.write_all(content.as_bytes()))
            .map_err(io(format!("write {}", path.display())))?;
        Ok(Self { path, _locked: file })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for EnvFile {
    fn drop(&mut self) {
        // Still locked here: nobody else writes it before it is gone.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the file");
        }
    }
}

/// The Redis URL and the database URL of the living stack that wrote this file; None if there is
/// no such file, or if the stack that wrote it is gone. The next stack that writes it replaces it.
pub fn read_env_file(path: impl AsRef<Path>) -> Option<(String, String)> {
    let file = File::open(&path).ok()?;
    // Shared, so that two readers do not take each other for a living stack.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    let content = io::read_to_string(file).ok()?;
    let value = |name: &str| content.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    // The last line is whole only with its end: the file may be just being written.
    content.ends_with('\n').then_some(())?;
    Some((value("REDIS_URL")?.to_owned(), value("DATABASE_URL")?.to_owned()))
}

fn lock(path: &Path) -> Result<File, StackError> {
    let give_up = Instant::now() + LOCK_WITHIN;
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(io(format!("open {}", path.display())))?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => return Ok(file),
            // Its last owner removed it between our opening and locking it.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if Instant::now() >= give_up => {
                return Err(Kind::EnvFileInUse(path.to_owned()).into());
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_EVERY),
            Err(TryLockError::Error(error)) => return Err(io(format!("lock {}", path.display()))(error)),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}
