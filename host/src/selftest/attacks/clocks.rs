//! Measuring finer than the operator lets anybody, by every clock that there is.

use std::time::Duration;

use super::kept::answer;
use super::reach::program;
use super::{Attack, Outcome, Unstopped};
use crate::selftest::guests::Source;
use crate::selftest::stand::Stand;

pub(super) fn attacks() -> Vec<Attack> {
    vec![Attack::hand("clock-in-steps", "moments that the clock should not tell apart", clock_in_steps)]
}

/// Where the operator's clocks are finer, the attacker's sidecar makes its own so coarse: that it is kept to is what is tried.
const COARSE: Duration = Duration::from_millis(20);

fn clock_in_steps(stand: &mut Stand) -> Outcome {
    let config = &stand.config;
    let resolution = config.limits.clock_resolution.max(COARSE);
    // Each clock is looked at for three steps at least.
    if config.limits.cpu_time < 12 * resolution {
        let resolution = humantime::format_duration(resolution);
        return Err(Unstopped::NotTried(format!(
            "limits.cpu_time is over before clocks of {resolution} have moved often"
        )));
    }
    let clocks = match config.tenant_of(KEEPER_APP).grants.wall_clock.contain("clock-in-steps") {
        true => "(i32.or (call $fine (i32.const 0)) (call $fine (i32.const 1)))",
        false => "(call $fine (i32.const 1))",
    };
    let sidecar = format!("[limits]\nclock_resolution = \"{}ns\"\n", resolution.as_nanos());
    let what = format!("nothing is told apart within {resolution:?}");
    answer(stand, "clock-in-steps", &Source::Cgi(measuring(resolution, clocks)), &sidecar, &what, &[])
}

/// Whether it may know what time it is.
const KEEPER_APP: &str = "selftest-keeper/clock-in-steps";

/// A program that looks for two moments which are nearer to each other: by the wall clock, the monotonic clock, and by timers that it
/// counts. A clock that does not move at all shows nothing.
fn measuring(resolution: Duration, clocks: &str) -> String {
    let imports = r#"(import "wasi_snapshot_preview1" "clock_time_get"
          (func $clock_time_get (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#;
    let nanos = resolution.as_nanos();
    let two_steps = 2 * nanos;
    let data = format!(
        r#"(func $now (param $clock i32) (result i64)
          (drop (call $clock_time_get (local.get $clock) (i64.const 1) (i32.const 3000)))
          (i64.load (i32.const 3000)))
        ;; The next moment that differs. Who looks for too long is stopped by the host, and has shown nothing.
        (func $next (param $clock i32) (result i64) (local $before i64) (local $now i64)
          (local.set $before (call $now (local.get $clock)))
          (loop
            (local.set $now (call $now (local.get $clock)))
            (br_if 0 (i64.eq (local.get $now) (local.get $before))))
          (local.get $now))
        ;; Whether two that follow on each other are too near.
        (func $fine (param $clock i32) (result i32) (local $one i64) (local $other i64)
          (local.set $one (call $next (local.get $clock)))
          (local.set $other (call $next (local.get $clock)))
          (i64.lt_u (i64.sub (local.get $other) (local.get $one)) (i64.const {nanos})))
        ;; A millisecond, by the monotonic clock.
        (func $sleep
          (i32.store (i32.const 3116) (i32.const 1))
          (i64.store (i32.const 3124) (i64.const 1000000))
          (drop (call $poll (i32.const 3100) (i32.const 3200) (i32.const 1) (i32.const 3300))))
        ;; Whether two of them, the first from where the clock has moved on, take less than two steps.
        (func $counts (result i32) (local $begin i64)
          (call $sleep)
          (local.set $begin (call $now (i32.const 1)))
          (call $sleep) (call $sleep)
          (i64.lt_u (i64.sub (call $now (i32.const 1)) (local.get $begin)) (i64.const {two_steps})))"#
    );
    program(imports, &data, &format!("(i32.or {clocks} (call $counts))"))
}
