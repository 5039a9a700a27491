//! The faults, one file per family.

pub(crate) mod controls;
pub(crate) mod network;
pub(crate) mod poison;
pub(crate) mod postgres;
pub(crate) mod processes;
pub(crate) mod recovery;
pub(crate) mod redis;
