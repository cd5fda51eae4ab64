//! Which core instances become one: runs of instances that follow each other, so that nothing changes places with what stays.

use super::Refusal;
use super::graph::{Graph, Instance, Source};
use super::module::Kind;

/// Far more than any toolchain makes; merging takes a look at each for each.
const INSTANCES_MAX: usize = 1000;

/// The runs of at least two instances, in order.
///
/// An instance joins the run before it unless something that it imports can only be made when an instance of that run is there:
/// a function of the host's that needs its memory, say. That is what toolchains put a table in between for.
pub(super) fn runs(graph: &Graph<'_>) -> Result<Vec<Vec<u32>>, Refusal> {
    if graph.instances.len() > INSTANCES_MAX {
        return Err(Refusal::Form(format!("it has more than {INSTANCES_MAX} core instances")));
    }
    let mut runs = Vec::new();
    let mut run: Vec<u32> = Vec::new();
    let mut is_used = vec![false; graph.modules.len()];
    for (index, instance) in (0..).zip(&graph.instances) {
        let Instance::Made { module, .. } = instance else { continue };
        if std::mem::replace(&mut is_used[*module], true) {
            return Err(Refusal::Form("it makes two instances of a core module".into()));
        }
        // What runs while it is made has to find everything before it made, and nothing after it.
        let runs_code = graph.modules[*module].has_start;
        let needed = needs(graph, index)?;
        if runs_code || run.first().is_some_and(|first| needed >= Some(*first)) {
            runs.push(std::mem::take(&mut run));
        }
        match runs_code {
            true => runs.push(vec![index]),
            false => run.push(index),
        }
    }
    runs.push(run);
    runs.retain(|run| run.len() > 1);
    Ok(runs)
}

/// The last instance that has to be complete before this one's imports can all be there, but for what it imports from
/// instances themselves.
fn needs(graph: &Graph<'_>, instance: u32) -> Result<Option<u32>, Refusal> {
    let functions = graph.imports(instance, Kind::Function)?;
    Ok(functions
        .iter()
        .filter(|(_, source)| matches!(source, Source::Canonical(_)))
        .filter_map(|(_, source)| graph.after(*source))
        .max())
}
