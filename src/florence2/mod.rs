//! The model: from an upright picture and a prompt to findings in pixels.
//!
//! Synchronous, without network, clock or environment: it can be lifted out and published as it is.
//! It mirrors the reference library's `Florence2ForConditionalGeneration` and reads the checkpoint
//! names of both published layouts.
//!
//! In the order in which a prediction passes: [`prompt`] expands a task, [`processor`] makes tokens
//! and pixel values (with [`tokenizer`] and [`resize`]), `davit` and `projector` see, `bart` reads
//! and writes, [`generate`] searches, [`postprocess`] reads the text (with [`location`]).

pub mod answer;
mod attention;
mod bart;
mod byte_level;
mod checkpoint_file;
pub mod config;
mod cpu;
mod davit;
mod form;
pub mod generate;
pub mod kernels;
mod layers;
pub mod location;
pub mod model;
mod one_line;
pub mod postprocess;
mod preprocessor_config;
pub mod processor;
mod projector;
pub mod prompt;
mod quantisation;
pub mod resize;
pub mod task;
pub mod tokenizer;
mod untyped_words;
pub mod weights;
mod whitespace;

pub use form::Dtype;
pub use model::{Florence2, LoadError};
pub(crate) use one_line::one_line;
pub use quantisation::Quantised;
