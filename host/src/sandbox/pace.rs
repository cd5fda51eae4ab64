//! Whether this worker's guests compute for long: then whoever is ready to say something should not queue behind them once more.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A call that has had more than this is a long one.
pub(crate) const LONG: Duration = Duration::from_millis(2);

/// How long a worker counts as crowded after a long call was last seen on it.
const CROWDED: Duration = Duration::from_millis(100);

thread_local! {
    static LONG_CALL_SEEN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A call that has had more than [`LONG`] runs on this worker.
pub(crate) fn long_call_runs() {
    LONG_CALL_SEEN.set(Some(Instant::now()));
}

/// Whether one has, a moment ago.
pub(crate) fn is_crowded() -> bool {
    LONG_CALL_SEEN.get().is_some_and(|seen| {
        let crowded = seen.elapsed() < CROWDED;
        if !crowded {
            LONG_CALL_SEEN.set(None);
        }
        crowded
    })
}
