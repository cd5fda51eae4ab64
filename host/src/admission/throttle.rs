//! An app that only ever fails is asked less and less often, as uWSGI does with vassals that are not loyal: each failure costs the
//! host a sandbox, a line of the log, and maybe much time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The failures of one release since it last answered. It answers when a call of it ends without a fault of its own.
pub struct Throttle {
    made: Instant,
    faults: AtomicU32,
    /// Until when nothing is asked of it, in nanoseconds since it was made.
    until: AtomicU64,
}

/// The first pause; each one after it is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(1);

impl Default for Throttle {
    fn default() -> Self {
        Self { made: Instant::now(), faults: AtomicU32::new(0), until: AtomicU64::new(0) }
    }
}

impl Throttle {
    /// How long it is still to be left alone, if it is.
    pub fn pause(&self) -> Option<Duration> {
        let until = self.until.load(Relaxed);
        // The usual case does not look at the clock.
        if until == 0 {
            return None;
        }
        let left = Duration::from_nanos(until).saturating_sub(self.made.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// It has answered.
    pub(crate) fn answered(&self) {
        if self.faults.load(Relaxed) != 0 {
            self.faults.store(0, Relaxed);
            self.until.store(0, Relaxed);
        }
    }

    /// It has failed. From `faults_max` times on without an answer between there is a pause, of `pause_max` at most. Says how long, if
    /// it begins now.
    pub(crate) fn failed(&self, faults_max: u32, pause_max: Duration) -> Option<Duration> {
        if self.pause().is_some() {
            // It was asked before.
            return None;
        }
        let faults = self.faults.fetch_add(1, Relaxed).saturating_add(1);
        let doublings = faults.checked_sub(faults_max)?;
        let pause = PAUSE_MIN.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(pause_max);
        let until = u64::try_from((self.made.elapsed() + pause).as_nanos()).unwrap_or(u64::MAX);
        self.until.store(until, Relaxed);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_end_with_an_answer() {
        let throttle = Throttle::default();
        let fail = || throttle.failed(3, Duration::from_secs(5)).map(|pause| pause.as_secs());
        assert_eq!([fail(), fail()], [None, None]);
        assert_eq!(fail(), Some(1));
        assert!(throttle.pause().is_some());
        // Calls that were under way when the pause began do not make it longer.
        assert_eq!(fail(), None);
        for expected in [2, 4, 5, 5] {
            throttle.until.store(1, Relaxed);
            assert_eq!(throttle.pause(), None, "it is asked again");
            assert_eq!(fail(), Some(expected));
        }
        throttle.answered();
        assert_eq!((throttle.pause(), fail()), (None, None));
    }
}
