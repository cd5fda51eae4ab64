//! The host's places for calls, of all tenants together. Where all are taken, tenants take turns ([`super::queue`]).

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::queue::{FairQueue, Ticket};

/// The places.
pub struct Slots {
    free: AtomicU32,
    /// How many wait: while nobody does, places are taken and given back without the lock.
    waiting: AtomicU32,
    queue: Mutex<FairQueue<oneshot::Sender<Slot>>>,
    count: u32,
}

/// One of the places; given back when it is dropped.
pub(super) struct Slot(Option<Arc<Slots>>);

impl Slots {
    pub fn new(count: u32) -> Arc<Self> {
        Arc::new(Self { free: AtomicU32::new(count), waiting: AtomicU32::new(0), queue: Mutex::default(), count })
    }

    /// What one tenant may have of them at once: an eighth is always for others.
    pub(crate) fn of_one(&self) -> u32 {
        self.count - self.count / OTHERS_PART
    }

    /// A place, if one is free and nobody waits for it.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Slot> {
        (self.waiting.load(SeqCst) == 0 && self.take_free()).then(|| Slot(Some(Arc::clone(self))))
    }

    /// Waits for a place in the line of a tenant.
    pub(super) async fn take(self: &Arc<Self>, tenant: u64, weight: u32) -> Slot {
        if let Some(slot) = self.try_take() {
            return slot;
        }
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut queue = self.queue();
            let ticket = queue.push(tenant, weight, sender);
            self.waiting.fetch_add(1, SeqCst);
            // Whoever gave a place back before this was counted did not look here.
            self.hand_on(&mut queue);
            ticket
        };
        let _place = Waiter { slots: self, ticket };
        receiver.await.expect("a sender is sent by or taken out by its waiter")
    }

    /// Those that wait now.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    fn take_free(&self) -> bool {
        self.free.fetch_update(SeqCst, SeqCst, |free| free.checked_sub(1)).is_ok()
    }

    fn give_back(self: &Arc<Self>) {
        self.free.fetch_add(1, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.hand_on(&mut self.queue());
        }
    }

    /// Gives free places to those whose turn it is.
    fn hand_on(self: &Arc<Self>, queue: &mut FairQueue<oneshot::Sender<Slot>>) {
        while self.waiting.load(SeqCst) > 0 && self.take_free() {
            let Some(next) = queue.pop() else {
                self.free.fetch_add(1, SeqCst);
                return;
            };
            self.waiting.fetch_sub(1, SeqCst);
            if let Err(mut slot) = next.send(Slot(Some(Arc::clone(self)))) {
                // It has gone. Dropping the place would ask for the lock that is held here.
                slot.0 = None;
                self.free.fetch_add(1, SeqCst);
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, FairQueue<oneshot::Sender<Slot>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of so many parts of the places no tenant takes alone.
const OTHERS_PART: u32 = 8;

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(slots) = self.0.take() {
            slots.give_back();
        }
    }
}

/// Somebody who waits, and leaves the line when it waits no more.
struct Waiter<'a> {
    slots: &'a Arc<Slots>,
    ticket: Ticket,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut queue = self.slots.queue();
        if queue.leave(self.ticket) {
            self.slots.waiting.fetch_sub(1, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls a future once.
    fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn a_flood_of_one_delays_another_by_one_turn() {
        let slots = Slots::new(2);
        let mut held: Vec<_> = (0..2).map(|_| slots.try_take().expect("it is free")).collect();
        assert!(slots.try_take().is_none());
        let mut flood: Vec<_> = (0..1000).map(|_| Box::pin(slots.take(1, 1))).collect();
        assert!(flood.iter_mut().all(|waiting| poll(waiting).is_none()));
        let mut other = Box::pin(slots.take(2, 1));
        assert!(poll(&mut other).is_none());
        assert_eq!(slots.waiting(), 1001);
        held.clear();
        let mut served = flood.iter_mut().filter_map(poll).collect::<Vec<_>>();
        let slot = poll(&mut other).expect("two places are free, and it is one of two that take turns");
        assert_eq!(served.len(), 1);
        drop(slot);
        served.clear();
        drop(other);
        drop(flood);
        assert_eq!((slots.waiting(), slots.free.load(SeqCst)), (0, 2), "who leaves gives back what it was sent");
    }

    #[test]
    fn nothing_is_lost_where_many_take_and_leave_at_once() {
        let slots = Slots::new(3);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("it runs");
        runtime.block_on(async {
            let tasks: Vec<_> = (0..64_u64)
                .map(|task| {
                    let slots = Arc::clone(&slots);
                    tokio::spawn(async move {
                        for turn in 0..200_u64 {
                            let taken = slots.take(task % 5, 1);
                            // Some leave while they wait.
                            if (task + turn).is_multiple_of(3) {
                                let time = std::time::Duration::from_micros(turn);
                                let _ = tokio::time::timeout(time, taken).await;
                            } else {
                                let _slot = taken.await;
                                tokio::task::yield_now().await;
                            }
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it ends");
            }
        });
        assert_eq!((slots.waiting(), slots.free.load(SeqCst)), (0, 3));
    }

    #[test]
    fn no_tenant_has_all_places_alone() {
        for (count, expected) in [(1, 1), (7, 7), (8, 7), (100, 88), (1000, 875)] {
            assert_eq!(Slots::new(count).of_one(), expected);
        }
    }
}
