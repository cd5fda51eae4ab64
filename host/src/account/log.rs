//! What a tenant's apps log, and what the host logs about their requests: one budget, `log_rate`, for both together.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Account;

#[derive(Debug)]
pub(super) struct Log(Mutex<Buckets>);

#[derive(Debug)]
struct Buckets {
    filled: Instant,
    /// For lines of its apps. What the host says is paid from it as well, whether or not there is something in it.
    lines: f64,
    /// For lines of the host, half as many: no app can log so much that nobody hears of its faults, and nobody who has
    /// its requests refused has the host say so much of it that what apps log is lost.
    reports: f64,
    /// Lines of the host that were left out, and of which nothing was said.
    left_out: u64,
}

/// A line of the host's costs this much besides what clients wrote of it: time, target, names, words.
const REPORT_COST_BYTES: usize = 256;

impl Log {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let full = bytes_per_second as f64;
        Self(Mutex::new(Buckets { filled: Instant::now(), lines: full, reports: full / 2.0, left_out: 0 }))
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With what has come since: `rate` bytes a second, half of it for reports. A bucket holds what comes in one.
    fn filled(&self, rate: f64, now: Instant) -> MutexGuard<'_, Buckets> {
        let mut buckets = self.buckets();
        let more = now.saturating_duration_since(buckets.filled).as_secs_f64() * rate;
        buckets.filled = buckets.filled.max(now);
        buckets.lines = (buckets.lines + more).min(rate);
        buckets.reports = (buckets.reports + more / 2.0).min(rate / 2.0);
        buckets
    }
}

impl Account {
    fn log_rate(&self) -> f64 {
        self.terms().budget.log_bytes_per_second as f64
    }

    /// Whether a line that costs so much may be logged now.
    pub(crate) fn log(&self, cost: usize, now: Instant) -> bool {
        let mut buckets = self.log.filled(self.log_rate(), now);
        // It may go below zero by one line, as an app's own.
        let allowed = buckets.lines > 0.0;
        if allowed {
            buckets.lines -= cost as f64;
        }
        allowed
    }

    /// Whether the host may say something of one of its requests, with so many bytes that clients or guests have chosen. What it may
    /// not is counted, and the number said ([`Account::say_left_out`]).
    pub(crate) fn may_report(&self, bytes: usize, now: Instant) -> bool {
        let mut buckets = self.log.filled(self.log_rate(), now);
        if buckets.reports <= 0.0 {
            buckets.left_out += 1;
            return false;
        }
        let cost = (bytes + REPORT_COST_BYTES) as f64;
        buckets.reports -= cost;
        buckets.lines -= cost;
        true
    }

    /// Says what was left out since this was last asked.
    pub(super) fn say_left_out(&self) {
        let left_out = std::mem::take(&mut self.log.buckets().left_out);
        if left_out > 0 {
            let tenant = self.tenant.as_str();
            tracing::warn!(
                tenant,
                "{left_out} lines about its requests were left out: more than budget.log_rate; the access log has them"
            );
        }
    }

    pub(super) fn has_logged(&self, now: Instant) -> bool {
        let rate = self.log_rate();
        let buckets = self.log.filled(rate, now);
        buckets.lines < rate || buckets.reports < rate / 2.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::account;

    #[test]
    fn what_the_host_says_and_what_apps_say_is_within_one_rate() {
        let account = account(|budget| budget.log_bytes_per_second = 10_000);
        let begin = account.log.buckets().filled;
        let (mut lines, mut reports) = (0, 0);
        for millis in 0..10_000 {
            let now = begin + Duration::from_millis(millis);
            reports += u64::from(account.may_report(744, now));
            lines += u64::from(account.log(1000, now));
        }
        assert!((50..=56).contains(&reports), "{reports} of a thousand bytes in ten seconds of five thousand");
        assert!((50..=62).contains(&lines), "{lines} lines beside {reports} reports");
        assert_eq!(account.log.buckets().left_out, 10_000 - reports);
    }

    #[test]
    fn no_app_logs_so_much_that_nobody_hears_of_its_faults() {
        let account = account(|budget| budget.log_bytes_per_second = 1000);
        let now = account.log.buckets().filled;
        while account.log(100, now) {}
        assert!(account.may_report(0, now));
        // Who logs nothing has nothing that is not forgotten after a while.
        assert!(account.has_logged(now) && !account.has_logged(now + Duration::from_secs(3)));
    }
}
