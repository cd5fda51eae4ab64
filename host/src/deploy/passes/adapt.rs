//! A core module for WASI 0.1 (`wasm32-wasip1`) → a component: wasmtime's adapter is put between the module and the host's
//! WASI 0.2. A component stays as it is.

use std::borrow::Cow;

use anyhow::Context;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wasmparser::Parser;
use wit_component::ComponentEncoder;

/// The component that is to be compiled.
///
/// # Errors
/// If a module cannot be adapted, because it does not export its memory, say.
pub(in crate::deploy) fn component(wasm: &[u8]) -> anyhow::Result<Cow<'_, [u8]>> {
    if !Parser::is_core_wasm(wasm) {
        return Ok(wasm.into());
    }
    let adapted = ComponentEncoder::default()
        .module(wasm)
        .and_then(|encoder| {
            encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
        })
        // The compiler validates what comes out.
        .and_then(|encoder| encoder.validate(false).encode());
    adapted.map(Cow::Owned).context("the core module cannot be made a component")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::inspect;
    use crate::guest::Kind;

    #[test]
    fn a_command_becomes_a_component_that_is_the_same_kind() {
        let module = wat::parse_str(
            r#"(module
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 1)
                (func (export "_start") (call $exit (i32.const 0))))"#,
        )
        .expect("the text is valid");
        assert_eq!(inspect::inspect(&module).expect("deployable").kind, Kind::Cgi);
        let adapted = component(&module).expect("it can be adapted");
        let found = inspect::inspect(&adapted).expect("deployable");
        assert_eq!(found.kind, Kind::Cgi);
        assert!(found.speaks.starts_with("wasi:cli/run@0.2"), "{}", found.speaks);
        assert_eq!(component(&adapted).expect("a component is left alone"), adapted);
    }

    #[test]
    fn a_module_that_cannot_be_adapted_is_refused_in_words() {
        let module = r#"(module (import "wasi_snapshot_preview1" "nonsense" (func)) (func (export "_start")))"#;
        let refused =
            component(&wat::parse_str(module).expect("the text is valid")).expect_err("there is no such import");
        assert!(format!("{refused:#}").contains("nonsense"), "{refused:#}");
    }
}
