//! Programs that leave a mark wherever they can, and look for the marks of others.

use super::{Attack, Expected, NOTHING, Outcome};
use crate::config::Instances;
use crate::selftest::guests::Source;
use crate::selftest::stand::{Judged, Stand};

/// Calls of each hunter.
const CALLS: u32 = 500;

/// What is left: eight bytes that no memory has by chance.
const CANARY: &str = "0x5ca1ab1e0ddba115";

const CALL: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32)"#;

pub(super) fn attacks() -> Vec<Attack> {
    let hunts = |name, tries, core: String| Attack::app(name, tries, Source::wsgi(core), Expected::Judged(hunt));
    vec![
        hunts("canary-in-memory", "a mark on every page of the memory, for the next call", in_memory("")),
        hunts(
            "canary-in-grown-memory",
            "a mark on every page of memory that was asked for, for the next call",
            in_memory("(drop (memory.grow (i32.const 64)))"),
        ),
        hunts(
            "canary-in-globals",
            "a mark in a variable, for the next call",
            format!(
                "(global $mark (mut i64) (i64.const 0)) {CALL} (local $seen i64)
                (local.set $seen (global.get $mark)) (global.set $mark (i64.const {CANARY}))
                (select (global.get $nothing) (global.get $ok) (i64.eqz (local.get $seen))))"
            ),
        ),
        hunts(
            "canary-in-a-table",
            "a mark in a table, for the next call",
            format!(
                "(table $table 64 funcref) (elem declare func $mark) (func $mark) {CALL} (local $clean i32)
                (local.set $clean (ref.is_null (table.get $table (i32.const 42))))
                (table.set $table (i32.const 42) (ref.func $mark))
                (select (global.get $nothing) (global.get $ok) (local.get $clean)))"
            ),
        ),
        hunts(
            "canary-in-dropped-data",
            "a mark that is left by dropping data, for the next call",
            format!(
                r#"(data $data "canary") {CALL}
                (memory.init $data (i32.const 4096) (i32.const 0) (i32.const 6)) (data.drop $data) (global.get $nothing))"#
            ),
        ),
        Attack::hand("canary-for-a-neighbour", "a mark on every page, for another app's calls", for_a_neighbour),
        Attack::hand("canary-before-a-trap", "a mark on every page, and then a fault", before_a_trap),
    ]
}

/// Looks for the mark on every page, and leaves it there.
fn in_memory(before: &str) -> String {
    format!(
        "{CALL} (local $at i32) (local $seen i32) {before}
        (local.set $at (i32.const 65544))
        (loop
          (if (i64.eq (i64.load (local.get $at)) (i64.const {CANARY})) (then (local.set $seen (i32.const 1))))
          (i64.store (local.get $at) (i64.const {CANARY}))
          (local.set $at (i32.add (local.get $at) (i32.const 4096)))
          (br_if 0 (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
        (select (global.get $ok) (global.get $nothing) (local.get $seen)))"
    )
}

/// Leaves the mark on every page, then traps.
fn trapping() -> String {
    format!(
        "{CALL} (local $at i32) (drop (memory.grow (i32.const 64)))
        (local.set $at (i32.const 65544))
        (loop
          (i64.store (local.get $at) (i64.const {CANARY}))
          (local.set $at (i32.add (local.get $at) (i32.const 4096)))
          (br_if 0 (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
        unreachable)"
    )
}

fn hunt(stand: &mut Stand, app: &str) -> Outcome {
    // An app that chose to be reused meets itself: that is what it chose.
    if matches!(stand.config.instances, Instances::Reuse { .. }) {
        stand.remove(app);
        return Ok("not tried: instances = \"reuse\" lets an app's calls meet each other".into());
    }
    look(stand, app, CALLS)?;
    Ok(format!("{CALLS} calls found nothing"))
}

fn look(stand: &mut Stand, app: &str, calls: u32) -> Result<(), String> {
    for call in 0..calls {
        let reply = stand.talk(&crate::selftest::wire::get(&format!("/{app}")))?;
        if reply.text() != NOTHING {
            return Err(format!("call {call} found it: {} {:?}", reply.status, reply.text()));
        }
    }
    Ok(())
}

fn for_a_neighbour(stand: &mut Stand) -> Outcome {
    with_another(stand, "canary-giver", &in_memory("(drop (memory.grow (i32.const 64)))"))
}

fn before_a_trap(stand: &mut Stand) -> Outcome {
    with_another(stand, "canary-faulter", &trapping())
}

/// Lets one app leave marks between the calls of another, which looks for them on its first call in each sandbox.
fn with_another(stand: &mut Stand, giver: &str, text: &str) -> Outcome {
    const SEEKER: &str = "canary-seeker";
    // Its own marks it would only find where it chose to: so it looks and leaves none.
    let seeker = in_memory("(drop (memory.grow (i32.const 64)))")
        .replace(&format!("(i64.store (local.get $at) (i64.const {CANARY}))"), "");
    for (app, core) in [(giver, text), (SEEKER, &seeker)] {
        let wasm = Source::wsgi(core).assemble().map_err(|error| format!("{error:#}"))?;
        if let Judged::Refused(reason) = stand.deploy(app, &wasm, "")? {
            return Err(format!("the attack did not take place: {reason}"));
        }
    }
    let mut outcome = Ok(format!("{CALLS} calls found nothing"));
    for _ in 0..CALLS {
        let asked = stand.talk(&crate::selftest::wire::get(&format!("/{giver}")));
        outcome = asked.and_then(|_| look(stand, SEEKER, 1)).and(outcome);
        if outcome.is_err() {
            break;
        }
    }
    stand.remove(giver);
    stand.remove(SEEKER);
    outcome
}
