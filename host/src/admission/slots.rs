//! The host's places for calls, of all tenants together. Where all are taken, tenants take turns ([`super::queue`]).
//!
//! A tenant that has some gets another one only while [`PART`] times what is left after that is no less than what it has then: the
//! rule of memory (`account/hoard.rs`). One alone so has four fifths of the places, two that want all leave some, and who has none gets
//! any that is free. Places come back when calls end, which may take long: nobody should have to wait for that alone.
//!
//! Where a place goes to one that waits anyway, it is not left over for anybody: then turns alone decide, by weight,
//! among those that wait and have no more than about their part of all places.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::queue::{FairQueue, Ticket};

const PART: u32 = 4;

/// The places.
pub struct Slots {
    free: AtomicU32,
    /// How many wait: while nobody does, places are given back without the lock.
    waiting: AtomicU32,
    /// How many have to be free for one of them to be next: while fewer are, others take without the lock, and pass
    /// nobody.
    least: AtomicU32,
    queue: Mutex<FairQueue<Waiting>>,
    count: u32,
}

/// Who waits, for one of its tenant's.
struct Waiting {
    sender: oneshot::Sender<Slot>,
    places: Arc<Places>,
}

/// What one tenant has of them.
pub(crate) struct Places {
    slots: Arc<Slots>,
    tenant: u64,
    held: AtomicU32,
}

/// One of the places; given back when it is dropped.
pub(super) struct Slot(Option<Arc<Places>>);

impl Slots {
    pub fn new(count: u32) -> Arc<Self> {
        let (free, waiting, least) = (AtomicU32::new(count), AtomicU32::new(0), AtomicU32::new(u32::MAX));
        Arc::new(Self { free, waiting, least, queue: Mutex::default(), count })
    }

    /// What one tenant may have of them at once, if it is alone.
    pub(crate) fn of_one(&self) -> u32 {
        if self.is_small() { self.count } else { self.count - self.count.div_ceil(PART + 1) }
    }

    /// Those that wait now.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// So few that none can be left over.
    fn is_small(&self) -> bool {
        self.count <= PART
    }

    /// How many have to be free for a tenant that has `held`.
    fn needed(&self, held: u32) -> u32 {
        if held == 0 || self.is_small() { 1 } else { 1 + (held + 1).div_ceil(PART) }
    }

    /// What who has its part needs, of a weight among `weights`.
    fn needed_with_part(&self, weight: u32, weights: u64) -> u32 {
        let part = (u64::from(self.count) * u64::from(weight)).div_ceil(weights.max(1));
        self.needed(u32::try_from(part).unwrap_or(self.count).min(self.count))
    }

    /// Gives free places to those whose turn it is.
    fn hand_on(&self, queue: &mut FairQueue<Waiting>) {
        self.hand_out(queue);
        self.see_least(queue);
    }

    fn see_least(&self, queue: &FairQueue<Waiting>) {
        self.least.store(queue.least().unwrap_or(u32::MAX), SeqCst);
    }

