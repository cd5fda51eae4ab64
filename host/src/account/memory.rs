//! Memory of the host's that is in use for a tenant without being its sandboxes': what waits for its clients.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::Account;

/// So much memory of a tenant's; given back when it is dropped, which is when it is free.
pub(crate) struct Memory {
    account: Arc<Account>,
    bytes: u64,
}

impl Account {
    /// Takes memory until what is returned is dropped. None, and nothing taken, if that would be too much.
    pub(crate) fn hold_memory(self: &Arc<Self>, bytes: u64) -> Option<Memory> {
        self.take_memory(bytes).then(|| Memory { account: Arc::clone(self), bytes })
    }

    /// Takes memory whatever there is, for what is little beside what its call was let in with. Nobody is let in until it is given back.
    pub(crate) fn owe_memory(self: &Arc<Self>, bytes: u64) -> Memory {
        self.memory.fetch_add(bytes, SeqCst);
        self.shared_memory.owe(bytes);
        Memory { account: Arc::clone(self), bytes }
    }
}

impl Memory {
    /// Takes a part out, which is given back by itself: all, if there is no more than that.
    pub(crate) fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { account: Arc::clone(&self.account), bytes }
    }

    /// Puts another one of the same tenant's into this one.
    pub(crate) fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.account, &other.account), "it is another tenant's");
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.account.give_memory(self.bytes);
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
}
