//! The processor time of a tenant's guests: charged while they are polled, forgotten at the rate at which it may use some.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Account, nanos};
use crate::limits::Budget;

/// Processor time that was used and not yet forgotten: it is, at the rate at which the tenant may use some.
#[derive(Default)]
pub(super) struct Cpu {
    used: AtomicU64,
    /// Up to when it was forgotten, in nanoseconds since the account was made.
    forgotten: AtomicU64,
}

/// Processor time is forgotten in steps, so that asking for it is mostly reading.
const FORGET_STEP: Duration = Duration::from_millis(1);

impl Account {
    /// Charges processor time.
    pub(crate) fn charge_cpu(&self, time: Duration) {
        self.cpu.used.fetch_add(nanos(time), Relaxed);
        self.load.charge(time);
    }

    /// Whether its calls take much of the workers' time in long pieces, while others ask as well.
    pub(crate) fn is_heavy(&self) -> bool {
        self.load.is_heavy()
    }

    /// How long until it may use processor time again, if it has used too much.
    pub(crate) fn cpu_debt(&self, now: Instant) -> Option<Duration> {
        self.debt(&self.terms().budget, now)
    }

    /// Whether some of what it has used is not forgotten yet.
    pub(super) fn has_used_cpu(&self, now: Instant) -> bool {
        self.forget(&self.terms().budget, now);
        self.cpu.used.load(Relaxed) > 0
    }

    /// Forgets what may be by now. Says what time that was for, in nanoseconds, where it was time for it and nobody else has done it.
    fn forget(&self, budget: &Budget, now: Instant) -> Option<u64> {
        let (cap, window) = (nanos(budget.cpu_time), nanos(budget.cpu_window).max(1));
        let now = self.now(now);
        let forgotten = self.cpu.forgotten.load(Relaxed);
        let step = now.saturating_sub(forgotten);
        let is_mine =
            step >= nanos(FORGET_STEP) && self.cpu.forgotten.compare_exchange(forgotten, now, Relaxed, Relaxed).is_ok();
        if !is_mine {
            return None;
        }
        let credit = u64::try_from(u128::from(step) * u128::from(cap) / u128::from(window)).unwrap_or(u64::MAX);
        let less = |used: u64| Some(used.saturating_sub(credit));
        let _ = self.cpu.used.fetch_update(Relaxed, Relaxed, less);
        Some(step)
    }

    pub(super) fn debt(&self, budget: &Budget, now: Instant) -> Option<Duration> {
        if let Some(step) = self.forget(budget, now) {
            // Once a millisecond somebody comes by here: on the way they look at this, too.
            self.load.look(step, self.company.is_alone(self.number, now));
        }
        let (cap, window) = (nanos(budget.cpu_time), nanos(budget.cpu_window).max(1));
        let debt = self.cpu.used.load(Relaxed).checked_sub(cap).filter(|debt| *debt > 0)?;
        let time = u128::from(debt) * u128::from(window) / u128::from(cap.max(1));
        Some(Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX)).max(FORGET_STEP))
    }

    /// Waits until it may use processor time: guests that run wait here, at a tick.
    pub(crate) async fn solvent(self: Arc<Self>) {
        while let Some(time) = self.cpu_debt(Instant::now()) {
            tokio::time::sleep(time).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::account;
    use super::*;

    #[test]
    fn processor_time_is_forgotten_at_the_rate_that_is_allowed() {
        let account = account(|budget| {
            budget.cpu_time = Duration::from_secs(2);
            budget.cpu_window = Duration::from_secs(10);
        });
        let after = |ms: u64| account.made + Duration::from_millis(ms);
        account.charge_cpu(Duration::from_secs(2));
        assert_eq!(account.cpu_debt(after(0)), None);
        account.charge_cpu(Duration::from_secs(1));
        // A second of debt, at a fifth of a second for each second.
        assert_eq!(account.cpu_debt(after(0)), Some(Duration::from_secs(5)));
        assert_eq!(account.cpu_debt(after(2500)), Some(Duration::from_millis(2500)));
        assert_eq!(account.cpu_debt(after(5000)), None);
        assert_eq!(account.spent(after(5000)), None);
    }
}
