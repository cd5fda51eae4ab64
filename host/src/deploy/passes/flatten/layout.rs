//! Where everything of several core instances comes to lie in one module: what they import from each other is found, what is left is
//! imported once, what nobody uses is left out, and globals that nobody writes are the numbers that they are.

use std::collections::{BTreeSet, HashMap};

use wasm_encoder::EntityType;
use wasm_encoder::reencode::{self, Reencode};
use wasmparser::{DataKind, ElementItems, ElementKind, FuncType, Operator, TableInit, TypeRef};

use super::constant::{self, Constant};
use super::graph::{Graph, Source};
use super::module::{Kind, Module};
use super::{Refusal, unlikely};

/// How many there were, and how many are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) functions: (usize, usize),
    pub(super) globals: (usize, usize),
}

/// Where an index of a member leads.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// To what comes from elsewhere, by its place in [`Layout::imports`].
    Import(usize),
    /// To what this or another member defines, by its place among what that defines.
    Own { member: usize, index: u32 },
}

pub(super) struct Member<'g, 'a> {
    pub(super) module: &'g Module<'a>,
    /// By kind and index.
    pub(super) targets: [Vec<Target>; 4],
    /// The index in the merged module of the first that it defines, by kind; not for functions and globals.
    pub(super) bases: [u32; 4],
    pub(super) elements_base: u32,
    pub(super) data_base: u32,
    pub(super) types: Vec<u32>,
    /// What it defines: the index of each function in the merged module, none if nobody can call it.
    pub(super) functions: Vec<Option<u32>>,
    pub(super) globals: Vec<OwnGlobal>,
}

/// A global that a member defines.
#[derive(Clone, Copy, Default)]
pub(super) struct OwnGlobal {
    pub(super) is_written: bool,
    pub(super) is_exported: bool,
    pub(super) constant: Option<Constant>,
    /// Its index in the merged module: none if each use has become its constant.
    pub(super) index: Option<u32>,
}

/// What comes from elsewhere.
pub(super) struct Import<'a> {
    pub(super) kind: Kind,
    pub(super) source: Source<'a>,
    pub(super) ty: EntityType,
    pub(super) is_used: bool,
    /// Its index in the merged module, if it is used.
    pub(super) index: u32,
}

pub(super) struct Layout<'g, 'a> {
    pub(super) members: Vec<Member<'g, 'a>>,
    pub(super) types: Vec<&'g FuncType>,
    imports: Vec<Import<'a>>,
    /// Members by their instance.
    places: HashMap<u32, usize>,
    pub(super) summary: Summary,
}

/// An export: what it was to others, and what it is.
pub(super) type Export<'a> = (Source<'a>, Kind, Target);

impl<'g, 'a> Layout<'g, 'a> {
    pub(super) fn new(graph: &'g Graph<'a>, members: &[u32]) -> Result<Self, Refusal> {
        let mut layout = Self {
            members: Vec::new(),
            types: Vec::new(),
            imports: Vec::new(),
            places: HashMap::new(),
            summary: Summary::default(),
        };
        let mut known_types = HashMap::new();
        let mut known_imports = HashMap::new();
        for (place, instance) in members.iter().enumerate() {
            let module = graph.module_of(*instance).ok_or_else(|| unlikely("a member without a module"))?;
            let types = module.types.iter().map(|ty| {
                *known_types.entry(ty).or_insert_with(|| {
                    layout.types.push(ty);
                    number(layout.types.len() - 1)
                })
            });
            let types = types.collect::<Vec<_>>();
            let mut targets: [Vec<Target>; 4] = Default::default();
            for kind in Kind::ALL {
                for (import, source) in graph.imports(*instance, kind)? {
                    let known = layout.member_export(source).or_else(|| known_imports.get(&(kind, source)).copied());
                    let target = match known {
                        Some(target) => target,
                        None => {
                            let target = Target::Import(layout.imports.len());
                            known_imports.insert((kind, source), target);
                            let (ty, is_used) = (entity(import.ty, &types)?, false);
                            layout.imports.push(Import { kind, source, ty, is_used, index: 0 });
                            target
                        }
                    };
                    targets[kind as usize].push(target);
                }
                let own = (0..module.defined(kind)).map(|index| Target::Own { member: place, index });
                targets[kind as usize].extend(own);
            }
            layout.places.insert(*instance, place);
            layout.members.push(Member {
                module,
                targets,
                bases: [0; 4],
                elements_base: 0,
                data_base: 0,
                types,
                functions: vec![None; module.functions.len()],
                globals: vec![OwnGlobal::default(); module.globals.len()],
            });
        }
        Ok(layout)
    }

