//! Several core instances → one core module that is all of them, as [`super::layout`] has placed their parts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{
    CodeSection, DataCountSection, DataSection, ElementSection, Elements, ExportSection, FunctionSection,
    GlobalSection, ImportSection, MemorySection, NameMap, NameSection, TableSection, TypeSection,
};
use wasmparser::{DataKind, ElementItems, ElementKind, FunctionBody, Operator};

use super::constant;
use super::graph::{Graph, Source};
use super::layout::{Export, Layout, Member, Summary};
use super::module::Kind;
use super::{Refusal, unlikely};

/// What an instance has beside its memories and tables: an engine has a place of some size for it, which each module by itself
/// may fit where all of them together do not. An upper bound of what wasmtime needs, and some of its 1 MiB as reserve.
const INSTANCE_BYTES_MAX: usize = (1 << 20) - (128 << 10);
const ENTRY_BYTES: usize = 32;
const GLOBAL_BYTES: usize = 16;

/// A core module made of several instances.
pub(super) struct Merged<'a> {
    pub(super) wasm: Vec<u8>,
    /// What it imports, from the module "", under the name that is its place here.
    pub(super) imports: Vec<(Kind, Source<'a>)>,
    /// What it exports, for what others took from its parts. The name is the number.
    pub(super) exports: HashMap<Source<'a>, u32>,
    pub(super) summary: Summary,
}

/// Merges `members`, a run of instances that [`super::group`] found.
pub(super) fn merge<'a>(
    graph: &Graph<'a>,
    members: &[u32],
    needed: &[(Kind, Source<'a>)],
) -> Result<Merged<'a>, Refusal> {
    let mut layout = Layout::new(graph, members)?;
    let exports = layout.exports(needed)?;
    layout.find_used(&exports)?;
    layout.find_constants(&exports)?;
    let wasm = encode(&layout, &exports)?;
    let numbers = (0..).zip(&exports).map(|(number, (source, ..))| (*source, number)).collect();
    let imports = layout.used_imports().map(|import| (import.kind, import.source)).collect();
    Ok(Merged { wasm, imports, exports: numbers, summary: layout.summary })
}

fn encode<'a>(layout: &Layout<'_, 'a>, exports: &[Export<'a>]) -> Result<Vec<u8>, Refusal> {
    let mut types = TypeSection::new();
    for ty in &layout.types {
        types.ty().func_type(&reencode::RoundtripReencoder.func_type((*ty).clone())?);
    }
    let mut imports = ImportSection::new();
    for (place, import) in layout.used_imports().enumerate() {
        imports.import("", &place.to_string(), import.ty);
    }
    let mut exported = ExportSection::new();
    for (place, (_, kind, target)) in exports.iter().enumerate() {
        exported.export(&place.to_string(), kind.export(), layout.index(*kind, *target)?);
    }
    let mut parts = Parts::default();
    for (place, member) in layout.members.iter().enumerate() {
        Rewriter { layout, member, place }.add_to(&mut parts)?;
    }
    let Parts { functions, tables, memories, globals, mut elements, data, code, names, referenced } = parts;
    let escaping = places_in_segments(&layout.members) + referenced.len() + exports.len();
    let bytes = ENTRY_BYTES * (escaping + layout.used_imports().count()) + GLOBAL_BYTES * globals.len() as usize;
    if bytes > INSTANCE_BYTES_MAX {
        return Err(Refusal::Form("all in one it would be too large for one instance".into()));
    }
    if !referenced.is_empty() {
        // Code may only refer to functions that something outside of code names.
        elements.declared(Elements::Functions(referenced.into_iter().collect()));
    }
    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&imports).section(&functions).section(&tables).section(&memories);
    module.section(&globals).section(&exported).section(&elements);
    if layout.members.iter().any(|member| member.module.has_data_count) {
        module.section(&DataCountSection { count: data.len() });
    }
    module.section(&code).section(&data).section(&name_section(&names));
    Ok(module.finish())
}

/// Places in segments: as many functions at most can be reached through tables.
fn places_in_segments(members: &[Member<'_, '_>]) -> usize {
    let elements = members.iter().flat_map(|member| &member.module.elements);
    elements
        .map(|element| match &element.items {
            ElementItems::Functions(functions) => functions.count() as usize,
            ElementItems::Expressions(_, items) => items.count() as usize,
        })
        .sum()
}

fn name_section(functions: &BTreeMap<u32, &str>) -> NameSection {
    let mut map = NameMap::new();
    for (index, name) in functions {
        map.append(*index, name);
    }
    let mut section = NameSection::new();
    section.functions(&map);
    section
}

/// The sections to which each member adds.
#[derive(Default)]
struct Parts<'a> {
    functions: FunctionSection,
    tables: TableSection,
    memories: MemorySection,
    globals: GlobalSection,
    elements: ElementSection,
    data: DataSection,
    code: CodeSection,
    names: BTreeMap<u32, &'a str>,
    /// What code refers to.
    referenced: BTreeSet<u32>,
}

