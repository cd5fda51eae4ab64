//! The component again, with merged modules in the places of those that they are made of. Its own items keep their indices;
//! core items get others, and are looked up where they are used.

use std::collections::{HashMap, HashSet};

use wasm_encoder::reencode::{self, Reencode, ReencodeComponent};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, ComponentAliasSection, ComponentSection, ComponentSectionId, ComponentTypeSection,
    ExportKind, InstanceSection, ModuleArg, RawSection,
};

use super::graph::{Graph, Instance, Section, Source};
use super::merge::Merged;
use super::module::Kind;
use super::{Refusal, unlikely};

/// Writes it, with what is `needed` of its core items.
pub(super) fn encode<'a>(
    graph: &Graph<'a>,
    runs: &[Vec<u32>],
    merged: &[Merged<'a>],
    needed: &[(Kind, Source<'a>)],
) -> Result<Vec<u8>, Refusal> {
    let mut run_of = HashMap::new();
    for (run, members) in runs.iter().enumerate() {
        run_of.extend(members.iter().map(|instance| (*instance, run)));
    }
    let mut writer = Writer {
        graph,
        merged,
        needed: needed.iter().map(|(_, source)| *source).collect(),
        run_of,
        out: wasm_encoder::Component::new(),
        items: [0; 4],
        instances_count: 0,
        modules_count: 0,
        modules: HashMap::new(),
        canonical: HashMap::new(),
        instances: HashMap::new(),
        runs: vec![None; runs.len()],
        aliases: HashMap::new(),
    };
    for section in &graph.sections {
        writer.section(section, runs)?;
    }
    Ok(writer.out.finish())
}

/// How many different canonical functions are among them.
pub(super) fn canonical_functions(needed: &[(Kind, Source<'_>)]) -> usize {
    let functions = needed.iter().filter(|(_, source)| matches!(source, Source::Canonical(_)));
    functions.map(|(_, source)| source).collect::<HashSet<_>>().len()
}

struct Writer<'g, 'a> {
    graph: &'g Graph<'a>,
    merged: &'g [Merged<'a>],
    needed: HashSet<Source<'a>>,
    /// The run that an instance has become part of.
    run_of: HashMap<u32, usize>,
    out: wasm_encoder::Component,
    /// How many there are by now: core items by kind, instances, modules.
    items: [u32; 4],
    instances_count: u32,
    modules_count: u32,
    /// From what something was to what it is now.
    modules: HashMap<usize, u32>,
    canonical: HashMap<u32, u32>,
    instances: HashMap<u32, u32>,
    /// The instance of each merged module that has been made.
    runs: Vec<Option<u32>>,
    aliases: HashMap<Source<'a>, u32>,
}

impl<'a> Writer<'_, 'a> {
    fn section(&mut self, section: &Section<'a>, runs: &[Vec<u32>]) -> Result<(), Refusal> {
        match section {
            Section::Raw { id, data } => {
                self.out.section(&RawSection { id: *id, data });
            }
            Section::Resources(reader) => {
                let mut types = ComponentTypeSection::new();
                self.parse_component_type_section(&mut types, reader.clone())?;
                self.out.section(&types);
            }
            Section::Alias(alias) => {
                let mut aliases = ComponentAliasSection::new();
                aliases.alias(self.component_alias(alias.clone())?);
                self.out.section(&aliases);
            }
            // What the host offers costs something for each instance, whether it is called or not.
            Section::Canonical(_, Some(function)) if !self.needed.contains(&Source::Canonical(*function)) => {}
            Section::Canonical(function, made) => {
                let mut section = CanonicalFunctionSection::new();
                // This may write aliases, so that it comes before the section.
                self.parse_component_canonical(&mut section, function.clone())?;
                self.out.section(&section);
                if let Some(function) = made {
                    self.canonical.insert(*function, self.items[Kind::Function as usize]);
                    self.items[Kind::Function as usize] += 1;
                }
            }
            // Written before its instance.
            Section::Module => {}
            Section::Instance(instance) => match (self.run_of.get(instance), &self.graph.instances[*instance as usize])
            {
                // It is there when its last part would be, or when it is first needed.
                (Some(run), _) if runs[*run].last() == Some(instance) => _ = self.run(*run)?,
                (Some(_), _) | (None, Instance::Gathered(_)) => {}
                (None, Instance::Made { module, arguments }) => self.made(*instance, *module, arguments)?,
            },
        }
        Ok(())
    }

    /// An instance of a module that stays as it is.
    fn made(&mut self, instance: u32, module: usize, arguments: &HashMap<&'a str, u32>) -> Result<(), Refusal> {
        let mut names: Vec<_> = arguments.keys().copied().collect();
        names.sort_unstable();
        let mut given: Vec<_> = names.into_iter().map(|name| (name, Vec::<(&str, ExportKind, u32)>::new())).collect();
        for kind in Kind::ALL {
            for (import, source) in self.graph.imports(instance, kind)? {
                let index = self.item(kind, source)?;
                let place = given.binary_search_by(|(name, _)| (*name).cmp(import.module));
                let items = &mut given[place.map_err(|_| unlikely("an import without an instance"))?].1;
                if !items.iter().any(|(name, ..)| *name == import.name) {
                    items.push((import.name, kind.export(), index));
                }
            }
        }
        let module = self.module(module);
        let mut section = InstanceSection::new();
        let mut passed = Vec::new();
        for (name, items) in given {
            passed.push((name, ModuleArg::Instance(self.instances_count)));
            section.export_items(items);
            self.instances_count += 1;
        }
        section.instantiate(module, passed);
        self.instances.insert(instance, self.instances_count);
        self.instances_count += 1;
        self.out.section(&section);
        Ok(())
    }

    fn module(&mut self, module: usize) -> u32 {
        if let Some(index) = self.modules.get(&module) {
            return *index;
        }
        let index = self.add_module(self.graph.modules[module].bytes);
        self.modules.insert(module, index);
        index
    }

    fn add_module(&mut self, wasm: &[u8]) -> u32 {
        self.out.section(&RawSection { id: ComponentSectionId::CoreModule as u8, data: wasm });
        self.modules_count += 1;
        self.modules_count - 1
    }

    /// The instance of a merged module.
    fn run(&mut self, run: usize) -> Result<u32, Refusal> {
        if let Some(instance) = self.runs[run] {
            return Ok(instance);
        }
        let merged = &self.merged[run];
        let mut items = Vec::with_capacity(merged.imports.len());
        for (place, (kind, source)) in merged.imports.iter().enumerate() {
            items.push((place.to_string(), kind.export(), self.item(*kind, *source)?));
        }
        let module = self.add_module(&merged.wasm);
        let mut section = InstanceSection::new();
        section.export_items(items.iter().map(|(name, kind, index)| (name.as_str(), *kind, *index)));
        section.instantiate(module, [("", ModuleArg::Instance(self.instances_count))]);
        self.out.section(&section);
        let instance = self.instances_count + 1;
        self.instances_count += 2;
        self.runs[run] = Some(instance);
        Ok(instance)
    }

    /// The index of what comes from this source. It may have to be written first.
    fn item(&mut self, kind: Kind, source: Source<'a>) -> Result<u32, Refusal> {
        let (instance, name) = match source {
            Source::Canonical(function) => return self.canonical.get(&function).copied().ok_or_else(too_early),
            Source::Export { instance, name } => (instance, name),
        };
        if let Some(index) = self.aliases.get(&source) {
            return Ok(*index);
        }
        let mut aliases = ComponentAliasSection::new();
        let (instance, name) = match self.run_of.get(&instance) {
            None => (*self.instances.get(&instance).ok_or_else(too_early)?, name.to_owned()),
            Some(run) => {
                let run = *run;
                let number = self.merged[run].exports.get(&source);
                let number = number.ok_or_else(|| unlikely("an export that nobody asked for"))?;
                (self.run(run)?, number.to_string())
            }
        };
        aliases.alias(Alias::CoreInstanceExport { instance, kind: kind.export(), name: &name });
        add(&mut self.out, &aliases);
        let index = self.items[kind as usize];
        self.items[kind as usize] += 1;
        self.aliases.insert(source, index);
        Ok(index)
    }
}

fn add(component: &mut wasm_encoder::Component, section: &impl ComponentSection) {
    component.section(section);
}

/// Something between the parts of a merged module needs some of them, and the others need it.
fn too_early() -> Refusal {
    Refusal::Form("its core modules need each other in a way that one module cannot".into())
}

type Error = reencode::Error<Refusal>;

impl Reencode for Writer<'_, '_> {
    type Error = Refusal;

    fn function_index(&mut self, index: u32) -> Result<u32, Error> {
        self.item(Kind::Function, self.graph.item(Kind::Function, index)).map_err(Error::UserError)
    }

    fn table_index(&mut self, index: u32) -> Result<u32, Error> {
        self.item(Kind::Table, self.graph.item(Kind::Table, index)).map_err(Error::UserError)
    }

    fn memory_index(&mut self, index: u32) -> Result<u32, Error> {
        self.item(Kind::Memory, self.graph.item(Kind::Memory, index)).map_err(Error::UserError)
    }
}

impl ReencodeComponent for Writer<'_, '_> {}
