//! What went wrong inside a sandbox, told apart: wasmtime's error → [`Error`].

use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi_http::FieldMapError;

use crate::error::{Busy, Error};
use crate::sandbox::State;
use crate::sandbox::memory;
use crate::sandbox::meter::Refused;

/// A guest was stopped by the host: carried through wasmtime as the error of a host function or of the ticker's callback.
#[derive(Debug)]
pub(crate) struct Stopped(pub(crate) Error);

impl std::fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Stopped {}

/// The error to report for what wasmtime returned.
pub(crate) fn classify(fault: wasmtime::Error, state: &State) -> Error {
    if fault.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() || fault.is::<memory::Full>() {
        return Error::Busy(Busy::Pool);
    }
    explain(&fault, state);
    let fault = match fault.downcast::<Stopped>() {
        Ok(stopped) => return stopped.0,
        Err(fault) => fault,
    };
    let described = describe(&fault);
    // What the guest named counts as text of the guest's.
    let charged = |text| state.app.log.charged(text);
    match state.meter.refused() {
        Some(Refused::Limit) => return Error::Memory(charged(described)),
        // Other sandboxes of the tenant have it.
        Some(Refused::Budget) => return Error::Busy(Busy::TenantsMemory),
        None => {}
    }
    match fault.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => return Error::Stack(charged(described)),
        Some(_) => return Error::Trap(charged(described)),
        None => {}
    }
    if matches!(fault.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full)) {
        return Error::Handles(state.app.limits.handles);
    }
    if let Some(error @ (FieldMapError::TooManyFields | FieldMapError::TotalSizeTooBig)) = fault.downcast_ref() {
        return Error::ResponseHead(error.to_string());
    }
    // wasmtime has no types for these two.
    if described.contains("handle limit exceeded") {
        return Error::Handles(state.app.limits.handles);
    }
    if described.contains("too much data is being copied") {
        return Error::HostCall(state.app.limits.host_call_bytes);
    }
    Error::Trap(charged(described))
}

/// Leaves it all with the call, whatever the log has room for. Where several calls share the instance, it need not be this one's.
fn explain(fault: &wasmtime::Error, state: &State) {
    if state.ledger.is_none() {
        state.call.witness.used(state.meter.bytes());
        state.call.witness.explain(&describe(fault));
    }
}

/// The cause, and for a trap the guest's functions, innermost first.
fn describe(fault: &wasmtime::Error) -> String {
    use std::fmt::Write;
    let mut text = fault.root_cause().to_string();
    if let Some(backtrace) = fault.downcast_ref::<WasmBacktrace>() {
        for frame in backtrace.frames() {
            match frame.func_name() {
                Some(name) => {
                    let _ = write!(text, "\n  at {}", demangled(name));
                }
                None => {
                    let _ = write!(text, "\n  at function {}", frame.func_index());
                }
            }
        }
    }
    text
}

/// The name as its author wrote it. Names come from the guest: control characters must not reach the log.
fn demangled(name: &str) -> String {
    let text = format!("{:#}", rustc_demangle::demangle(name));
    text.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect()
}

/// Generic functions have names of any length.
const NAME_CHARS_MAX: usize = 200;
