//! The faults, one file per family.

pub(crate) mod controls;
pub(crate) mod crash_points;
pub(crate) mod keys;
pub(crate) mod large;
pub(crate) mod late_settle;
pub(crate) mod network;
pub(crate) mod poison;
pub(crate) mod postgres;
pub(crate) mod processes;
pub(crate) mod recovery;
pub(crate) mod redis;
pub(crate) mod replaced;
pub(crate) mod stock;
