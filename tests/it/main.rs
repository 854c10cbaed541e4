//! The one integration binary, a module per promise.

mod parity;
mod support;
