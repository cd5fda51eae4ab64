//! Programs that do not end.

use super::{Attack, Cause, Expected};
use crate::config::Config;
use crate::selftest::guests::{Source, part};
use crate::selftest::terms::{Clock, shorter};

const CPU: &[Cause] = &[(504, "cpu")];
const CPU_LATER: &[&str] = &["cpu"];
const LOOP: &str = "(loop (br 0))";
const CALL: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32)"#;

pub(super) fn attacks(config: &Config) -> Vec<Attack> {
    let soon = || shorter(config, Clock::Cpu);
    let streaming = || part("first", 2048, Some(("200 OK", &[])), "a block", true);
    let loops = |name, tries, source| Attack::app(name, tries, source, Expected::Fails(CPU)).shortened(soon());
    vec![
        loops("loop-in-call", "an endless loop", Source::call(LOOP)),
        loops(
            "loop-in-start",
            "an endless loop in the start function, before there is an instance",
            Source::wsgi(format!("(func $start {LOOP}) (start $start) {CALL} (global.get $ok))")),
        ),
        loops(
            "loop-in-second-start",
            "the same in the second of two core modules, when the first is there",
            Source::Component(SECOND_START.replace(";; APPLICATION", include_str!("application.wat"))),
        ),
        loops(
            "loop-in-initialize",
            "the same in _initialize, which reactors have",
            Source::wsgi(format!(r#"(func (export "_initialize") {LOOP}) {CALL} (global.get $ok))"#)),
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
            Expected::CutOff(CPU_LATER),
        )
        .shortened(soon()),
        Attack::app(
            "loop-in-close",
            "an endless loop in close()",
            Source::wsgi(format!(
                r#"{} {} {CALL} (global.get $first)) (func (export "next") (result i32) (global.get $last))
                (func (export "close") (result i32) (loop (br 0)) (i32.const 0))"#,
                streaming(),
                part("last", 3072, None, "the last", false)
            )),
            Expected::FailsAfterwards(CPU_LATER),
        )
        .shortened(soon()),
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
                r#"(table $table 10000 funcref) {CALL}
                (loop (table.fill $table (i32.const 0) (ref.null func) (i32.const 10000)) (br 0)) (i32.const 0))"#
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
            Expected::Fails(&[(504, "wall")]),
        )
        .shortened(shorter(config, Clock::FirstByte)),
        Attack::app(
            "sleep-in-the-body",
            "a CGI program that begins to answer, and sleeps for a day",
            Source::Cgi(cgi("(call $say) (call $sleep)")),
            Expected::CutOff(&["wall"]),
        )
        .shortened(shorter(config, Clock::Idle)),
        Attack::app(
            "drip-for-ever",
            "a CGI program whose answer drips and drips",
            Source::Cgi(cgi("(loop (call $say) (call $nap) (br 0))")),
            Expected::CutOff(&["wall"]),
        )
        .shortened(shorter(config, Clock::Wall)),
    ]
}

const SECOND_START: &str = r#"(component
  (core module $beside (func (export "f")))
  (core instance $beside (instantiate $beside))
  (core module $module
    (import "beside" "f" (func $f))
    (memory (export "memory") 1)
    (func $start (loop (call $f) (br 0)))
    (start $start)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (func (export "call") (param i32 i32 i32 i32 i32) (result i32) unreachable)
    (func (export "next") (result i32) unreachable)
    (func (export "close") (result i32) unreachable))
  (core instance $instance (instantiate $module (with "beside" (instance $beside))))
  ;; APPLICATION
)"#;

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
