//! What is done to a stranger's bytes before they are compiled: bytes in, bytes out, in the compiler's process.

pub(super) mod adapt;
pub(super) mod flatten;
pub(super) mod rewind;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use wasmparser::WasmFeatures;

use self::flatten::image;
pub use self::flatten::image::Content;
use crate::config::Passes;
use crate::sandbox::Variant;

/// Part of the name of compiled code: other passes, other code.
pub(super) const VERSION: u32 = 4;

/// What a pass came to.
pub struct Report {
    pub pass: &'static str,
    /// What it did, or why it left all as it was.
    pub outcome: Result<String, String>,
    pub bytes_before: usize,
    pub bytes_after: usize,
    pub took: Duration,
}

/// A file's code, prepared for the compiler.
pub struct Prepared<'a> {
    pub component: Cow<'a, [u8]>,
    /// What its memories begin with, where that was taken out of it.
    pub contents: Vec<Option<Content>>,
    pub reports: Vec<Report>,
}

/// Makes a component of what is none, then takes it through the passes that make its instances cheap, as far as they fit it.
///
/// # Errors
/// If a core module cannot be made a component.
pub fn prepare(wasm: &[u8], variant: Variant, passes: Passes) -> anyhow::Result<Prepared<'_>> {
    let component = adapt::component(wasm)?;
    let mut prepared = Prepared { component, contents: Vec::new(), reports: Vec::new() };
    if passes == Passes::All {
        prepared.take_through("flatten", |component| {
            let flat = flatten::component(component).map_err(|refusal| refusal.to_string())?;
            Ok((flat.to_string(), flat.wasm))
        });
        if variant.has_own_memories() {
            let mut contents = Vec::new();
            prepared.take_through("image", |component| {
                let imaged = image::component(component).map_err(|refusal| refusal.to_string())?;
                contents = imaged.contents;
                let bytes: usize = contents.iter().flatten().map(|content| content.bytes.len()).sum();
                let bytes = bytesize::ByteSize::b(bytes as u64).display().iec();
                Ok((format!("its memory begins with {bytes}, which are mapped"), imaged.wasm))
            });
            prepared.contents = contents;
        }
    }
    Ok(prepared)
}

impl Prepared<'_> {
    fn take_through(&mut self, pass: &'static str, run: impl FnOnce(&[u8]) -> Result<(String, Vec<u8>), String>) {
        let (started, bytes_before) = (Instant::now(), self.component.len());
        // A mistake in a pass costs an app the gain, and not its place.
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| run(&self.component)));
        let outcome =
            outcome.unwrap_or_else(|_| Err("the pass failed, which is a mistake of wasgi's: report it".into()));
        let outcome = outcome.map(|(words, component)| {
            self.component = component.into();
            words
        });
        let (bytes_after, took) = (self.component.len(), started.elapsed());
        self.reports.push(Report { pass, outcome, bytes_before, bytes_after, took });
    }
}

/// The proposals that the passes know. One that is not here may bring state, or kinds of indices, of its own.
const KNOWN_FEATURES: WasmFeatures = WasmFeatures::MVP
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::COMPONENT_MODEL);

/// A message of the validator's may have several lines, and names of the file's in it.
fn one_line(message: &str) -> String {
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().filter(|char| !char.is_control()).collect()
}
