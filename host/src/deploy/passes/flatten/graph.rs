//! A component, taken apart: its sections in order, its core modules and core instances, and where each core item comes from.

use std::collections::HashMap;

use wasm_encoder::reencode::{self, Reencode, ReencodeComponent};
use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentType, ComponentTypeRef, Encoding, Parser, Payload,
};

use super::module::{Import, Kind, Module};
use super::{Refusal, unlikely};

/// A core instance.
pub(super) enum Instance<'a> {
    /// Of a module, with the instances that it imports from, by name.
    Made { module: usize, arguments: HashMap<&'a str, u32> },
    /// Others' items, by name.
    Gathered(HashMap<&'a str, (Kind, u32)>),
}

/// Where a core item comes from, when aliases and gathered instances have been followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source<'a> {
    /// The core function of this index, which the canonical ABI makes.
    Canonical(u32),
    /// An export of an instance of a module.
    Export { instance: u32, name: &'a str },
}

/// A part of the component, in the order in which they stand.
pub(super) enum Section<'a> {
    /// It names no core item.
    Raw {
        id: u8,
        data: &'a [u8],
    },
    /// Types of which some have destructors.
    Resources(wasmparser::ComponentTypeSectionReader<'a>),
    Module,
    Instance(u32),
    /// Of anything but a core instance's export: those are made anew where they are used.
    Alias(ComponentAlias<'a>),
    /// With the index of the core function, if it makes one.
    Canonical(CanonicalFunction, Option<u32>),
}

#[derive(Default)]
pub(super) struct Graph<'a> {
    pub(super) sections: Vec<Section<'a>>,
    pub(super) modules: Vec<Module<'a>>,
    pub(super) instances: Vec<Instance<'a>>,
    /// What the component itself takes from core instances: functions that are lifted, options, destructors.
    pub(super) taken: Vec<(Kind, Source<'a>)>,
    /// Core items by index.
    items: [Vec<Source<'a>>; 4],
    /// For each core function the last instance that must be there before it can be; none for most that the host offers.
    after: Vec<Option<u32>>,
    /// The last instance that anything lifted so far needs, and any destructor so far.
    lifted_after: Option<u32>,
    destroyed_after: Option<u32>,
}

impl<'a> Graph<'a> {
    /// Reads a component, which is valid.
    pub(super) fn read(wasm: &'a [u8]) -> Result<Self, Refusal> {
        let mut graph = Self::default();
        // Components and modules around the payload.
        let mut around = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            match &payload {
                Payload::Version { encoding: Encoding::Module, .. } if around.is_empty() => {
                    return Err(Refusal::Unknown("it is no component".into()));
                }
                Payload::Version { encoding, .. } => around.push(*encoding),
                Payload::End(_) => drop(around.pop()),
                _ => match around[..] {
                    [Encoding::Component] => graph.section(wasm, payload)?,
                    // Read when its section began.
                    [Encoding::Component, Encoding::Module] => {}
                    [Encoding::Component, ..] => nested(&payload)?,
                    _ => return Err(Refusal::Unknown("it is no component".into())),
                },
            }
        }
        Ok(graph)
    }

    /// Where the core item of this index comes from.
    pub(super) fn item(&self, kind: Kind, index: u32) -> Source<'a> {
        self.items[kind as usize][index as usize]
    }

    /// How many core functions the canonical ABI makes.
    pub(super) fn canonical_functions(&self) -> usize {
        self.sections.iter().filter(|section| matches!(section, Section::Canonical(_, Some(_)))).count()
    }

    /// The module that an instance was made of.
    pub(super) fn module_of(&self, instance: u32) -> Option<&Module<'a>> {
        match self.instances[instance as usize] {
            Instance::Made { module, .. } => Some(&self.modules[module]),
            Instance::Gathered(_) => None,
        }
    }

    /// What an instance of a module imports, and where from.
    pub(super) fn imports(&self, instance: u32, kind: Kind) -> Result<Vec<(&Import<'a>, Source<'a>)>, Refusal> {
        let Instance::Made { module, arguments } = &self.instances[instance as usize] else { return Ok(Vec::new()) };
        let imports = self.modules[*module].imports(kind).iter();
        imports
            .map(|import| {
                let from = arguments.get(import.module).ok_or_else(|| unlikely("an import without an instance"))?;
                Ok((import, self.export(*from, import.name)?))
            })
            .collect()
    }

    /// The last instance that must be there before what comes from this source can be.
    pub(super) fn after(&self, source: Source<'a>) -> Option<u32> {
        match source {
            Source::Canonical(function) => self.after[function as usize],
            Source::Export { instance, .. } => Some(instance),
        }
    }

    /// Where an instance's export comes from.
    pub(super) fn export(&self, instance: u32, name: &'a str) -> Result<Source<'a>, Refusal> {
        match &self.instances[instance as usize] {
            Instance::Made { .. } => Ok(Source::Export { instance, name }),
            Instance::Gathered(items) => {
                let (kind, index) = items.get(name).ok_or_else(|| unlikely("an export that is not there"))?;
                Ok(self.item(*kind, *index))
            }
        }
    }

    fn section(&mut self, wasm: &'a [u8], payload: Payload<'a>) -> Result<(), Refusal> {
        let raw = payload.as_section();
        match payload {
            Payload::ModuleSection { unchecked_range, .. } => {
                self.sections.push(Section::Module);
                self.modules.push(Module::read(&wasm[unchecked_range])?);
                return Ok(());
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    self.instance(instance?)?;
                }
                return Ok(());
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(alias?)?;
                }
                return Ok(());
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    self.canonical(function?)?;
                }
                return Ok(());
            }
            Payload::ComponentTypeSection(section) => {
                let destructors = References::of(|references| {
                    let mut types = wasm_encoder::ComponentTypeSection::new();
                    references.parse_component_type_section(&mut types, section.clone())
                })?;
                if !destructors.is_empty() {
                    let after = self.take(&destructors);
                    self.destroyed_after = self.destroyed_after.max(after);
                    self.sections.push(Section::Resources(section));
                    return Ok(());
                }
            }
            // The names of core items would be wrong ones afterwards.
            Payload::CustomSection(section) if section.name() == "component-name" => return Ok(()),
            other => only_components(&other)?,
        }
        let (id, range) = raw.ok_or_else(|| Refusal::Unknown("something that is no section".into()))?;
        self.sections.push(Section::Raw { id, data: &wasm[range] });
        Ok(())
    }

    fn instance(&mut self, instance: wasmparser::Instance<'a>) -> Result<(), Refusal> {
        self.sections.push(Section::Instance(next_index(&self.instances)));
        self.instances.push(match instance {
            wasmparser::Instance::Instantiate { module_index, args } => Instance::Made {
                module: module_index as usize,
                arguments: args.iter().map(|argument| (argument.name, argument.index)).collect(),
            },
            wasmparser::Instance::FromExports(exports) => {
                let items = exports.iter().map(|export| Ok((export.name, (export.kind.try_into()?, export.index))));
                Instance::Gathered(items.collect::<Result<_, Refusal>>()?)
            }
        });
        Ok(())
    }

    fn alias(&mut self, alias: ComponentAlias<'a>) -> Result<(), Refusal> {
        match alias {
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                let kind = Kind::try_from(kind)?;
                let source = self.export(instance_index, name)?;
                if kind == Kind::Function {
                    self.after.push(self.after(source));
                }
                self.items[kind as usize].push(source);
            }
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. }
            | ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } => return Err(from_elsewhere()),
            ComponentAlias::InstanceExport { .. } | ComponentAlias::Outer { .. } => {
                self.sections.push(Section::Alias(alias));
            }
        }
        Ok(())
    }

    fn canonical(&mut self, function: CanonicalFunction) -> Result<(), Refusal> {
        let used = References::of(|references| {
            let mut section = wasm_encoder::CanonicalFunctionSection::new();
            references.parse_component_canonical(&mut section, function.clone())
        })?;
        let mut after = self.take(&used);
        let made = match function {
            CanonicalFunction::Lift { .. } => {
                self.lifted_after = self.lifted_after.max(after);
                None
            }
            // Which of what was lifted, or whose destructor it is, is not looked into.
            CanonicalFunction::Lower { .. } => {
                after = after.max(self.lifted_after);
                Some(next_index(&self.after))
            }
            CanonicalFunction::ResourceNew { .. }
            | CanonicalFunction::ResourceDrop { .. }
            | CanonicalFunction::ResourceRep { .. } => {
                after = after.max(self.destroyed_after);
                Some(next_index(&self.after))
            }
            _ => Some(next_index(&self.after)),
        };
        if let Some(index) = made {
            self.items[Kind::Function as usize].push(Source::Canonical(index));
            self.after.push(after);
        }
        self.sections.push(Section::Canonical(function, made));
        Ok(())
    }

    /// Notes what the component takes, and says which instance must be there for it.
    fn take(&mut self, used: &[(Kind, u32)]) -> Option<u32> {
        let sources: Vec<_> = used.iter().map(|(kind, index)| (*kind, self.item(*kind, *index))).collect();
        let after = sources.iter().filter_map(|(_, source)| self.after(*source)).max();
        self.taken.extend(sources);
        after
    }
}

