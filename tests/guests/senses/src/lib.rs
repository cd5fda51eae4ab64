//! What a guest of any kind notices of time and chance, by a word: `time`, `step`, `timers:3`.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

unsafe extern "C" {
    fn getentropy(buffer: *mut u8, length: usize) -> i32;
}

/// Numbers are nanoseconds.
pub fn run(words: &str) -> String {
    let (verb, argument) = words.split_once(':').unwrap_or((words, ""));
    match verb {
        "time" => since_1970(SystemTime::now()),
        "step" => step().as_nanos().to_string(),
        "timers" => timers(argument.parse().expect("it is a number")),
        "file" => {
            fs::write(argument, "new").expect("it can be written");
            since_1970(fs::metadata(argument).and_then(|metadata| metadata.modified()).expect("it is there"))
        }
        "random" => format!("{:x?}", random()),
        "seed" => format!("{:x}", RandomState::new().hash_one(0)),
        verb => panic!("no verb {verb}"),
    }
}

fn since_1970(time: SystemTime) -> String {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("it is later").as_nanos().to_string()
}

/// The shortest of a few steps in which the clock moves on.
fn step() -> Duration {
    let mut shortest = Duration::MAX;
    let mut before = Instant::now();
    for _ in 0..3 {
        let mut now = before;
        while now == before {
            now = Instant::now();
        }
        shortest = shortest.min(now - before);
        before = now;
    }
    shortest
}

/// How long so many timers take that are set for a moment.
fn timers(count: u32) -> String {
    let began = Instant::now();
    for _ in 0..count {
        sleep(Duration::from_millis(1));
    }
    began.elapsed().as_nanos().to_string()
}

fn random() -> [u8; 8] {
    let mut bytes = [0; 8];
    // SAFETY: so many bytes are there to be written to.
    let done = unsafe { getentropy(bytes.as_mut_ptr(), bytes.len()) };
    assert_eq!(done, 0, "there is randomness");
    bytes
}
