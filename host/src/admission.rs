//! Who may run now: an app's concurrency, and the bounded queue in front of it → a permit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Busy, Error};
use crate::limits::Limits;

/// The door of one app: `concurrent_calls` may be inside, `queued_calls` may wait for `queue_time`.
pub struct Admission {
    free: Arc<Semaphore>,
    waiting: AtomicU32,
    waiting_max: u32,
    queue_time: Duration,
    calls_max: u32,
}

/// The right to run one call; given back when it is dropped.
pub struct Permit {
    _permit: OwnedSemaphorePermit,
    waited: bool,
}

impl Permit {
    /// Whether there was a wait for it.
    pub fn waited(&self) -> bool {
        self.waited
    }
}

impl Admission {
    pub fn new(limits: &Limits) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limits.concurrent_calls as usize)),
            waiting: AtomicU32::new(0),
            waiting_max: limits.queued_calls,
            queue_time: limits.queue_time,
            calls_max: limits.concurrent_calls,
        }
    }

    /// Waits for a place, first come, first served.
    ///
    /// # Errors
    /// [`Error::Busy`] when the queue is full, or no place was free in time.
    pub async fn admit(&self) -> Result<Permit, Error> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(Permit { _permit: permit, waited: false });
        }
        let _place = self.queue().ok_or(Error::Busy(Busy::QueueFull))?;
        // Boxed: tokio's timers are aligned to 128 bytes, and would make every call's future so.
        let acquire = Box::pin(tokio::time::timeout(self.queue_time, Arc::clone(&self.free).acquire_owned()));
        match acquire.await {
            Ok(permit) => Ok(Permit { _permit: permit.expect("the semaphore is never closed"), waited: true }),
            Err(_) => Err(Error::Busy(Busy::QueueTime)),
        }
    }

    fn queue(&self) -> Option<Place<'_>> {
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < self.waiting_max).then_some(waiting + 1)
            })
            .ok()
            .map(|_| Place(&self.waiting))
    }

    /// Calls that run now.
    pub fn running(&self) -> u32 {
        self.calls_max - u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX).min(self.calls_max)
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> u32 {
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
