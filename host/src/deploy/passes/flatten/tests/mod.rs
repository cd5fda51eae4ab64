//! The pass, with components as text: each runs beside its flattened twin.

use wasmparser::{KnownCustom, Name, Parser, Payload};

use self::twins::{Event, Twins};
use super::component;

mod graphs;
mod images;
mod refusals;
mod twins;

fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs it beside its twin, and expects so many core modules before and after. Gives what both answered.
#[track_caller]
fn check(text: &str, modules: (usize, usize)) -> Vec<Event> {
    let wasm = parse(text);
    let flat = component(&wasm).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(flat.modules, modules, "{flat}");
    Twins::new().compare(&wasm, &[0, 1, 7, u32::MAX]).unwrap_or_else(|refusal| panic!("{refusal}"))
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    let refusal = component(&parse(text)).err().map(|refusal| refusal.to_string()).unwrap_or_default();
    assert!(refusal.contains(expected), "{refusal:?} should contain {expected:?}");
}

#[track_caller]
fn answers(events: &[Event]) -> Vec<u32> {
    events
        .iter()
        .filter_map(|event| if let Event::Answered(_, answer) = event { Some(*answer) } else { None })
        .collect()
}

/// Two modules: `first` is instantiated first, the second imports it as "first". Each exports functions that are lifted.
fn pair(first: &str, second: &str, lifted: &[(&str, &str)]) -> String {
    let lifted: String = lifted
        .iter()
        .map(|(instance, name)| {
            format!(
                "(func (export \"{instance}-{name}\") (param \"x\" u32) (result u32)
                    (canon lift (core func ${instance} \"{name}\")))"
            )
        })
        .collect();
    format!(
        "(component
            (core module $m1 {first})
            (core module $m2 {second})
            (core instance $first (instantiate $m1))
            (core instance $second (instantiate $m2 (with \"first\" (instance $first))))
            {lifted})"
    )
}

#[test]
fn functions_memories_tables_and_globals_are_shared_as_before() {
    let events = check(
        &pair(
            r#"(memory (export "memory") 1 3) (table (export "table") 4 funcref)
            (global $count (export "count") (mut i32) (i32.const 5))
            (func (export "f") (param i32) (result i32)
                (global.set $count (i32.add (global.get $count) (local.get 0)))
                (i32.store (i32.const 8) (global.get $count))
                (i32.load (i32.const 12)))
            (func $double (param i32) (result i32) (i32.shl (local.get 0) (i32.const 1)))
            (elem (i32.const 1) func $double)"#,
            r#"(import "first" "memory" (memory 1)) (import "first" "table" (table 2 funcref))
            (import "first" "count" (global $count (mut i32)))
            (import "first" "f" (func $f (param i32) (result i32)))
            (type $unary (func (param i32) (result i32)))
            (func $triple (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
            (elem (i32.const 2) func $triple $f)
            (func (export "g") (param i32) (result i32)
                (i32.store (i32.const 12) (i32.add (global.get $count) (i32.load (i32.const 8))))
                (global.set $count (i32.const 2))
                (i32.add
                    (call_indirect (type $unary) (local.get 0) (i32.const 1))
                    (i32.add
                        (call_indirect (type $unary) (local.get 0) (i32.const 2))
                        (call_indirect (type $unary) (local.get 0) (i32.const 3)))))
            (func (export "grow") (param i32) (result i32)
                (i32.add (memory.grow (i32.const 1)) (i32.mul (memory.size) (i32.const 100))))"#,
            &[("first", "f"), ("second", "g"), ("second", "grow")],
        ),
        (2, 1),
    );
    assert_eq!(answers(&events)[..3], [0, 10, 201]);
}

/// What a linker for shared libraries makes: a module that says where others lie, and some that fill its memory and table there.
const LIBRARIES: &str = r#"(component
    (core module $environment
        (memory (export "memory") 1) (table (export "table") 8 funcref)
        (global (export "base-1") i32 (i32.const 16)) (global (export "base-2") i32 (i32.const 32))
        (global (export "table-1") i32 (i32.const 1)) (global (export "table-2") i32 (i32.const 3))
        (global (export "got") (mut i32) (i32.const 18))
        (global (export "stack") (mut i32) (i32.const 65536)))
    (core module $one
        (import "env" "memory" (memory 1)) (import "env" "table" (table 0 funcref))
        (import "env" "base" (global $base i32)) (import "env" "at" (global $at i32))
        (import "env" "stack" (global $stack (mut i32)))
        (func $f (export "f") (param i32) (result i32)
            (global.set $stack (i32.sub (global.get $stack) (i32.const 16)))
            (i32.add (local.get 0) (i32.load8_u (global.get $base))))
        (elem (global.get $at) func $f $f)
        (data (global.get $base) "one")
        (data (i32.add (global.get $base) (i32.const 3)) "!"))
    (core module $two
        (import "env" "memory" (memory 1)) (import "env" "table" (table 0 funcref))
        (import "env" "base" (global $base i32)) (import "env" "at" (global $at i32))
        (import "env" "stack" (global $stack (mut i32)))
        (import "GOT" "got" (global $got (mut i32)))
        (type $unary (func (param i32) (result i32)))
        (func $g (export "g") (param i32) (result i32)
            (i32.add
                (i32.add (global.get $stack) (i32.load8_u (global.get $got)))
                (call_indirect (type $unary) (local.get 0) (i32.sub (global.get $at) (i32.const 1)))))
        (func $nobody (export "nobody") (param i32) (result i32) (global.set $got (i32.const 0)) (i32.const 1))
        (elem (global.get $at) func $g)
        (data (global.get $base) "two"))
    (core instance $environment (instantiate $environment))
    (alias core export $environment "memory" (core memory $memory))
    (alias core export $environment "table" (core table $table))
    (alias core export $environment "base-1" (core global $base-1))
    (alias core export $environment "base-2" (core global $base-2))
    (alias core export $environment "table-1" (core global $table-1))
    (alias core export $environment "table-2" (core global $table-2))
    (alias core export $environment "stack" (core global $stack))
    (core instance $env-1 (export "memory" (memory $memory)) (export "table" (table $table))
        (export "base" (global $base-1)) (export "at" (global $table-1)) (export "stack" (global $stack)))
    (core instance $env-2 (export "memory" (memory $memory)) (export "table" (table $table))
        (export "base" (global $base-2)) (export "at" (global $table-2)) (export "stack" (global $stack)))
    (core instance $one (instantiate $one (with "env" (instance $env-1))))
    (core instance $two (instantiate $two (with "env" (instance $env-2)) (with "GOT" (instance $environment))))
    (func (export "f") (param "x" u32) (result u32) (canon lift (core func $one "f")))
    (func (export "g") (param "x" u32) (result u32) (canon lift (core func $two "g"))))"#;

#[test]
fn libraries_know_in_advance_where_they_lie() {
    let events = check(LIBRARIES, (3, 1));
    let o = u32::from(b'o');
    assert_eq!(answers(&events)[..2], [o, 65520 + u32::from(b'e') + o]);
    let flat = component(&parse(LIBRARIES)).expect("it is flattened");
    // The stack alone is written by code that anybody calls.
    assert_eq!((flat.globals, flat.functions), ((6, 1), (3, 2)));
    for payload in Parser::new(0).parse_all(&flat.wasm) {
        match payload.expect("it is valid") {
            Payload::ElementSection(elements) => assert_eq!(elements.count(), 2),
            Payload::DataSection(data) => assert_eq!(data.count(), 3),
            _ => {}
        }
    }
}

#[test]
fn names_of_functions_stay_for_traps() {
    let text = pair(
        r#"(func $unused) (func $inner (export "f") (param i32) (result i32) unreachable)"#,
        r#"(import "first" "f" (func $f (param i32) (result i32)))
        (func $outer (export "g") (param i32) (result i32) (call $f (local.get 0)))"#,
        &[("second", "g")],
    );
    let flat = component(&parse(&text)).expect("it is flattened");
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(&flat.wasm) {
        let Payload::CustomSection(section) = payload.expect("it is valid") else { continue };
        let KnownCustom::Name(subsections) = section.as_known() else { continue };
        for subsection in subsections {
            let Name::Function(map) = subsection.expect("it is valid") else { continue };
            names.extend(
                map.into_iter().map(|naming| naming.expect("it is valid")).map(|n| (n.index, n.name.to_owned())),
            );
        }
    }
    assert_eq!(names, [(0, "inner".to_owned()), (1, "outer".to_owned())]);
    assert!(matches!(check(&text, (2, 1))[..], [Event::Trapped(_)]));
}

#[test]
fn segments_that_code_uses_keep_their_numbers() {
    check(
        &pair(
            r#"(memory (export "memory") 1) (data "first") (data (i32.const 64) "active")
            (table $t (export "table") 4 funcref) (elem func $a $b)
            (func $a (param i32) (result i32) (i32.const 1)) (func $b (param i32) (result i32) (i32.const 2))
            (func (export "f") (param i32) (result i32)
                (memory.init 0 (i32.const 0) (i32.const 1) (i32.const 3))
                (table.init $t 0 (i32.const 0) (i32.const 0) (i32.const 2))
                (i32.load (i32.const 0)))"#,
            r#"(import "first" "memory" (memory 1)) (import "first" "table" (table $t 4 funcref))
            (type $unary (func (param i32) (result i32)))
            (data $d "second") (elem $e func $c) (elem declare func $c)
            (func $c (param i32) (result i32) (i32.const 3))
            (func (export "g") (param i32) (result i32)
                (memory.init $d (i32.const 8) (i32.const 0) (i32.const 6))
                (table.init $t $e (i32.const 1) (i32.const 0) (i32.const 1))
                (memory.copy (i32.const 20) (i32.const 0) (i32.const 16))
                (memory.fill (i32.const 40) (local.get 0) (i32.const 4))
                (table.copy $t $t (i32.const 2) (i32.const 0) (i32.const 2))
                (table.fill $t (i32.const 3) (ref.func $c) (i32.const 1))
                (i32.add (i32.load (i32.const 29)) (call_indirect (type $unary) (local.get 0) (i32.const 2))))
            (func (export "table") (param i32) (result i32)
                (table.set $t (i32.const 0) (ref.null func))
                (i32.add (ref.is_null (table.get $t (i32.const 0))) (table.grow $t (ref.func $c) (i32.const 1))))
            (func (export "drop") (param i32) (result i32)
                (data.drop $d) (elem.drop $e)
                (memory.init $d (i32.const 8) (i32.const 0) (local.get 0)) (i32.const 4))"#,
            &[("first", "f"), ("second", "g"), ("second", "table"), ("second", "drop")],
        ),
        (2, 1),
    );
}

#[test]
fn references_memories_and_calls_of_every_kind_lead_where_they_led() {
    check(
        &pair(
            r#"(memory (export "a") 1) (memory (export "b") 1) (table (export "refs") 2 funcref)
            (global (export "who") (mut funcref) (ref.null func))
            (func $one (export "one") (param i32) (result i32) (i32.const 1))
            (global (export "one-ref") funcref (ref.func $one))"#,
            r#"(import "first" "b" (memory $b 1)) (import "first" "a" (memory $a 1))
            (import "first" "refs" (table $refs 1 funcref)) (import "first" "who" (global $who (mut funcref)))
            (import "first" "one-ref" (global $one-ref funcref))
            (import "first" "one" (func $one (param i32) (result i32)))
            (memory $own 1) (table $t 2 funcref)
            (type $unary (func (param i32) (result i32)))
            (func $tail (export "tail") (param i32) (result i32) (return_call $one (local.get 0)))
            (func (export "g") (param i32) (result i32)
                (i32.store $a (i32.const 0) (i32.const 5)) (i32.store $b (i32.const 0) (i32.const 6))
                (i32.store $own (i32.const 0) (i32.const 7))
                (memory.copy $own $b (i32.const 4) (i32.const 0) (i32.const 4))
                (global.set $who (ref.func $tail))
                (table.set $t (i32.const 0) (global.get $who))
                (table.set $t (i32.const 1) (global.get $one-ref))
                (table.set $refs (i32.const 0) (ref.null func))
                (i32.add
                    (i32.add (i32.load $own (i32.const 4)) (i32.mul (i32.const 10) (i32.load $a (i32.const 0))))
                    (return_call_indirect $t (type $unary) (local.get 0) (i32.const 0))))
            (func (export "h") (param i32) (result i32)
                (i32.add (call_indirect $t (type $unary) (local.get 0) (i32.const 1)) (ref.is_null (global.get $who))))"#,
            &[("second", "g"), ("second", "h")],
        ),
        (2, 1),
    );
}

/// wasmtime as it is built here runs none of these, so that only the form is looked at.
#[test]
fn references_to_what_is_outside_are_moved_too() {
    let text = pair(
        r#"(table (export "table") 2 externref) (global (export "global") (mut externref) (ref.null extern))"#,
        r#"(import "first" "table" (table $t 2 externref)) (import "first" "global" (global $g (mut externref)))
        (elem (table $t) (i32.const 0) externref (ref.null extern))
        (func (export "f") (param i32) (result i32)
            (global.set $g (table.get $t (i32.const 0))) (ref.is_null (global.get $g)))"#,
        &[("second", "f")],
    );
    assert_eq!(component(&parse(&text)).expect("it is flattened").modules, (2, 1));
}

#[test]
fn what_is_exported_twice_or_handed_on_is_one_thing() {
    check(
        r#"(component
            (core module $m1 (global $g (mut i32) (i32.const 1)) (export "a" (global $g)) (export "b" (global $g))
                (func $f (param i32) (result i32) (global.get $g)) (export "f" (func $f)) (export "again" (func $f)))
            (core module $m2 (import "x" "b" (global $g (mut i32))) (export "c" (global $g))
                (import "x" "again" (func $f (param i32) (result i32))) (export "handed-on" (func $f)))
            (core module $m3 (import "y" "c" (global $c (mut i32))) (import "y" "f" (func $f (param i32) (result i32)))
                (func (export "g") (param i32) (result i32)
                    (global.set $c (i32.add (global.get $c) (i32.const 1))) (call $f (local.get 0))))
            (core instance $i1 (instantiate $m1))
            (core instance $i2 (instantiate $m2 (with "x" (instance $i1))))
            (alias core export $i2 "c" (core global $c)) (alias core export $i2 "handed-on" (core func $f))
            (core instance $y (export "c" (global $c)) (export "f" (func $f)))
            (core instance $i3 (instantiate $m3 (with "y" (instance $y))))
            (func (export "f") (param "x" u32) (result u32) (canon lift (core func $f)))
            (func (export "g") (param "x" u32) (result u32) (canon lift (core func $i3 "g"))))"#,
        (3, 1),
    );
}

/// As toolchains have it: what the host offers needs the guest's memory, and the guest what the host offers. So there is a table
/// in between, which is filled last.
const THROUGH_A_TABLE: &str = r#"(component
    (import "say" (func $say (param "text" string) (result u32)))
    (import "name" (func $name (param "number" u32) (result string)))
    (import "ask" (func $ask (param "number" u32) (result u32)))
    (core module $shim
        (type $binary (func (param i32 i32) (result i32))) (type $two (func (param i32 i32)))
        (table (export "$imports") 2 2 funcref)
        (func (export "0") (param i32 i32) (result i32)
            (call_indirect (type $binary) (local.get 0) (local.get 1) (i32.const 0)))
        (func (export "1") (param i32 i32) (call_indirect (type $two) (local.get 0) (local.get 1) (i32.const 1))))
    (core module $main
        (import "host" "say" (func $say (param i32 i32) (result i32)))
        (import "host" "name" (func $name (param i32 i32)))
        (import "host" "ask" (func $ask (param i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 16) "hello")
        (global $top (mut i32) (i32.const 1024))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (global.get $top) (global.set $top (i32.add (global.get $top) (local.get 3))))
        (func (export "f") (param i32) (result i32)
            (call $name (local.get 0) (i32.const 0))
            (i32.add
                (call $say (i32.load (i32.const 0)) (i32.load (i32.const 4)))
                (i32.add
                    (i32.add (call $ask (local.get 0)) (i32.mul (global.get $posts) (i32.const 1000000)))
                    (call $say (i32.const 16) (i32.const 5)))))
        (global $posts (mut i32) (i32.const 0))
        (func (export "post") (param i32) (global.set $posts (i32.add (global.get $posts) (i32.const 1)))))
    (core module $adapter
        (import "main" "f" (func $f (param i32) (result i32)))
        (func (export "g") (param i32) (result i32) (i32.add (call $f (local.get 0)) (i32.const 1000))))
    (core module $fixup
        (import "" "0" (func $say (param i32 i32) (result i32))) (import "" "1" (func $name (param i32 i32)))
        (import "" "$imports" (table 2 2 funcref))
        (elem (i32.const 0) func $say $name))
    (core instance $shim (instantiate $shim))
    (alias core export $shim "0" (core func $shim-say)) (alias core export $shim "1" (core func $shim-name))
    (core func $ask (canon lower (func $ask)))
    (core instance $host
        (export "say" (func $shim-say)) (export "name" (func $shim-name)) (export "ask" (func $ask)))
    (core instance $main (instantiate $main (with "host" (instance $host))))
    (alias core export $main "memory" (core memory $memory))
    (alias core export $main "realloc" (core func $realloc))
    (core instance $adapter (instantiate $adapter (with "main" (instance $main))))
    (core func $say (canon lower (func $say) (memory $memory)))
    (core func $name (canon lower (func $name) (memory $memory) (realloc $realloc)))
    (alias core export $shim "$imports" (core table $table))
    (core instance $late
        (export "0" (func $say)) (export "1" (func $name)) (export "$imports" (table $table)))
    (core instance (instantiate $fixup (with "" (instance $late))))
    (func (export "f") (param "x" u32) (result u32) (canon lift (core func $main "f")))
    (func (export "g") (param "x" u32) (result u32)
        (canon lift (core func $adapter "g") (memory $memory) (post-return (func $main "post")))))"#;

#[test]
fn what_the_host_offers_is_reached_through_the_table_in_between() {
    let events = check(THROUGH_A_TABLE, (4, 2));
    assert_eq!(
        events[..5],
        [
            Event::Said("number 0".to_owned()),
            Event::Called(0),
            Event::Said("hello".to_owned()),
            Event::Answered("f".to_owned(), 8 + 1 + 5),
            Event::Said("number 0".to_owned()),
        ]
    );
    // After the call before.
    assert_eq!(answers(&events)[..3], [14, 1014, 1_000_000 + 8 + 4 + 5]);
}

/// What links the libraries comes after what fills the table in between.
#[test]
fn what_fills_another_table_passes_what_comes_last() {
    let with = |table: &str| {
        let late = format!(
            r#"(core module $link (import "" "f" (func $f (param i32) (result i32))) (import "" "table" (table 1 funcref))
                (elem (i32.const 0) func $f))
            (core instance $linked (export "f" (func $main "f")) (export "table" (table {table})))
            (core instance (instantiate $link (with "" (instance $linked))))
            (func (export "f")"#
        );
        let own = r#"(memory (export "memory") 1) (table (export "own") 1 funcref) (type $unary (func (param i32) (result i32)))
            (func (export "indirect") (param i32) (result i32)
                (call_indirect (type $unary) (local.get 0) (i32.const 0)))"#;
        let lifted = r#"(func (export "h") (param "x" u32) (result u32) (canon lift (core func $main "indirect"))))"#;
        let text = THROUGH_A_TABLE.replacen("(memory (export \"memory\") 1)", own, 1);
        let text = text.replacen("(func (export \"f\") (param \"x\"", &format!("{late} (param \"x\""), 1);
        format!("{} {lifted}", &text[..text.len() - 1])
    };
    check(&with("$main \"own\""), (5, 2));
    let flat = component(&parse(&with("$main \"own\""))).expect("it is flattened");
    let segments = |wasm: &[u8]| -> Vec<u32> {
        let payloads = Parser::new(0).parse_all(wasm).map(|payload| payload.expect("it is valid"));
        let counts =
            payloads.map(|payload| if let Payload::ElementSection(section) = payload { section.count() } else { 0 });
        counts.filter(|count| *count > 0).collect()
    };
    assert_eq!(segments(&flat.wasm), [1, 1], "each where its table is filled");
    // Both write the same place of one table: who comes last counts.
    let flat = component(&parse(&with("$shim \"$imports\""))).expect("it is flattened");
    assert_eq!(segments(&flat.wasm), [2], "they stay together, in their order");
}

#[test]
fn resources_and_their_destructors_are_kept() {
    let events = check(
        r#"(component
            (import "ask" (func $ask (param "number" u32) (result u32)))
            (import "thing" (type $thing (sub resource)))
            (import "make-thing" (func $make-thing (param "number" u32) (result (own $thing))))
            (core module $destructors
                (table (export "table") 1 funcref)
                (func (export "destroy") (param i32) (call_indirect (param i32) (local.get 0) (i32.const 0))))
            (core instance $destructors (instantiate $destructors))
            (type $own (resource (rep i32) (dtor (func $destructors "destroy"))))
            (core func $new (canon resource.new $own)) (core func $drop (canon resource.drop $own))
            (core func $rep (canon resource.rep $own))
            (core func $make-thing (canon lower (func $make-thing))) (core func $drop-thing (canon resource.drop $thing))
            (core func $ask (canon lower (func $ask)))
            (core module $main
                (import "h" "new" (func $new (param i32) (result i32))) (import "h" "drop" (func $drop (param i32)))
                (import "h" "rep" (func $rep (param i32) (result i32)))
                (import "h" "make-thing" (func $make-thing (param i32) (result i32)))
                (import "h" "drop-thing" (func $drop-thing (param i32)))
                (import "h" "ask" (func $ask (param i32) (result i32)))
                (func (export "f") (param i32) (result i32) (local i32)
                    (local.set 1 (call $new (local.get 0)))
                    (call $rep (local.get 1)) (call $drop (local.get 1))
                    (call $drop-thing (call $make-thing (local.get 0))))
                (func (export "destroyed") (param i32) (drop (call $ask (local.get 0)))))
            (core module $fill (import "" "f" (func $f (param i32))) (import "" "table" (table 1 funcref))
                (elem (i32.const 0) func $f))
            (core instance $h (export "new" (func $new)) (export "drop" (func $drop)) (export "rep" (func $rep))
                (export "make-thing" (func $make-thing)) (export "drop-thing" (func $drop-thing))
                (export "ask" (func $ask)))
            (core instance $main (instantiate $main (with "h" (instance $h))))
            (core instance $late (export "f" (func $main "destroyed")) (export "table" (table $destructors "table")))
            (core instance (instantiate $fill (with "" (instance $late))))
            (func (export "f") (param "x" u32) (result u32) (canon lift (core func $main "f"))))"#,
        // The destructor is needed before the module whose resource it destroys.
        (3, 2),
    );
    assert_eq!(events[..3], [Event::Called(0), Event::Dropped(0), Event::Answered("f".to_owned(), 0)]);
}

#[test]
fn a_start_function_finds_what_it_found_and_nothing_moves_across_it() {
    let text = r#"(component
        (import "ask" (func $ask (param "number" u32) (result u32)))
        (core func $ask (canon lower (func $ask)))
        (core module $m1 (memory (export "memory") 1) (data (i32.const 0) "a"))
        (core module $m2 (import "m" "memory" (memory 1)) (data (i32.const 1) "b"))
        (core module $start (import "m" "memory" (memory 1)) (import "h" "ask" (func $ask (param i32) (result i32)))
            (func $run (i32.store (i32.const 4) (call $ask (i32.load (i32.const 0))))) (start $run))
        (core module $m3 (import "m" "memory" (memory 1)) (data (i32.const 0) "c"))
        (core module $m4 (import "m" "memory" (memory 1)) (data (i32.const 1) "d")
            (func (export "f") (param i32) (result i32) (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 4)))))
        (core instance $m1 (instantiate $m1))
        (core instance (instantiate $m2 (with "m" (instance $m1))))
        (core instance $h (export "ask" (func $ask)))
        (core instance (instantiate $start (with "m" (instance $m1)) (with "h" (instance $h))))
        (core instance (instantiate $m3 (with "m" (instance $m1))))
        (core instance $m4 (instantiate $m4 (with "m" (instance $m1))))
        (func (export "f") (param "x" u32) (result u32) (canon lift (core func $m4 "f"))))"#;
    let events = check(text, (5, 3));
    let (before, after) = (u32::from_le_bytes(*b"ab\0\0"), u32::from_le_bytes(*b"cd\0\0"));
    assert_eq!(events[..2], [Event::Called(before), Event::Answered("f".to_owned(), after + before * 3 + 1)]);
}
