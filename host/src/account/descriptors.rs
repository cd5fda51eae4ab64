//! What a tenant's guests have the host keep open: files and folders, sockets, connections to elsewhere, what is spooled for them and what
//! is sent of their bundles. Each is a descriptor of the process, of which there are only so many for all tenants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Account, nanos};

/// A tenant that is refused is named in the log no more often than this.
const SAID_EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Descriptors {
    taken: AtomicU64,
    refused: AtomicU64,
    /// When that was last said, in nanoseconds since the account was made; plus one, so that zero is never.
    said: AtomicU64,
}

/// The right to so many descriptors; given back when it is dropped, which is when they are closed.
pub(crate) struct Held {
    account: Arc<Account>,
    count: u64,
}

impl Account {
    /// What is open for its guests.
    pub fn descriptors(&self) -> u64 {
        self.descriptors.taken.load(Relaxed)
    }

    /// How often it was refused some since the host started.
    pub fn descriptors_refused(&self) -> u64 {
        self.descriptors.refused.load(Relaxed)
    }

    /// Takes the right to open so many. None, and nothing taken, if that would be too much: the operator is told.
    pub(crate) fn take_descriptors(self: &Arc<Self>, count: u64) -> Option<Held> {
        let max = self.terms().budget.descriptors;
        let taken = self.shared_descriptors.take(count, &self.descriptors.taken, max);
        if !taken {
            self.say_refused(max, Instant::now());
        }
        taken.then(|| Held { account: Arc::clone(self), count })
    }

    fn say_refused(&self, max: u64, now: Instant) {
        let refused = self.descriptors.refused.fetch_add(1, Relaxed) + 1;
        let (said, now) = (self.descriptors.said.load(Relaxed), self.now(now) + 1);
        if (said == 0 || now.saturating_sub(said) >= nanos(SAID_EVERY))
            && self.descriptors.said.compare_exchange(said, now, Relaxed, Relaxed).is_ok()
        {
            let (tenant, open) = (self.tenant.as_str(), self.descriptors());
            tracing::warn!(
                tenant,
                "its guests have {open} files and connections open and are refused more ({refused} times so far): \
                 budget.descriptors = {max}, or its part of what this process may have (LimitNOFILE)"
            );
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.descriptors.taken.fetch_sub(self.count, Relaxed);
        self.account.shared_descriptors.give(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::account;
    use super::*;

    #[test]
    fn descriptors_are_had_until_they_are_closed_and_no_more_than_may_be() {
        let account = Arc::new(account(|budget| budget.descriptors = 3));
        let (one, two) = (account.take_descriptors(1), account.take_descriptors(2));
        assert!(one.is_some() && two.is_some() && account.descriptors() == 3);
        assert!(account.take_descriptors(1).is_none());
        assert_eq!((account.descriptors(), account.descriptors_refused()), (3, 1));
        drop(two);
        assert_eq!(account.descriptors(), 1);
        assert!(account.take_descriptors(2).is_some());
        // None at all costs nothing, whatever there is.
        let _rest = account.take_descriptors(2);
        assert!(account.take_descriptors(0).is_some());
    }

    #[test]
    fn a_tenant_leaves_something_to_others_whatever_its_budget_says() {
        let account = Arc::new(account(|budget| budget.descriptors = u64::MAX));
        account.shared_descriptors.resize(100);
        let held: Vec<_> = std::iter::from_fn(|| account.take_descriptors(1)).collect();
        assert_eq!(held.len(), 80);
    }
}
