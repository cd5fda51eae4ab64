//! Random components: modules that import from each other and from the host whatever there is, in chains and through gathered
//! instances, with code that uses it. Each answers as its flattened twin does, or is refused.

use std::fmt::Write;

use proptest::prelude::*;

use super::super::Refusal;
use super::twins::Twins;

/// Random numbers that choose.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    /// One of so many; the first when the dice have run out.
    fn below(&mut self, count: usize) -> usize {
        let high = self.0.next().copied().unwrap_or(0);
        let low = self.0.next().copied().unwrap_or(0);
        if count == 0 { 0 } else { (usize::from(high) * 256 + usize::from(low)) % count }
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }
}

/// What a module can name, by kind; each in an order that has imports first, as the text format wants it.
#[derive(Default)]
struct Space {
    functions: usize,
    tables: usize,
    memories: usize,
    /// Whether it can be set.
    globals: Vec<bool>,
    globals_imported: usize,
    passive_data: usize,
}

/// What other modules can import.
#[derive(Clone)]
struct Offer {
    instance: usize,
    name: String,
    kind: &'static str,
    ty: &'static str,
    is_mutable: bool,
}

const UNARY: &str = "(param i32) (result i32)";

fn component(dice: &mut Dice<'_>) -> String {
    let mut text = String::from(
        r#"(component
        (import "ask" (func $ask (param "number" u32) (result u32)))
        (core func $ask (canon lower (func $ask)))
        (core instance $host (export "ask" (func $ask)))"#,
    );
    let mut offers: Vec<Offer> = Vec::new();
    let mut lifted = String::new();
    for module in 0..2 + dice.below(4) {
        let (wat, arguments, offered, callable) = core_module(dice, module, &offers);
        text.push_str(&wat);
        write!(text, "(core instance $i{module} (instantiate $m{module} {arguments}))").expect("a string takes it");
        if dice.one_in(8) {
            // Something that needs the instance before the next is there.
            write!(text, "(core func $l{module} (canon lower (func $ask)))").expect("a string takes it");
        }
        for name in callable {
            write!(
                lifted,
                "(func (export \"m{module}-{name}\") (param \"x\" u32) (result u32)
                    (canon lift (core func $i{module} \"{name}\")))"
            )
            .expect("a string takes it");
        }
        offers.extend(offered);
    }
    text + &lifted + ")"
}

/// A module as text, what it is instantiated with, what it offers, and its functions that can be lifted.
fn core_module(dice: &mut Dice<'_>, module: usize, offers: &[Offer]) -> (String, String, Vec<Offer>, Vec<String>) {
    let mut space = Space::default();
    let mut offered = Vec::new();
    let mut text = format!("(core module $m{module} (type $unary (func {UNARY}))");
    let mut arguments = String::new();
    let mut imported: Vec<usize> = Vec::new();
    if dice.one_in(2) {
        text.push_str("(import \"host\" \"ask\" (func (type $unary)))");
        arguments.push_str("(with \"host\" (instance $host))");
        space.functions += 1;
    }
    for offer in offers.iter().filter(|_| dice.one_in(3)).collect::<Vec<_>>() {
        let ty = if offer.is_mutable { format!("(mut {})", offer.ty) } else { offer.ty.to_owned() };
        let (name, instance) = (&offer.name, offer.instance);
        write!(text, "(import \"i{instance}\" \"{name}\" ({} {ty}))", offer.kind).expect("a string takes it");
        if !imported.contains(&instance) {
            imported.push(instance);
            write!(arguments, "(with \"i{instance}\" (instance $i{instance}))").expect("a string takes it");
        }
        let count = match offer.kind {
            "func" => &mut space.functions,
            "table" => &mut space.tables,
            "memory" => &mut space.memories,
            _ => {
                space.globals.push(offer.is_mutable);
                &mut space.globals_imported
            }
        };
        let index = *count;
        *count += 1;
        // Handed on.
        if dice.one_in(3) {
            let name = format!("r{}", offered.len());
            write!(text, "(export \"{name}\" ({} {index}))", offer.kind).expect("a string takes it");
            offered.push(Offer { instance: module, name, ..offer.clone() });
        }
    }
    define(dice, module, &mut space, &mut text, &mut offered);
    let callable = functions(dice, module, &space, &mut text, &mut offered);
    text.push(')');
    (text, arguments, offered, callable)
}

/// Memories, tables, globals, segments.
fn define(dice: &mut Dice<'_>, module: usize, space: &mut Space, text: &mut String, offered: &mut Vec<Offer>) {
    let mut offer = |text: &mut String, kind: &'static str, index: usize, ty: &'static str, is_mutable: bool| {
        let name = format!("{kind}{index}");
        write!(text, "(export \"{name}\" ({kind} {index}))").expect("a string takes it");
        offered.push(Offer { instance: module, name, kind, ty, is_mutable });
    };
    for _ in 0..dice.below(3) {
        text.push_str("(memory 1 2)");
        offer(text, "memory", space.memories, "1", false);
        space.memories += 1;
    }
    for _ in 0..dice.below(3) {
        text.push_str("(table 8 funcref)");
        offer(text, "table", space.tables, "4 funcref", false);
        space.tables += 1;
    }
    for _ in 0..dice.below(5) {
        let is_mutable = dice.one_in(2);
        let value = match known_global(space) {
            Some(global) if dice.one_in(2) => format!("(i32.add (global.get {global}) (i32.const 3))"),
            _ => format!("(i32.const {})", dice.below(16)),
        };
        let ty = if is_mutable { "(mut i32)" } else { "i32" };
        write!(text, "(global {ty} {value})").expect("a string takes it");
        let name = format!("global{}", space.globals.len());
        write!(text, "(export \"{name}\" (global {}))", space.globals.len()).expect("a string takes it");
        offered.push(Offer { instance: module, name, kind: "global", ty: "i32", is_mutable });
        space.globals.push(is_mutable);
    }
    for _ in 0..dice.below(3) {
        match space.memories {
            0 => text.push_str("(data \"passive\")"),
            memories if dice.one_in(2) => {
                let (memory, at) = (dice.below(memories), place(dice, space));
                write!(text, "(data (memory {memory}) {at} \"m{module}!\")").expect("a string takes it");
            }
            _ => text.push_str("(data \"passive\")"),
        }
        space.passive_data += 1;
    }
}

/// Where a segment goes: perhaps where a global says that is imported and cannot be set.
fn place(dice: &mut Dice<'_>, space: &Space) -> String {
    let at = dice.below(8);
    match known_global(space) {
        Some(global) if dice.one_in(2) => format!("(offset (global.get {global}))"),
        _ => format!("(i32.const {at})"),
    }
}

/// One that constant expressions may name.
fn known_global(space: &Space) -> Option<usize> {
    space.globals[..space.globals_imported].iter().position(|is_mutable| !is_mutable)
}

/// Functions, of which the first calls nothing: tables have that one, so that nothing runs for ever.
fn functions(
    dice: &mut Dice<'_>,
    module: usize,
    space: &Space,
    text: &mut String,
    offered: &mut Vec<Offer>,
) -> Vec<String> {
    let leaf = space.functions;
    let mut callable = Vec::new();
    write!(text, "(func (type $unary) (i32.mul (local.get 0) (i32.const {})))", 3 + module).expect("a string takes it");
    for table in 0..space.tables {
        if dice.one_in(2) {
            let at = place(dice, space);
            write!(text, "(elem (table {table}) {at} func {leaf} {leaf})").expect("a string takes it");
        }
    }
    let elements = text.matches("(elem ").count();
    write!(text, "(elem func {leaf})").expect("a string takes it");
    for number in 0..1 + dice.below(4) {
        let index = leaf + 1 + number;
        write!(text, "(func (type $unary)").expect("a string takes it");
        for _ in 0..1 + dice.below(6) {
            text.push_str(&statement(dice, space, index, elements));
        }
        text.push_str("(local.get 0))");
        if !dice.one_in(3) {
            let name = format!("f{number}");
            write!(text, "(export \"{name}\" (func {index}))").expect("a string takes it");
            offered.push(Offer { instance: module, name: name.clone(), kind: "func", ty: UNARY, is_mutable: false });
            callable.push(name);
        }
    }
    callable
}

/// Something that changes local 0 or what is around.
fn statement(dice: &mut Dice<'_>, space: &Space, function: usize, segment: usize) -> String {
    let masked = "(i32.and (local.get 0) (i32.const 7))";
    let settable: Vec<_> = (0..space.globals.len()).filter(|global| space.globals[*global]).collect();
    let memory = dice.below(space.memories);
    let table = dice.below(space.tables);
    match dice.below(12) {
        0 | 1 => format!("(local.set 0 (call {} (local.get 0)))", dice.below(function)),
        2 if !space.globals.is_empty() => {
            let global = dice.below(space.globals.len());
            format!("(local.set 0 (i32.add (local.get 0) (global.get {global})))")
        }
        3 if !settable.is_empty() => format!("(global.set {} (local.get 0))", settable[dice.below(settable.len())]),
        4 if space.memories > 0 => format!("(i32.store {memory} {masked} (local.get 0))"),
        5 if space.memories > 0 => {
            format!("(local.set 0 (i32.xor (local.get 0) (i32.load {memory} {masked})))")
        }
        6 if space.memories > 0 && space.passive_data > 0 => {
            let data = dice.below(space.passive_data);
            format!("(memory.init {memory} {data} {masked} (i32.const 0) (i32.const {}))", dice.below(3))
        }
        7 if space.tables > 0 => format!("(local.set 0 (call_indirect {table} (type $unary) (local.get 0) {masked}))"),
        8 if space.tables > 0 => {
            format!("(table.init {table} {segment} {masked} (i32.const 0) (i32.const 1))")
        }
        9 if space.tables > 0 => {
            format!("(local.set 0 (i32.add (local.get 0) (ref.is_null (table.get {table} {masked}))))")
        }
        10 if space.tables > 0 => format!("(table.set {table} {masked} (ref.func {}))", space.functions),
        11 if space.memories > 0 => {
            let other = dice.below(space.memories);
            format!("(memory.copy {memory} {other} {masked} (i32.const 0) (i32.const 5))")
        }
        _ => format!("(local.set 0 (i32.sub (local.get 0) (i32.const {})))", dice.below(5)),
    }
}

proptest! {
    #[test]
    fn flattened_components_answer_as_before_or_are_refused(numbers in prop::collection::vec(any::<u8>(), 0..600)) {
        let text = component(&mut Dice(numbers.iter()));
        let wasm = wat::parse_str(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        match Twins::new().compare(&wasm, &[0, 5, 250]) {
            Ok(_) => {}
            Err(Refusal::Form(_)) => {}
            Err(Refusal::Unknown(reason)) => prop_assert!(false, "{reason}\n{text}"),
        }
    }
}
