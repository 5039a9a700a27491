//! A private Redis and Postgres for one process: real servers, started as children on free
//! loopback ports, for `flashsale up`, the demo and every test that needs the stores.
//!
//! ```no_run
//! # async fn example() -> Result<(), flashsale_stack::StackError> {
//! use flashsale_stack::{Stack, StackOptions};
//!
//! let stack = Stack::start(StackOptions::default()).await?;
//! println!("REDIS_URL={}", stack.redis_url());
//! println!("DATABASE_URL={}", stack.database_url());
//! stack.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! What a stack promises:
//!
//! - **Nothing outlives its parent**, not even when the parent is killed with SIGKILL.
//! - **Nothing is left behind**: without a named data directory the data is temporary, and what a
//!   killed process could not remove, the next start does.
//! - **A named data directory is kept** and can be started again, also after a SIGKILL. Two stacks
//!   on one directory at once are refused.
//! - **It works as root**, although Postgres refuses to: it then runs as user `postgres`, or
//!   `nobody`.
//!
//! Redis writes its append-only file and never evicts. Postgres has its default durability;
//! only `initdb` skips its sync, which nothing depends on yet at that point.

#[cfg(not(unix))]
compile_error!("flashsale-stack needs a Unix system: it relies on signals, users and file locks");

mod binaries;
mod daemon;
mod data_dir;
mod env_file;
mod error;
mod postgres;
mod process;
mod redis;
mod stack;
mod supervisor;
mod temp_dir;
mod user;

pub use env_file::{EnvFile, read_env_file};
pub use error::StackError;
pub use stack::{ChildExit, Service, Stack, StackOptions};