    fn hand_out(&self, queue: &mut FairQueue<Waiting>) {
        while self.waiting.load(SeqCst) > 0 {
            let Ok(free) = self.free.fetch_update(SeqCst, SeqCst, |free| free.checked_sub(1)) else { return };
            let Some(Waiting { sender, places }) =
                queue.pop(free, |weight, weights| self.needed_with_part(weight, weights))
            else {
                self.free.fetch_add(1, SeqCst);
                return;
            };
            self.waiting.fetch_sub(1, SeqCst);
            places.held.fetch_add(1, SeqCst);
            places.tell(queue);
            if let Err(mut slot) = sender.send(Slot(Some(places)))
                && let Some(places) = slot.0.take()
            {
                // It has gone. Dropping the place would ask for the lock that is held here.
                places.held.fetch_sub(1, SeqCst);
                places.tell(queue);
                self.free.fetch_add(1, SeqCst);
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, FairQueue<Waiting>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    pub(crate) fn new(slots: &Arc<Slots>, tenant: u64) -> Arc<Self> {
        Arc::new(Self { slots: Arc::clone(slots), tenant, held: AtomicU32::new(0) })
    }

    /// A place, if one is free for the tenant and for nobody who waits.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Slot> {
        let slots = &*self.slots;
        // Counted first, and read again with each try: whoever takes sees all that its tenant has.
        self.held.fetch_add(1, SeqCst);
        let less = |free: u32| {
            let needed = slots.needed(self.held.load(SeqCst) - 1);
            (free >= needed && free < slots.least.load(SeqCst)).then(|| free - 1)
        };
        if slots.free.fetch_update(SeqCst, SeqCst, less).is_ok() {
            return Some(Slot(Some(Arc::clone(self))));
        }
        self.held.fetch_sub(1, SeqCst);
        self.look_on();
        None
    }

    /// Waits for a place in the line of the tenant.
    pub(super) async fn take(self: &Arc<Self>, weight: u32) -> Slot {
        if let Some(slot) = self.try_take() {
            return slot;
        }
        let slots = &*self.slots;
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut queue = slots.queue();
            // Before it is seen what the tenant has: whoever gives a place back later than that looks here.
            slots.waiting.fetch_add(1, SeqCst);
            let needed = slots.needed(self.held.load(SeqCst));
            let ticket = queue.push(self.tenant, weight, needed, Waiting { sender, places: Arc::clone(self) });
            slots.hand_on(&mut queue);
            ticket
        };
        let _place = Waiter { slots, ticket };
        receiver.await.expect("a sender is sent by or taken out by its waiter")
    }

    fn give_back(&self) {
        self.held.fetch_sub(1, SeqCst);
        self.slots.free.fetch_add(1, SeqCst);
        self.look_on();
    }

    /// Something has changed for those that wait, if there are any.
    fn look_on(&self) {
        if self.slots.waiting.load(SeqCst) > 0 {
            let mut queue = self.slots.queue();
            self.tell(&mut queue);
            self.slots.hand_on(&mut queue);
        }
    }

    /// Tells the queue what the tenant has by now.
    fn tell(&self, queue: &mut FairQueue<Waiting>) {
        queue.set_needs(self.tenant, self.slots.needed(self.held.load(SeqCst)));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(places) = self.0.take() {
            places.give_back();
        }
    }
}

/// Somebody who waits, and leaves the line when it waits no more.
struct Waiter<'a> {
    slots: &'a Slots,
    ticket: Ticket,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut queue = self.slots.queue();
        if queue.leave(self.ticket) {
            self.slots.waiting.fetch_sub(1, SeqCst);
            self.slots.see_least(&queue);
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
        let [first, second] = [1, 2].map(|tenant| Places::new(&slots, tenant));
        let mut held: Vec<_> = (0..2).map(|_| first.try_take().expect("it is free")).collect();
        assert!(first.try_take().is_none());
        let mut flood: Vec<_> = (0..1000).map(|_| Box::pin(first.take(1))).collect();
        assert!(flood.iter_mut().all(|waiting| poll(waiting).is_none()));
        let mut other = Box::pin(second.take(1));
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
        for count in [3, 8] {
            check_that_nothing_is_lost(count);
        }
    }

