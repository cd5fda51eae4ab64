//! Descriptors of the host's process: opened again and again, or by many calls together, so that nobody else gets one.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::kept::{answer, keeping};
use super::reach::program;
use super::{Attack, Outcome, Unstopped, no_attack};
use crate::descriptors::Shares;
use crate::selftest::guests::Source;
use crate::selftest::stand::{Judged, KEEPER, NEIGHBOUR, Stand};
use crate::selftest::{terms, wire};

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::hand("open-and-close", "a file of its data, opened and closed thousands of times", open_and_close),
        Attack::hand("open-in-many-calls", "all that may be opened, in each of many calls at once", open_in_many_calls),
    ]
}

/// What else may come and go meanwhile: connections of ours, of the neighbour's, files of the host's.
const OTHERS: usize = 150;

/// Descriptors that the host has.
fn open_in(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// Looks again and again how many it has.
struct Watch {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<usize>,
}

impl Watch {
    fn begin(process: u32) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let looking = std::thread::spawn(move || {
            let mut most = 0;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(open_in(process));
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        Self { stop, looking }
    }

    /// The most that there were.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.join().unwrap_or(usize::MAX)
    }
}

fn open_and_close(stand: &mut Stand) -> Outcome {
    // As often as there is time for by far: who is stopped for computing shows nothing.
    let time = stand.config.limits.cpu_time.min(stand.config.budget.cpu_time / 2).as_millis();
    let count = (2 * time).clamp(50, 5000);
    let reach = format!(
        "(local $count i32) (local $file i32)
        (loop
          (local.set $file (call $open (i32.const 0)))
          (if (i32.eqz (local.get $file)) (then (return (i32.const 2))))
          (drop (call $close (local.get $file)))
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $count) (i32.const {count}))))
        (i32.const 0)"
    );
    let before = open_in(stand.process());
    let watch = Watch::begin(stand.process());
    let outcome = answer(stand, "open-and-close", &Source::Cgi(keeping(&reach)), "data = true", "each is closed", &[]);
    let more = watch.end().saturating_sub(before);
    match more {
        0..=OTHERS => outcome.map(|what| format!("{what}: of {count} at most {more} more were open")),
        _ => Err(format!("the host had {more} more descriptors open").into()),
    }
}

/// Calls of the attacker at once, where it may have so many.
const CROWD: usize = 64;

/// A program that opens its directory as often as its handles allow, and waits then.
fn hoarding(handles: u32) -> String {
    let imports = r#"(import "wasi_snapshot_preview1" "path_open"
          (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#;
    // The clock that never goes back, and ten minutes.
    let data = r#"(data (i32.const 1024) ".")
        (data (i32.const 2064) "\01\00\00\00")
        (data (i32.const 2072) "\00\70\c9\b2\8b\00\00\00")"#;
    let reach = format!(
        "(local $count i32)
        (loop
          (if (i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 1) (i32.const 2)
                (i64.const 0x4000) (i64.const 0) (i32.const 0) (i32.const 4096)))
            (then
              (local.set $count (i32.add (local.get $count) (i32.const 1)))
              (br_if 1 (i32.lt_u (local.get $count) (i32.const {handles}))))))
        (drop (call $poll (i32.const 2048) (i32.const 3072) (i32.const 1) (i32.const 4096)))
        (i32.const 0)"
    );
    program(imports, data, &reach)
}

fn open_in_many_calls(stand: &mut Stand) -> Outcome {
    let config = &stand.config;
    let calls = terms::calls_at_once(config, terms::connections_at_once(config, CROWD));
    let handles = config.limits.handles.saturating_sub(24).max(1);
    let guests = Shares::of_host(config.edge.connections).guests;
    // Four fifths of all, or what the operator says.
    let may = usize::try_from(config.budget.descriptors.min(guests / 5 * 4)).unwrap_or(usize::MAX);
    if calls < 2 {
        return Err(Unstopped::NotTried("a tenant may have one call at a time, or a client one connection".into()));
    }
    let name = format!("{KEEPER}/hoard");
    stand.serve(&name, &Source::Cgi(hoarding(handles)), "directories = \"/shared\"")?;
    let before = open_in(stand.process());
    let mut crowd = Vec::new();
    for _ in 0..calls {
        let mut stream = wire::open(stand.address).map_err(|error| format!("the host takes no connection: {error}"))?;
        stream.write_all(&wire::get(&format!("/{name}"))).map_err(|error| format!("nor a request: {error}"))?;
        crowd.push(stream);
    }
    let more = settled(stand.process()).saturating_sub(before);
    // What a host without descriptors could not do: accept, compile, load.
    let accepted = (0..20).all(|_| stand.ask(NEIGHBOUR).is_ok_and(|(reply, _)| reply.status == 200));
    let other = Source::call("").assemble().map_err(|error| format!("{error:#}"))?;
    let deployed = stand.deploy("selftest-other/app", &other, "");
    stand.remove("selftest-other/app");
    drop(crowd);
    stand.remove(&name);
    let what = format!("{calls} calls have {more} descriptors");
    match deployed {
        _ if !accepted => Err(format!("{what}, and the neighbour is not answered").into()),
        _ if more > may.saturating_add(OTHERS) => Err(format!("{what}, more than {may}").into()),
        // Beside the connections that they came by.
        _ if more < calls + calls.min(may / 2) => Err(no_attack(format!("{what}: they have opened hardly any"))),
        Ok(Judged::Live) => Ok(format!("{what}, of at most {may}; others are served")),
        _ => Err(format!("{what}, and nobody can deploy an app").into()),
    }
}

/// How many it has once there are no more for a while.
fn settled(process: u32) -> usize {
    let begin = Instant::now();
    let (mut most, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(500) && begin.elapsed() < Duration::from_secs(10) {
        let open = open_in(process);
        if open > most {
            (most, since) = (open, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    most
}
