//! What a component's memories begin with, taken out of it: data segments → the memory that they make, once, when the component is
//! deployed. Its instances map that instead of copying it.
//!
//! It reads components as flattening does, and comes after it: then all segments have a place that is known.

use std::collections::HashMap;

use wasm_encoder::{DataSection, RawSection, SectionId};
use wasmparser::{DataKind, Operator, Parser, Payload, Validator};

use super::constant::{self, Constant};
use super::graph::{Graph, Source};
use super::module::{Kind, Module};
use super::{FEATURES, Refusal, unlikely};
use crate::sandbox::PAGE_BYTES;

/// With less data than this, copying costs less than what mapping would.
const DATA_BYTES_MIN: usize = 64 << 10;

/// An image is not much larger than its data: so often, and so much beside.
const SPREAD_MAX: usize = 8;
const SPREAD_BYTES_MAX: usize = 4 << 20;

/// A component without what its memories begin with.
pub struct Imaged {
    pub wasm: Vec<u8>,
    /// Of each memory in the order in which they are made, where it does not begin with zeros alone.
    pub contents: Vec<Option<Content>>,
}

/// What is not zero of a memory's beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// A multiple of a page, as is the length of the bytes.
    pub start: usize,
    pub bytes: Vec<u8>,
}

/// Takes the data out.
///
/// # Errors
/// Says why not: then the component should be used as it is.
pub fn component(wasm: &[u8]) -> Result<Imaged, Refusal> {
    with_data(wasm, DATA_BYTES_MIN)
}

/// Takes the data out, if it is so much.
pub(super) fn with_data(wasm: &[u8], data_bytes_min: usize) -> Result<Imaged, Refusal> {
    Validator::new_with_features(FEATURES).validate_all(wasm)?;
    let graph = Graph::read(wasm)?;
    let contents = contents(&graph, data_bytes_min)?;
    let stripped = encode(wasm, &graph)?;
    // Whatever comes out is a component again, or it is not used.
    Validator::new_with_features(FEATURES).validate_all(&stripped)?;
    Ok(Imaged { wasm: stripped, contents })
}

/// A memory, and the segments that are written to it.
struct Memory<'a> {
    bytes: u64,
    segments: Vec<(usize, &'a [u8])>,
}

fn contents(graph: &Graph<'_>, data_bytes_min: usize) -> Result<Vec<Option<Content>>, Refusal> {
    let mut memories: Vec<Memory<'_>> = Vec::new();
    // By instance, and index among those that its module defines.
    let mut numbers = HashMap::new();
    let mut has_started = false;
    let mut data_bytes = 0;
    for (instance, _) in (0..).zip(&graph.instances) {
        let Some(module) = graph.module_of(instance) else { continue };
        for (index, memory) in (0_u32..).zip(&module.memories) {
            numbers.insert((instance, index), memories.len());
            let bytes = memory.initial.saturating_mul(PAGE_BYTES as u64);
            memories.push(Memory { bytes, segments: Vec::new() });
        }
        for data in &module.data {
            let DataKind::Active { memory_index, offset_expr } = &data.kind else { continue };
            // It would have found the memory without this.
            if has_started {
                return Err(Refusal::Form("a start function runs before all of its data is there".into()));
            }
            let number = numbers.get(&memory(graph, instance, *memory_index)?);
            let memory = &mut memories[*number.ok_or_else(|| unlikely("a memory that is not there yet"))?];
            let offset = match constant::value(offset_expr, |_| None)? {
                Some(Constant::I32(offset)) => u64::from(offset.cast_unsigned()),
                Some(Constant::I64(offset)) => offset.cast_unsigned(),
                None => {
                    return Err(Refusal::Form("where a segment goes is known only when an instance is made".into()));
                }
            };
            if offset.checked_add(data.data.len() as u64).is_none_or(|end| end > memory.bytes) {
                return Err(Refusal::Form("its data does not fit its memory".into()));
            }
            let offset = usize::try_from(offset).map_err(|_| unlikely("a memory larger than this machine's"))?;
            memory.segments.push((offset, data.data));
            data_bytes += data.data.len();
        }
        has_started |= module.has_start;
    }
    if data_bytes < data_bytes_min {
        return Err(Refusal::Form(format!("its memory begins with {data_bytes} bytes, which are copied as quickly")));
    }
    memories.into_iter().map(|memory| memory.content(data_bytes)).collect()
}

