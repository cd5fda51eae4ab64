//! Components without their data: what their memories begin with comes from elsewhere, and nothing else is another.

use super::super::image::{self, Content};
use super::parse;
use super::twins::Twins;
use crate::sandbox::PAGE_BYTES;

const ARGUMENTS: [u32; 4] = [0, 5, 70_000, 131_072];

/// Takes its data out, and lets it answer beside what it was.
#[track_caller]
fn check(text: &str) -> Vec<Option<Content>> {
    let wasm = parse(text);
    let imaged = image::with_data(&wasm, 0).unwrap_or_else(|refusal| panic!("{refusal}"));
    let twins = Twins::new();
    let before = twins.events(&wasm, &ARGUMENTS);
    twins.compare_imaged(&wasm, &ARGUMENTS, &before).expect("it can be taken out");
    imaged.contents
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    let refusal = image::with_data(&parse(text), 0).err().map(|refusal| refusal.to_string()).unwrap_or_default();
    assert!(refusal.contains(expected), "{refusal:?} should contain {expected:?}");
}

/// A module that says what is in its first memory, and writes there.
fn module(content: &str) -> String {
    format!(
        r#"(component (core module $m {content}
            (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
            (func (export "store") (param i32) (result i32)
                (i32.store8 (local.get 0) (i32.const 99)) (i32.load (i32.const 16))))
        (core instance $i (instantiate $m))
        (func (export "load") (param "x" u32) (result u32) (canon lift (core func $i "load")))
        (func (export "store") (param "x" u32) (result u32) (canon lift (core func $i "store"))))"#
    )
}

#[test]
fn segments_come_in_their_order_and_nothing_around_them() {
    let contents = check(&module(
        r#"(memory 4) (data (i32.const 70000) "abc") (data (i32.const 70001) "xyz") (data (i32.const 131072) "")
        (data (i32.const 69999) "0")"#,
    ));
    let [Some(Content { start, bytes })] = &contents[..] else { panic!("{contents:?}") };
    assert_eq!((*start, bytes.len()), (PAGE_BYTES, PAGE_BYTES));
    assert_eq!(&bytes[69_999 - PAGE_BYTES..][..6], b"0axyz\0");
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 5);
}

#[test]
fn each_memory_has_its_own() {
    let contents = check(&module(
        r#"(memory 4) (memory 1) (memory 2) (data (memory 2) (i32.const 65536) "two") (data (i32.const 5) "zero")"#,
    ));
    let starts: Vec<_> = contents.iter().map(|content| content.as_ref().map(|content| content.start)).collect();
    assert_eq!(starts, [Some(0), None, Some(PAGE_BYTES)]);
}

#[test]
fn data_for_anothers_memory_is_found_there() {
    let contents = check(
        r#"(component
            (core module $first (memory (export "m") 3) (data (i32.const 5) "first"))
            (core module $second (import "" "m" (memory 3)) (memory 1) (export "again" (memory 0))
                (data (i32.const 70000) "second") (data (memory 1) (i32.const 1) "own"))
            (core module $third (import "" "again" (memory 3)) (data (i32.const 7) "third")
                (func (export "load") (param i32) (result i32) (i32.load (local.get 0))))
            (core instance $a (instantiate $first))
            (core instance $b (instantiate $second (with "" (instance $a))))
            (core instance $c (instantiate $third (with "" (instance $b))))
            (func (export "load") (param "x" u32) (result u32) (canon lift (core func $c "load"))))"#,
    );
    let [Some(shared), Some(own)] = &contents[..] else { panic!("{contents:?}") };
    assert_eq!(&shared.bytes[5..12], b"fithird");
    assert_eq!(&shared.bytes[70_000..70_006], b"second");
    assert_eq!(&own.bytes[..4], b"\0own");
}

#[test]
fn code_finds_segments_as_they_were() {
    // The first is dropped when the instance is there: taking nothing of it works, taking something traps. The second can be
    // taken until it is dropped.
    check(&module(
        r#"(memory 4) (data $active (i32.const 5) "abc") (data $passive "passive")
        (func (export "init") (param i32) (result i32)
            (memory.init $active (local.get 0) (i32.const 0) (i32.const 0))
            (memory.init $passive (local.get 0) (i32.const 1) (i32.const 4))
            (i32.load (local.get 0)))"#,
    ).replace("(func (export \"load\") (param \"x\"", "(func (export \"init\") (param \"x\" u32) (result u32) (canon lift (core func $i \"init\")))\n(func (export \"load\") (param \"x\""));
    let trapping = r#"(memory 4) (data $active (i32.const 5) "abc")
        (func (export "init") (param i32) (result i32)
            (memory.init $active (i32.const 0) (i32.const 0) (i32.const 1)) (i32.const 0))"#;
    check(&module(trapping).replace("(core func $i \"store\")", "(core func $i \"init\")"));
}

#[test]
fn a_start_function_finds_the_data_of_its_module() {
    check(&module(
        r#"(memory 4) (data (i32.const 16) "abcd")
        (func $start (i32.store (i32.const 5) (i32.load (i32.const 16))) (i32.store (i32.const 70000) (i32.const 7)))
        (start $start)"#,
    ));
}

#[test]
fn what_cannot_be_taken_out_is_refused_with_the_reason() {
    check_refused(&module("(memory 1) (data (i32.const 65535) \"ab\")"), "does not fit its memory");
    check_refused(&module("(memory 1) (data (i32.const -1) \"a\")"), "does not fit its memory");
    check_refused(
        &module("(memory 1000) (data (i32.const 0) \"a\") (data (i32.const 60000000) \"b\")"),
        "spread too far",
    );
    check_refused(
        r#"(component
            (core module $first (global (export "g") i32 (i32.const 3)))
            (core module $second (import "" "g" (global i32)) (memory 1) (data (global.get 0) "x"))
            (core instance $a (instantiate $first))
            (core instance $b (instantiate $second (with "" (instance $a)))))"#,
        "known only when an instance is made",
    );
    check_refused(
        r#"(component
            (core module $first (memory (export "m") 1) (func $f) (start $f))
            (core module $second (import "" "m" (memory 1)) (data (i32.const 0) "x"))
            (core instance $a (instantiate $first))
            (core instance $b (instantiate $second (with "" (instance $a)))))"#,
        "a start function runs before",
    );
    let little = image::component(&parse(&module("(memory 1) (data (i32.const 0) \"a\")"))).err();
    assert!(little.is_some_and(|refusal| refusal.to_string().contains("copied as quickly")));
}