fn next_index<T>(space: &[T]) -> u32 {
    u32::try_from(space.len()).expect("it was counted in 32 bits")
}

/// The component's own items may be anything that brings no core module with it.
fn only_components(payload: &Payload<'_>) -> Result<(), Refusal> {
    match payload {
        Payload::ComponentImportSection(section) => {
            for import in section.clone() {
                if let ComponentTypeRef::Module(_) = import?.ty {
                    return Err(from_elsewhere());
                }
            }
        }
        Payload::ComponentExportSection(section) => {
            for export in section.clone() {
                if export?.kind == ComponentExternalKind::Module {
                    return Err(Refusal::Form("it exports a core module".into()));
                }
            }
        }
        Payload::ComponentInstanceSection(section) => {
            for instance in section.clone() {
                let is_module = match instance? {
                    ComponentInstance::Instantiate { args, .. } => {
                        args.iter().any(|argument| argument.kind == ComponentExternalKind::Module)
                    }
                    ComponentInstance::FromExports(exports) => {
                        exports.iter().any(|export| export.kind == ComponentExternalKind::Module)
                    }
                };
                if is_module {
                    return Err(Refusal::Form("it hands a core module on".into()));
                }
            }
        }
        Payload::CoreTypeSection(_) | Payload::ComponentSection { .. } | Payload::CustomSection(_) => {}
        _ => return Err(Refusal::Unknown("a section of a new kind".into())),
    }
    Ok(())
}

