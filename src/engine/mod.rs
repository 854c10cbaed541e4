//! The engine: one model thread, and the cloneable handle through which everybody else reaches it.

pub mod device;
mod florence2;
pub mod predict;
