//! So many at once, where the number may change while some are inside: who came in under another number counts until it leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use tokio::sync::Semaphore;

/// The seats.
pub(crate) struct Seats {
    free: Semaphore,
    max: AtomicU32,
    /// Seats that are taken and not there any more: as many are not given back.
    owed: AtomicUsize,
}

/// One of them; given back when it is dropped.
pub(crate) struct Seat(Arc<Seats>);

impl Seats {
    pub(crate) fn new(max: u32) -> Arc<Self> {
        let free = Semaphore::new(max as usize);
        Arc::new(Self { free, max: AtomicU32::new(max), owed: AtomicUsize::new(0) })
    }

    pub(crate) fn max(&self) -> u32 {
        self.max.load(SeqCst)
    }

    pub(crate) fn taken(&self) -> u32 {
        let all = self.max() as usize + self.owed.load(SeqCst);
        u32::try_from(all.saturating_sub(self.free.available_permits())).unwrap_or(u32::MAX)
    }

    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Seat> {
        self.free.try_acquire().ok()?.forget();
        Some(Seat(Arc::clone(self)))
    }

    /// Waits for one, first come, first served.
    pub(crate) async fn take(self: &Arc<Self>) -> Seat {
        self.free.acquire().await.expect("the semaphore is never closed").forget();
        Seat(Arc::clone(self))
    }

    /// There are so many from now on. For one caller at a time.
    pub(crate) fn resize(&self, max: u32) {
        let before = self.max.swap(max, SeqCst);
        if max > before {
            let more = (max - before) as usize;
            let still_owed = |owed: usize| Some(owed.saturating_sub(more));
            let owed = self.owed.fetch_update(SeqCst, SeqCst, still_owed).unwrap_or_else(|owed| owed);
            self.free.add_permits(more.saturating_sub(owed));
        } else {
            self.owed.fetch_add((before - max) as usize, SeqCst);
            // What is free goes at once; and what was given back meanwhile by somebody who did not see this yet.
            while self.free.available_permits() > 0 && self.pay() {
                if self.free.forget_permits(1) == 0 {
                    self.owed.fetch_add(1, SeqCst);
                }
            }
        }
    }

    /// Owes one less. False if none is owed.
    fn pay(&self) -> bool {
        // The usual case is one load.
        self.owed.load(SeqCst) > 0 && self.owed.fetch_update(SeqCst, SeqCst, |owed| owed.checked_sub(1)).is_ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.0.pay() {
            self.0.free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_inside_counts_whatever_becomes_of_the_number() {
        let seats = Seats::new(3);
        let mut inside: Vec<_> = std::iter::from_fn(|| seats.try_take()).collect();
        assert_eq!((inside.len(), seats.taken()), (3, 3));
        seats.resize(1);
        assert_eq!(seats.taken(), 3);
        inside.truncate(1);
        assert!(seats.try_take().is_none(), "two have left, and one is there for whom there is a seat");
        assert_eq!(seats.taken(), 1);
        seats.resize(2);
        inside.extend(seats.try_take());
        assert!(inside.len() == 2 && seats.try_take().is_none());
        // Down and up again while they are inside.
        seats.resize(0);
        seats.resize(3);
        inside.extend(std::iter::from_fn(|| seats.try_take()));
        assert_eq!(inside.len(), 3);
        seats.resize(2);
        drop(inside);
        assert_eq!(seats.taken(), 0);
        let inside: Vec<_> = std::iter::from_fn(|| seats.try_take()).collect();
        assert_eq!(inside.len(), 2);
    }

    #[test]
    fn no_seat_is_lost_or_made_where_the_number_changes_while_many_come_and_go() {
        let seats = Seats::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20_000).for_each(|_| drop(seats.try_take())));
            }
            (0..2000).for_each(|round| seats.resize(round % 7));
        });
        seats.resize(5);
        // Who left at the moment of a change may have given back what was owed: the next to leave makes up for it.
        (0..8).for_each(|_| drop(seats.try_take()));
        let inside: Vec<_> = std::iter::from_fn(|| seats.try_take()).collect();
        assert_eq!((inside.len(), seats.taken()), (5, 5));
    }
}
