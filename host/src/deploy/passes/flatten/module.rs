//! A core module, taken apart.

use std::collections::HashMap;

use wasmparser::{
    CompositeInnerType, Data, Element, ExternalKind, FuncType, FunctionBody, Global, KnownCustom, MemoryType, Name,
    Parser, Payload, Table, TypeRef,
};

use super::Refusal;

/// What a core module may define, import and export: a tag would be something else, and is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Function,
    Table,
    Memory,
    Global,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Function, Self::Table, Self::Memory, Self::Global];

    /// The same for the encoder.
    pub(super) fn export(self) -> wasm_encoder::ExportKind {
        match self {
            Self::Function => wasm_encoder::ExportKind::Func,
            Self::Table => wasm_encoder::ExportKind::Table,
            Self::Memory => wasm_encoder::ExportKind::Memory,
            Self::Global => wasm_encoder::ExportKind::Global,
        }
    }
}

impl TryFrom<ExternalKind> for Kind {
    type Error = Refusal;

    fn try_from(kind: ExternalKind) -> Result<Self, Refusal> {
        match kind {
            ExternalKind::Func => Ok(Self::Function),
            ExternalKind::Table => Ok(Self::Table),
            ExternalKind::Memory => Ok(Self::Memory),
            ExternalKind::Global => Ok(Self::Global),
            ExternalKind::Tag | ExternalKind::FuncExact => Err(Refusal::Unknown("a core item of a new kind".into())),
        }
    }
}

pub(super) struct Import<'a> {
    pub(super) module: &'a str,
    pub(super) name: &'a str,
    pub(super) ty: TypeRef,
}

/// The content of a core module, which is valid. Of custom sections only the names of functions are kept.
#[derive(Default)]
pub(super) struct Module<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) types: Vec<FuncType>,
    imports: [Vec<Import<'a>>; 4],
    /// The types of the functions that it defines.
    pub(super) functions: Vec<u32>,
    pub(super) tables: Vec<Table<'a>>,
    pub(super) memories: Vec<MemoryType>,
    pub(super) globals: Vec<Global<'a>>,
    pub(super) exports: HashMap<&'a str, (Kind, u32)>,
    pub(super) elements: Vec<Element<'a>>,
    pub(super) data: Vec<Data<'a>>,
    pub(super) has_data_count: bool,
    pub(super) bodies: Vec<FunctionBody<'a>>,
    pub(super) has_start: bool,
    /// By index of the function.
    pub(super) names: Vec<(u32, &'a str)>,
}

impl<'a> Module<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut module = Self { bytes, ..Self::default() };
        for payload in Parser::new(0).parse_all(bytes) {
            module.payload(payload?)?;
        }
        Ok(module)
    }

    /// What it imports of a kind, in the order of their indices.
    pub(super) fn imports(&self, kind: Kind) -> &[Import<'a>] {
        &self.imports[kind as usize]
    }

    /// How many it defines of a kind.
    pub(super) fn defined(&self, kind: Kind) -> u32 {
        let count = match kind {
            Kind::Function => self.functions.len(),
            Kind::Table => self.tables.len(),
            Kind::Memory => self.memories.len(),
            Kind::Global => self.globals.len(),
        };
        u32::try_from(count).expect("it was counted in 32 bits")
    }

    fn payload(&mut self, payload: Payload<'a>) -> Result<(), Refusal> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group?.into_types() {
                        let CompositeInnerType::Func(function) = ty.composite_type.inner else {
                            return Err(Refusal::Unknown("a type that is none of a function".into()));
                        };
                        self.types.push(function);
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let wasmparser::Import { module, name, ty } = import?;
                    let kind = match ty {
                        TypeRef::Func(_) => Kind::Function,
                        TypeRef::Table(_) => Kind::Table,
                        TypeRef::Memory(_) => Kind::Memory,
                        TypeRef::Global(_) => Kind::Global,
                        TypeRef::Tag(_) | TypeRef::FuncExact(_) => {
                            return Err(Refusal::Unknown("an import of a new kind".into()));
                        }
                    };
                    self.imports[kind as usize].push(Import { module, name, ty });
                }
            }
            Payload::FunctionSection(section) => self.functions = section.into_iter().collect::<Result<_, _>>()?,
            Payload::TableSection(section) => self.tables = section.into_iter().collect::<Result<_, _>>()?,
            Payload::MemorySection(section) => self.memories = section.into_iter().collect::<Result<_, _>>()?,
            Payload::GlobalSection(section) => self.globals = section.into_iter().collect::<Result<_, _>>()?,
            Payload::ElementSection(section) => self.elements = section.into_iter().collect::<Result<_, _>>()?,
            Payload::DataSection(section) => self.data = section.into_iter().collect::<Result<_, _>>()?,
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    self.exports.insert(export.name, (export.kind.try_into()?, export.index));
                }
            }
            Payload::StartSection { .. } => self.has_start = true,
            Payload::DataCountSection { .. } => self.has_data_count = true,
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            Payload::CustomSection(section) => self.read_names(&section),
            Payload::Version { .. } | Payload::CodeSectionStart { .. } | Payload::End(_) => {}
            _ => return Err(Refusal::Unknown("a section of a new kind".into())),
        }
        Ok(())
    }

    /// Names that cannot be read are not kept, as engines have it.
    fn read_names(&mut self, section: &wasmparser::CustomSectionReader<'a>) {
        let KnownCustom::Name(subsections) = section.as_known() else { return };
        for name in subsections.into_iter().map_while(Result::ok) {
            if let Name::Function(map) = name {
                self.names.extend(map.into_iter().map_while(Result::ok).map(|naming| (naming.index, naming.name)));
            }
        }
    }
}
