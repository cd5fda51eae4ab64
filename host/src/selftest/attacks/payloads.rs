//! Programs that hand the host more than it can carry, or what it cannot read.

use super::{Attack, Expected, Outcome, SOON};
use crate::selftest::guests::Source;
use crate::selftest::stand::{Stand, text};
use crate::selftest::wire;

const CALL: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32)"#;
const TRAP: Expected = Expected::Fails(500, &["trap"]);
const TOO_MUCH: Expected = Expected::Fails(502, &["host_call"]);

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::app(
            "overlapping-blocks",
            "an answer of 8,000 blocks of a megabyte, all of them the same megabyte",
            Source::wsgi(blocks(8000, 1 << 20)),
            TOO_MUCH,
        ),
        Attack::app(
            "million-empty-blocks",
            "an answer of 4,000,000 empty blocks",
            Source::wsgi(blocks(4_000_000, 0)),
            TOO_MUCH,
        ),
        Attack::app("block-beyond-memory", "a block that ends beyond the memory", Source::wsgi(answer(0, 0x7fff_ffff)), TRAP),
        Attack::app("block-that-wraps", "a block whose end wraps around to the beginning", Source::wsgi(answer(0xffff_fff0, 0x20)), TRAP),
        Attack::app(
            "answer-beyond-memory",
            "an answer laid out at the very end of the memory",
            Source::wsgi(format!("{CALL} (i32.const 131064))")),
            TRAP,
        ),
        Attack::app("answer-misaligned", "an answer at an odd address", Source::wsgi(format!("{CALL} (i32.const 1025))")), TRAP),
        Attack::app(
            "unknown-case",
            "an answer that is neither a result nor an error",
            Source::wsgi(format!(r#"(data (i32.const 1024) "\07") {CALL} (global.get $ok))"#)),
            TRAP,
        ),
        Attack::app(
            "not-unicode",
            "a status line that is not Unicode",
            Source::wsgi(format!(r#"(data (i32.const 1088) "\ff\fe\ff\fe\ff\fe") {CALL} (global.get $ok))"#)),
            TRAP,
        ),
        Attack::app(
            "realloc-beyond-memory",
            "room for the request beyond the memory",
            Source::wsgi(format!(
                r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x7ffffff0)) {CALL} (global.get $ok))"#
            )),
            TRAP,
        ),
        Attack::app(
            "foreign-handle",
            "a line written to a handle that was never given",
            Source::wsgi(host("(call $write (i32.const 999) (i32.const 0) (i32.const 4))")),
            TRAP,
        ),
        Attack::app(
            "handle-of-another-kind",
            "a handle of the input, used as one of the log",
            Source::wsgi(host("(call $write (call $input) (i32.const 0) (i32.const 4))")),
            TRAP,
        ),
        Attack::app(
            "handle-given-back-twice",
            "a handle that is given back twice",
            Source::wsgi(host(
                "(local $handle i32) (local.set $handle (call $errors)) (call $drop (local.get $handle)) (call $drop (local.get $handle))",
            )),
            TRAP,
        ),
        Attack::app(
            "handles",
            "a million handles, all kept",
            Source::wsgi(host(
                "(local $count i32)
                (loop (drop (call $input)) (local.set $count (i32.add (local.get $count) (i32.const 1)))
                  (br_if 0 (i32.lt_u (local.get $count) (i32.const 1000000))))",
            )),
            Expected::Fails(502, &["handles"]),
        ),
        Attack::app(
            "giant-log-line",
            "a line of 60 MB for the log",
            Source::wsgi(format!(
                r#"{IMPORTS} (memory $memory (export "memory") 1000) {CALL}
                (memory.fill (i32.const 65536) (i32.const 120) (i32.const 60000000))
                (call $write (call $errors) (i32.const 65536) (i32.const 60000000)) (global.get $ok))"#
            )),
            TOO_MUCH,
        ),
        Attack::app(
            "log-flood",
            "100,000 lines for the log",
            Source::wsgi(flood("a line of the flood\\0a", 20)),
            Expected::Judged(log_is_bounded),
        )
        .lowering(SOON),
        Attack::app(
            "crash-flood",
            "a disk full of reports about an app that crashes at every request",
            Source::wsgi(format!("{CALL} unreachable)")),
            Expected::Judged(reports_are_bounded),
        ),
        Attack::app(
            "forged-log",
            "a line for the log that looks like one of the host's",
            Source::wsgi(flood("x\\0d\\0a{\\22message\\22:\\22listening on http://forged\\22,\\22app\\22:\\22neighbour\\22}\\1b[2J\\0a", 70)),
            Expected::Judged(log_is_not_forged),
        )
        .lowering(SOON),
        Attack::app(
            "giant-exception",
            "an exception whose text has 60 MB",
            Source::wsgi(format!(
                r#"(memory $memory (export "memory") 1000)
                (data (i32.const 2048) "\01\00\00\00" "\00\01\00\00\04\00\00\00" "\00\00\01\00\00\87\93\03" "\00\01\00\00\00\00\00\00")
                {CALL} (memory.fill (i32.const 65536) (i32.const 120) (i32.const 60000000)) (i32.const 2048))"#
            )),
            TOO_MUCH,
        ),
        Attack::app(
            "giant-randomness",
            "4 GB of randomness at once",
            Source::wsgi(format!(
                r#"(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))
                ;; IMPORTS END
                {CALL} (call $random (i64.const 4000000000) (i32.const 2048)) (global.get $ok))"#
            )),
            Expected::Fails(500, &["trap", "memory"]),
        ),
    ]
}

