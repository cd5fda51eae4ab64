//! The pass, with components as text.

use wasmtime::Store;
use wasmtime::component::{Component, Instance, Linker};

use super::{FUNCTION, component};
use crate::sandbox::{self, Variant};

fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Two modules with mutable globals of every type, one of them used by both.
const STATEFUL: &str = r#"(component
    (core module $first
        (func $target)
        (elem declare func $target)
        (global $shared (export "shared") (mut i32) (i32.const 1))
        (global $i64 (mut i64) (i64.const 2))
        (global $f32 (mut f32) (f32.const 3))
        (global $f64 (mut f64) (f64.const 4))
        (global $v128 (mut v128) (v128.const i64x2 5 6))
        (global $func (mut funcref) (ref.null func))
        (global $constant i32 (i32.const 7))
        (memory 1 4)
        (memory 2)
        (func (export "change")
            (global.set $shared (i32.add (global.get $shared) (i32.const 10)))
            (global.set $i64 (i64.add (global.get $i64) (i64.const 10)))
            (global.set $f32 (f32.add (global.get $f32) (f32.const 10)))
            (global.set $f64 (f64.add (global.get $f64) (f64.const 10)))
            (global.set $v128 (i64x2.add (global.get $v128) (global.get $v128)))
            (global.set $func (ref.func $target)))
        (func (export "sum") (result i64)
            (i64.extend_i32_u (global.get $shared))
            (i64.mul (global.get $i64) (i64.const 100)) i64.add
            (i64.mul (i64.trunc_f32_s (global.get $f32)) (i64.const 10000)) i64.add
            (i64.mul (i64.trunc_f64_s (global.get $f64)) (i64.const 1000000)) i64.add
            (i64.mul (i64x2.extract_lane 1 (global.get $v128)) (i64.const 100000000)) i64.add
            (i64.mul (i64.extend_i32_u (ref.is_null (global.get $func))) (i64.const 10000000000)) i64.add))
    (core module $second
        (import "first" "shared" (global $shared (mut i32)))
        (global $own (mut i32) (i32.const 8))
        (func (export "change")
            (global.set $shared (i32.add (global.get $shared) (i32.const 20)))
            (global.set $own (i32.const 9)))
        (func (export "own") (result i32) (global.get $own)))
    (core module $stateless (func (export "nothing")))
    (core instance $first (instantiate $first))
    (core instance $second (instantiate $second (with "first" (instance $first))))
    (core instance $again (instantiate $second (with "first" (instance $first))))
    (core instance (instantiate $stateless))
    (func (export "change") (canon lift (core func $first "change")))
    (func (export "change-too") (canon lift (core func $second "change")))
    (func (export "change-again") (canon lift (core func $again "change")))
    (func (export "sum") (result u64) (canon lift (core func $first "sum")))
    (func (export "own") (result u32) (canon lift (core func $second "own")))
    (func (export "own-again") (result u32) (canon lift (core func $again "own"))))"#;

struct Running {
    store: Store<()>,
    instance: Instance,
}

impl Running {
    fn new(wasm: &[u8]) -> Self {
        let engine = sandbox::compiler(1 << 20, Variant::Rewind).expect("this machine is supported");
        let compiled = Component::new(&engine, wasm).expect("it compiles");
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        let instance = Linker::new(&engine).instantiate(&mut store, &compiled).expect("it imports nothing");
        Self { store, instance }
    }

    fn call(&mut self, name: &str) {
        let function = self.instance.get_typed_func::<(), ()>(&mut self.store, name).expect("it is exported");
        function.call(&mut self.store, ()).expect("it does not trap");
    }

    fn values(&mut self) -> (u64, u32, u32) {
        let sum = self.instance.get_typed_func::<(), (u64,)>(&mut self.store, "sum").expect("it is exported");
        let sum = sum.call(&mut self.store, ()).expect("it does not trap").0;
        let [own, again] = ["own", "own-again"].map(|name| {
            let own = self.instance.get_typed_func::<(), (u32,)>(&mut self.store, name).expect("it is exported");
            own.call(&mut self.store, ()).expect("it does not trap").0
        });
        (sum, own, again)
    }
}

