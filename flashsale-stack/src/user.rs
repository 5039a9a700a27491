//! The user Postgres runs as, and what that user may reach.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{self, User};

use crate::error::{Kind, StackError, io};

/// A user other than the one of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherUser {
    uid: u32,
    gid: u32,
}

pub(crate) fn is_root() -> bool {
    unistd::geteuid().is_root()
}

pub(crate) fn current_uid() -> u32 {
    unistd::geteuid().as_raw()
}

impl OtherUser {
    /// Whom Postgres must run as: nobody else for an ordinary user; for root, which Postgres
    /// refuses, user `postgres` or else `nobody`.
    pub(crate) fn for_postgres() -> Result<Option<Self>, StackError> {
        if !is_root() {
            return Ok(None);
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
            .ok_or_else(|| Kind::NoUser.into())
    }

    /// Data that exists keeps its owner: the `postgres` user may have been created since.
    pub(crate) fn or_owner_of(self, dir: &Path) -> Self {
        match fs::metadata(dir) {
            Ok(metadata) if metadata.uid() != 0 => Self { uid: metadata.uid(), gid: metadata.gid() },
            _ => self,
        }
    }

    /// Whether this user may enter `dir`; the kernel is asked, for it knows of ACLs and the like.
    pub(crate) fn can_enter(self, dir: &Path) -> bool {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"cd -- "$1""#, "sh"]).arg(dir).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.applied_to(&mut command);
        command.status().is_ok_and(|status| status.success())
    }

    pub(crate) fn own(self, path: &Path) -> Result<(), StackError> {
        chown(path, Some(self.uid), Some(self.gid))
            .map_err(io(format!("change the owner of {}", path.display())))
    }

    /// Runs `command` as this user. The standard library drops root's supplementary groups too.
    pub(crate) fn applied_to(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}
