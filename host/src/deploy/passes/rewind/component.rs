//! A component → the same with its modules rewritten, and their functions joined to one that it exports.

use wasm_encoder::{
    Alias, CanonicalFunctionSection, ComponentAliasSection, ComponentExportKind, ComponentExportSection,
    ComponentSection, ComponentTypeSection, EntityType, ExportKind, Function, ImportSection, InstanceSection,
    Instruction, ModuleArg, ModuleSection, RawSection, TypeSection,
};
use wasmparser::{Encoding, Parser, Payload};

use super::inspect::Plan;
use super::{FUNCTION, Refusal, module};

/// Writes it, from a component that `plan` was made of.
pub(super) fn encode(wasm: &[u8], plan: &Plan) -> Result<Vec<u8>, Refusal> {
    let mut component = wasm_encoder::Component::new();
    let mut modules = plan.modules.iter();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        match &payload {
            Payload::Version { encoding, .. } => {
                debug_assert!(depth > 0 || *encoding == Encoding::Component, "inspected");
                depth += 1;
            }
            Payload::End(_) => depth -= 1,
            Payload::ModuleSection { unchecked_range, .. } if depth == 1 => {
                let inspected = modules.next().filter(|module| module.has_state());
                let old = &wasm[unchecked_range.clone()];
                let rewritten = inspected.map(|inspected| module::encode(old, inspected)).transpose()?;
                let id = wasm_encoder::ComponentSectionId::CoreModule as u8;
                component.section(&RawSection { id, data: rewritten.as_deref().unwrap_or(old) });
            }
            _ if depth == 1 => {
                if let Some((id, range)) = payload.as_section() {
                    component.section(&RawSection { id, data: &wasm[range] });
                }
            }
            _ => {}
        }
    }
    append(&mut component, plan);
    Ok(component.finish())
}

/// The modules' functions → one core function, which is lifted and exported.
fn append(component: &mut wasm_encoder::Component, plan: &Plan) {
    let counts = &plan.counts;
    let functions = u32::try_from(plan.instances.len()).expect("there are at most as many as the inspection allows");

    let mut aliases = ComponentAliasSection::new();
    for (instance, _) in &plan.instances {
        alias(&mut aliases, *instance);
    }
    add(component, &aliases);
    component.section(&ModuleSection(&caller(functions)));

    let mut instances = InstanceSection::new();
    let exports: Vec<_> = (0..functions)
        .map(|function| (function.to_string(), ExportKind::Func, counts.core_functions + function))
        .collect();
    instances.export_items(exports.iter().map(|(name, kind, function)| (name.as_str(), *kind, *function)));
    instances.instantiate(counts.modules, [("", ModuleArg::Instance(counts.core_instances))]);
    add(component, &instances);

    let mut aliases = ComponentAliasSection::new();
    alias(&mut aliases, counts.core_instances + 1);
    add(component, &aliases);

    let mut types = ComponentTypeSection::new();
    types.function().params::<_, wasm_encoder::ComponentValType>([]).result(None);
    add(component, &types);
    let mut canonical = CanonicalFunctionSection::new();
    canonical.lift(counts.core_functions + functions, counts.types, []);
    add(component, &canonical);
    let mut exports = ComponentExportSection::new();
    exports.export(FUNCTION, ComponentExportKind::Func, counts.functions, None);
    add(component, &exports);
}

fn add(component: &mut wasm_encoder::Component, section: &impl ComponentSection) {
    component.section(section);
}

fn alias(section: &mut ComponentAliasSection, instance: u32) {
    section.alias(Alias::CoreInstanceExport { instance, kind: ExportKind::Func, name: FUNCTION });
}

/// A module that calls each of so many functions.
fn caller(functions: u32) -> wasm_encoder::Module {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    let mut body = Function::new([]);
    for function in 0..functions {
        imports.import("", &function.to_string(), EntityType::Function(0));
        body.instruction(&Instruction::Call(function));
    }
    body.instruction(&Instruction::End);
    let mut defined = wasm_encoder::FunctionSection::new();
    defined.function(0);
    let mut exports = wasm_encoder::ExportSection::new();
    exports.export(FUNCTION, ExportKind::Func, functions);
    let mut code = wasm_encoder::CodeSection::new();
    code.function(&body);
    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&imports).section(&defined).section(&exports).section(&code);
    module
}
