//! Who may run now: an app's calls, its tenant's, and the host's, with bounded queues in front of them → a permit.

mod queue;
mod slots;
mod throttle;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::account::{Account, Spent};
use crate::error::{Busy, Error};
use crate::limits::Limits;
pub(crate) use slots::Places;
use slots::Slot;
pub use slots::Slots;
pub use throttle::Throttle;

/// The door of one app: `concurrent_calls` may be inside, `queued_calls` may wait for `queue_time`.
pub struct Admission {
    gate: Gate,
    /// Its tenant's, which bounds all of its apps together.
    account: Arc<Account>,
}

/// The right to run one call; given back when it is dropped.
pub struct Permit {
    _own: OwnedSemaphorePermit,
    _tenants: OwnedSemaphorePermit,
    _slot: Slot,
    waited: bool,
}

impl Permit {
    /// Whether there was a wait for it.
    pub fn waited(&self) -> bool {
        self.waited
    }
}

impl Admission {
    pub fn new(limits: &Limits, account: Arc<Account>) -> Self {
        Self { gate: Gate::new(limits.concurrent_calls, limits), account }
    }

    /// What its tenant has in use.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Waits until the app, its tenant and the host have a place for a request that came at `now`. Within an app and
    /// within a tenant who comes first is served first; among tenants, turns are taken.
    ///
    /// # Errors
    /// [`Error::Busy`] when a queue is full, or no place was free in time; [`Error::Budget`] when the tenant has had
    /// more than it may.
    pub async fn admit(&self, now: Instant) -> Result<Permit, Error> {
        let begins = self.account.count_call(now, self.gate.queue_time);
        let begins = begins.map_err(|retry_after| Error::Budget { what: Spent::Calls, retry_after })?;
        if begins.is_none()
            && self.account.spent(now).is_none()
            && let Some(permit) = self.try_admit()
        {
            return Ok(permit);
        }
        // Boxed: requests that need not wait need no room for it.
        Box::pin(self.wait(now, begins)).await
    }

    fn try_admit(&self) -> Option<Permit> {
        let own = self.gate.try_enter()?;
        let tenants = Arc::clone(&self.account.terms().calls).try_acquire_owned().ok()?;
        let slot = self.account.places.try_take()?;
        Some(Permit { _own: own, _tenants: tenants, _slot: slot, waited: false })
    }

    async fn wait(&self, now: Instant, begins: Option<Instant>) -> Result<Permit, Error> {
        let _place = self.gate.queue()?;
        let _seat = self.account.wait().ok_or(Error::Busy(Busy::TenantsQueueFull))?;
        let deadline = now + self.gate.queue_time;
        if let Some(begins) = begins {
            tokio::time::sleep_until(begins.into()).await;
        }
        self.while_spent(deadline).await?;
        let in_time = |busy| move |_| Error::Busy(busy);
        let until = |deadline: Instant| tokio::time::Instant::from(deadline);
        let own = tokio::time::timeout_at(until(deadline), self.gate.enter());
        let own = own.await.map_err(in_time(Busy::QueueTime))?;
        let (calls, weight) = {
            let terms = self.account.terms();
            (Arc::clone(&terms.calls), terms.budget.weight)
        };
        let tenants = tokio::time::timeout_at(until(deadline), calls.acquire_owned());
        let tenants = tenants.await.map_err(in_time(Busy::TenantsQueueTime))?;
        let slot = tokio::time::timeout_at(until(deadline), self.account.places.take(weight));
        let slot = slot.await.map_err(in_time(Busy::Host))?;
        let tenants = tenants.expect("the semaphore is never closed");
        Ok(Permit { _own: own, _tenants: tenants, _slot: slot, waited: true })
    }

    /// Waits while the tenant has used up what it may use.
    async fn while_spent(&self, deadline: Instant) -> Result<(), Error> {
        while let Some((what, time)) = self.account.spent(Instant::now()) {
            let again = Instant::now() + time;
            if again > deadline {
                return Err(match what {
                    Spent::Memory => Error::Busy(Busy::TenantsMemory),
                    Spent::Descriptors => Error::Busy(Busy::TenantsDescriptors),
                    Spent::Calls | Spent::Cpu => Error::Budget { what, retry_after: time },
                });
            }
            tokio::time::sleep_until(again.into()).await;
        }
        Ok(())
    }

    /// Calls that run now.
    pub fn running(&self) -> u32 {
        self.gate.running()
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> u32 {
        self.gate.waiting.load(Ordering::Relaxed)
    }
}

/// So many at once, and so many more that wait.
pub struct Gate {
    free: Arc<Semaphore>,
    waiting: AtomicU32,
    waiting_max: u32,
    queue_time: Duration,
    inside_max: u32,
}

impl Gate {
    /// `inside_max` at once; who waits does as calls of an app do.
    pub fn new(inside_max: u32, limits: &Limits) -> Self {
        Self {
            free: Arc::new(Semaphore::new(inside_max as usize)),
            waiting: AtomicU32::new(0),
            waiting_max: limits.queued_calls,
            queue_time: limits.queue_time,
            inside_max,
        }
    }

    /// Waits for a place, first come, first served.
    ///
    /// # Errors
    /// [`Error::Busy`] when the queue is full, or no place was free in time.
    pub async fn pass(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Some(permit) = self.try_enter() {
            return Ok(permit);
        }
        let _place = self.queue()?;
        let entered = tokio::time::timeout(self.queue_time, self.enter()).await;
        entered.map_err(|_| Error::Busy(Busy::QueueTime))
    }

    fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    async fn enter(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed")
    }

    fn queue(&self) -> Result<Place<'_>, Error> {
        let more = |waiting| (waiting < self.waiting_max).then_some(waiting + 1);
        let queued = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        queued.map(|_| Place(&self.waiting)).map_err(|_| Error::Busy(Busy::QueueFull))
    }

    fn running(&self) -> u32 {
        self.inside_max - u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX).min(self.inside_max)
    }
}

/// A place in the queue, left when the request is admitted, gives up, or its client goes.
struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
