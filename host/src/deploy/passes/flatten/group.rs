//! Which core instances become one.
//!
//! An instance joins a run of others if whatever it imports can be there when they are made: a function of the host's that needs
//! the memory of one of them can not, which is what toolchains put a table in between for. It joins the run before it, or
//! an earlier one if nobody can tell: if it needs nothing of what it passes, and both fill different tables and memories.
//! Nothing passes what runs code while it is made.

use std::collections::HashSet;

use super::Refusal;
use super::graph::{Graph, Instance, Source};
use super::module::Kind;

/// Far more than any toolchain makes; merging takes a look at each for each.
const INSTANCES_MAX: usize = 1000;

/// A table or memory: the instance that defines it, and which of its own it is.
type Definition = (Kind, u32, u32);

#[derive(Default)]
struct Run<'a> {
    members: Vec<u32>,
    /// What its members write while they are made.
    filled: HashSet<Definition>,
    /// The functions that it imports and that the canonical ABI makes.
    canonical: HashSet<Source<'a>>,
}

/// The runs of at least two instances, in the order in which they are made.
pub(super) fn runs(graph: &Graph<'_>) -> Result<Vec<Vec<u32>>, Refusal> {
    if graph.instances.len() > INSTANCES_MAX {
        return Err(Refusal::Form(format!("it has more than {INSTANCES_MAX} core instances")));
    }
    let mut runs: Vec<Run<'_>> = Vec::new();
    // For each instance, the last run that has it or one of those before it.
    let mut latest: Vec<usize> = Vec::new();
    // What comes later joins no run before this one.
    let mut open_from = 0;
    let mut is_used = vec![false; graph.modules.len()];
    for (index, instance) in (0..).zip(&graph.instances) {
        let Instance::Made { module, .. } = instance else {
            latest.push(latest.last().copied().unwrap_or(0));
            continue;
        };
        if std::mem::replace(&mut is_used[*module], true) {
            return Err(Refusal::Form("it makes two instances of a core module".into()));
        }
        let this = Run { members: vec![index], filled: filled(graph, index)?, canonical: canonical(graph, index)? };
        let run = match graph.modules[*module].has_start {
            true => {
                open_from = runs.len() + 1;
                runs.len()
            }
            false => place(graph, index, &this, &runs[..], &latest, open_from)?,
        };
        match runs.get_mut(run) {
            Some(run) => {
                run.members.push(index);
                run.filled.extend(this.filled);
                run.canonical.extend(this.canonical);
            }
            None => runs.push(this),
        }
        latest.push(latest.last().map_or(run, |latest| run.max(*latest)));
    }
    let mut runs: Vec<_> = runs.into_iter().map(|run| run.members).collect();
    runs.retain(|run| run.len() > 1);
    Ok(runs)
}

/// The run that an instance joins; one more than there are for one of its own.
fn place<'a>(
    graph: &Graph<'a>,
    instance: u32,
    this: &Run<'a>,
    runs: &[Run<'a>],
    latest: &[usize],
    open_from: usize,
) -> Result<usize, Refusal> {
    // It comes after what its functions need, and not before what it imports from.
    let mut first = open_from;
    for source in &this.canonical {
        if let Some(needed) = graph.after(*source) {
            first = first.max(latest[needed as usize] + 1);
        }
    }
    for kind in Kind::ALL {
        for (_, source) in graph.imports(instance, kind)? {
            if let Source::Export { instance, .. } = source {
                let run = runs.iter().position(|run| run.members.contains(&instance));
                first = first.max(run.unwrap_or(runs.len()));
            }
        }
    }
    // Where it passes others, it is made earlier than it was: all that it imports must be there.
    let passes_unnoticed = |run: &usize| {
        this.canonical.is_subset(&runs[*run].canonical)
            && runs[run + 1..].iter().all(|passed| passed.filled.is_disjoint(&this.filled))
    };
    let last = runs.len().saturating_sub(1);
    Ok((first..last).find(passes_unnoticed).unwrap_or(last.max(first)))
}

/// The functions that an instance imports and that the canonical ABI makes.
fn canonical<'a>(graph: &Graph<'a>, instance: u32) -> Result<HashSet<Source<'a>>, Refusal> {
    let functions = graph.imports(instance, Kind::Function)?.into_iter().map(|(_, source)| source);
    Ok(functions.filter(|source| matches!(source, Source::Canonical(_))).collect())
}

/// The tables and memories that an instance writes while it is made.
fn filled(graph: &Graph<'_>, instance: u32) -> Result<HashSet<Definition>, Refusal> {
    let mut filled = HashSet::new();
    if let Some(module) = graph.module_of(instance) {
        for (kind, index) in module.filled() {
            filled.insert(definition(graph, kind, instance, index)?);
        }
    }
    Ok(filled)
}

/// The table or memory that an instance has under an index, whoever defines it.
fn definition(graph: &Graph<'_>, kind: Kind, instance: u32, index: u32) -> Result<Definition, Refusal> {
    let (mut instance, mut index) = (instance, index);
    // Each step leads to an earlier instance.
    loop {
        let imports = graph.imports(instance, kind)?;
        let Some((_, source)) = imports.get(index as usize) else { return Ok((kind, instance, index)) };
        let Source::Export { instance: from, name } = *source else {
            return Err(super::unlikely("a table that the canonical ABI makes"));
        };
        let export = graph.module_of(from).and_then(|module| module.exports.get(name));
        let (_, exported) = export.ok_or_else(|| super::unlikely("an export that is not there"))?;
        (instance, index) = (from, *exported);
    }
}
