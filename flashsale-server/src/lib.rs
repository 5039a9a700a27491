//! The REST API of the flash-sale engine: a thin HTTP server around [`flashsale_core`].
//!
//! | module | |
//! |---|---|
//! | `app`, `passage` | the routes; what every request passes through on the way to them |
//! | `cart`, `orders`, `history`, `sales`, `health` | one file per resource |
//! | `status`, `events`, `streams` | what became of an order: asked once, told as it happens; how many may listen |
//! | `order_request`, `plain_order`, `body`, `repeated`, `path` | from bytes to an order that can be placed; values of a path |
//! | `unread` | bodies that nobody read |
//! | `identity`, `jwt`, `rate_limit` | who is asking, from where, and how often |
//! | `problem` | every refusal and error as `application/problem+json` |
//! | `openapi`, `docs` | the document that describes the routes, and the pages that show it |
//! | `limits` | how much all clients together may ask for |
//! | `browser` | whose pages may use the API, and what caches may keep |
//! | `config`, `stores`, `settings` | flags and environment variables; which stores they name; printing them |
//! | `telemetry`, `metrics`, `request_id` | logs; what is measured; what requests are called in both |
//! | `health_check` | asking another process whether it is ready |
//! | `preflight` | whether the stores are such that they can be used |
//! | `serve`, `door`, `run` | listening and serving; connections at once; the life of the process |
//!
//! Everything takes what it needs as arguments, so that a test can run several servers in one process.

mod app;
mod body;
mod browser;
mod cart;
mod config;
mod docs;
mod door;
mod events;
mod health;
mod health_check;
mod history;
mod identity;
mod jwt;
mod limits;
mod metrics;
mod openapi;
mod order_request;
mod orders;
mod passage;
mod path;
mod plain_order;
mod preflight;
mod problem;
mod rate_limit;
mod repeated;
mod request_id;
mod run;
mod sales;
mod serve;
mod settings;
mod status;
mod stores;
mod streams;
mod telemetry;
mod unread;

pub use app::{App, Policy, operations_router, router};
pub use browser::{BrowserArgs, CorsOrigins};
pub use config::{Config, InsteadArgs, without_empty_variables};
pub use health_check::check_health;
pub use identity::{AccessArgs, Auth, AuthMode, TrustedProxies};
pub use jwt::{JwtAlgorithm, JwtArgs, Tokens};
pub use limits::LimitArgs;
pub use preflight::PreflightArgs;
pub use rate_limit::RateLimitSetting;
pub use run::{Ending, RunError, connect, end_on_signal, run};
pub use serve::{Patience, listen, serve};
pub use settings::settings;
pub use stores::{NoStores, StoreArgs, Stores};
pub use telemetry::{LogArgs, LogFormat};
