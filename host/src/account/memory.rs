//! Memory of the host's that is in use for a tenant without being its sandboxes': what waits for its clients.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::Account;

/// So much memory of a tenant's; given back when it is dropped, which is when it is free.
pub(crate) struct Memory {
    account: Arc<Account>,
    bytes: u64,
    /// Of that which counts as the tenant's alone.
    small_bytes: u64,
}

/// So much of a tenant's in small amounts does not count in what all tenants have together: the small response that is
/// written at once so touches nothing that others do.
const SMALL_BYTES_MAX: u64 = 64 << 10;
const SMALL_BYTES: u64 = 4 << 10;

impl Account {
    /// Takes memory until what is returned is dropped. None, and nothing taken, if that would be too much.
    pub(crate) fn hold_memory(self: &Arc<Self>, bytes: u64) -> Option<Memory> {
        self.take_memory(bytes).then(|| Memory { account: Arc::clone(self), bytes, small_bytes: 0 })
    }

    /// Takes memory whatever there is, for what is little beside what its call was let in with. Nobody is let in until
    /// it is given back.
    pub(crate) fn owe_memory(self: &Arc<Self>, bytes: u64) -> Memory {
        let account = Arc::clone(self);
        if bytes <= SMALL_BYTES {
            if self.small_memory.fetch_add(bytes, Relaxed) + bytes <= SMALL_BYTES_MAX {
                return Memory { account, bytes: 0, small_bytes: bytes };
            }
            self.small_memory.fetch_sub(bytes, Relaxed);
        }
        self.memory.fetch_add(bytes, SeqCst);
        self.shared_memory.owe(bytes);
        Memory { account, bytes, small_bytes: 0 }
    }
}

impl Memory {
    /// Takes a part out, which is given back by itself: all, if there is no more than that.
    pub(crate) fn split(&mut self, bytes: u64) -> Self {
        let small_bytes = bytes.min(self.small_bytes);
        self.small_bytes -= small_bytes;
        let bytes = (bytes - small_bytes).min(self.bytes);
        self.bytes -= bytes;
        Self { account: Arc::clone(&self.account), bytes, small_bytes }
    }

    /// Puts another one of the same tenant's into this one.
    pub(crate) fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.account, &other.account), "it is another tenant's");
        self.bytes += std::mem::take(&mut other.bytes);
        self.small_bytes += std::mem::take(&mut other.small_bytes);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.account.give_memory(self.bytes);
        }
        if self.small_bytes > 0 {
            self.account.small_memory.fetch_sub(self.small_bytes, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::tests::account;
    use super::*;
    use crate::account::Spent;

    #[test]
    fn room_is_had_until_it_is_dropped_whole_or_in_parts() {
        let account = Arc::new(account(|budget| budget.memory_bytes = 100));
        let mut room = account.hold_memory(70).expect("there is some");
        assert!(account.hold_memory(31).is_none());
        let part = room.split(30);
        assert_eq!(account.memory_bytes(), 70);
        drop(part);
        assert_eq!(account.memory_bytes(), 40);
        room.join(account.hold_memory(60).expect("it is free again"));
        assert!(account.hold_memory(1).is_none());
        drop((room.split(1000), room));
        assert_eq!(account.memory_bytes(), 0);
    }

    #[test]
    fn what_is_owed_is_had_though_there_is_none_and_nobody_is_let_in_meanwhile() {
        let account = Arc::new(account(|budget| budget.memory_bytes = 10_000));
        assert!(account.take_memory(9_999) && account.spent(Instant::now()).is_none());
        let room = account.owe_memory(5_000);
        assert_eq!(account.memory_bytes(), 14_999);
        assert!(matches!(account.spent(Instant::now()), Some((Spent::Memory, _))));
        assert!(account.hold_memory(1).is_none());
        drop(room);
        assert_eq!((account.memory_bytes(), account.spent(Instant::now())), (9_999, None));
    }

    #[test]
    fn little_in_small_amounts_touches_nothing_that_tenants_share_and_more_does() {
        let account = Arc::new(account(|_| ()));
        account.shared_memory.resize(1 << 20);
        let mut small: Vec<_> = (0..16).map(|_| account.owe_memory(SMALL_BYTES)).collect();
        assert_eq!((account.memory_bytes(), account.shared_memory.of_one()), (SMALL_BYTES_MAX, 4 << 20));
        small.extend([account.owe_memory(1), account.owe_memory(SMALL_BYTES + 1)]);
        assert_eq!(account.memory_bytes(), SMALL_BYTES_MAX + SMALL_BYTES + 2);
        assert_eq!(account.shared_memory.of_one(), 4 * ((1 << 20) - SMALL_BYTES - 2));
        let part = small[0].split(100);
        small.remove(0);
        assert_eq!(account.memory_bytes(), SMALL_BYTES_MAX + 102);
        drop((part, small));
        assert_eq!((account.memory_bytes(), account.shared_memory.of_one()), (0, 4 << 20));
    }
}