const IMPORTS: &str = r#"(import "wasgi:gateway/gateway@0.1.0" "[static]errors.current" (func $errors (result i32)))
(import "wasgi:gateway/gateway@0.1.0" "[method]errors.write" (func $write (param i32 i32 i32)))
(import "wasgi:gateway/gateway@0.1.0" "[static]input.current" (func $input (result i32)))
(import "wasgi:gateway/gateway@0.1.0" "[resource-drop]errors" (func $drop (param i32)))
;; IMPORTS END"#;

/// A guest that does this with what the host offers.
fn host(body: &str) -> String {
    format!("{IMPORTS} {CALL} {body} (global.get $ok))")
}

/// A guest that answers with one block at this place.
fn answer(pointer: u32, length: u32) -> String {
    format!(
        "{CALL} (i32.store (i32.const 1104) (i32.const {pointer})) (i32.store (i32.const 1108) (i32.const {length})) (global.get $ok))"
    )
}

/// A guest that answers with so many blocks, all at the same place.
fn blocks(count: u32, length: u32) -> String {
    let pages = (count * 8).div_ceil(65536) + 20;
    format!(
        r#"(memory $memory (export "memory") {pages}) {CALL} (local $at i32)
        (i32.store (i32.const 1048) (i32.const 1310720)) (i32.store (i32.const 1052) (i32.const {count}))
        (local.set $at (i32.const 1310720))
        (loop
          (i32.store (local.get $at) (i32.const 131072))
          (i32.store (i32.add (local.get $at) (i32.const 4)) (i32.const {length}))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (br_if 0 (i32.lt_u (local.get $at) (i32.const {}))))
        (global.get $ok))"#,
        1_310_720 + count * 8
    )
}

/// A guest that writes the same line again and again.
fn flood(line: &str, length: u32) -> String {
    format!(
        r#"{IMPORTS} (data (i32.const 4096) "{line}") {CALL} (local $count i32) (local $errors i32)
        (local.set $errors (call $errors))
        (loop (call $write (local.get $errors) (i32.const 4096) (i32.const {length}))
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $count) (i32.const 100000))))
        (global.get $ok))"#
    )
}

/// Of three hundred crashes there are a few reports.
fn reports_are_bounded(stand: &mut Stand, app: &str) -> Outcome {
    const CRASHES: usize = 300;
    const REPORTS_MAX: usize = 60;
    let (_, cause) = stand.ask(app)?;
    if cause != "trap" {
        return Err(format!("the attack did not take place: {cause}"));
    }
    for _ in 1..CRASHES {
        stand.talk(&wire::get(&format!("/{app}")))?;
    }
    let folder = stand.folder().join("state/capsules");
    // None where the operator keeps none.
    let reports = std::fs::read_dir(folder).map_or(0, |entries| entries.count());
    match reports <= REPORTS_MAX {
        true => Ok(format!("{reports} reports of {CRASHES} crashes")),
        false => Err(format!("it made the host write {reports} reports of {CRASHES} crashes")),
    }
}

fn log_is_bounded(stand: &mut Stand, app: &str) -> Outcome {
    let seen = stand.log.count();
    let begin = std::time::Instant::now();
    let _ = stand.ask(app)?;
    let seconds = begin.elapsed().as_secs() + 2;
    let lines = stand.log.all(seen, |line| text(line, "app") == app && text(line, "stream") == "errors");
    let bytes: u64 = lines.iter().map(|line| text(line, "message").len() as u64 + 64).sum();
    let allowed = stand.config.limits.log_bytes_per_second.saturating_mul(seconds);
    if bytes > allowed.min(4 << 20) {
        return Err(format!("{} lines, {bytes} bytes got into the log", lines.len()));
    }
    Ok(format!("{} of 100,000 lines are in the log", lines.len()))
}

fn log_is_not_forged(stand: &mut Stand, app: &str) -> Outcome {
    let seen = stand.log.count();
    let _ = stand.ask(app)?;
    let forged = stand.log.all(seen, |line| {
        !line.is_object()
            || text(line, "message").starts_with("listening on")
            || text(line, "message").chars().any(char::is_control)
    });
    match forged.first() {
        Some(line) => Err(format!("the log has {line}")),
        None => Ok("what it wrote is escaped, and bears its name".into()),
    }
}