/// Which instance's own memory it is that an instance knows by this index.
fn memory(graph: &Graph<'_>, instance: u32, index: u32) -> Result<(u32, u32), Refusal> {
    let (mut instance, mut index) = (instance, index);
    // Each step leads to an earlier instance.
    loop {
        let module = graph.module_of(instance).ok_or_else(|| unlikely("a memory of no module"))?;
        let imported = module.imports(Kind::Memory).len();
        if let Some(own) = (index as usize).checked_sub(imported) {
            return Ok((instance, u32::try_from(own).map_err(|_| unlikely("an index beyond its space"))?));
        }
        let imports = graph.imports(instance, Kind::Memory)?;
        let Some((_, Source::Export { instance: from, name })) = imports.get(index as usize) else {
            return Err(unlikely("a memory from nowhere"));
        };
        let exporter = graph.module_of(*from).ok_or_else(|| unlikely("a memory of no module"))?;
        let Some((Kind::Memory, exported)) = exporter.exports.get(name) else {
            return Err(unlikely("a memory that is not exported"));
        };
        (instance, index) = (*from, *exported);
    }
}

impl Memory<'_> {
    fn content(self, data_bytes: usize) -> Result<Option<Content>, Refusal> {
        let filled = self.segments.iter().filter(|(_, data)| !data.is_empty());
        let ends = filled.clone().map(|(offset, data)| (*offset, offset + data.len()));
        let Some((start, end)) = ends.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1))) else {
            return Ok(None);
        };
        let start = start / PAGE_BYTES * PAGE_BYTES;
        let len = end.next_multiple_of(PAGE_BYTES) - start;
        if len > data_bytes.saturating_mul(SPREAD_MAX).saturating_add(SPREAD_BYTES_MAX) {
            return Err(Refusal::Form("its data is spread too far over its memory".into()));
        }
        let mut bytes = vec![0; len];
        // Later ones are written over earlier ones.
        for (offset, data) in filled {
            bytes[offset - start..][..data.len()].copy_from_slice(data);
        }
        Ok(Some(Content { start, bytes }))
    }
}

/// The component with its modules as [`strip`] leaves them.
fn encode(wasm: &[u8], graph: &Graph<'_>) -> Result<Vec<u8>, Refusal> {
    let mut component = wasm_encoder::Component::new();
    let mut modules = graph.modules.iter();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ModuleSection { .. } if depth == 1 => {
                let module = modules.next().ok_or_else(|| unlikely("a module that was not read"))?;
                let id = wasm_encoder::ComponentSectionId::CoreModule as u8;
                component.section(&RawSection { id, data: &strip(module)? });
            }
            _ if depth == 1 => {
                if let Some((id, range)) = payload.as_section() {
                    component.section(&RawSection { id, data: &wasm[range] });
                }
            }
            _ => {}
        }
    }
    Ok(component.finish())
}

/// A module whose active segments are empty, or gone where nothing names a segment. To code they are dropped when it first runs,
/// which an empty one can't be told from.
fn strip(module: &Module<'_>) -> Result<Vec<u8>, Refusal> {
    let names_segments = names_segments(module)?;
    let mut out = wasm_encoder::Module::new();
    for payload in Parser::new(0).parse_all(module.bytes) {
        let payload = payload?;
        match &payload {
            Payload::DataSection(section) if names_segments => {
                let mut data = DataSection::new();
                for segment in section.clone() {
                    let segment = segment?;
                    data.passive(match segment.kind {
                        DataKind::Active { .. } => [].iter().copied(),
                        DataKind::Passive => segment.data.iter().copied(),
                    });
                }
                out.section(&data);
            }
            Payload::DataSection(_) | Payload::DataCountSection { .. } if !names_segments => {}
            _ => {
                if let Some((id, range)) = payload.as_section() {
                    debug_assert!(id != SectionId::Data as u8, "handled above");
                    out.section(&RawSection { id, data: &module.bytes[range] });
                }
            }
        }
    }
    Ok(out.finish())
}

fn names_segments(module: &Module<'_>) -> Result<bool, Refusal> {
    for body in &module.bodies {
        for operator in body.get_operators_reader()? {
            if let Operator::MemoryInit { .. } | Operator::DataDrop { .. } = operator? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
