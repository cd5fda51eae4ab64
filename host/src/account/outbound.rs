//! What a tenant's apps send elsewhere and get from there in a second, and the connections that they have open for
//! that.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{Account, SECOND};

#[derive(Default)]
pub(super) struct Rate {
    /// Up to when what went and came is within the rate, in nanoseconds since the account was made.
    until: AtomicU64,
}

/// Connections that are open. How many may be is said when one is taken: what is open counts on when that changes.
#[derive(Default)]
pub(crate) struct Tally(AtomicU32);

/// One of them, until it is dropped.
pub(crate) struct Tallied(Arc<Tally>);

impl Tally {
    pub(crate) fn take(self: &Arc<Self>, max: u32) -> Option<Tallied> {
        let more = |open| (open < max).then_some(open + 1);
        self.0.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Tallied(Arc::clone(self)))
    }
}

impl Drop for Tallied {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

impl Account {
    /// Those of all its apps.
    pub(crate) fn connections(&self) -> &Arc<Tally> {
        &self.connections
    }

    /// Those of one app: of all its releases, as long as there is anything of one, live or not.
    pub(crate) fn connections_of(&self, app: &str) -> Arc<Tally> {
        let mut apps = self.connections_by_app.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tally) = apps.get(app).and_then(Weak::upgrade) {
            return tally;
        }
        apps.retain(|_, tally| tally.strong_count() > 0);
        let tally = Arc::default();
        apps.insert(app.to_owned(), Arc::downgrade(&tally));
        tally
    }

    /// Counts bytes that have gone to elsewhere, or come from there.
    pub(crate) fn count_outbound(&self, bytes: usize, now: Instant) {
        let rate = self.terms().budget.outbound_bytes_per_second.max(1);
        let time = u128::from(SECOND) * bytes as u128 / u128::from(rate);
        let (time, now) = (u64::try_from(time).unwrap_or(u64::MAX), self.now(now));
        let later = |until: u64| Some(until.max(now).saturating_add(time));
        let _ = self.outbound.until.fetch_update(Relaxed, Relaxed, later);
    }

    /// Whether something that went or came is not forgotten yet.
    pub(super) fn has_moved_bytes(&self, now: Instant) -> bool {
        self.outbound.until.load(Relaxed) > self.now(now)
    }

    /// How long until more may go, or come: what is worth a second may be together.
    pub(crate) fn outbound_pause(&self, now: Instant) -> Option<Duration> {
        let ahead = self.outbound.until.load(Relaxed).saturating_sub(self.now(now));
        ahead.checked_sub(SECOND).filter(|pause| *pause > 0).map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::account;
    use super::*;

    #[test]
    fn what_goes_out_and_comes_back_has_its_rate_beyond_a_seconds_worth() {
        let account = account(|budget| budget.outbound_bytes_per_second = 1000);
        let after = |ms: u64| account.made + Duration::from_millis(ms);
        account.count_outbound(1000, after(0));
        assert_eq!(account.outbound_pause(after(0)), None);
        account.count_outbound(500, after(0));
        assert_eq!(account.outbound_pause(after(0)), Some(Duration::from_millis(500)));
        assert_eq!(account.outbound_pause(after(400)), Some(Duration::from_millis(100)));
        assert_eq!(account.outbound_pause(after(500)), None);
    }
}
