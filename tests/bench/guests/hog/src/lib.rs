//! What a bad neighbour does, by the path: each for as long as no limit stops it, so that it is answered and asked again.

use std::hint::black_box;
use std::time::{Duration, Instant};

use wasgi::{Body, Environ, StartResponse};

/// Below `memory` of the host's default limits.
const MEMORY_BYTES: usize = 100 << 20;

#[wasgi::application]
fn app(environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
    start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
    match environ.get("PATH_INFO").as_deref() {
        // Processor time, in calls that take long, and in calls that are over before anybody interferes.
        Some("/loop") => compute(Duration::from_secs(2)),
        Some("/burst") => compute(Duration::from_micros(1500)),
        // Filled by a single instruction, which nothing interrupts.
        Some("/memory") => drop(black_box(vec![1_u8; MEMORY_BYTES])),
        Some("/log") => {
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(1) {
                eprintln!("{}", "all work and no play makes a dull neighbour ".repeat(20));
            }
        }
        Some("/body") => {
            let mut input = environ.input();
            while !input.read_block(64 << 10)?.is_empty() {}
        }
        _ => {}
    }
    Ok(Body::from("done"))
}

/// By the wall's clock: whoever gets no processor does not compute for longer.
fn compute(time: Duration) {
    let began = Instant::now();
    let mut number = 1_u64;
    while began.elapsed() < time {
        for _ in 0..10_000 {
            number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}
