//! Programs that leave a mark wherever they can, and look for the marks of others.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::payloads::{BOOM, in_turns};
use super::{Attack, Expected, NOTHING, Outcome, Unstopped, no_attack};
use crate::config::Config;
use crate::selftest::guests::Source;
use crate::selftest::stand::{PATIENCE, Stand, attacker, text};
use crate::selftest::{terms, wire};

/// Calls of each hunter.
const CALLS: u32 = 500;

/// What is left: eight bytes that no memory has by chance.
const CANARY: &str = "0x5ca1ab1e0ddba115";

/// The same in a program's data.
const CANARY_DATA: &str = r"\15\a1\db\0d\1e\ab\a1\5c";

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
        Attack::hand(
            "canary-for-a-neighbour",
            "a mark on every page and in the program's data, for another tenant's app that gets the same memory",
            for_a_neighbour,
        ),
        Attack::app(
            "canary-before-a-trap",
            "a mark on every page, and then a fault, for the next call",
            Source::wsgi(before_a_trap()),
            Expected::Judged(hunt_after_traps),
        ),
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

/// Looks for the mark on every page; where it is told so, it leaves the mark there and traps.
fn before_a_trap() -> String {
    let marks = "(local.set 3 (i32.const 65544))
        (loop
          (i64.store (local.get 3) (i64.const CANARY))
          (local.set 3 (i32.add (local.get 3) (i32.const 4096)))
          (br_if 0 (i32.lt_u (local.get 3) (i32.mul (memory.size) (i32.const 65536)))))
        unreachable"
        .replace("CANARY", CANARY);
    let looks = "(if (call $finds) (then (return (global.get $ok)))) (global.get $nothing))";
    let text = in_turns(&marks).replace("(global.get $nothing))", looks);
    let text = text.replacen(
        "(if (call $is-told",
        "(if (i32.lt_u (memory.size) (i32.const 32)) (then (drop (memory.grow (i32.const 30))))) (if (call $is-told",
        1,
    );
    format!(
        "(func $finds (result i32) (local $at i32)
          (local.set $at (i32.const 65544))
          (loop
            (if (i64.eq (i64.load (local.get $at)) (i64.const {CANARY})) (then (return (i32.const 1))))
            (local.set $at (i32.add (local.get $at) (i32.const 4096)))
            (br_if 0 (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
          (i32.const 0))
        {text}"
    )
}

fn hunt(stand: &mut Stand, app: &str) -> Outcome {
    terms::calls_are_apart(&stand.config)?;
    terms::many_calls(&stand.config)?;
    for call in 0..CALLS {
        let reply = stand.talk(&wire::get(&format!("/{app}")))?;
        if reply.text() != NOTHING {
            return Err(format!("call {call} found it: {} {:?}", reply.status, reply.text()).into());
        }
    }
    Ok(format!("{CALLS} calls found nothing"))
}

/// Under every policy: no instance serves again after a trap, and its memory is put back as every other.
fn hunt_after_traps(stand: &mut Stand, app: &str) -> Outcome {
    /// Traps with a mark before them. Fewer would say little.
    const TRAPS: usize = CALLS as usize / 2;
    const TRAPS_MIN: usize = TRAPS * 4 / 5;
    terms::faults_between_answers(&stand.config)?;
    for call in 0..TRAPS {
        stand.ask_quickly(app, BOOM)?;
        let reply = stand.ask_quickly(app, "")?;
        if reply.text() != NOTHING {
            return Err(format!("call {call} found it: {} {:?}", reply.status, reply.text()).into());
        }
    }
    let (_, traps) = stand.causes(app, BOOM, "trap", TRAPS);
    match traps {
        TRAPS_MIN.. => Ok(format!("{traps} traps left nothing for the calls after them")),
        _ => Err(no_attack(format!("{traps} of {TRAPS} calls trapped"))),
    }
}

/// A host of few sandboxes of its own, so that memory has to go from one app to the next. Each round has a giver, which leaves marks in
/// all memory that there is, and goes; then a seeker, of another tenant, gets what it had.
fn for_a_neighbour(stand: &mut Stand) -> Outcome {
    const SANDBOXES: u32 = 8;
    const ROUNDS: u32 = 6;
    /// Of the calls of givers, and of those of seekers. They are taken at once, so that several memories are in use.
    const CALLS_OF_EACH: usize = 24;
    const PAGES_MAX: usize = 16;
    terms::many_calls(&stand.config)?;
    let sandboxes = stand.config.sandboxes.min(SANDBOXES);
    let few = Config { sandboxes, ..stand.config.clone() };
    let few = Stand::start(few, &[]).map_err(|error| no_attack(format!("{error:#}")))?;
    // As large as one another, and what the giver begins with is the mark everywhere. The loop makes calls last a little, so that they are
    // there at the same time.
    let pages = usize::try_from(terms::memory_of_guest(&stand.config) / 65536).unwrap_or(PAGES_MAX).min(PAGES_MAX);
    if pages < 4 {
        return Err(Unstopped::NotTried("limits.memory is too small for a guest with marks in it".into()));
    }
    let memory = format!(r#"(memory $memory (export "memory") {pages})"#);
    let lasts = "(local $left i32) (local.set $left (i32.const 2000000))
        (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))";
    let data = CANARY_DATA.repeat((pages - 2) * 65536 / 8);
    let giver = Source::wsgi(format!(
        r#"{memory} (data (i32.const 65536) "{data}") {CALL} {lasts}
        (i64.store (i32.const 131080) (i64.const {CANARY})) (i64.store (i32.const {}) (i64.const {CANARY}))
        (global.get $nothing))"#,
        (pages - 1) * 65536 + 8
    ));
    let seeker = Source::wsgi(format!(
        "{memory} {}",
        in_memory("").replace(&format!("(i64.store (local.get $at) (i64.const {CANARY}))"), "")
    ));
    let (mut given, mut sought) = (0, 0);
    for round in 0..ROUNDS {
        let (from, to) = (attacker(&format!("giver-{round}")), attacker(&format!("seeker-{round}")));
        few.serve(&from, &giver, "")?;
        given += answers(&few, &from, CALLS_OF_EACH)?.0;
        few.remove(&from);
        if few.log.wait(PATIENCE, |line| text(line, "app") == from && text(line, "message") == "removed").is_none() {
            return Err(no_attack("the giver does not go"));
        }
        few.serve(&to, &seeker, "")?;
        let (clean, found) = answers(&few, &to, CALLS_OF_EACH)?;
        few.remove(&to);
        if let Some(found) = found {
            return Err(format!("round {round}: another tenant's app found it: {found}").into());
        }
        sought += clean;
    }
    let least = ROUNDS as usize * CALLS_OF_EACH * 2 / 3;
    match given.min(sought) >= least {
        true => Ok(format!(
            "{sought} calls of {ROUNDS} apps found nothing of {given} calls of others, in {sandboxes} sandboxes"
        )),
        false => Err(no_attack(format!("{given} calls left a mark and {sought} looked for it: fewer than {least}"))),
    }
}

/// Calls of an app, several at a time: how many said that they found nothing, and what another one said that was answered.
fn answers(stand: &Stand, app: &str, calls: usize) -> Result<(usize, Option<String>), String> {
    let left = AtomicU32::new(u32::try_from(calls).expect("they are few"));
    let ask = || {
        let mut replies = Vec::new();
        while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            replies.push(stand.talk(&wire::get(&format!("/{app}"))));
        }
        replies
    };
    let replies = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        askers.into_iter().flat_map(|asker| asker.join().unwrap_or_default()).collect::<Result<Vec<_>, _>>()
    })?;
    let found = replies.iter().find(|reply| reply.status == 200 && reply.text() != NOTHING);
    let clean = replies.iter().filter(|reply| reply.status == 200 && reply.text() == NOTHING).count();
    Ok((clean, found.map(wire::Reply::text)))
}
