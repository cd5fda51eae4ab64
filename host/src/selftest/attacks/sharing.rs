//! One tenant takes what all share: the processors, the memory. Another, with an app of the same kind, must come to its own.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Attack, ONE_SECOND, Outcome, SOON};
use crate::selftest::guests::Source;
use crate::selftest::stand::{Judged, Stand, text};
use crate::selftest::{NEIGHBOUR, lowered, wire};

/// Folders that the operator says nothing of.
const CROWD: &str = "selftest-crowd/app";
const SINGLE: &str = "selftest-single/app";

const LOOP: &str = "(loop $again (br $again))";

/// About a millisecond: over before anybody interferes.
const BURST: &str = "(local $left i32) (local.set $left (i32.const 1000000))
    (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))";

/// As much as is given, and then it is not given back.
const HOARD: &str =
    "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (loop $again (br $again))";

/// A megabyte.
const MODEST: &str = "(if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))";

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::hand(
            "crowd-the-processors",
            "a tenant with many loops, beside one with a single loop",
            crowd_processors,
        ),
        Attack::hand("bursts", "calls that end before they are interrupted, again and again", bursts),
        Attack::hand("crowd-the-memory", "a tenant whose calls keep all memory that they are given", crowd_memory),
    ]
}

fn deploy(stand: &Stand, name: &str, call: &str, sidecar: &str) -> Result<(), String> {
    let wasm = Source::call(call).assemble().map_err(|error| format!("{error:#}"))?;
    match stand.deploy(name, &wasm, sidecar)? {
        Judged::Live => Ok(()),
        Judged::Refused(reason) => Err(format!("the attack did not take place: {reason}")),
    }
}

/// So many calls of the crowd under way.
fn crowd(stand: &Stand, count: usize) -> Result<Vec<TcpStream>, String> {
    let ask = || {
        let mut stream = wire::open(stand.address)?;
        stream.write_all(&wire::get(&format!("/{CROWD}")))?;
        Ok(stream)
    };
    (0..count).map(|_| ask().map_err(|error: std::io::Error| format!("the host takes no request: {error}"))).collect()
}

/// As many calls as the crowd may have at once.
fn crowd_size(stand: &Stand, wanted: usize) -> usize {
    let config = &stand.config;
    let calls = config.limits.concurrent_calls.min(config.budget.concurrent_calls).min(config.sandboxes / 2);
    wanted.min(calls as usize)
}

fn crowd_processors(stand: &mut Stand) -> Outcome {
    let sidecar = lowered(SOON, &stand.config);
    let workers = stand.config.workers;
    let size = crowd_size(stand, 8 * workers);
    if size < 3 * workers {
        return Ok(format!("{size} calls at once are too few to crowd {workers} workers"));
    }
    deploy(stand, CROWD, LOOP, &sidecar)?;
    deploy(stand, SINGLE, LOOP, &sidecar)?;
    let seen = stand.log.count();
    let calls = crowd(stand, size)?;
    let asked = stand.ask(SINGLE);
    let before = stand.log.all(seen, |line| text(line, "app") == CROWD && text(line, "cause") == "cpu").len();
    drop(calls);
    stand.remove(CROWD);
    stand.remove(SINGLE);
    match asked? {
        (reply, cause) if reply.status == 504 && cause == "cpu" => match before {
            0 => Ok(format!("the single loop has had its time before any of {size}")),
            _ => Err(format!("{before} of {size} loops have had their time before the single one")),
        },
        (reply, cause) => Err(format!("the single loop got {} {cause:?}", reply.status)),
    }
}

fn bursts(stand: &mut Stand) -> Outcome {
    deploy(stand, CROWD, BURST, "")?;
    let began = Instant::now();
    let (mut asked, mut answered) = (0, true);
    while began.elapsed() < ONE_SECOND && answered {
        let calls = crowd(stand, crowd_size(stand, 16))?;
        asked += calls.len();
        answered = stand.ask(NEIGHBOUR).is_ok_and(|(reply, _)| reply.status == 200);
        for mut call in calls {
            wire::read_until(&mut call, Instant::now() + Duration::from_secs(5));
        }
    }
    stand.remove(CROWD);
    match answered {
        true => Ok(format!("a neighbour is answered beside {asked} of them")),
        false => Err("the neighbour is not answered".into()),
    }
}

fn crowd_memory(stand: &mut Stand) -> Outcome {
    deploy(stand, CROWD, HOARD, &lowered(SOON, &stand.config))?;
    deploy(stand, SINGLE, MODEST, "")?;
    let size = crowd_size(stand, 64);
    let calls = crowd(stand, size)?;
    let mut outcome = Ok(format!("another tenant has its megabyte beside {size} that keep what they get"));
    for _ in 0..10 {
        let (reply, cause) = stand.ask(SINGLE)?;
        if reply.status != 200 {
            outcome = Err(format!("another tenant is refused a megabyte: {} {cause:?}", reply.status));
        }
    }
    drop(calls);
    stand.remove(CROWD);
    stand.remove(SINGLE);
    outcome
}
