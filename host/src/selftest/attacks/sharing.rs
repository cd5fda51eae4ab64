//! One tenant takes what all share: the processors, the memory. Another, with an app of the same kind, must come to its own.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::payloads::IMPORTS;
use super::{Attack, ONE_SECOND, Outcome, Unstopped, no_attack};
use crate::config::Config;
use crate::selftest::guests::Source;
use crate::selftest::launch::{fails, limits};
use crate::selftest::stand::{NEIGHBOUR, Stand, text};
use crate::selftest::terms::{self, Clock, shorter};
use crate::selftest::wire;

/// Folders that the operator says nothing of.
const CROWD: &str = "selftest-crowd/app";
const SINGLE: &str = "selftest-single/app";

const LOOP: &str = "(loop $again (br $again))";

/// About a millisecond: over before anybody interferes.
const BURST: &str = "(local $left i32) (local.set $left (i32.const 1000000))
    (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))";

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
    terms::calls_at_once(&stand.config, terms::connections_at_once(&stand.config, wanted))
}

fn crowd_processors(stand: &mut Stand) -> Outcome {
    let sidecar = limits(&shorter(&stand.config, Clock::Cpu).lines);
    let workers = stand.config.workers;
    let size = crowd_size(stand, 8 * workers);
    if size < 3 * workers {
        return Err(Unstopped::NotTried(format!("{size} calls at once are too few to crowd {workers} workers")));
    }
    stand.serve(CROWD, &Source::call(LOOP), &sidecar)?;
    stand.serve(SINGLE, &Source::call(LOOP), &sidecar)?;
    let seen = stand.log.count();
    let calls = crowd(stand, size)?;
    let asked = stand.ask(SINGLE);
    let before = stand.log.all(seen, |line| text(line, "app") == CROWD && text(line, "cause") == "cpu").len();
    drop(calls);
    stand.remove(CROWD);
    stand.remove(SINGLE);
    match asked? {
        (reply, cause) if fails(&stand.config, &[(504, "cpu")], (reply.status, &cause)) => match before {
            0 => Ok(format!("the single loop has had its time before any of {size}")),
            _ => Err(format!("{before} of {size} loops have had their time before the single one").into()),
        },
        (reply, cause) => Err(format!("the single loop got {} {cause:?}", reply.status).into()),
    }
}

fn bursts(stand: &mut Stand) -> Outcome {
    stand.serve(CROWD, &Source::call(BURST), "")?;
    let began = Instant::now();
    let (mut asked, mut ended, mut answered) = (0, 0, true);
    while began.elapsed() < ONE_SECOND && answered {
        let calls = crowd(stand, crowd_size(stand, 16))?;
        asked += calls.len();
        answered = stand.ask(NEIGHBOUR).is_ok_and(|(reply, _)| reply.status == 200);
        for mut call in calls {
            let reply = wire::parse(&wire::read_until(&mut call, Instant::now() + Duration::from_secs(5)), false);
            ended += usize::from(reply.status == 200);
        }
    }
    stand.remove(CROWD);
    match answered {
        true if ended == 0 => Err(no_attack(format!("none of {asked} calls was answered"))),
        true => Ok(format!("a neighbour is answered beside {ended} of them")),
        false => Err("the neighbour is not answered".into()),
    }
}

/// As much as is given, and then it is not given back. One that is refused memory below its own limit says so.
fn hoarding(limit_bytes: u64) -> Source {
    let own_pages = (limit_bytes / 65536).saturating_sub(32);
    Source::wsgi(format!(
        r#"{IMPORTS} (data (i32.const 4096) "{SHORT}\0a")
        (func (export "call") (param i32 i32 i32 i32 i32) (result i32)
          (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
          (if (i32.lt_u (memory.size) (i32.const {own_pages}))
            (then (call $write (call $errors) (i32.const 4096) (i32.const {}))))
          (loop $again (br $again)) (i32.const 0))"#,
        SHORT.len() + 1
    ))
}

const SHORT: &str = "no more is given";

/// In a host of its own, whose sandboxes have so little memory together that the crowd can take it. The modest one comes when the crowd
/// has all that it is given.
fn crowd_memory(stand: &mut Stand) -> Outcome {
    let config = &stand.config;
    let limit = config.limits.memory_bytes;
    let size = crowd_size(stand, 32);
    let sandbox_memory_bytes = (size as u64 * limit / 2).min(config.sandbox_memory_bytes).max(16 << 20);
    if size < 4 || limit < 8 << 20 {
        return Err(Unstopped::NotTried(format!("{size} calls of limits.memory each are too few to take all of it")));
    }
    let tight = Config { sandbox_memory_bytes, ..config.clone() };
    let tight = Stand::start(tight, &[]).map_err(|error| no_attack(format!("{error:#}")))?;
    let sidecar = limits(&shorter(&stand.config, Clock::Cpu).lines);
    crowded(tight, &sidecar, size, limit)
}

fn crowded(mut stand: Stand, sidecar: &str, size: usize, limit: u64) -> Outcome {
    stand.serve(CROWD, &hoarding(limit), sidecar)?;
    stand.serve(SINGLE, &Source::call(MODEST), "")?;
    let calls = crowd(&stand, size)?;
    if stand.log.wait(Duration::from_secs(10), |line| text(line, "message").contains(SHORT)).is_none() {
        return Err(no_attack(format!("{size} calls had all memory that they wanted")));
    }
    let mut outcome = Ok(format!("another tenant has its megabyte beside {size} that want {} MiB each", limit >> 20));
    for _ in 0..10 {
        let (reply, cause) = stand.ask(SINGLE)?;
        if reply.status != 200 {
            outcome = Err(format!("another tenant is refused a megabyte: {} {cause:?}", reply.status).into());
        }
    }
    drop(calls);
    outcome
}
