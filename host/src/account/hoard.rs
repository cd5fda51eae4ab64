//! What all tenants have together (the memory of sandboxes, descriptors), and how much of it one of them may have.
//!
//! A tenant may have [`PART`] times what is left. So one alone has four fifths of the whole; of two that want everything each has four
//! ninths; and however many there are, something is left for those that want little. Nothing has to be set aside for anybody, and no
//! tenant need be known before it comes.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

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

    /// Takes some for a tenant, which has `own` and may have `own_max`. False, and nothing taken, if that would be too much.
    ///
    /// The tenant's own is counted first, and read again with each try at the whole: so whoever takes sees all that was taken
    /// before, whatever others do meanwhile, and nobody ever has more than its part of what is left at that moment. Two calls of one
    /// tenant at the same moment may both be refused where there was room for one.
    pub(super) fn take(&self, amount: u64, own: &AtomicU64, own_max: u64) -> bool {
        let more = |own: u64| own.checked_add(amount).filter(|own| *own <= own_max || amount == 0);
        if own.fetch_update(SeqCst, SeqCst, more).is_err() {
            return false;
        }
        let more = |taken: u64| {
            let taken = taken.checked_add(amount)?;
            let left = self.max.load(Relaxed).checked_sub(taken)?;
            (amount == 0 || own.load(SeqCst) <= left.saturating_mul(PART)).then_some(taken)
        };
        let is_taken = amount == 0 || self.taken.fetch_update(SeqCst, SeqCst, more).is_ok();
        if !is_taken {
            own.fetch_sub(amount, SeqCst);
        }
        is_taken
    }

    /// Takes some that there may not be: nobody takes more until there is.
    pub(super) fn owe(&self, amount: u64) {
        self.taken.fetch_add(amount, SeqCst);
    }

    pub(super) fn give(&self, amount: u64) {
        self.taken.fetch_sub(amount, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Tenants that take 1 as long as they may: what each has then.
    fn greedy(hoard: &Hoard, tenants: usize) -> Vec<u64> {
        let own: Vec<_> = (0..tenants).map(|_| AtomicU64::new(0)).collect();
        while own.iter().fold(false, |grown, own| hoard.take(1, own, u64::MAX) | grown) {}
        own.into_iter().map(AtomicU64::into_inner).collect()
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

    /// Each try is the last moment at which somebody could have taken too much: nobody gives anything back.
    #[test]
    fn nobody_has_more_than_its_part_where_many_take_at_once() {
        for round in 0..300 {
            let (hoard, own) = (Hoard::new(1000), AtomicU64::new(0));
            let start = Barrier::new(4);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (hoard, own, start) = (&hoard, &own, &start);
                    scope.spawn(move || {
                        start.wait();
                        let amount = 7 + 31 * thread;
                        while hoard.take(amount, own, u64::MAX) {}
                    });
                }
            });
            let (own, left) = (own.into_inner(), 1000 - hoard.taken.into_inner());
            assert!(own == 1000 - left && own <= left * PART, "round {round}: {own} beside {left}");
        }
    }

    #[test]
    fn who_may_have_no_more_takes_nothing() {
        let (hoard, own) = (Hoard::new(1000), AtomicU64::new(0));
        assert!(hoard.take(10, &own, 10) && !hoard.take(1, &own, 10));
        assert!(!hoard.take(800, &own, u64::MAX) && hoard.take(790, &own, u64::MAX));
        assert_eq!((own.load(Relaxed), hoard.taken.load(Relaxed)), (800, 800));
        hoard.give(800);
        assert_eq!(hoard.of_one(), 4000);
    }
}