    fn check_that_nothing_is_lost(count: u32) {
        let slots = Slots::new(count);
        let tenants: Vec<_> = (0..5).map(|tenant| Places::new(&slots, tenant)).collect();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("it runs");
        runtime.block_on(async {
            let tasks: Vec<_> = (0..64_u64)
                .map(|task| {
                    let places = Arc::clone(&tenants[task as usize % tenants.len()]);
                    tokio::spawn(async move {
                        for turn in 0..200_u64 {
                            let taken = places.take(1);
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
        assert_eq!((slots.waiting(), slots.free.load(SeqCst)), (0, count));
        assert!(tenants.iter().all(|places| places.held.load(SeqCst) == 0));
    }

    /// What each of so many tenants has when all take as long as they get any.
    fn greedy(slots: &Arc<Slots>, tenants: u64) -> Vec<Slot> {
        let tenants: Vec<_> = (0..tenants).map(|tenant| Places::new(slots, tenant)).collect();
        // One after the other, so that the first has all that it can get.
        tenants.iter().flat_map(|places| std::iter::from_fn(|| places.try_take())).collect()
    }

    #[test]
    fn no_tenant_has_all_places_alone_nor_have_two_together() {
        for (count, alone) in [(1, 1), (4, 4), (5, 4), (16, 12), (100, 80), (1000, 800)] {
            let slots = Slots::new(count);
            assert_eq!(greedy(&slots, 1).len(), alone as usize, "{count}");
            assert_eq!(slots.of_one(), alone, "{count}");
            assert_eq!(slots.free.load(SeqCst), count, "what was taken is given back");
        }
        for count in [8, 16, 100, 1000] {
            let slots = Slots::new(count);
            let held = greedy(&slots, 2);
            let third = Places::new(&slots, 99);
            assert!(third.try_take().is_some(), "of {count} places two tenants have {}", held.len());
        }
    }

    #[test]
    fn who_has_much_waits_while_little_is_left_and_goes_on_when_it_is_given_back() {
        let slots = Slots::new(16);
        let [much, little] = [1, 2].map(|tenant| Places::new(&slots, tenant));
        let mut held: Vec<_> = std::iter::from_fn(|| much.try_take()).collect();
        let mut more = Box::pin(much.take(1));
        assert!(poll(&mut more).is_none() && slots.free.load(SeqCst) == 4);
        // Though somebody waits already, there is a place for who has none.
        let mut first = Box::pin(little.take(1));
        let slot = poll(&mut first).expect("it has none, and there are some");
        held.truncate(8);
        assert!(poll(&mut more).is_some());
        drop((slot, held, first, more));
        assert_eq!((slots.waiting(), slots.free.load(SeqCst)), (0, 16));
    }

    /// Who waits in a loop: takes a place as soon as its turn comes.
    struct Loops<'a> {
        places: &'a Arc<Places>,
        waiting: Vec<std::pin::Pin<Box<dyn Future<Output = Slot> + 'a>>>,
        weight: u32,
        /// The places that it has, oldest first.
        held: std::collections::VecDeque<Slot>,
        served: u32,
    }

    impl<'a> Loops<'a> {
        fn new(places: &'a Arc<Places>, weight: u32) -> Self {
            Self { places, waiting: Vec::new(), weight, held: std::collections::VecDeque::new(), served: 0 }
        }

        /// So many of its clients ask, those that have a place included.
        fn ask(&mut self, clients: usize) {
            while self.held.len() + self.waiting.len() < clients {
                self.waiting.push(Box::pin(self.places.take(self.weight)));
            }
            let (held, served) = (&mut self.held, &mut self.served);
            self.waiting.retain_mut(|waiting| match poll(waiting) {
                Some(slot) => {
                    held.push_back(slot);
                    *served += 1;
                    false
                }
                None => true,
            });
        }
    }

    #[test]
    fn who_has_one_long_call_has_its_turns_on_a_full_host() {
        let slots = Slots::new(8);
        let tenants: Vec<_> = (0..10).map(|tenant| Places::new(&slots, tenant)).collect();
        let _long = tenants[0].try_take().expect("it is free");
        let mut others: Vec<_> = tenants[1..].iter().map(|places| Loops::new(places, 1)).collect();
        others.iter_mut().for_each(|other| other.ask(3));
        let mut quiet = Box::pin(tenants[0].take(1));
        let mut turns = 0;
        while poll(&mut quiet).is_none() {
            let next = turns % others.len();
            others[next].held.pop_front();
            others.iter_mut().for_each(|other| other.ask(3));
            turns += 1;
            assert!(turns <= 40, "it waits though {turns} calls have ended");
        }
    }

    #[test]
    fn turns_on_a_full_host_go_by_weight() {
        let slots = Slots::new(16);
        let [heavy, light] = [1, 2].map(|tenant| Places::new(&slots, tenant));
        let mut both = [Loops::new(&heavy, 8), Loops::new(&light, 1)];
        for _ in 0..100 {
            both.iter_mut().for_each(|one| one.ask(25));
            for _ in 0..2 {
                both.iter_mut().for_each(|one| drop(one.held.pop_front()));
            }
        }
        let [heavy, light] = both.map(|one| one.served);
        assert!(heavy >= 2 * light, "{heavy} and {light}");
    }

    #[test]
    fn who_waits_for_more_than_is_free_closes_the_way_to_nobody() {
        let slots = Slots::new(16);
        let [much, other] = [1, 2].map(|tenant| Places::new(&slots, tenant));
        let _held: Vec<_> = std::iter::from_fn(|| much.try_take()).collect();
        let mut more = Box::pin(much.take(1));
        assert!(poll(&mut more).is_none());
        assert!(other.try_take().is_some(), "there are four, and nobody who waits may have one");
        // Two that wait in line leave some to others all the same.
        let mut two = [Loops::new(&much, 1), Loops::new(&other, 1)];
        for _ in 0..5 {
            two.iter_mut().for_each(|one| one.ask(50));
        }
        assert!(slots.free.load(SeqCst) > 0 && Places::new(&slots, 3).try_take().is_some());
    }
}
