//! What a tenant's apps send elsewhere and get from there in a second.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Account, SECOND};

#[derive(Default)]
pub(super) struct Rate {
    /// Up to when what went and came is within the rate, in nanoseconds since the account was made.
    until: AtomicU64,
}

impl Account {
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
