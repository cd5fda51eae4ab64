//! What a tenant's apps keep: data and key-value stores, which have one budget. `data` and `keyvalue` ask before they write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Account;

/// What its apps keep.
#[derive(Default)]
pub(super) struct Disk {
    /// In directories for data, in bytes.
    bytes: AtomicU64,
    /// Files, folders and links in them.
    names: AtomicU64,
    /// In key-value stores of this machine, in bytes.
    stores: AtomicU64,
}

impl Account {
    /// What its apps keep, in bytes, as far as they are live.
    pub fn disk_bytes(&self) -> u64 {
        self.disk.bytes.load(Relaxed).saturating_add(self.disk.stores.load(Relaxed))
    }

    /// Files, folders and links that its apps keep.
    pub fn disk_names(&self) -> u64 {
        self.disk.names.load(Relaxed)
    }

    /// Takes room on the disk. False, and nothing taken, if that would be too much.
    pub(crate) fn take_disk(&self, bytes: u64, names: u64) -> bool {
        let terms = self.terms();
        let bytes_max = terms.budget.disk_bytes.saturating_sub(self.disk.stores.load(Relaxed));
        let take = |of: &AtomicU64, more: u64, max: u64| {
            let taken = |used: u64| used.checked_add(more).filter(|used| more == 0 || *used <= max);
            of.fetch_update(Relaxed, Relaxed, taken).is_ok()
        };
        if !take(&self.disk.bytes, bytes, bytes_max) {
            return false;
        }
        let fits = take(&self.disk.names, names, terms.budget.disk_names);
        if !fits {
            self.disk.bytes.fetch_sub(bytes, Relaxed);
        }
        fits
    }

    /// Something takes another room (bytes and names) than it did: so it is, whether it may or not.
    pub(crate) fn change_disk(&self, before: (u64, u64), after: (u64, u64)) {
        let change = |of: &AtomicU64, before: u64, after: u64| {
            let changed = |used: u64| Some(used.saturating_sub(before).saturating_add(after));
            let _ = of.fetch_update(Relaxed, Relaxed, changed);
        };
        change(&self.disk.bytes, before.0, after.0);
        change(&self.disk.names, before.1, after.1);
    }

    /// Whether its key-value stores may hold so many bytes together.
    pub(crate) fn may_store(&self, bytes: u64) -> bool {
        self.disk.bytes.load(Relaxed).saturating_add(bytes) <= self.terms().budget.disk_bytes
    }

    /// Its key-value stores hold so many bytes together.
    pub(crate) fn set_stored(&self, bytes: u64) {
        self.disk.stores.store(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::account;

    #[test]
    fn room_on_the_disk_is_one_for_data_and_stores() {
        let account = account(|budget| {
            budget.disk_bytes = 100;
            budget.disk_names = 2;
        });
        assert!(account.take_disk(60, 1) && !account.take_disk(60, 1) && account.take_disk(0, 1));
        assert!(!account.take_disk(1, 1), "no name is left");
        assert!(account.may_store(40) && !account.may_store(41));
        account.set_stored(40);
        assert_eq!((account.disk_bytes(), account.disk_names()), (100, 2));
        assert!(!account.take_disk(1, 0));
        account.change_disk((60, 2), (50, 1));
        assert!(account.take_disk(10, 1) && account.take_disk(0, 0));
    }
}
