//! Temporary data directories, and sweeping those whose stack was killed.
//!
//! A directory belongs to a living stack as long as its lock file is locked, and the kernel gives
//! the lock up with the process, however that ends. A process id alone could have been reused.

use std::collections::hash_map::RandomState;
use std::env;
use std::fs::{self, DirBuilder, File};
use std::hash::BuildHasher;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use crate::data_dir::{LOCK_FILE, lock};
use crate::error::{StackError, io};
use crate::user::{OtherUser, current_uid};

const PREFIX: &str = "flashsale-stack-";
/// A directory has this name until its lock is held, so that no sweeper takes it for abandoned.
const UNFINISHED_PREFIX: &str = ".flashsale-stack-new-";
/// Creating takes microseconds; what is still unfinished after this was killed in between.
const UNFINISHED_FOR: Duration = Duration::from_hours(1);

/// Removes what killed stacks of this user left, then makes a new, locked directory.
pub(crate) fn create(user: Option<OtherUser>) -> Result<(PathBuf, File), StackError> {
    let base = base(user);
    sweep(&base);
    let unique = RandomState::new().hash_one(process::id());
    let unfinished = base.join(format!("{UNFINISHED_PREFIX}{}-{unique:016x}", process::id()));
    let dir = base.join(format!("{PREFIX}{}-{unique:016x}", process::id()));
    // Another user must be able to pass through, not to look.
    let mode = if user.is_some() { 0o711 } else { 0o700 };
    DirBuilder::new()
        .mode(mode)
        .create(&unfinished)
        .map_err(io(format!("create {}", unfinished.display())))?;
    if let Some(user) = user
        && !user.can_enter(&unfinished)
    {
        // A umask of 077 took the bits away.
        set_mode(&unfinished, mode)?;
    }
    let lock = lock(&unfinished)?;
    fs::rename(&unfinished, &dir).map_err(io(format!("rename {}", unfinished.display())))?;
    Ok((dir, lock))
}

/// The first temporary directory that the other user can enter: TMPDIR may be in root's home.
pub(crate) fn base(user: Option<OtherUser>) -> PathBuf {
    let system = env::temp_dir();
    let Some(user) = user else { return system };
    [system.clone(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")]
        .into_iter()
        .find(|dir| user.can_enter(dir))
        .unwrap_or(system)
}

pub(crate) fn set_mode(dir: &Path, mode: u32) -> Result<(), StackError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
        .map_err(io(format!("set the permissions of {}", dir.display())))
}

/// Failures are left for the next sweep: they must not keep this stack from starting.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let dir = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Of this user only, and no symbolic link that somebody else put there.
        let Ok(metadata) = fs::symlink_metadata(&dir) else { continue };
        if !metadata.is_dir() || metadata.uid() != current_uid() {
            continue;
        }
        let abandoned = if name.starts_with(UNFINISHED_PREFIX) {
            metadata.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > UNFINISHED_FOR)
        } else {
            name.starts_with(PREFIX) && is_unlocked(&dir)
        };
        if abandoned {
            tracing::info!(dir = %dir.display(), "removing what a killed stack left");
            remove(&dir);
        }
    }
}

/// No lock file means a removal that was cut short: a directory of this name always had one.
fn is_unlocked(dir: &Path) -> bool {
    match File::open(dir.join(LOCK_FILE)) {
        Ok(file) => file.try_lock().is_ok(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Removes a directory. A server process in its last moments may still add a file: try again.
pub(crate) fn remove(dir: &Path) {
    for pause_ms in [10, 50, 100, 200, 0] {
        match fs::remove_dir_all(dir) {
            Ok(()) => return,
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) if pause_ms == 0 => {
                tracing::warn!(dir = %dir.display(), %error, "could not remove a temporary directory");
            }
            Err(_) => thread::sleep(Duration::from_millis(pause_ms)),
        }
    }
}
