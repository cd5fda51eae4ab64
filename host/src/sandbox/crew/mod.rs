//! Threads for guests that compute for long. A worker runs a call's guest until it has been interrupted twice in a row; then it lends
//! it to the crew, where the lent ones take turns of a tick ([`Shares`]). So a request that has just come waits for no guest that
//! computes: between the workers and the crew the kernel divides the processors, and the crew yields to the workers.
//!
//! A guest comes back as soon as it waits for something. Calls of a tenant whose guests take much of the workers' time, in long
//! pieces, begin with the crew, where other tenants share the workers with it ([`Account::is_heavy`]).

mod loan;
mod scope;
mod shares;
mod slice;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::thread::sched_yield;
use tokio::runtime::Handle;

use self::shares::Shares;
use crate::account::Account;

pub(crate) use loan::{Lendable, Payer};
pub(super) use scope::{Moment, Yields, interrupted, pause};
pub(crate) use slice::go_as_usual;
pub use slice::go_first;

/// How much the crew yields to the workers where both want all processors: it has a quarter of them then. (A thread of the nice value
/// 5 weighs 335, of 0 1024.)
const NICE: i32 = 5;

/// How long tenants without processor time are left alone, where nobody else has anything to do: not for long, since a reload may
/// give them more.
const DEBT_STEP: Duration = Duration::from_millis(1);
const DEBT_LOOK: Duration = Duration::from_millis(100);

/// The threads, as many as there are workers. They start when the first guest is lent.
pub struct Crew {
    shared: Arc<Shared>,
}

struct Shared {
    size: usize,
    queue: Mutex<Queue>,
    more: Condvar,
    /// Guests that run have to be interrupted.
    keep_ticking: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    shares: Shares<Arc<dyn Job>>,
    /// What nobody wants any more: dropping a sandbox may take long.
    spent: Vec<Box<dyn Send>>,
    threads: usize,
    closed: bool,
}

/// A guest that is lent.
trait Job: Send + Sync {
    /// A turn, and what it took.
    fn run(self: Arc<Self>) -> (Rest, Duration);
    fn account(&self) -> &Arc<Account>;
    /// What it has had of the crew's time.
    fn had(&self) -> Duration;
}

/// What follows a turn.
#[derive(PartialEq, Eq)]
enum Rest {
    /// It goes on computing.
    Again,
    /// It waits for something, or is over.
    Over,
}

impl Crew {
    /// As many threads as there are workers. `keep_ticking` is called while they run guests.
    pub fn new(size: usize, keep_ticking: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let (queue, more, keep_ticking) = (Mutex::default(), Condvar::new(), Box::new(keep_ticking));
        Arc::new(Self { shared: Arc::new(Shared { size: size.max(1), queue, more, keep_ticking }) })
    }

    /// False, and nothing done, where there are no threads.
    fn take_on(&self, job: Arc<dyn Job>) -> bool {
        let mut queue = self.shared.queue();
        if queue.threads == 0 {
            self.start(&mut queue);
        }
        if queue.threads == 0 || queue.closed {
            return false;
        }
        queue.push(job);
        self.shared.more.notify_one();
        true
    }

    fn start(&self, queue: &mut Queue) {
        // Guests make timers and tasks.
        let Ok(runtime) = Handle::try_current() else { return };
        for _ in 0..self.shared.size {
            let (shared, runtime) = (Arc::clone(&self.shared), runtime.clone());
            let work = move || {
                let _entered = runtime.enter();
                // Where it is not allowed they share with the workers as equals.
                let _ = setpriority_process(None, NICE);
                let _ = go_as_usual();
                shared.work();
            };
            match std::thread::Builder::new().name("crew".into()).spawn(work) {
                Ok(_) => queue.threads += 1,
                Err(error) => tracing::warn!("a thread for guests that compute for long cannot be started: {error}"),
            }
        }
    }

    /// Drops something where it holds nobody up.
    fn discard(&self, spent: Box<dyn Send>) {
        let mut queue = self.shared.queue();
        if queue.threads > 0 && !queue.closed {
            queue.spent.push(spent);
            self.shared.more.notify_one();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        let left = {
            let mut queue = self.shared.queue();
            queue.closed = true;
            std::mem::take(&mut queue.spent)
        };
        self.shared.more.notify_all();
        drop(left);
    }
}

impl Queue {
    fn push(&mut self, job: Arc<dyn Job>) {
        let account = job.account();
        let (tenant, weight) = (account.number, account.terms().budget.weight);
        self.shares.push(tenant, weight, job.had(), job);
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock can panic halfway through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread's.
    fn work(&self) {
        let mut queue = self.queue();
        while !queue.closed {
            if let Some(spent) = queue.spent.pop() {
                drop(queue);
                drop(spent);
                queue = self.queue();
                continue;
            }
            let now = Instant::now();
            let Some((tenant, job)) = queue.shares.pop(|job| job.account().cpu_debt(now).is_none()) else {
                queue = self.wait(queue, now);
                continue;
            };
            drop(queue);
            (self.keep_ticking)();
            let (rest, took) = Arc::clone(&job).run();
            // A worker that has something to do and was not let in at once (the kernel lets who runs finish its slice, some
            // milliseconds) is now. Where nobody waits this returns at once.
            sched_yield();
            queue = self.queue();
            queue.shares.charge(tenant, took);
            if rest == Rest::Again {
                queue.push(job);
            }
        }
    }

    /// Until there may be something to do.
    fn wait<'q>(&'q self, queue: MutexGuard<'q, Queue>, now: Instant) -> MutexGuard<'q, Queue> {
        let debts = queue.shares.firsts().filter_map(|job| job.account().cpu_debt(now));
        match debts.min() {
            None => self.more.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(time) => {
                let waited = self.more.wait_timeout(queue, time.clamp(DEBT_STEP, DEBT_LOOK));
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}
