//! What state a component has, and whether all of it can be put back.

use wasmparser::{
    CanonicalFunction, ComponentType, Encoding, GlobalType, Instance, Operator, Parser, Payload, TypeRef, ValType,
    Validator,
};

use super::{FEATURES, FUNCTION, Refusal};
use crate::sandbox::step::Step;

/// What wasgi's pool gives to one sandbox (`sandbox/engine.rs`): with more of them, an app is not rewound but judged there.
const CORE_INSTANCES_MAX: usize = 64;
const MEMORIES_MAX: usize = 8;
const TABLES_MAX: u32 = 32;

/// A component's state, and the index spaces that the rewriting appends to.
#[derive(Debug)]
pub(super) struct Plan {
    /// The core modules, in order.
    pub(super) modules: Vec<Module>,
    /// The core instances that have state: `(instance, module)`.
    pub(super) instances: Vec<(u32, usize)>,
    pub(super) counts: Counts,
}

/// How many of each there are at the component's outermost level.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) modules: u32,
    pub(super) core_instances: u32,
    pub(super) core_functions: u32,
    pub(super) types: u32,
    pub(super) functions: u32,
}

/// A core module's state.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// The mutable globals that it defines, by index.
    pub(super) globals: Vec<(u32, ValType)>,
    /// The memories that it defines, by index; true is one with 64-bit addresses.
    pub(super) memories: Vec<(u32, bool)>,
    /// How many of each there are, imported ones included.
    pub(super) types_count: u32,
    pub(super) functions_count: u32,
    pub(super) globals_count: u32,
    memories_count: u32,
    tables_count: u32,
}

impl Module {
    /// Whether there is anything to be put back from inside.
    pub(super) fn has_state(&self) -> bool {
        !self.globals.is_empty() || !self.memories.is_empty()
    }
}

/// Reads and validates all of a component. Validating comes first: code that names a global or a function which does not exist
/// would name those that are added.
pub(super) fn inspect(wasm: &[u8]) -> Result<Plan, Refusal> {
    Validator::new_with_features(FEATURES).validate_all(wasm)?;
    let mut survey = Survey::default();
    let mut validator = Validator::new_with_features(FEATURES);
    // Components and modules around the payload.
    let mut around = Vec::new();
    let mut counts = None;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        if let (Payload::End(_), [Encoding::Component]) = (&payload, &around[..]) {
            counts = validator.types(0).map(|types| Counts {
                modules: types.module_count(),
                core_instances: types.core_instance_count(),
                core_functions: types.function_count(),
                types: types.component_type_count(),
                functions: types.component_function_count(),
            });
        }
        // Function bodies have been validated above.
        validator.payload(&payload)?;
        match &payload {
            Payload::Version { encoding, .. } => around.push(*encoding),
            Payload::End(_) => drop(around.pop()),
            _ => match around[..] {
                [Encoding::Component] => survey.component(&payload)?,
                [Encoding::Component, Encoding::Module] => survey.module(&payload)?,
                [Encoding::Component, ..] => nested(&payload)?,
                _ => return Err(Refusal::Unknown("it is no component".into())),
            },
        }
    }
    let counts = counts.ok_or_else(|| Refusal::Unknown("it is no component".into()))?;
    survey.finish(counts)
}

/// A component inside of the component may rename things, as toolchains have it, and nothing else: a handle that goes from one
/// to another would pass the host by.
fn nested(payload: &Payload<'_>) -> Result<(), Refusal> {
    match payload {
        Payload::ComponentCanonicalSection(_) | Payload::ModuleSection { .. } | Payload::InstanceSection(_) => {
            Err(Refusal::State("it is composed of several components".into()))
        }
        Payload::ComponentTypeSection(section) => own_resources(section),
        _ => Ok(()),
    }
}

