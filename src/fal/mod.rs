//! The wire shapes: what a request to a fal endpoint may say and what comes back.
//!
//! Field names, key order and messages are those of fal's published OpenAPI documents and of the
//! Pydantic 2 validator in front of its models. serde and serde_json only: no HTTP, no model, no
//! clock. This is the room that is held against the published documents; nothing else hides here.
//!
//! [`endpoint`] lists the fourteen endpoints, [`json`] reads bytes into a bounded value, [`input`]
//! validates it and lists every fault, [`output`] is the answer, [`error`] both error envelopes.
//! [`storage`] is about uploads.

pub mod endpoint;
pub mod error;
pub mod input;
pub mod json;
pub mod output;
pub mod storage;
