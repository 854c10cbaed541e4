//! Shared by the integration tests.

pub(crate) mod checkpoint;
#[cfg(unix)]
pub(crate) mod child;
pub(crate) mod data;
pub(crate) mod fake_model;
pub(crate) mod hub;
#[cfg(target_os = "linux")]
pub(crate) mod io_faults;
pub(crate) mod jobs;
pub(crate) mod origin;
pub(crate) mod pictures;
pub(crate) mod queue_client;
pub(crate) mod raw;
pub(crate) mod receiver;
pub(crate) mod reference;
pub(crate) mod server;
#[cfg(unix)]
pub(crate) mod victim;
