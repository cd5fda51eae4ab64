//! Programs that do not end.

use super::{Attack, Expected, ONE_SECOND, SOON};
use crate::selftest::guests::{Source, part};

const CPU: &[&str] = &["cpu"];
const LOOP: &str = "(loop (br 0))";
const CALL: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32)"#;

pub(super) fn attacks() -> Vec<Attack> {
    let streaming = || part("first", 2048, Some(("200 OK", &[])), "a block", true);
    let loops = |name, tries, source| Attack::app(name, tries, source, Expected::Fails(504, CPU)).lowering(SOON);
    vec![
        loops("loop-in-call", "an endless loop", Source::call(LOOP)),
        loops(
            "loop-in-start",
            "an endless loop in the start function, before there is an instance",
            Source::wsgi(format!("(func $start {LOOP}) (start $start) {CALL} (global.get $ok))")),
        ),
        loops(
            "loop-in-realloc",
            "an endless loop where the host asks for room for the request",
            Source::wsgi(format!(
                r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (loop (br 0)) (i32.const 0))
                {CALL} (global.get $ok))"#
            )),
        ),
        Attack::app(
            "loop-in-next",
            "an endless loop between two blocks",
            Source::wsgi(format!(
                r#"{} {CALL} (global.get $first)) (func (export "next") (result i32) (loop (br 0)) (i32.const 0))"#,
                streaming()
            )),
            Expected::CutOff(CPU),
        )
        .lowering(SOON),
        Attack::app(
            "loop-in-close",
            "an endless loop in close()",
            Source::wsgi(format!(
                r#"{} {} {CALL} (global.get $first)) (func (export "next") (result i32) (global.get $last))
                (func (export "close") (result i32) (loop (br 0)) (i32.const 0))"#,
                streaming(),
                part("last", 3072, None, "the last", false)
            )),
            Expected::FailsAfterwards(CPU),
        )
        .lowering(SOON),
        loops(
            "loop-in-post-return",
            "an endless loop where the host gives the answer's memory back",
            Source::wsgi(format!(
                r#"{CALL} (global.get $ok))
                (func (export "cabi_post_wasgi:gateway/application@0.1.0#call") (param i32) (loop (br 0)))"#
            )),
        ),
        loops(
            "loop-of-host-calls",
            "an endless loop of cheap calls of the host",
            Source::wsgi(format!(
                r#"(import "wasgi:gateway/gateway@0.1.0" "[static]errors.current" (func $errors (result i32)))
                (import "wasgi:gateway/gateway@0.1.0" "[method]errors.flush" (func $flush (param i32)))
                ;; IMPORTS END
                {CALL} (local $handle i32)
                  (local.set $handle (call $errors))
                  (loop (call $flush (local.get $handle)) (br 0)) (i32.const 0))"#
            )),
        ),
        loops(
            "loop-of-fills",
            "memory filled again and again, a megabyte at each instruction",
            Source::wsgi(format!(
                r#"(memory $memory (export "memory") 17) {CALL}
                (loop (memory.fill (i32.const 65536) (i32.const 7) (i32.const 1000000)) (br 0)) (i32.const 0))"#
            )),
        ),
        loops(
            "loop-of-tables",
            "tables filled again and again, in single instructions",
            Source::wsgi(format!(
                r#"(table $table 50000 funcref) {CALL}
                (loop (table.fill $table (i32.const 0) (ref.null func) (i32.const 50000)) (br 0)) (i32.const 0))"#
            )),
        ),
        loops(
            "empty-blocks-for-ever",
            "blocks without a byte, without end: nothing for the client to wait for",
            Source::wsgi(format!(
                r#"{} {CALL} (global.get $first)) (func (export "next") (result i32) (global.get $first))"#,
                part("first", 2048, None, "", true)
            )),
        ),
        loops("loop-in-program", "a CGI program in an endless loop", Source::Cgi(cgi("(loop (br 0))"))),
        Attack::app(
            "sleep-before-the-head",
            "a CGI program that sleeps for a day",
            Source::Cgi(cgi("(call $sleep)")),
            Expected::Fails(504, &["wall"]),
        )
        .lowering(&[("first_byte_time", ONE_SECOND)]),
        Attack::app(
            "sleep-in-the-body",
            "a CGI program that begins to answer, and sleeps for a day",
            Source::Cgi(cgi("(call $say) (call $sleep)")),
            Expected::CutOff(&["wall"]),
        )
        .lowering(&[("idle_time", ONE_SECOND)]),
        Attack::app(
            "drip-for-ever",
            "a CGI program whose answer drips and drips",
            Source::Cgi(cgi("(loop (call $say) (call $nap) (br 0))")),
            Expected::CutOff(&["wall"]),
        )
        .lowering(&[("wall_time", ONE_SECOND)]),
    ]
}

/// A CGI program that does this. `$say` begins to answer and goes on, `$nap` waits for 50 ms, `$sleep` for a day.
fn cgi(body: &str) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (data (i32.const 64) "Content-Type: text/plain\0a\0aonce upon a time")
        (data (i32.const 16) "\40\00\00\00\2a\00\00\00")
        ;; Subscriptions to the monotonic clock: where the time stands is at 24 of each.
        (data (i32.const 528) "\01\00\00\00")
        (data (i32.const 656) "\01\00\00\00")
        (func $say (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8))))
        (func $wait (param $subscription i32)
          (drop (call $poll (local.get $subscription) (i32.const 1024) (i32.const 1) (i32.const 8))))
        (func $nap (i64.store (i32.const 536) (i64.const 50000000)) (call $wait (i32.const 512)))
        (func $sleep (i64.store (i32.const 664) (i64.const 86400000000000)) (call $wait (i32.const 640)))
        (func (export "_start") {body}))"#
    )
}
