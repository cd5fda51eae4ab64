//! A component → the same with one more function, `wasgi-rewind`, which puts back what only the guest's own code can reach: its
//! mutable globals, and what it believes the length of its memories to be. The first call of it keeps the globals' values,
//! every later one puts them back. `sandbox/rewind.rs` calls it and does the rest.
//!
//! [`inspect`] finds out whether that would be all of a component's state, and refuses what it cannot be sure of;
//! [`module`] adds to a core module, [`component`] joins the modules' functions to one that the host can call.

mod component;
mod inspect;
mod module;

use wasmparser::{Validator, WasmFeatures};

use super::{KNOWN_FEATURES, one_line};
use crate::sandbox::REWIND_FUNCTION as FUNCTION;

/// Why an app's instances cannot be rewound, so that each call has a fresh one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its state would not be all that is put back.
    #[error("{0}")]
    State(String),
    /// What cannot be understood can't be put back.
    #[error("it has something in it that rewinding does not know: {0}")]
    Unknown(String),
}

impl From<wasmparser::BinaryReaderError> for Refusal {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Unknown(format!("{} (at offset {:#x})", one_line(error.message()), error.offset()))
    }
}

/// What may be in a component that is rewound. A proposal that is not here may bring state of its own.
const FEATURES: WasmFeatures = KNOWN_FEATURES;

/// The component with the function in it.
///
/// # Errors
/// Says why not: then its instances serve one call each.
pub fn component(wasm: &[u8]) -> Result<Vec<u8>, Refusal> {
    let plan = inspect::inspect(wasm)?;
    let rewritten = component::encode(wasm, &plan)?;
    // Whatever comes out is a component again, or it is not used.
    Validator::new_with_features(FEATURES).validate_all(&rewritten)?;
    Ok(rewritten)
}

#[cfg(test)]
mod tests;
