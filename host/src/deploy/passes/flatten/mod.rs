//! A component of several core modules → the same of as few as can be, so that a fresh instance is made in a few steps: each
//! module costs its own, and what one module is told by another when it is made (where its memory begins, which of a table's
//! places are its own) cannot be prepared in advance.
//!
//! [`graph`] takes the component apart, [`group`] says which instances become one, [`layout`] gives all that is in them its place in
//! one module, [`merge`] writes that, and [`component`] what is around it. Whatever is not understood is refused, and the
//! component stays as it was.

mod component;
mod constant;
mod graph;
mod group;
pub mod image;
mod layout;
mod merge;
mod module;

use std::collections::HashSet;
use std::fmt;

use wasm_encoder::reencode;
use wasmparser::{Validator, WasmFeatures};

use self::graph::{Graph, Instance, Source};
use self::module::Kind;
use super::one_line;

/// Why a component stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not of a form that can be merged, or would gain nothing.
    #[error("{0}")]
    Form(String),
    /// What cannot be understood can't be moved.
    #[error("it has something in it that flattening does not know: {0}")]
    Unknown(String),
}

impl From<wasmparser::BinaryReaderError> for Refusal {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Unknown(format!("{} (at offset {:#x})", one_line(error.message()), error.offset()))
    }
}

impl From<reencode::Error<Self>> for Refusal {
    fn from(error: reencode::Error<Self>) -> Self {
        match error {
            reencode::Error::UserError(refusal) => refusal,
            reencode::Error::ParseError(error) => error.into(),
            other => Self::Unknown(other.to_string()),
        }
    }
}

impl From<reencode::Error> for Refusal {
    fn from(error: reencode::Error) -> Self {
        match error {
            reencode::Error::ParseError(error) => error.into(),
            other => Self::Unknown(other.to_string()),
        }
    }
}

/// What a valid component has not got.
fn unlikely(what: &str) -> Refusal {
    Refusal::Unknown(what.to_owned())
}

/// What may be in a component that is flattened. What a proposal that is not here brings might mean something else when it is moved.
const FEATURES: WasmFeatures = super::KNOWN_FEATURES.union(WasmFeatures::CM_ASYNC);

/// A flattened component.
pub struct Flat {
    pub wasm: Vec<u8>,
    /// Core modules, and the functions and globals of those that were merged, before and after.
    pub modules: (usize, usize),
    pub functions: (usize, usize),
    pub globals: (usize, usize),
    /// What the canonical ABI makes for core modules, most of it of the host's functions.
    pub host_functions: (usize, usize),
}

impl fmt::Display for Flat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { modules, functions, globals, host_functions, .. } = self;
        write!(
            f,
            "of {} core modules {} are left, of {} functions {}",
            modules.0, modules.1, functions.0, functions.1
        )?;
        write!(f, ", of {} globals {}", globals.0, globals.1)?;
        write!(f, ", of {} functions of the host's {}", host_functions.0, host_functions.1)
    }
}

/// Merges what can be merged.
///
/// # Errors
/// Says why not: then the component should be used as it is.
pub fn component(wasm: &[u8]) -> Result<Flat, Refusal> {
    // Code that names what does not exist would name something that is another's afterwards.
    Validator::new_with_features(FEATURES).validate_all(wasm)?;
    let graph = Graph::read(wasm)?;
    let runs = group::runs(&graph)?;
    if runs.is_empty() {
        return Err(Refusal::Form("there is nothing to merge in it".into()));
    }
    let mut needed = needed_by_others(&graph, &runs)?;
    let mut merged = Vec::new();
    // From the last to the first: what is not used asks for nothing.
    for run in runs.iter().rev() {
        let one = merge::merge(&graph, run, &needed)?;
        needed.extend_from_slice(&one.imports);
        merged.insert(0, one);
    }
    let flat = component::encode(&graph, &runs, &merged, &needed)?;
    // Whatever comes out is a component again, or it is not used.
    Validator::new_with_features(FEATURES).validate_all(&flat)?;
    let made = graph.instances.iter().filter(|instance| matches!(instance, Instance::Made { .. })).count();
    let gone: usize = runs.iter().map(|run| run.len() - 1).sum();
    let sum = |of: fn(&layout::Summary) -> (usize, usize)| {
        merged.iter().map(|merged| of(&merged.summary)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    Ok(Flat {
        wasm: flat,
        modules: (made, made - gone),
        functions: sum(|summary| summary.functions),
        globals: sum(|summary| summary.globals),
        host_functions: (graph.canonical_functions(), component::canonical_functions(&needed)),
    })
}

/// What the component takes from core instances, and those that stay as they are from others.
fn needed_by_others<'a>(graph: &Graph<'a>, runs: &[Vec<u32>]) -> Result<Vec<(Kind, Source<'a>)>, Refusal> {
    let merged: HashSet<_> = runs.iter().flatten().copied().collect();
    let mut needed = graph.taken.clone();
    for (instance, _) in (0..).zip(&graph.instances).filter(|(instance, _)| !merged.contains(instance)) {
        for kind in Kind::ALL {
            needed.extend(graph.imports(instance, kind)?.into_iter().map(|(_, source)| (kind, source)));
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests;
