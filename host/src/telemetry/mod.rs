//! Logs, access log, counters. It observes; it never steers control flow: nothing here fails towards a request.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

mod access_log;
mod app_log;
mod stats;
mod tail;
mod writer;

#[cfg(test)]
pub(crate) use access_log::access_lines;
pub use access_log::{AccessLog, AccessRecord};
pub use app_log::{AppLog, LineBuffer, LogStream, is_unprintable, printable};
pub use stats::{Snapshot, Stats, prometheus};
pub use writer::LogGuard;

/// Before the operator's own directives, of which one for the same target prevails. The crate h2 warns of clients that break the
/// rules of HTTP/2: any client could fill the log with that.
const QUIET: &str = "h2=error";

/// Sends the events of `tracing` to stderr, as text or as one JSON object a line. Called once, by the binary, which keeps what
/// it gets until it ends.
///
/// # Errors
/// Where the filter does not parse, or there is a subscriber already.
pub fn init(config: &LogConfig) -> anyhow::Result<LogGuard> {
    let filter = EnvFilter::builder().parse(format!("{QUIET},{}", config.filter))?;
    let (writer, guard) = writer::LogWriter::start(std::io::stderr())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = if config.json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        // Colours are for people: into a file or a pipe they would be rubbish.
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_ansi(ansi).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("the log could not be started: {error}"))?;
    Ok(guard)
}

/// The number of one request: in the page that a visitor sees, in the access log and in every line of the log about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// A number that no other request of this process has, and that tells nothing about how many there were.
    pub fn next() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Whoever knew the key could count the requests of others by their own numbers.
        static KEY: LazyLock<[u64; 2]> = LazyLock::new(|| [random(), random()]);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(mix(mix(count ^ KEY[0]) ^ KEY[1]))
    }

    /// As it is written: sixteen hexadecimal digits.
    fn digits(self) -> [u8; 16] {
        // Formatting a number takes ten times as long, and each request has its own written several times.
        std::array::from_fn(|place| b"0123456789abcdef"[(self.0 >> (60 - 4 * place)) as usize & 0xf])
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).expect("digits are text"))
    }
}

/// The standard library seeds each `RandomState` from the operating system.
fn random() -> u64 {
    RandomState::new().hash_one(0_u64)
}

/// The finaliser of SplitMix64: a bijection, so that different counts stay different.
fn mix(mut value: u64) -> u64 {
    value ^= value >> 30;
    value = value.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value ^= value >> 27;
    value = value.wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_unique_and_sixteen_hex_digits() {
        let ids: std::collections::HashSet<RequestId> = (0..100_000).map(|_| RequestId::next()).collect();
        assert_eq!(ids.len(), 100_000);
        assert!(ids.iter().all(|id| id.to_string() == format!("{:016x}", id.0)));
    }

    #[test]
    fn neighbouring_request_ids_differ_in_many_bits() {
        let differing: u32 = (0..1000).map(|_| (RequestId::next().0 ^ RequestId::next().0).count_ones()).sum();
        assert!((28_000..36_000).contains(&differing), "{differing}");
    }
}
