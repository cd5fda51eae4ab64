//! Time and chance by WASI 0.3 itself; the standard library asks 0.2 for them.

use wasip3::clocks::{monotonic_clock, system_clock};
use wasip3::random::{insecure_seed, random};

pub(crate) async fn run(words: &str) -> String {
    match words {
        "time" => {
            let now = system_clock::now();
            (i128::from(now.seconds) * 1_000_000_000 + i128::from(now.nanoseconds)).to_string()
        }
        "step" => {
            let before = monotonic_clock::now();
            let mut now = before;
            while now == before {
                now = monotonic_clock::now();
            }
            let begin = now;
            while now == begin {
                now = monotonic_clock::now();
            }
            (now - begin).to_string()
        }
        "timers:3" => {
            let began = monotonic_clock::now();
            for _ in 0..2 {
                monotonic_clock::wait_for(1_000_000).await;
            }
            monotonic_clock::wait_until(monotonic_clock::now() + 1_000_000).await;
            (monotonic_clock::now() - began).to_string()
        }
        "random" => format!("{:x?}", random::get_random_bytes(8)),
        "seed" => format!("{:x?}", insecure_seed::get_insecure_seed()),
        words => panic!("no {words}"),
    }
}
