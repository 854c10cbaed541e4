//! Shared by the integration tests.

pub(crate) mod data;
pub(crate) mod hub;
