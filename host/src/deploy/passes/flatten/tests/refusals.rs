//! What the pass leaves as it is, and what it does not make valid.

use super::*;

#[test]
fn an_instance_that_cannot_be_made_cannot_be_made_afterwards() {
    let first = r#"(memory (export "memory") 1) (table (export "table") 1 funcref)"#;
    let data = r#"(import "first" "memory" (memory 1)) (data (i32.const 65535) "xy")"#;
    let element = r#"(import "first" "table" (table 1 funcref)) (func $f) (elem (i32.const 1) func $f)"#;
    for second in [data, element] {
        assert_eq!(check(&pair(first, second, &[]), (2, 1)), [Event::NotMade]);
    }
}

#[test]
fn what_cannot_be_merged_is_refused_with_the_reason() {
    check_refused("(module)", "no component");
    check_refused("(component)", "nothing to merge");
    check_refused("(component (core module $m) (core instance (instantiate $m)))", "nothing to merge");
    check_refused(
        "(component (core module $m) (core instance (instantiate $m)) (core instance (instantiate $m)))",
        "two instances",
    );
    check_refused("(component (import \"m\" (core module $m)) (core instance (instantiate $m)))", "from elsewhere");
    check_refused("(component (core module $m) (export \"m\" (core module $m)))", "exports a core module");
    check_refused(
        "(component (component (core module $m (memory 1)) (core instance (instantiate $m))))",
        "composed of several components",
    );
    check_refused(&pair("(memory (export \"m\") 1 1 shared)", "", &[]), "does not know");
    check_refused(&pair("(tag (export \"t\") (param i32))", "", &[]), "does not know");
    check_refused(&pair("(type (struct))", "", &[]), "does not know");
}

#[test]
fn what_would_be_too_large_in_one_piece_stays_in_several() {
    let many = format!("(func $f) (elem func {})", "$f ".repeat(20_000));
    check_refused(&pair(&many, &many, &[]), "too large");
    component(&parse(&pair(&many, "", &[]))).expect("one of them fits");
}

/// The component needs something of the first module before the second can be there, and both would be one.
#[test]
fn modules_that_need_each_other_through_the_component_are_refused() {
    check_refused(
        r#"(component
            (core module $m1 (func (export "f") (param i32) (result i32) (local.get 0)))
            (core module $m2 (import "x" "f" (func $f (param i32) (result i32)))
                (import "y" "g" (func $g (param i32) (result i32))))
            (core module $m0)
            (core instance (instantiate $m0))
            (core instance $i1 (instantiate $m1))
            (func $lifted (param "x" u32) (result u32) (canon lift (core func $i1 "f")))
            (core func $lowered (canon lower (func $lifted)))
            (core instance $y (export "g" (func $lowered)))
            (core instance $i2 (instantiate $m2 (with "x" (instance $i1)) (with "y" (instance $y))))
            (core module $m3) (core instance (instantiate $m3))
            (func (export "f") (param "x" u32) (result u32) (canon lift (core func $i1 "f"))))"#,
        "",
    );
}

/// Code that names what only its neighbours have must not become valid by the merging.
#[test]
fn a_component_that_was_invalid_does_not_become_valid() {
    let good = parse(LIBRARIES);
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        let was_valid = wasmparser::Validator::new_with_features(crate::deploy::passes::flatten::FEATURES)
            .validate_all(&bad)
            .is_ok();
        assert!(was_valid || component(&bad).is_err(), "byte {place}");
    }
}
