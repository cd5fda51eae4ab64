//! Programs that hand the host more than it can carry, or what it cannot read.

use std::time::Instant;

use super::{Attack, Cause, Expected, Outcome, no_attack};
use crate::config::Config;
use crate::selftest::guests::Source;
use crate::selftest::stand::{PATIENCE, Stand, text};
use crate::selftest::terms::{self, Clock, HOST_CALL_PROTECTS_UP_TO, shorter};

const CALL: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32)"#;
const TRAP: Expected = Expected::Fails(&[(500, "trap")]);
const CARRIED: &[Cause] = &[(502, "host_call")];
const TOO_MUCH: Expected = Expected::Fails(CARRIED);

pub(super) fn attacks(config: &Config) -> Vec<Attack> {
    vec![
        Attack::app(
            "overlapping-blocks",
            "an answer of 8,000 blocks of a megabyte, all of them the same megabyte",
            Source::wsgi(blocks(8000, 1 << 20)),
            TOO_MUCH,
        ),
        Attack::fitted(
            "million-empty-blocks",
            "an answer of millions of empty blocks, whose list is more than may be handed over",
            too_much(config).map(|bytes| Source::wsgi(blocks(u32::try_from(bytes / 8).unwrap_or(u32::MAX), 0))),
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
            "900,000 handles, all kept",
            Source::wsgi(host(
                "(local $count i32)
                (loop (drop (call $input)) (local.set $count (i32.add (local.get $count) (i32.const 1)))
                  (br_if 0 (i32.lt_u (local.get $count) (i32.const 900000))))",
            )),
            Expected::Fails(&[(502, "handles")]),
        ),
        Attack::fitted(
            "giant-log-line",
            "a line for the log that is longer than what may be handed over",
            too_much(config).map(|bytes| {
                Source::wsgi(format!(
                    r#"{IMPORTS} (memory $memory (export "memory") {}) {CALL}
                    (call $write (call $errors) (i32.const 65536) (i32.const {bytes})) (global.get $ok))"#,
                    pages(bytes)
                ))
            }),
            TOO_MUCH,
        ),
        Attack::app(
            "log-flood",
            "100,000 lines for the log",
            Source::wsgi(flood("a line of the flood\\0a", 20)),
            Expected::Judged(log_is_bounded),
        )
        .shortened(shorter(config, Clock::Cpu)),
        Attack::app(
            "crash-flood",
            "a disk full of reports about an app that crashes, and answers in between so as not to be left alone",
            Source::wsgi(in_turns("unreachable")),
            Expected::Judged(reports_are_bounded),
        ),
        Attack::app(
            "forged-log",
            "a line for the log that looks like one of the host's",
            Source::wsgi(flood("x\\0d\\0a{\\22message\\22:\\22listening on http://forged\\22,\\22app\\22:\\22neighbour\\22}\\1b[2J\\0a", 70)),
            Expected::Judged(log_is_not_forged),
        )
        .shortened(shorter(config, Clock::Cpu)),
        Attack::fitted(
            "giant-exception",
            "an exception whose text is longer than what may be handed over",
            too_much(config).map(|bytes| {
                let length: String = bytes.to_le_bytes()[..4].iter().map(|byte| format!("\\{byte:02x}")).collect();
                Source::wsgi(format!(
                    r#"(memory $memory (export "memory") {})
                    (data (i32.const 2048) "\01\00\00\00" "\00\01\00\00\04\00\00\00" "\00\00\01\00{length}" "\00\01\00\00\00\00\00\00")
                    {CALL} (i32.const 2048))"#,
                    pages(bytes)
                ))
            }),
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
            Expected::Judged(randomness_is_bounded),
        ),
    ]
}

pub(super) const IMPORTS: &str = r#"(import "wasgi:gateway/gateway@0.1.0" "[static]errors.current" (func $errors (result i32)))
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

/// So many bytes as an app may not hand over, if a guest has room for them: zeros, which are text. More than
/// [`HOST_CALL_PROTECTS_UP_TO`] is not tried: so much gets through.
fn too_much(config: &Config) -> Result<u64, String> {
    let limit = config.limits.host_call_bytes;
    let (room, wanted) =
        (terms::memory_of_guest(config) / 4 * 3, (limit + limit / 16 + 65536).min(HOST_CALL_PROTECTS_UP_TO));
    match wanted <= room {
        true => Ok(wanted),
        false => Err(format!("limits.memory is too small for a guest that would hand over {wanted} bytes at once")),
    }
}

/// Of a memory with so many bytes, and room for the rest.
fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(65536) + 2
}

