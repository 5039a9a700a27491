//! The server over real sockets, on a real Redis and a real PostgreSQL.

mod access;
mod bad_input;
mod buying;
mod cart;
mod configuration;
mod connections;
mod events;
mod history;
mod limits;
mod metric_names;
mod metrics;
mod openapi;
mod outages;
mod preflight;
mod process;
mod rate_limit;
mod readme;
mod refusals;
mod shop;
mod two_processes;
