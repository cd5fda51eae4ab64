//! Programs that take memory, and programs that use up the stack.

use super::{Attack, Cause, Expected};
use crate::selftest::guests::Source;

const REFUSED_GROWTH: &[Cause] = &[(500, "memory")];
const MEMORY: Expected = Expected::Fails(REFUSED_GROWTH);
const STACK: Expected = Expected::Fails(&[(500, "stack")]);
/// In wasmtime's words, which are of the pool that is laid out by the operator's limits.
const LARGE_MEMORY: Expected = Expected::Refused(&["has a minimum byte size of"]);
const LARGE_TABLE: Expected = Expected::Refused(&["has a minimum element size of"]);
const CALL: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32)"#;

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::app(
            "grow-step-by-step",
            "memory, 64 KiB at a time, up to 2 GiB",
            Source::call(
                "(local $pages i32)
                (loop
                  (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
                  (local.set $pages (i32.add (local.get $pages) (i32.const 1)))
                  (br_if 0 (i32.lt_u (local.get $pages) (i32.const 32768))))",
            ),
            MEMORY,
        ),
        Attack::app(
            "grow-at-once",
            "4 GiB at once",
            Source::call("(if (i32.eq (memory.grow (i32.const 65000)) (i32.const -1)) (then unreachable))"),
            MEMORY,
        ),
        Attack::app(
            "grow-and-touch",
            "memory, a megabyte at a time, each page written to",
            Source::call(
                "(local $at i32)
                (loop
                  (local.set $at (i32.mul (memory.size) (i32.const 65536)))
                  (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
                  (memory.fill (local.get $at) (i32.const 1) (i32.const 1048576))
                  (br_if 0 (i32.lt_u (local.get $at) (i32.const 0x7ff00000))))",
            ),
            MEMORY,
        ),
        Attack::app(
            "two-memories",
            "two core modules, each with half of what is allowed and more",
            Source::Component(TWO_MEMORIES.replace(";; APPLICATION", include_str!("application.wat"))),
            MEMORY,
        ),
        Attack::app(
            "large-from-the-start",
            "a memory of 4 GiB from the start",
            Source::wsgi(format!(r#"(memory $memory (export "memory") 65536) {CALL} (global.get $ok))"#)),
            LARGE_MEMORY,
        ),
        Attack::app(
            "memory64",
            "a memory with 64-bit addresses, of 256 TiB",
            Source::Component(
                TWO_MEMORIES
                    .replace(
                        "(memory 1)\n    (func (export \"grow\")",
                        "(memory i64 0x100000000)\n    (func (export \"grow\")",
                    )
                    .replace("(memory.grow (i32.const 32767))", "(i32.const 0)")
                    .replace(";; APPLICATION", include_str!("application.wat")),
            ),
            LARGE_MEMORY,
        ),
        Attack::app(
            "many-tables",
            "fifty tables of 100,000 elements",
            Source::wsgi(format!("{} {CALL} (global.get $ok))", "(table 100000 funcref)".repeat(50))),
            Expected::Refused(&["defined tables count of", "has a minimum element size of"]),
        ),
        Attack::app(
            "large-table",
            "a table of 4,000,000,000 elements from the start",
            Source::wsgi(format!("(table 4000000000 funcref) {CALL} (global.get $ok))")),
            LARGE_TABLE,
        ),
        Attack::app(
            "grow-table",
            "a table, up to 9,000,000 elements",
            Source::wsgi(format!(
                "(table $table 1 funcref) {CALL} (local $count i32)
                (loop
                  (if (i32.eq (table.grow $table (ref.null func) (i32.const 10000)) (i32.const -1)) (then unreachable))
                  (local.set $count (i32.add (local.get $count) (i32.const 1)))
                  (br_if 0 (i32.lt_u (local.get $count) (i32.const 900))))
                (global.get $ok))"
            )),
            MEMORY,
        ),
        Attack::app(
            "recursion",
            "recursion without end",
            Source::wsgi(format!(
                "(func $deep (result i32) (i32.add (call $deep) (i32.const 1))) {CALL} (call $deep))"
            )),
            STACK,
        ),
        Attack::app(
            "recursion-through-a-table",
            "recursion without end, through a table",
            Source::wsgi(format!(
                "(type $function (func (result i32))) (table $table funcref (elem $deep))
                (func $deep (result i32) (i32.add (call_indirect $table (type $function) (i32.const 0)) (i32.const 1)))
                {CALL} (call $deep))"
            )),
            STACK,
        ),
        Attack::app(
            "recursion-in-start",
            "recursion without end in the start function",
            Source::wsgi(format!(
                "(func $deep (result i32) (i32.add (call $deep) (i32.const 1)))
                (func $start (drop (call $deep))) (start $start) {CALL} (global.get $ok))"
            )),
            STACK,
        ),
        Attack::app(
            "recursion-of-large-frames",
            "recursion with frames of 24 KB, to leap over a guard page",
            Source::wsgi(format!(
                "(func $deep (result i64) (local {}) {} (i64.add (call $deep) (i64.const 1)))
                {CALL} (drop (call $deep)) (global.get $ok))",
                "i64 ".repeat(3000),
                large_frame()
            )),
            STACK,
        ),
    ]
}

/// Values that are all alive at once, so that the compiler has to spill them.
fn large_frame() -> String {
    let mut text = String::new();
    for index in 0..3000 {
        text.push_str(&format!("(local.set {index} (i64.load (i32.const {})))", index * 8));
    }
    text.push_str("(drop (call $deep))");
    for index in 0..3000 {
        text.push_str(&format!("(i64.store (i32.const {}) (local.get {index}))", index * 8));
    }
    text
}

const TWO_MEMORIES: &str = r#"(component
  (core module $beside
    (memory 1)
    (func (export "grow") (result i32) (memory.grow (i32.const 32767))))
  (core instance $beside (instantiate $beside))
  (core module $module
    (import "beside" "grow" (func $grow-beside (result i32)))
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (func (export "call") (param i32 i32 i32 i32 i32) (result i32)
      ;; What one of them gets, the other must not: page by page, in turns, until both have 2 GiB.
      (loop
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br_if 0 (i32.lt_u (memory.size) (i32.const 32000))))
      (drop (call $grow-beside))
      (i32.const 8192))
    (func (export "next") (result i32) unreachable)
    (func (export "close") (result i32) unreachable))
  (core instance $instance (instantiate $module (with "beside" (instance $beside))))
  ;; APPLICATION
)"#;
