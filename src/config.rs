//! Every setting: name, default, unit and allowed range. One plain struct per room.
//!
//! This file imports nothing of the crate; a room receives only its own struct.
