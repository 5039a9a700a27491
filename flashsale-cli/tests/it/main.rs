//! The real program against real stores: what it prints, what it changes, and its exit codes.

mod daily_work;
mod demo;
mod doctor;
mod export;
mod program;
mod sales;
mod seed;
mod stock;
mod subscribers;
mod terminal;
mod up;
mod usage;