    pub(super) fn used_imports(&self) -> impl Iterator<Item = &Import<'a>> {
        self.imports.iter().filter(|import| import.is_used)
    }

    /// Gives what is used its place in the index spaces.
    fn place(&mut self, functions: &[Vec<bool>]) {
        let mut next = [0; 4];
        for import in self.imports.iter_mut().filter(|import| import.is_used) {
            import.index = next[import.kind as usize];
            next[import.kind as usize] += 1;
        }
        let (mut elements, mut data) = (0, 0);
        for (member, functions) in self.members.iter_mut().zip(functions) {
            for kind in [Kind::Table, Kind::Memory] {
                member.bases[kind as usize] = next[kind as usize];
                next[kind as usize] += member.module.defined(kind);
            }
            for (function, _) in member.functions.iter_mut().zip(functions).filter(|(_, is_used)| **is_used) {
                *function = Some(next[Kind::Function as usize]);
                next[Kind::Function as usize] += 1;
                self.summary.functions.1 += 1;
            }
            self.summary.functions.0 += functions.len();
            (member.elements_base, member.data_base) = (elements, data);
            elements += number(member.module.elements.len());
            data += number(member.module.data.len());
        }
    }

    /// What an export of a member is. None for what comes from elsewhere.
    fn member_export(&self, source: Source<'a>) -> Option<Target> {
        let Source::Export { instance, name } = source else { return None };
        let member = &self.members[*self.places.get(&instance)?];
        let (kind, index) = member.module.exports.get(name)?;
        member.targets[*kind as usize].get(*index as usize).copied()
    }

    pub(super) fn exports(&mut self, needed: &[(Kind, Source<'a>)]) -> Result<Vec<Export<'a>>, Refusal> {
        let mut known = BTreeSet::new();
        let mut exports = Vec::new();
        for (kind, source) in needed {
            let Source::Export { instance, name } = *source else { continue };
            if !self.places.contains_key(&instance) || !known.insert((instance, name)) {
                continue;
            }
            let target = self.member_export(*source).ok_or_else(|| unlikely("an export that is not there"))?;
            if let (Kind::Global, Target::Own { member, index }) = (kind, target) {
                self.members[member].globals[index as usize].is_exported = true;
            }
            exports.push((*source, *kind, target));
        }
        Ok(exports)
    }

    /// Finds what is used, of what comes from elsewhere too, and the functions that somebody can call: those that are exported
    /// or named outside of code, and those that they call in turn. Notes which globals they write.
    pub(super) fn find_used(&mut self, exports: &[Export<'a>]) -> Result<(), Refusal> {
        let mut found: Vec<Vec<bool>> = self.members.iter().map(|member| vec![false; member.functions.len()]).collect();
        // Memories and tables are few.
        let mut waiting: Vec<_> = exports.iter().map(|(_, kind, target)| (*kind, *target)).collect();
        for import in &mut self.imports {
            import.is_used = matches!(import.kind, Kind::Table | Kind::Memory);
        }
        for member in &self.members {
            named(member, &mut waiting)?;
        }
        while let Some((kind, target)) = waiting.pop() {
            let (member, index) = match target {
                Target::Import(place) => {
                    self.imports[place].is_used = true;
                    continue;
                }
                Target::Own { member, index } => (member, index as usize),
            };
            if kind != Kind::Function || std::mem::replace(&mut found[member][index], true) {
                continue;
            }
            let mut operators = self.members[member].module.bodies[index].get_operators_reader()?;
            while !operators.eof() {
                let operator = operators.read()?;
                let Some((kind, index)) = item_of(&operator) else { continue };
                let target = self.members[member].targets[kind as usize][index as usize];
                if let Operator::GlobalSet { .. } = operator {
                    self.write(target);
                }
                waiting.push((kind, target));
            }
        }
        self.place(&found);
        Ok(())
    }

    /// Finds out what the globals are that nobody writes.
    pub(super) fn find_constants(&mut self, exports: &[Export<'a>]) -> Result<(), Refusal> {
        exports.iter().filter(|(_, kind, _)| *kind == Kind::Global).for_each(|(.., target)| self.write(*target));
        let mut next = number(self.used_imports().filter(|import| import.kind == Kind::Global).count());
        for place in 0..self.members.len() {
            for index in 0..self.members[place].module.globals.len() {
                let global = &self.members[place].module.globals[index];
                let constant = constant::value(&global.init_expr, |global| self.constant(place, global))?;
                let own = &mut self.members[place].globals[index];
                own.constant = constant.filter(|_| !own.is_written || !global.ty.mutable);
                if own.constant.is_none() || own.is_exported {
                    own.index = Some(next);
                    next += 1;
                }
                self.summary.globals.0 += 1;
                self.summary.globals.1 += usize::from(own.index.is_some());
            }
        }
        Ok(())
    }

    fn write(&mut self, target: Target) {
        if let Target::Own { member, index } = target {
            self.members[member].globals[index as usize].is_written = true;
        }
    }

    /// What a member's global is, if that is known.
    pub(super) fn constant(&self, place: usize, global: u32) -> Option<Constant> {
        match self.members[place].targets[Kind::Global as usize].get(global as usize)? {
            Target::Import(_) => None,
            Target::Own { member, index } => self.members[*member].globals[*index as usize].constant,
        }
    }

    /// The index in the merged module.
    pub(super) fn index(&self, kind: Kind, target: Target) -> Result<u32, Refusal> {
        match target {
            Target::Import(place) => match &self.imports[place] {
                import if import.is_used => Ok(import.index),
                _ => Err(unlikely("an import that nobody uses")),
            },
            Target::Own { member, index } => {
                let (member, place) = (&self.members[member], index as usize);
                match kind {
                    Kind::Function => member.functions[place].ok_or_else(|| unlikely("a call of what nobody calls")),
                    Kind::Global => member.globals[place].index.ok_or_else(|| unlikely("a constant that is none")),
                    Kind::Table | Kind::Memory => Ok(member.bases[kind as usize] + index),
                }
            }
        }
    }
}

/// Functions and globals that a member names outside of its code.
fn named(member: &Member<'_, '_>, found: &mut Vec<(Kind, Target)>) -> Result<(), Refusal> {
    let module = member.module;
    let mut expressions: Vec<_> = module.globals.iter().map(|global| global.init_expr.clone()).collect();
    for table in &module.tables {
        if let TableInit::Expr(expression) = &table.init {
            expressions.push(expression.clone());
        }
    }
    for data in &module.data {
        if let DataKind::Active { offset_expr, .. } = &data.kind {
            expressions.push(offset_expr.clone());
        }
    }
    for element in &module.elements {
        if let ElementKind::Active { offset_expr, .. } = &element.kind {
            expressions.push(offset_expr.clone());
        }
        match &element.items {
            ElementItems::Functions(functions) => {
                for function in functions.clone() {
                    found.push((Kind::Function, member.targets[Kind::Function as usize][function? as usize]));
                }
            }
            ElementItems::Expressions(_, items) => {
                for item in items.clone() {
                    expressions.push(item?);
                }
            }
        }
    }
    for expression in expressions {
        let mut operators = expression.get_operators_reader();
        while !operators.is_end_then_eof() {
            if let Some((kind, index)) = item_of(&operators.read()?) {
                found.push((kind, member.targets[kind as usize][index as usize]));
            }
        }
    }
    Ok(())
}

/// The function or global that an instruction names.
fn item_of(operator: &Operator<'_>) -> Option<(Kind, u32)> {
    match *operator {
        Operator::Call { function_index }
        | Operator::ReturnCall { function_index }
        | Operator::RefFunc { function_index } => Some((Kind::Function, function_index)),
        Operator::GlobalGet { global_index } | Operator::GlobalSet { global_index } => {
            Some((Kind::Global, global_index))
        }
        _ => None,
    }
}

pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a component has less than 4 GiB")
}

fn entity(ty: TypeRef, types: &[u32]) -> Result<EntityType, Refusal> {
    Ok(match ty {
        TypeRef::Func(ty) => EntityType::Function(types[ty as usize]),
        other => reencode::RoundtripReencoder.entity_type(other)?,
    })
}