/// A guest that does this where it is asked for it by [`BOOM`], and answers "nothing" where it is not.
pub(super) fn in_turns(act: &str) -> String {
    format!(
        r#"(func $is-told (param $at i32) (param $length i32) (result i32) (local $end i32)
          (local.set $end (i32.add (local.get $at) (i32.sub (local.get $length) (i32.const 3))))
          (loop
            (if (i32.eq (i32.load align=1 (local.get $at)) (i32.const 0x6d6f6f62)) (then (return (i32.const 1))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get $at) (local.get $end))))
          (i32.const 0))
        {CALL} (if (call $is-told (local.get 0) (local.get 1)) (then {act})) (global.get $nothing))"#
    )
}

/// "boom" in a query, as `$is-told` looks for it.
pub(super) const BOOM: &str = "boom";

/// Of hundreds of crashes there are a few reports. Answers in between keep the app from being left alone.
fn reports_are_bounded(stand: &mut Stand, app: &str) -> Outcome {
    const CRASHES: usize = 300;
    /// Fewer would say little.
    const CRASHES_MIN: usize = 250;
    /// A few at once and one a second, and as many again.
    const REPORTS_AT_ONCE: u64 = 20;
    const REPORTS_A_SECOND: u64 = 2;
    terms::faults_between_answers(&stand.config)?;
    let folder = stand.folder().join("state/capsules");
    // None where the operator keeps none.
    let reports_now = || std::fs::read_dir(&folder).map_or(0, |entries| entries.count());
    // Attackers before this one have crashed as well.
    let (before, began) = (reports_now(), Instant::now());
    for _ in 0..CRASHES {
        stand.ask_quickly(app, BOOM)?;
        stand.ask_quickly(app, "")?;
    }
    let reports_max = REPORTS_AT_ONCE + REPORTS_A_SECOND * began.elapsed().as_secs();
    let (_, crashes) = stand.causes(app, BOOM, "trap", CRASHES);
    if crashes < CRASHES_MIN {
        return Err(no_attack(format!("{crashes} of {CRASHES} calls crashed")));
    }
    let reports = reports_now().saturating_sub(before);
    match reports as u64 <= reports_max {
        true => Ok(format!("{reports} reports of {crashes} crashes")),
        false => Err(format!("it made the host write {reports} reports of {crashes} crashes").into()),
    }
}

/// That the call fails is not enough: the guest's own memory would be too small for them once the host had made them.
fn randomness_is_bounded(stand: &mut Stand, app: &str) -> Outcome {
    const MORE_MAX: u64 = 512 << 20;
    if !stand.config.tenant_of(app).grants.randomness.contain("app") {
        return match stand.ask(app)? {
            (reply, cause) if (reply.status, &*cause) == (500, "grant") => Ok("500 grant".into()),
            (reply, cause) => Err(format!("it got {} {cause:?}", reply.status).into()),
        };
    }
    let before = stand.resident_bytes();
    let (reply, cause) = stand.ask(app)?;
    let more = stand.most_resident_bytes().saturating_sub(before);
    match (reply.status, cause.as_str()) {
        _ if more > MORE_MAX => Err(format!("the host took {} MiB for it", more >> 20).into()),
        (500, "trap") => Ok(format!("500 trap, and the host took {} MiB for it", more >> 20)),
        (status, cause) => Err(format!("it got {status} {cause:?}").into()),
    }
}

fn log_is_bounded(stand: &mut Stand, app: &str) -> Outcome {
    let seen = stand.log.count();
    let begin = Instant::now();
    let _ = stand.ask(app)?;
    let seconds = begin.elapsed().as_secs() + 2;
    let lines = stand.log.all(seen, |line| text(line, "app") == app && text(line, "stream") == "errors");
    let bytes: u64 = lines.iter().map(|line| text(line, "message").len() as u64 + 64).sum();
    let allowed = stand.config.limits.log_bytes_per_second.saturating_mul(seconds);
    // More in a second protects no disk: then it shows in what the log can take, which is less where it is written slowly.
    let is_none = stand.config.limits.log_bytes_per_second > 8 << 20;
    if bytes > if is_none { 1 << 20 } else { allowed } {
        return Err(format!("{} lines, {bytes} bytes got into the log", lines.len()).into());
    }
    if lines.is_empty() {
        return Err(no_attack("none of its lines is in the log"));
    }
    Ok(format!("{} of 100,000 lines are in the log", lines.len()))
}

fn log_is_not_forged(stand: &mut Stand, app: &str) -> Outcome {
    let seen = stand.log.count();
    let _ = stand.ask(app)?;
    let own = |line: &serde_json::Value| text(line, "app") == app && text(line, "message").contains("forged");
    if stand.log.wait_after(seen, PATIENCE, own).is_none() {
        return Err(no_attack("none of its lines is in the log"));
    }
    let forged = stand.log.all(seen, |line| {
        !line.is_object()
            || text(line, "message").starts_with("listening on")
            || text(line, "message").chars().any(char::is_control)
    });
    match forged.first() {
        Some(line) => Err(format!("the log has {line}").into()),
        None => Ok("what it wrote is escaped, and bears its name".into()),
    }
}
