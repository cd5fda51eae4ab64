//! Fresh sandboxes in stock: an app that is being called often has some made in advance and others thrown away later, in
//! batches, between requests rather than within them.
//!
//! A sandbox in stock has never served; it is as fresh as one that is made when the request arrives. Making and dropping
//! many in a row is cheaper than one between two requests each time, since code and data stay in the processor's caches
//! (docs/decisions/0003 has the figures).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::CallState;
use super::crew::{Lendable, Payer};
use super::supply::{Entry, Idle, Sandbox, Supply};
use crate::telemetry::RequestId;

/// Sandboxes in a full batch.
const BATCH: u32 = 24;

/// A batch holds one sandbox for so many calls a second: an app with fewer has none in stock.
const CALLS_PER_SANDBOX: u32 = 32;

/// An app whose sandboxes have more memory than this has none in stock, and spent ones are thrown away at once: what the next
/// call needs is in the processor's caches just after the last, and not after twenty others.
const STOCKED_BYTES_MAX: u64 = 4 << 20;

/// What an app keeps in stock, apart from the sandboxes themselves, which are with the idle ones.
pub(super) struct Stock<F> {
    /// Calls in this second, as [`Supply::sweep_stock`] counts seconds.
    calls: AtomicU32,
    /// Calls in the last second.
    calls_before: AtomicU32,
    /// A batch is being made.
    stocking: AtomicBool,
    /// Its sandboxes are large.
    is_large: AtomicBool,
    /// Have served, and wait to be thrown away together.
    spent: Mutex<Vec<Sandbox<F>>>,
}

impl<F> Default for Stock<F> {
    fn default() -> Self {
        Self {
            calls: AtomicU32::default(),
            calls_before: AtomicU32::default(),
            stocking: AtomicBool::default(),
            is_large: AtomicBool::default(),
            spent: Mutex::default(),
        }
    }
}

impl<F> Stock<F> {
    fn spent(&self) -> MutexGuard<'_, Vec<Sandbox<F>>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sandboxes the app's traffic is worth having in stock.
    fn size(&self) -> u32 {
        if self.is_large.load(Ordering::Relaxed) {
            return 0;
        }
        let calls = self.calls.load(Ordering::Relaxed).max(self.calls_before.load(Ordering::Relaxed));
        (calls / CALLS_PER_SANDBOX).min(BATCH)
    }

    /// Gives up one that is spent. False if there is none.
    pub(super) fn give_up_one(&self) -> bool {
        let given_up = self.spent().pop();
        given_up.is_some()
    }
}

impl<E: Entry> Supply<E> {
    /// A call takes a sandbox, and leaves `left` of them: makes more in time.
    pub(super) fn restock(self: &Arc<Self>, left: usize) {
        self.stock.calls.fetch_add(1, Ordering::Relaxed);
        let size = self.stock.size();
        if left > 0 || size == 0 || self.stock.stocking.swap(true, Ordering::Relaxed) {
            return;
        }
        let supply = Arc::clone(self);
        tokio::spawn(async move {
            let spent = std::mem::take(&mut *supply.stock.spent());
            drop(spent);
            Arc::clone(&supply).make(size).await;
            supply.stock.stocking.store(false, Ordering::Relaxed);
        });
    }

    /// Makes sandboxes. What a guest does meanwhile is metered as in a call, and the batch together has one call's time.
    async fn make(self: Arc<Self>, size: u32) {
        let (cpu_time, patience) = (self.app.limits.cpu_time, self.app.limits.first_byte_time);
        let call = Arc::new(CallState::new(RequestId::next(), Instant::now(), cpu_time, &self.app.account));
        let payer = Payer::Call(Arc::clone(&call));
        let mut batch = Lendable::new(payer, async move {
            for _ in 0..size {
                // The next call will meet the same error, and report it.
                let Ok(sandbox) = self.instantiate(&call).await else { return };
                self.idle().push(Idle::new(sandbox));
            }
        });
        let _ = tokio::time::timeout(patience, std::future::poll_fn(|context| batch.poll(context))).await;
    }

    /// Throws a sandbox away that has served: together with others, where many do.
    pub(super) fn discard(&self, mut sandbox: Sandbox<E::Functions>) {
        if self.stock.size() == 0 {
            return;
        }
        if sandbox.store.data().meter.memory_bytes() > STOCKED_BYTES_MAX {
            self.stock.is_large.store(true, Ordering::Relaxed);
            return;
        }
        // What belongs to the call ends with it.
        sandbox.store.data_mut().end();
        let mut spent = self.stock.spent();
        if spent.len() < BATCH as usize {
            spent.push(sandbox);
        }
    }

    /// Counts a second; an app that is called less keeps less.
    pub(super) fn sweep_stock(&self) {
        self.stock.calls_before.store(self.stock.calls.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        let spent = std::mem::take(&mut *self.stock.spent());
        drop(spent);
        let surplus: Vec<_> = {
            let mut idle = self.idle();
            let kept = (self.stock.size() as usize).min(idle.len());
            idle.split_off(kept)
        };
        drop(surplus);
    }
}
