//! The harness of the tests: a host as a child process, a client that sees every byte, guests, and waiting with a deadline.
//!
//! It knows the host only as its users do: by its flags and files, its log and what it answers. What goes wrong in the
//! harness itself panics, with words that say what was waited for.

mod bundle;
mod compiled;
mod elsewhere;
mod guests;
mod host;
mod http;
mod log;
mod redis;

pub use bundle::{Bundle, append_section};
pub use elsewhere::Elsewhere;
pub use guests::{component_text, core_module, guest, parse, wat};
pub use host::{Builder, Host, repository, wasgi};
pub use http::{Client, End, Head, Request, Response, TlsStream, tcp};
pub use log::{Event, Log};
pub use redis::Redis;

use std::time::{Duration, Instant};

/// How long anything is waited for. Far more than it takes: only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long compiling a large component is waited for, on a machine that does much else.
pub(crate) const COMPILE_PATIENCE: Duration = Duration::from_secs(600);

/// Asks again and again until there is an answer; panics with `what` where none comes.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
