//! What answers the routes, one file per call.

pub(crate) mod run;
pub(crate) mod tasks;