/// Rewrites a member, so that it names what it named by the indices that this has now.
struct Rewriter<'l, 'g, 'a> {
    layout: &'l Layout<'g, 'a>,
    member: &'l Member<'g, 'a>,
    place: usize,
}

type Error = reencode::Error<Refusal>;

impl<'a> Rewriter<'_, '_, 'a> {
    fn add_to(&mut self, parts: &mut Parts<'a>) -> Result<(), Refusal> {
        let module = self.member.module;
        for (ty, _) in module.functions.iter().zip(&self.member.functions).filter(|(_, index)| index.is_some()) {
            parts.functions.function(self.member.types[*ty as usize]);
        }
        for table in &module.tables {
            self.parse_table(&mut parts.tables, table.clone())?;
        }
        for memory in &module.memories {
            parts.memories.memory(self.memory_type(*memory)?);
        }
        for (global, own) in module.globals.iter().zip(&self.member.globals) {
            if own.index.is_some() {
                self.parse_global(&mut parts.globals, global.clone())?;
            }
        }
        for element in &module.elements {
            if let ElementKind::Active { offset_expr, .. } = &element.kind {
                self.check_place(offset_expr)?;
            }
            self.parse_element(&mut parts.elements, element.clone())?;
        }
        for data in &module.data {
            if let DataKind::Active { offset_expr, .. } = &data.kind {
                self.check_place(offset_expr)?;
            }
            self.parse_data(&mut parts.data, data.clone())?;
        }
        for (body, _) in module.bodies.iter().zip(&self.member.functions).filter(|(_, index)| index.is_some()) {
            self.body(body, parts)?;
        }
        let imported = module.imports(Kind::Function).len();
        for (index, name) in &module.names {
            let place = (*index as usize).checked_sub(imported);
            if let Some(index) = place.and_then(|place| *self.member.functions.get(place)?) {
                parts.names.insert(index, name);
            }
        }
        Ok(())
    }

    /// What a segment's place depends on must be known: else each instance would be filled anew.
    fn check_place(&self, offset: &wasmparser::ConstExpr<'_>) -> Result<(), Refusal> {
        match constant::value(offset, |global| self.layout.constant(self.place, global))? {
            Some(_) => Ok(()),
            None => Err(Refusal::Form("where a segment goes is known only when an instance is made".into())),
        }
    }

    fn body(&mut self, body: &FunctionBody<'_>, parts: &mut Parts<'a>) -> Result<(), Refusal> {
        let mut function = self.new_function_with_parsed_locals(body)?;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let instruction = self.parse_instruction(&mut operators)?;
            if let wasm_encoder::Instruction::RefFunc(index) = instruction {
                parts.referenced.insert(index);
            }
            function.instruction(&instruction);
        }
        parts.code.function(&function);
        Ok(())
    }

    fn index(&self, kind: Kind, index: u32) -> Result<u32, Error> {
        let target = self.member.targets[kind as usize].get(index as usize);
        let target = target.ok_or_else(|| Error::UserError(unlikely("an index beyond its space")))?;
        self.layout.index(kind, *target).map_err(Error::UserError)
    }
}

impl Reencode for Rewriter<'_, '_, '_> {
    type Error = Refusal;

    fn function_index(&mut self, index: u32) -> Result<u32, Error> {
        self.index(Kind::Function, index)
    }

    fn table_index(&mut self, index: u32) -> Result<u32, Error> {
        self.index(Kind::Table, index)
    }

    fn memory_index(&mut self, index: u32) -> Result<u32, Error> {
        self.index(Kind::Memory, index)
    }

    fn global_index(&mut self, index: u32) -> Result<u32, Error> {
        self.index(Kind::Global, index)
    }

    fn type_index(&mut self, index: u32) -> Result<u32, Error> {
        let ty = self.member.types.get(index as usize).copied();
        ty.ok_or_else(|| Error::UserError(unlikely("a type beyond its space")))
    }

    fn element_index(&mut self, index: u32) -> Result<u32, Error> {
        Ok(self.member.elements_base + index)
    }

    fn data_index(&mut self, index: u32) -> Result<u32, Error> {
        Ok(self.member.data_base + index)
    }

    fn tag_index(&mut self, _index: u32) -> Result<u32, Error> {
        Err(Error::UserError(Refusal::Unknown("a tag".into())))
    }

    fn instruction<'b>(&mut self, operator: Operator<'b>) -> Result<wasm_encoder::Instruction<'b>, Error> {
        if let Operator::GlobalGet { global_index } = operator
            && let Some(constant) = self.layout.constant(self.place, global_index)
        {
            return Ok(constant.instruction());
        }
        utils::instruction(self, operator)
    }

    fn const_expr(&mut self, expression: wasmparser::ConstExpr<'_>) -> Result<wasm_encoder::ConstExpr, Error> {
        let value = constant::value(&expression, |global| self.layout.constant(self.place, global));
        match value.map_err(Error::UserError)? {
            Some(constant) => Ok(constant.expression()),
            None => utils::const_expr(self, expression),
        }
    }
}