/// A component inside of the component may rename things, as toolchains have it. One with code of its own would run in the
/// middle of what is merged.
fn nested(payload: &Payload<'_>) -> Result<(), Refusal> {
    match payload {
        Payload::ComponentCanonicalSection(_) | Payload::ModuleSection { .. } | Payload::InstanceSection(_) => {
            Err(Refusal::Form("it is composed of several components".into()))
        }
        Payload::ComponentAliasSection(section) => {
            for alias in section.clone() {
                if let ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } = alias? {
                    return Err(from_elsewhere());
                }
            }
            Ok(())
        }
        Payload::ComponentTypeSection(section) => {
            for ty in section.clone() {
                if let ComponentType::Resource { dtor: Some(_), .. } = ty? {
                    return Err(Refusal::Form("it is composed of several components".into()));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn from_elsewhere() -> Refusal {
    Refusal::Form("it takes core modules from elsewhere".into())
}

/// Encodes something for nothing, to learn which core items it names.
#[derive(Default)]
struct References(Vec<(Kind, u32)>);

impl References {
    fn of(encode: impl FnOnce(&mut Self) -> Result<(), reencode::Error>) -> Result<Vec<(Kind, u32)>, Refusal> {
        let mut references = Self::default();
        encode(&mut references)?;
        Ok(references.0)
    }

    fn note(&mut self, kind: Kind, index: u32) -> Result<u32, reencode::Error> {
        self.0.push((kind, index));
        Ok(index)
    }
}

impl Reencode for References {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error> {
        self.note(Kind::Function, index)
    }

    fn table_index(&mut self, index: u32) -> Result<u32, reencode::Error> {
        self.note(Kind::Table, index)
    }

    fn memory_index(&mut self, index: u32) -> Result<u32, reencode::Error> {
        self.note(Kind::Memory, index)
    }
}

impl ReencodeComponent for References {}
