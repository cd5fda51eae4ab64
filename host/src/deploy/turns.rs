//! Whose turn it is at work of which only little is done at a time: reading files, waking, compiling, unpacking.
//!
//! Tenants go round: each has so many turns at once, those that it waits for included. One with thousands of files delays
//! another with a single one by the few that it has, and not by its thousands.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A kind of work, and how much of it is done at once.
pub(super) struct Turns {
    places: Arc<Semaphore>,
    of_one: usize,
    /// Each tenant's own, while it has a turn or waits for one.
    lines: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// The right to do it. Whoever does it has this, also where nobody waits for the outcome any more: a thread goes on.
pub struct Turn {
    _own: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Turns {
    /// So many at once, and of one tenant no more than `of_one`.
    pub(super) fn new(places: usize, of_one: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), of_one, lines: Mutex::default() }
    }

    /// Waits for a turn of this tenant.
    pub(super) async fn take(&self, tenant: &str) -> Turn {
        // One after the other: who waits in front of all has passed its own tenant's line.
        let own = acquire(self.line(tenant)).await;
        Turn { _own: own, _place: acquire(Arc::clone(&self.places)).await }
    }

    fn line(&self, tenant: &str) -> Arc<Semaphore> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(tenant).and_then(Weak::upgrade) {
            return line;
        }
        // What nobody uses goes before room is made for more.
        if lines.len() == lines.capacity() {
            lines.retain(|_, line| line.strong_count() > 0);
        }
        let line = Arc::new(Semaphore::new(self.of_one));
        lines.insert(tenant.to_owned(), Arc::downgrade(&line));
        line
    }
}

async fn acquire(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.acquire_owned().await.expect("the semaphore is never closed")
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
    fn a_tenant_with_a_thousand_files_delays_another_by_the_turns_that_it_has() {
        for (places, of_one, waits) in [(1, 1, 1), (2, 2, 1), (3, 2, 0)] {
            let turns = Turns::new(places, of_one);
            let mut flood: Vec<_> = (0..1000).map(|_| Box::pin(turns.take("a"))).collect();
            let mut running: Vec<Turn> = flood.iter_mut().filter_map(poll).collect();
            assert_eq!(running.len(), of_one.min(places));
            let mut other = Box::pin(turns.take("b"));
            let mut ended = 0;
            while poll(&mut other).is_none() {
                running.remove(0);
                ended += 1;
                // Whoever is next of the flood comes to stand behind.
                running.extend(flood.iter_mut().skip(running.len() + ended).filter_map(poll));
            }
            assert_eq!(ended, waits, "{places} places, {of_one} of one tenant");
        }
    }

    #[test]
    fn tenants_that_have_no_turn_are_forgotten() {
        let turns = Turns::new(1, 1);
        for number in 0..10_000 {
            assert!(poll(&mut Box::pin(turns.take(&number.to_string()))).is_some());
        }
        assert!(turns.lines.lock().expect("nobody panicked").len() < 10);
    }
}
