//! The other side of the contract: the host's `start-response`, `write`, `input` and `errors`. On wasm32 they are
//! imports; natively a recorder stands in, which is what [`testing`](crate::testing) reads.

use crate::error::StreamError;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native;
#[cfg(target_arch = "wasm32")]
pub(crate) mod wasm;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{Errors, Input, start_response};
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::{Errors, Input, start_response};

/// The host's `write`.
pub(crate) trait Sink {
    fn write(&self, block: &[u8]) -> Result<(), StreamError>;
}
