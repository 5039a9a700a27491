//! The REST API of the flash-sale engine: a thin HTTP server around [`flashsale_core`].
//!
//! | module | |
//! |---|---|
//! | `app` | the routes and what every request passes through |
//! | `orders`, `sales`, `health` | one file per resource |
//! | `order_request`, `body` | from bytes to an order that can be placed |
//! | `identity`, `rate_limit` | who is asking, from where, and how often |
//! | `problem` | every refusal and error as `application/problem+json` |
//! | `config` | flags and environment variables |
//! | `serve`, `run` | listening and serving; the life of the process |
//!
//! Everything takes what it needs as arguments, so that a test can run several servers in one process.

mod app;
mod body;
mod config;
mod health;
mod history;
mod identity;
mod limits;
mod order_request;
mod orders;
mod path;
mod problem;
mod rate_limit;
mod repeated;
mod run;
mod sales;
mod serve;
mod status;
mod stores;
mod telemetry;

pub use app::{App, Policy, router};
pub use config::Config;
pub use identity::{AccessArgs, Auth, AuthMode, TrustedProxies};
pub use limits::LimitArgs;
pub use rate_limit::RateLimitSetting;
pub use run::{RunError, connect, run, shutdown_on_signal};
pub use serve::{Patience, listen, serve};
pub use stores::{NoStores, StoreArgs, Stores};
pub use telemetry::{LogArgs, LogFormat};