fn own_resources(section: &wasmparser::ComponentTypeSectionReader<'_>) -> Result<(), Refusal> {
    for ty in section.clone() {
        if let ComponentType::Resource { .. } = ty? {
            return Err(Refusal::State("it has resources of its own, whose handles it may keep".into()));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Survey {
    modules: Vec<Module>,
    /// The module of each core instance; none where an instance only gathers others' items.
    instances: Vec<Option<usize>>,
}

impl Survey {
    fn component(&mut self, payload: &Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::ModuleSection { .. } => self.modules.push(Module::default()),
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    self.instances.push(match instance? {
                        Instance::Instantiate { module_index, .. } => Some(module_index as usize),
                        Instance::FromExports(_) => None,
                    });
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section.clone() {
                    match function? {
                        CanonicalFunction::Lift { .. }
                        | CanonicalFunction::Lower { .. }
                        | CanonicalFunction::ResourceDrop { .. } => {}
                        _ => {
                            return Err(Refusal::State("it makes handles by itself, which it may keep".into()));
                        }
                    }
                }
            }
            Payload::ComponentTypeSection(section) => own_resources(section)?,
            Payload::ComponentStartSection { .. } => {
                return Err(Refusal::Unknown("a start function of the component".into()));
            }
            _ => {}
        }
        Ok(())
    }

    fn module(&mut self, payload: &Payload<'_>) -> Result<(), Refusal> {
        let module = self.modules.last_mut().expect("a module's content follows its section");
        match payload {
            Payload::TypeSection(section) => {
                for group in section.clone() {
                    module.types_count += u32::try_from(group?.types().len()).unwrap_or(u32::MAX);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    match import?.ty {
                        TypeRef::Func(_) => module.functions_count += 1,
                        TypeRef::Global(_) => module.globals_count += 1,
                        TypeRef::Memory(_) => module.memories_count += 1,
                        TypeRef::Table(_) => module.tables_count += 1,
                        _ => return Err(Refusal::Unknown("an import of a new kind".into())),
                    }
                }
            }
            Payload::FunctionSection(section) => module.functions_count += section.count(),
            Payload::TableSection(section) => module.tables_count += section.count(),
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    module.memories.push((module.memories_count, memory?.memory64));
                    module.memories_count += 1;
                }
            }
            Payload::GlobalSection(section) => {
                for global in section.clone() {
                    module.global(global?.ty)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    if export?.name == FUNCTION {
                        return Err(Refusal::State(format!("it exports a {FUNCTION} of its own")));
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader()? {
                    operator_is_harmless(&operator?)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, counts: Counts) -> Result<Plan, Refusal> {
        let Self { modules, instances } = self;
        if counts.modules as usize != modules.len() || counts.core_instances as usize != instances.len() {
            return Err(Refusal::State("it takes core modules from elsewhere".into()));
        }
        let made: Vec<_> =
            (0..).zip(&instances).filter_map(|(instance, module)| Some((instance, (*module)?))).collect();
        let memories: usize = made.iter().map(|(_, module)| modules[*module].memories.len()).sum();
        let tables: u32 = made.iter().map(|(_, module)| modules[*module].tables_count).sum();
        if made.len() > CORE_INSTANCES_MAX || memories > MEMORIES_MAX || tables > TABLES_MAX {
            return Err(Refusal::State(format!(
                "it has {} core instances, {memories} memories and {tables} tables; at most {CORE_INSTANCES_MAX}, \
                 {MEMORIES_MAX} and {TABLES_MAX} are kept",
                made.len()
            )));
        }
        let instances = made.into_iter().filter(|(_, module)| modules[*module].has_state()).collect();
        Ok(Plan { modules, instances, counts })
    }
}

impl Module {
    fn global(&mut self, ty: GlobalType) -> Result<(), Refusal> {
        if ty.mutable {
            match ty.content_type {
                ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64 | ValType::V128 => {}
                ValType::Ref(reference) if reference.is_func_ref() || reference.is_extern_ref() => {}
                ValType::Ref(_) => return Err(Refusal::Unknown("a mutable global of an unusual type".into())),
            }
            self.globals.push((self.globals_count, ty.content_type));
        }
        self.globals_count += 1;
        Ok(())
    }
}

/// Tables and segments can't be put back: code that changes them is not rewound. What instantiation itself does with them is
/// done before the first call.
fn operator_is_harmless(operator: &Operator<'_>) -> Result<(), Refusal> {
    let name = match operator {
        Operator::TableSet { .. } => "table.set",
        Operator::TableGrow { .. } => "table.grow",
        Operator::TableFill { .. } => "table.fill",
        Operator::TableCopy { .. } => "table.copy",
        Operator::TableInit { .. } => "table.init",
        Operator::ElemDrop { .. } => "elem.drop",
        Operator::DataDrop { .. } => "data.drop",
        _ => return Ok(()),
    };
    if !Step::Tables.is_taken() {
        return Ok(());
    }
    Err(Refusal::State(format!("it has the instruction {name}: tables and segments cannot be put back")))
}
