//! The wire shapes: what a request to a fal endpoint may say and what comes back.
//!
//! Field names, key order and messages are those of fal's published OpenAPI documents and of the
//! Pydantic 2 validator in front of its models. serde, serde_json, bytes and utoipa only: no HTTP, no model, no
//! clock. This is the room that is held against the published documents; nothing else hides here.
//!
//! [`endpoint`] lists the fourteen endpoints, [`json`] reads bytes into a bounded value, beside which
//! the text of [`image_url`] stands, [`input`] validates it and lists every fault, [`tasks`] does so for a call with several tasks, [`output`] is
//! the answer, [`error`] both error envelopes, [`queue`] what is said about requests that wait,
//! [`webhook`] what a webhook's receiver is sent, [`tokens`] the request for a token, [`storage`] is
//! about uploads, [`published`] the input as the OpenAPI documents show it.

pub mod endpoint;
pub mod error;
pub mod image_url;
pub mod input;
pub mod json;
mod lax;
pub mod output;
pub mod published;
pub mod queue;
mod shown;
pub mod storage;
pub mod tasks;
pub mod tokens;
pub mod webhook;
