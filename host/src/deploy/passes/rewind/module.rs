//! A core module → the same with `wasgi-rewind` in it. Only additions at the ends of sections: nothing that is there gets
//! another index.

use wasm_encoder::{
    CodeSection, ConstExpr, Encode, ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType,
    Instruction, RefType, SectionId, TypeSection, ValType,
};
use wasmparser::Parser;

use super::inspect::Module;
use super::{FUNCTION, Refusal};
use crate::sandbox::step::Step;

/// The sections in the order in which a module has them.
const ORDER: [SectionId; 13] = [
    SectionId::Type,
    SectionId::Import,
    SectionId::Function,
    SectionId::Table,
    SectionId::Memory,
    SectionId::Tag,
    SectionId::Global,
    SectionId::Export,
    SectionId::Start,
    SectionId::Element,
    SectionId::DataCount,
    SectionId::Code,
    SectionId::Data,
];

/// What comes to a section's end.
struct Addition {
    id: u8,
    items: u32,
    bytes: Vec<u8>,
}

impl Addition {
    fn new(section: &impl wasm_encoder::Section, items: u32) -> Self {
        let mut encoded = Vec::new();
        section.encode(&mut encoded);
        // Before the items are the section's size and their number.
        let (_, size) = leb(&encoded);
        let (_, count) = leb(&encoded[size..]);
        Self { id: section.id(), items, bytes: encoded.split_off(size + count) }
    }

    /// The section with its old content, if there was any, before this.
    fn emit(&self, old: &[u8], wasm: &mut Vec<u8>) {
        let (count, size) = if old.is_empty() { (0, 0) } else { leb(old) };
        let mut content = Vec::with_capacity(old.len() + self.bytes.len() + 5);
        (count + self.items).encode(&mut content);
        content.extend_from_slice(&old[size..]);
        content.extend_from_slice(&self.bytes);
        emit(self.id, &content, wasm);
    }
}

fn emit(id: u8, content: &[u8], wasm: &mut Vec<u8>) {
    wasm.push(id);
    content.encode(wasm);
}

/// A number at the start of valid bytes, and how many of them it takes.
fn leb(bytes: &[u8]) -> (u32, usize) {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return (value, place + 1);
        }
    }
    (value, bytes.len())
}

fn rank(id: u8) -> Option<usize> {
    ORDER.iter().position(|section| *section as u8 == id)
}

/// Adds the function to a module, which is valid.
pub(super) fn encode(wasm: &[u8], module: &Module) -> Result<Vec<u8>, Refusal> {
    let mut additions = additions(module).into_iter().peekable();
    let mut out = wasm_encoder::Module::HEADER.to_vec();
    for payload in Parser::new(0).parse_all(wasm) {
        let Some((id, range)) = payload?.as_section() else { continue };
        let Some(place) = rank(id) else {
            emit(id, &wasm[range], &mut out);
            continue;
        };
        while let Some(missing) = additions.next_if(|addition| rank(addition.id) < Some(place)) {
            missing.emit(&[], &mut out);
        }
        match additions.next_if(|addition| addition.id == id) {
            Some(addition) => addition.emit(&wasm[range], &mut out),
            None => emit(id, &wasm[range], &mut out),
        }
    }
    additions.for_each(|missing| missing.emit(&[], &mut out));
    Ok(out)
}

/// In the order of their sections.
fn additions(module: &Module) -> Vec<Addition> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(module.types_count);
    let mut exports = ExportSection::new();
    exports.export(FUNCTION, ExportKind::Func, module.functions_count);
    let mut code = CodeSection::new();
    code.function(&body(module));
    let globals = globals(module);
    let globals_count = globals.len();
    vec![
        Addition::new(&types, 1),
        Addition::new(&functions, 1),
        Addition::new(&globals, globals_count),
        Addition::new(&exports, 1),
        Addition::new(&code, 1),
    ]
}

/// Whether values are kept, and then the value of each mutable global. The guest's code cannot name them: it was validated
/// without them.
fn globals(module: &Module) -> GlobalSection {
    let mut section = GlobalSection::new();
    let mut add = |val_type, init: &ConstExpr| {
        section.global(GlobalType { val_type, mutable: true, shared: false }, init);
    };
    add(ValType::I32, &ConstExpr::i32_const(0));
    for (_, ty) in &module.globals {
        match ty {
            wasmparser::ValType::I32 => add(ValType::I32, &ConstExpr::i32_const(0)),
            wasmparser::ValType::I64 => add(ValType::I64, &ConstExpr::i64_const(0)),
            wasmparser::ValType::F32 => add(ValType::F32, &ConstExpr::f32_const(0.0.into())),
            wasmparser::ValType::F64 => add(ValType::F64, &ConstExpr::f64_const(0.0.into())),
            wasmparser::ValType::V128 => add(ValType::V128, &ConstExpr::v128_const(0)),
            // `inspect` lets these two pass, and no other.
            wasmparser::ValType::Ref(reference) => {
                let ty = if reference.is_func_ref() { RefType::FUNCREF } else { RefType::EXTERNREF };
                add(ValType::Ref(ty), &ConstExpr::ref_null(ty.heap_type));
            }
        }
    }
    section
}

fn body(module: &Module) -> Function {
    let is_kept = module.globals_count;
    let pairs = || module.globals.iter().map(|(global, _)| *global).zip(is_kept + 1..);
    let mut body = Function::new([]);
    body.instruction(&Instruction::GlobalGet(is_kept));
    body.instruction(&Instruction::If(wasm_encoder::BlockType::Empty));
    for (global, kept) in pairs().filter(|_| Step::Globals.is_taken()) {
        body.instruction(&Instruction::GlobalGet(kept)).instruction(&Instruction::GlobalSet(global));
    }
    for (memory, is_64) in module.memories.iter().filter(|_| Step::Lengths.is_taken()) {
        // Growing by nothing makes the instance ask the host for the length, which the host has put back.
        let nothing = if *is_64 { Instruction::I64Const(0) } else { Instruction::I32Const(0) };
        body.instruction(&nothing).instruction(&Instruction::MemoryGrow(*memory)).instruction(&Instruction::Drop);
    }
    body.instruction(&Instruction::Else);
    for (global, kept) in pairs() {
        body.instruction(&Instruction::GlobalGet(global)).instruction(&Instruction::GlobalSet(kept));
    }
    body.instruction(&Instruction::I32Const(1)).instruction(&Instruction::GlobalSet(is_kept));
    body.instruction(&Instruction::End).instruction(&Instruction::End);
    body
}
