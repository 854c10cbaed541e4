//! What answers the routes, one file per call.

pub(crate) mod cancel;
pub(crate) mod proxy;
pub(crate) mod result;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod tasks;
pub(crate) mod tokens;
pub(crate) mod webhook_keys;
