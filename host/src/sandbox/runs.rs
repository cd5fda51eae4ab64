//! How many calls of a release compute at the same time in instances that are kept. Where all workers are busy with some, another
//! instance would only take turns with them, in memory that is in no cache: an interpreter has twenty megabytes of it, and its
//! first call costs a hundred later ones. A call that finds none idle waits for the next to be done instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Who has computed for longer is not waited for: a long call would hold up all short ones.
const WORTH_WAITING: Duration = Duration::from_millis(100);

/// The same for the first call of an instance, which has more to do than any other.
const START_WORTH_WAITING: Duration = Duration::from_secs(2);

/// Nobody waits longer: a guest that sleeps may do so for long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of one release.
pub(crate) struct Runs {
    /// The host's workers.
    max: usize,
    under_way: AtomicUsize,
    /// Calls that wait.
    waiting: AtomicUsize,
    changed: Notify,
}

/// A call that computes: until it has ended, waits for something, or takes too long to be waited for.
pub(crate) struct Run {
    runs: Arc<Runs>,
    worth_waiting: Duration,
}

/// A call that waits, counted.
pub(super) struct Waiting<'r> {
    runs: &'r Runs,
    until: Instant,
}

/// Of a call that waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Left,
    Over,
}

impl Runs {
    pub(super) fn new(max: usize) -> Arc<Self> {
        let (under_way, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { max, under_way, waiting, changed: Notify::new() })
    }

    /// A call begins in a sandbox that was idle.
    pub(super) fn begin(self: &Arc<Self>) -> Run {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        Run { runs: Arc::clone(self), worth_waiting: WORTH_WAITING }
    }

    /// A call begins in a new sandbox. None where as many compute as there are workers, and it should wait.
    pub(super) fn begin_another(self: &Arc<Self>, patience: Patience) -> Option<Run> {
        let max = if patience == Patience::Over { usize::MAX } else { self.max };
        let one_more = |under_way| (under_way < max).then_some(under_way + 1);
        self.under_way.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Run { runs: Arc::clone(self), worth_waiting: START_WORTH_WAITING })
    }

    /// To be called before one looks whether one has to wait: what changes after that is told.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting { runs: self, until: Instant::now() + PATIENCE }
    }
}

impl Run {
    /// Whether others should wait for a call that has had so much processor time.
    pub(super) fn is_worth_waiting(&self, cpu: Duration) -> bool {
        cpu <= self.worth_waiting
    }
}

impl Waiting<'_> {
    /// A run is over, and its sandbox, if it is kept, idle; or it was waited for long enough.
    pub(super) async fn changed(&self) -> Patience {
        match tokio::time::timeout_at(self.until, self.runs.changed.notified()).await {
            Ok(()) => Patience::Left,
            Err(_) => Patience::Over,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.runs.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.runs.under_way.fetch_sub(1, Ordering::SeqCst);
        if self.runs.waiting.load(Ordering::SeqCst) > 0 {
            self.runs.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_told_when_a_run_is_over() {
        let runs = Runs::new(1);
        let first = runs.begin_another(Patience::Left).expect("none is under way");
        let waiting = runs.wait();
        assert!(runs.begin_another(Patience::Left).is_none());
        drop(first);
        assert!(waiting.changed().await == Patience::Left);
        // Idle sandboxes are never waited for.
        let others = [runs.begin(), runs.begin()];
        assert!(runs.begin_another(Patience::Left).is_none());
        drop(others);
        assert!(waiting.changed().await == Patience::Left);
        let _another = runs.begin_another(Patience::Left).expect("the others are over");
        assert!(waiting.changed().await == Patience::Over);
        assert!(runs.begin_another(Patience::Over).is_some());
    }
}
