//! Who may run now: an app's calls, its tenant's, and the host's, with bounded queues in front of them → a permit.

mod queue;
mod seats;
mod slots;
mod throttle;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::account::{Account, Spent, Waiting};
use crate::error::{Busy, Error};
use crate::limits::Limits;
pub(crate) use seats::{Seat, Seats};
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
    _own: Seat,
    _tenants: Seat,
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
    /// `before` is the app's until now: who is inside and who waits counts in this one as well.
    pub fn new(limits: &Limits, account: Arc<Account>, before: Option<&Self>) -> Self {
        let gate = match before {
            Some(before) => before.gate.changed(limits.concurrent_calls, limits),
            None => Gate::new(limits.concurrent_calls, limits),
        };
        Self { gate, account }
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
        let own = self.gate.inside.try_take()?;
        let tenants = self.account.calls.try_take()?;
        let slot = self.account.places.try_take()?;
        Some(Permit { _own: own, _tenants: tenants, _slot: slot, waited: false })
    }

    async fn wait(&self, now: Instant, begins: Option<Instant>) -> Result<Permit, Error> {
        let (_place, _seat) = self.gate.queue(&self.account)?;
        let deadline = now + self.gate.queue_time;
        if let Some(begins) = begins {
            tokio::time::sleep_until(begins.into()).await;
        }
        self.while_spent(deadline).await?;
        let in_time = |busy| move |_| Error::Busy(busy);
        let until = |deadline: Instant| tokio::time::Instant::from(deadline);
        let own = tokio::time::timeout_at(until(deadline), self.gate.inside.take());
        let own = own.await.map_err(in_time(Busy::QueueTime))?;
        let tenants = tokio::time::timeout_at(until(deadline), self.account.calls.take());
        let tenants = tenants.await.map_err(in_time(Busy::TenantsQueueTime))?;
        let weight = self.account.terms().budget.weight;
        let slot = tokio::time::timeout_at(until(deadline), self.account.places.take(weight));
        let slot = slot.await.map_err(in_time(Busy::Host))?;
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
        self.gate.inside.taken()
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> u32 {
        self.gate.waiting()
    }
}

/// So many at once, and so many more that wait.
pub struct Gate {
    inside: Arc<Seats>,
    waiting: Arc<AtomicU32>,
    waiting_max: u32,
    queue_time: Duration,
}

impl Gate {
    /// `inside_max` at once; who waits does as calls of an app do.
    pub fn new(inside_max: u32, limits: &Limits) -> Self {
        let (waiting_max, queue_time) = (limits.queued_calls, limits.queue_time);
        Self { inside: Seats::new(inside_max), waiting: Arc::default(), waiting_max, queue_time }
    }

    /// The same with other numbers. Who is inside, or waits, counts in both.
    pub fn changed(&self, inside_max: u32, limits: &Limits) -> Self {
        self.inside.resize(inside_max);
        let (inside, waiting) = (Arc::clone(&self.inside), Arc::clone(&self.waiting));
        Self { inside, waiting, waiting_max: limits.queued_calls, queue_time: limits.queue_time }
    }

    /// Waits for a place for a request that came at `asked`, first come, first served, and until there is memory: what
    /// is small is sent then whatever there is, as a call's.
    ///
    /// # Errors
    /// [`Error::Busy`] when the queue is full, or no place was free in time, or no memory.
    pub(crate) async fn pass(&self, account: &Account, asked: Instant) -> Result<Seat, Error> {
        if account.memory_is_spent().is_none()
            && let Some(own) = self.inside.try_take()
        {
            return Ok(own);
        }
        let (_place, _seat) = self.queue(account)?;
        let deadline = tokio::time::Instant::from(asked + self.queue_time);
        while let Some(time) = account.memory_is_spent() {
            let again = tokio::time::Instant::now() + time;
            if again > deadline {
                return Err(Error::Busy(Busy::TenantsMemory));
            }
            tokio::time::sleep_until(again).await;
        }
        let own = tokio::time::timeout_at(deadline, self.inside.take());
        own.await.map_err(|_| Error::Busy(Busy::QueueTime))
    }

    /// As [`Gate::pass`], for what may take long to send: with a place of the tenant's for that.
    ///
    /// # Errors
    /// As [`Gate::pass`].
    pub(crate) async fn pass_large(&self, account: &Account, asked: Instant) -> Result<(Seat, Seat), Error> {
        let own = self.pass(account, asked).await?;
        if let Some(tenants) = account.sends.try_take() {
            return Ok((own, tenants));
        }
        let (_place, _seat) = self.queue(account)?;
        let deadline = tokio::time::Instant::from(asked + self.queue_time);
        let tenants = tokio::time::timeout_at(deadline, account.sends.take());
        Ok((own, tenants.await.map_err(|_| Error::Busy(Busy::TenantsQueueTime))?))
    }

    /// Counts a request that came at `now` in its tenant's rate, and waits until it may begin.
    ///
    /// # Errors
    /// [`Error::Budget`] if that is later than who waits does, [`Error::Busy`] if too many wait.
    pub(crate) async fn count(&self, account: &Account, now: Instant) -> Result<(), Error> {
        let begins = account.count_call(now, self.queue_time);
        let begins = begins.map_err(|retry_after| Error::Budget { what: Spent::Calls, retry_after })?;
        let Some(begins) = begins else { return Ok(()) };
        let (_place, _seat) = self.queue(account)?;
        tokio::time::sleep_until(begins.into()).await;
        Ok(())
    }

    /// A place among those that wait for the app, and one among those that wait for its tenant.
    fn queue<'a>(&'a self, account: &'a Account) -> Result<(Place<'a>, Waiting<'a>), Error> {
        let more = |waiting| (waiting < self.waiting_max).then_some(waiting + 1);
        let queued = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let place = queued.map(|_| Place(&self.waiting)).map_err(|_| Error::Busy(Busy::QueueFull))?;
        Ok((place, account.wait().ok_or(Error::Busy(Busy::TenantsQueueFull))?))
    }

    fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// A place in the queue, left when the request is admitted, gives up, or its client goes.
struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_app_whose_limits_change_has_no_more_calls_than_before_those_that_run() {
        let accounts = crate::account::Accounts::new(100, crate::sandbox::Crew::new(1, || ()));
        let (account, now) = (accounts.of(&crate::config::Config::default(), "app"), Instant::now());
        let limits = |concurrent_calls| {
            let queue_time = Duration::from_millis(1);
            Limits { concurrent_calls, queue_time, ..Limits::default() }
        };
        let first = Admission::new(&limits(2), Arc::clone(&account), None);
        let permits = (first.admit(now).await.expect("there is room"), first.admit(now).await.expect("there is room"));
        // What a changed sidecar does.
        let second = Admission::new(&limits(1), Arc::clone(&account), Some(&first));
        assert_eq!((second.running(), second.admit(now).await.is_err()), (2, true));
        drop(permits);
        let permit = second.admit(Instant::now()).await.expect("both have ended");
        assert!(first.admit(now).await.is_err() && second.admit(now).await.is_err());
        drop(permit);
        assert_eq!((first.running(), second.running(), account.running()), (0, 0, 0));
    }
}