#[test]
fn every_mutable_global_of_every_instance_goes_back() {
    let mut running = Running::new(&component(&parse(STATEFUL)).expect("it can be rewound"));
    let before = running.values();
    assert_eq!(before, (10_604_030_201, 8, 8));
    // The first call keeps.
    running.call(FUNCTION);
    for _ in 0..3 {
        assert_eq!(running.values(), before);
        for change in ["change", "change-too", "change-again"] {
            let last = running.values();
            running.call(change);
            assert_ne!(running.values(), last, "{change}");
        }
        running.call(FUNCTION);
    }
    assert_eq!(running.values(), before);
}

#[test]
fn what_was_there_stays_as_it_is() {
    let (before, after) = (parse(STATEFUL), component(&parse(STATEFUL)).expect("it can be rewound"));
    let (mut before, mut after) = (Running::new(&before), Running::new(&after));
    for change in ["change", "change-too", "change", "change-again"] {
        before.call(change);
        after.call(change);
        assert_eq!(before.values(), after.values(), "{change}");
    }
}

#[test]
fn a_component_without_state_can_be_rewound() {
    let text = r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
        (func (export "f") (canon lift (core func $i "f"))))"#;
    let mut running = Running::new(&component(&parse(text)).expect("it can be rewound"));
    running.call(FUNCTION);
    running.call("f");
    running.call(FUNCTION);
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    let refusal = component(&parse(text)).expect_err(text).to_string();
    assert!(refusal.contains(expected), "{refusal:?} should contain {expected:?}");
}

/// A component around a core module.
fn around(module: &str) -> String {
    format!("(component (core module $m {module}) (core instance (instantiate $m)))")
}

#[test]
fn what_could_not_be_put_back_is_refused() {
    let table = "(table 2 funcref) (func $f) (elem $e func $f)";
    for (instruction, name) in [
        ("(table.set 0 (i32.const 0) (ref.null func))", "table.set"),
        ("(drop (table.grow 0 (ref.null func) (i32.const 1)))", "table.grow"),
        ("(table.fill 0 (i32.const 0) (ref.null func) (i32.const 1))", "table.fill"),
        ("(table.copy (i32.const 0) (i32.const 1) (i32.const 1))", "table.copy"),
        ("(table.init $e (i32.const 0) (i32.const 0) (i32.const 1))", "table.init"),
        ("(elem.drop $e)", "elem.drop"),
        ("(data.drop $d)", "data.drop"),
    ] {
        check_refused(&around(&format!("{table} (memory 1) (data $d \"x\") (func {instruction})")), name);
    }
    check_refused(&around("(memory 1 1 shared)"), "rewinding does not know");
    check_refused(&around("(tag (param i32))"), "rewinding does not know");
    check_refused(&around(&format!("(func (export {FUNCTION:?}))")), "of its own");
    check_refused(&format!("(component (instance $i) (export {FUNCTION:?} (instance $i)))"), "rewinding does not know");
    check_refused("(component (type (resource (rep i32))))", "resources of its own");
    check_refused("(component (component (type (resource (rep i32)))))", "resources of its own");
    check_refused(
        "(component (component (core module $m (memory 1)) (core instance (instantiate $m))))",
        "composed of several components",
    );
    check_refused("(component (import \"m\" (core module $m)) (core instance (instantiate $m)))", "from elsewhere");
    check_refused("(component (core func (canon task.return)))", "rewinding does not know");
    let many = "(core instance (instantiate $m))".repeat(9);
    check_refused(&format!("(component (core module $m (memory 0)) {many})"), "9 memories");
    check_refused("(module)", "no component");
}

#[test]
fn tables_and_segments_that_only_instantiation_touches_are_no_reason() {
    let module = r#"(table 2 funcref) (func $f) (elem (i32.const 0) func $f) (memory 1) (data (i32.const 0) "x")
        (data $passive "y")
        (func (export "f") (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 1))
            (call_indirect (i32.const 0)) (drop (table.get 0 (i32.const 1))) (drop (table.size 0)))"#;
    component(&parse(&around(module))).expect("it can be rewound");
}

/// Code that names what only the pass adds must not become valid by it.
#[test]
fn code_that_reaches_for_what_is_added_is_refused() {
    let good = parse(&around("(global (mut i32) (i32.const 0)) (func (global.set 0 (i32.const 1)))"));
    component(&good).expect("it can be rewound");
    for place in 0..good.len() {
        let mut bad = good.clone();
        // global.set 0 → global.set 1 is one of these; none may come out as something that it was not before.
        bad[place] ^= 1;
        let was_valid = wasmparser::Validator::new_with_features(super::FEATURES).validate_all(&bad).is_ok();
        assert!(was_valid || component(&bad).is_err(), "byte {place}");
    }
}
