//! Memory: what all linear memories and tables of one sandbox take together. Processor time is metered in `call`.

use wasmtime::ResourceLimiter;

use crate::limits::Limits;

/// What an element of a table costs on the host.
const TABLE_ELEMENT_BYTES: u64 = 8;

/// Adds up a sandbox's memories and tables, and refuses growth beyond the limit.
#[derive(Clone)]
pub(crate) struct Meter {
    memory_bytes: u64,
    memory_bytes_max: u64,
    table_elements: u64,
    table_elements_max: u64,
    refused: bool,
}

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_bytes: 0,
            memory_bytes_max: limits.memory_bytes,
            table_elements: 0,
            table_elements_max: limits.table_elements,
            refused: false,
        }
    }

    /// Whether growth was ever refused: a trap after that is the memory limit's doing.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    /// All linear memories together, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Another call begins: what was refused to an earlier one is no cause of its faults.
    pub(crate) fn begin(&mut self) {
        self.refused = false;
    }

    fn grow(&mut self, memory_bytes: u64, table_elements: u64) -> bool {
        let memory_bytes = self.memory_bytes.saturating_add(memory_bytes);
        let table_elements = self.table_elements.saturating_add(table_elements);
        let bytes = memory_bytes.saturating_add(table_elements.saturating_mul(TABLE_ELEMENT_BYTES));
        if bytes > self.memory_bytes_max || table_elements > self.table_elements_max {
            self.refused = true;
            return false;
        }
        self.memory_bytes = memory_bytes;
        self.table_elements = table_elements;
        true
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
        Meter::new(&Limits { memory_bytes, table_elements, ..Limits::default() })
    }

    #[test]
    fn memories_add_up() {
        let mut meter = meter(100, 10);
        assert!(meter.memory_growing(0, 60, None).unwrap());
        assert!(!meter.memory_growing(0, 60, None).unwrap(), "a second memory must not double the limit (spin#3705)");
        assert!(meter.refused());
        assert!(meter.memory_growing(60, 100, None).unwrap());
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
