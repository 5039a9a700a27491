//! The one error of this crate: prose for people, predicates for programs.

use std::io;
use std::path::PathBuf;

/// Why a stack could not be started, changed or described.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StackError(#[from] Kind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    /// The whole message, with the command that installs what is missing.
    #[error("{0}")]
    MissingBinaries(String),
    #[error("the data directory {} is in use by another stack{}", dir.display(), by(.holder))]
    InUse { dir: PathBuf, holder: String },
    #[error("the file {} is in use by another stack", .0.display())]
    EnvFileInUse(PathBuf),
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{what}; the end of its log:\n{log}")]
    Failed { what: String, log: String },
    #[error("{0:?} is not a name for a database: use 1 to 63 of a-z, 0-9 and _, no digit first")]
    BadName(String),
    #[error("no user to run PostgreSQL as: it refuses root, and there is neither postgres nor nobody")]
    NoUser,
    #[error("the stack has been stopped")]
    Stopped,
}

impl StackError {
    /// A server program is not installed. The message names the command that installs it.
    pub fn is_missing_binaries(&self) -> bool {
        matches!(self.0, Kind::MissingBinaries(_))
    }

    /// Another living stack holds the data directory or the file.
    pub fn is_in_use(&self) -> bool {
        matches!(self.0, Kind::InUse { .. } | Kind::EnvFileInUse(_))
    }
}

/// `.map_err(io("read the file"))`: what was being done, said as the object of "cannot".
pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> StackError {
    let what = what.into();
    move |source| Kind::Io { what, source }.into()
}

fn by(holder: &str) -> String {
    if holder.is_empty() { String::new() } else { format!(" (process {holder})") }
}
