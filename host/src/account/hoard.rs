//! The memory of all sandboxes together, and how much of it one tenant may have.
//!
//! A tenant may have [`PART`] times what is left. So one alone has four fifths of the whole; of two that want everything each has four
//! ninths; and however many there are, something is left for those that want little. Nothing has to be set aside for anybody, and no
//! tenant need be known before it comes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PART: u64 = 4;

pub(super) struct Hoard {
    max: AtomicU64,
    taken: AtomicU64,
}

impl Hoard {
    pub(super) fn new(max: u64) -> Self {
        Self { max: AtomicU64::new(max), taken: AtomicU64::new(0) }
    }

    /// There is more of it from now on, or less.
    pub(super) fn resize(&self, max: u64) {
        self.max.store(max, Relaxed);
    }

    /// What a tenant may have now.
    pub(super) fn of_one(&self) -> u64 {
        self.max.load(Relaxed).saturating_sub(self.taken.load(Relaxed)).saturating_mul(PART)
    }

    /// Takes some. What the tenant may have then.
    pub(super) fn take(&self, bytes: u64) -> u64 {
        let taken = self.taken.fetch_add(bytes, Relaxed).saturating_add(bytes);
        self.max.load(Relaxed).saturating_sub(taken).saturating_mul(PART)
    }

    pub(super) fn give(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tenants that take 1 as long as they may: what each has then.
    fn greedy(hoard: &Hoard, tenants: usize) -> Vec<u64> {
        let mut own = vec![0; tenants];
        loop {
            let mut has_grown = false;
            for own in &mut own {
                if hoard.take(1) > *own {
                    *own += 1;
                    has_grown = true;
                } else {
                    hoard.give(1);
                }
            }
            if !has_grown {
                return own;
            }
        }
    }

    #[test]
    fn one_alone_has_most_and_many_leave_something_to_the_next() {
        for (tenants, each) in [(1, 800), (2, 444), (4, 235), (100, 9)] {
            let hoard = Hoard::new(1000);
            let own = greedy(&hoard, tenants);
            assert!(own.iter().all(|own| own.abs_diff(each) <= 4), "{tenants} tenants have {own:?}");
            assert!(hoard.of_one() > 0, "nothing is left beside {tenants}");
        }
    }
}
