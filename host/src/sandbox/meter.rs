//! Memory: what all linear memories and tables of one sandbox take together, and with it all sandboxes of the tenant.
//! Processor time is metered in `call`.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use crate::account::Account;
use crate::limits::Limits;

/// What an element of a table costs on the host.
const TABLE_ELEMENT_BYTES: u64 = 8;

/// Adds up a sandbox's memories and tables, and refuses growth beyond the limit, or beyond what the tenant has left.
pub(crate) struct Meter {
    used: Mark,
    memory_bytes_max: u64,
    table_elements_max: u64,
    refused: Option<Refused>,
    account: Arc<Account>,
}

/// What a sandbox has at one moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mark {
    memory_bytes: u64,
    table_elements: u64,
}

/// Why growth was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The sandbox has as much as it may.
    Limit,
    /// The tenant's sandboxes have, together.
    Budget,
}

impl Mark {
    fn bytes(self) -> u64 {
        self.memory_bytes.saturating_add(self.table_elements.saturating_mul(TABLE_ELEMENT_BYTES))
    }
}

impl Meter {
    pub(crate) fn new(limits: &Limits, account: &Arc<Account>) -> Self {
        Self {
            used: Mark::default(),
            memory_bytes_max: limits.memory_bytes,
            table_elements_max: limits.table_elements,
            refused: None,
            account: Arc::clone(account),
        }
    }

    /// Whether growth was ever refused: a trap after that is the memory limit's doing.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// All linear memories together, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.used.memory_bytes
    }

    /// With its tables.
    pub(crate) fn bytes(&self) -> u64 {
        self.used.bytes()
    }

    /// Another call begins: what was refused to an earlier one is no cause of its faults.
    pub(crate) fn begin(&mut self) {
        self.refused = None;
    }

    pub(crate) fn mark(&self) -> Mark {
        self.used
    }

    /// The sandbox has what it had at `mark`, and has given back what came after.
    pub(crate) fn go_back(&mut self, mark: Mark) {
        self.account.give_memory(self.used.bytes().saturating_sub(mark.bytes()));
        self.used = mark;
        self.refused = None;
    }

    fn grow(&mut self, memory_bytes: u64, table_elements: u64) -> bool {
        let grown = Mark {
            memory_bytes: self.used.memory_bytes.saturating_add(memory_bytes),
            table_elements: self.used.table_elements.saturating_add(table_elements),
        };
        if grown.bytes() > self.memory_bytes_max || grown.table_elements > self.table_elements_max {
            self.refused = Some(Refused::Limit);
            return false;
        }
        if !self.account.take_memory(grown.bytes() - self.used.bytes()) {
            self.refused = Some(Refused::Budget);
            return false;
        }
        self.used = grown;
        true
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.account.give_memory(self.used.bytes());
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow((desired - current) as u64, 0))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(0, (desired - current) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(memory_bytes: u64, table_elements: u64) -> Meter {
        Meter::new(&Limits { memory_bytes, table_elements, ..Limits::default() }, &Account::of_nobody())
    }

    #[test]
    fn memories_add_up() {
        let mut meter = meter(100, 10);
        assert!(meter.memory_growing(0, 60, None).unwrap());
        assert!(!meter.memory_growing(0, 60, None).unwrap(), "a second memory must not double the limit (spin#3705)");
        assert_eq!(meter.refused(), Some(Refused::Limit));
        assert!(meter.memory_growing(60, 100, None).unwrap());
    }

    #[test]
    fn what_a_sandbox_has_is_its_tenants_until_it_is_given_back() {
        let account = Account::of_nobody();
        let limits = Limits { memory_bytes: u64::MAX, ..Limits::default() };
        let mut meter = Meter::new(&limits, &account);
        let all = crate::limits::Budget::default().memory_bytes as usize;
        assert!(meter.memory_growing(0, all - 100, None).unwrap());
        let mark = meter.mark();
        let mut other = Meter::new(&limits, &account);
        assert!(!other.memory_growing(0, 101, None).unwrap());
        assert_eq!(other.refused(), Some(Refused::Budget));
        assert!(meter.memory_growing(all - 100, all, None).unwrap());
        assert!(!other.memory_growing(0, 1, None).unwrap());
        meter.go_back(mark);
        assert!(other.memory_growing(0, 100, None).unwrap());
        drop((meter, other));
        assert_eq!(account.memory_bytes(), 0);
    }

    #[test]
    fn tables_count_as_memory() {
        let mut meter = meter(100, 1000);
        assert!(meter.table_growing(0, 12, None).unwrap());
        assert!(!meter.table_growing(0, 1, None).unwrap());
    }

    #[test]
    fn tables_have_a_limit_of_their_own() {
        let mut meter = meter(1 << 20, 10);
        assert!(!meter.table_growing(0, 11, None).unwrap());
    }
}
