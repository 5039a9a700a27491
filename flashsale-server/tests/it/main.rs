//! The server over real sockets, on a real Redis and a real PostgreSQL.

mod bad_input;
mod buying;
mod connections;
mod outages;
mod process;
mod rate_limit;
mod refusals;
mod shop;
