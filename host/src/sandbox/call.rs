//! What host functions, the guest's task and the connection share during one call: its clocks and its outbox.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::account::{Account, Memory};
use crate::body::{Block, ReadError};
use crate::capsule::Witness;
use crate::error::Error;
use crate::guest::head::Head;
use crate::sandbox::fault::Stopped;
use crate::sandbox::pace;
use crate::sandbox::runs::Run;
use crate::telemetry::RequestId;

/// One call, from admission to the end of its body.
pub struct CallState {
    pub id: RequestId,
    pub began: Instant,
    cpu_time: Duration,
    /// What is left of it should its app fail it.
    pub(crate) witness: Witness,
    /// Its tenant's, which pays as well.
    account: Arc<Account>,
    /// Nanoseconds of processor time in polls that have ended.
    cpu_nanos: AtomicU64,
    /// When the poll under way began, in nanoseconds since `began`, plus one; 0 outside of polls.
    poll_began: AtomicU64,
    /// When a piece of the request body last arrived, in nanoseconds since `began`.
    input_progress: AtomicU64,
    /// The guest waits for the client to send more.
    awaits_input: AtomicBool,
    /// The poll under way ends because the guest was interrupted, not because it waits.
    interrupted: AtomicBool,
    /// It counts among the calls that compute. The flag is what is looked at after each poll.
    is_run: AtomicBool,
    run: Mutex<Option<Run>>,
    /// Who polls the call, where that is not who polls its guest.
    elsewhere: Mutex<Option<Waker>>,
    outbox: Mutex<Outbox>,
    /// Memory that was asked for its response, in bytes.
    said: AtomicU64,
}

/// So much of a response is taken from the guest whether or not its tenant has memory left: the call was let in while
/// there was some, its work is done, and with it its sandbox's memory is free. A small response with what it costs
/// besides its bytes, or a first block.
const OWED_BYTES: u64 = 80 << 10;

/// What a guest has said and the connection has not yet taken.
#[derive(Default)]
pub(crate) struct Outbox {
    /// `start_response` was called, rightly or not: a second call has to say why (PEP 3333, `exc_info`).
    pub(crate) started: bool,
    /// The arguments of the last `start_response`.
    pub(crate) head: Option<Head>,
    /// The head is final: it goes out with the first block.
    pub(crate) committed: bool,
    /// No block will come, since none is wanted: the guest has only to end.
    pub(crate) silent: bool,
    /// The block on its way: at most one, which is the back-pressure.
    pub(crate) block: Option<Block>,
    /// What follows the body.
    pub(crate) trailers: Option<HeaderMap>,
    /// There are no more blocks, though the guest goes on.
    pub(crate) ended: bool,
    /// What was wrong with the request body, whatever the guest made of that.
    pub(crate) input_error: Option<ReadError>,
}

/// When the head was made final.
pub(crate) enum Commit {
    /// Just now. `length` is what it promises as Content-Length.
    Now {
        length: Option<u64>,
        allows_body: bool,
    },
    Before,
}

impl Outbox {
    /// Makes the head final, if there is one.
    pub(crate) fn commit(&mut self) -> Option<Commit> {
        if self.committed {
            return Some(Commit::Before);
        }
        let head = self.head.as_ref()?;
        let (length, allows_body) = (head.content_length, head.allows_body());
        self.committed = true;
        Some(Commit::Now { length, allows_body })
    }
}

impl CallState {
    /// Leaves a block for the connection, and returns when it has been taken (PEP 3333: a block is handed over before the
    /// next is asked for). Whoever takes it polls this again, so no waker is needed.
    pub(crate) async fn hand_over(&self, block: Block) {
        let mut block = Some(block);
        std::future::poll_fn(|_| {
            let mut outbox = self.outbox();
            if outbox.block.is_some() {
                return Poll::Pending;
            }
            match block.take() {
                Some(block) => {
                    outbox.block = Some(block);
                    Poll::Pending
                }
                None => Poll::Ready(()),
            }
        })
        .await;
    }

    pub fn new(id: RequestId, began: Instant, cpu_time: Duration, account: &Arc<Account>) -> Self {
        Self {
            id,
            began,
            cpu_time,
            witness: Witness::default(),
            account: Arc::clone(account),
            cpu_nanos: AtomicU64::new(0),
            // The first poll begins with the call: one look at the clock less for each request.
            poll_began: AtomicU64::new(1),
            input_progress: AtomicU64::new(0),
            awaits_input: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            is_run: AtomicBool::new(false),
            run: Mutex::default(),
            elsewhere: Mutex::default(),
            outbox: Mutex::default(),
            said: AtomicU64::new(0),
        }
    }

    /// Of a call that does not begin with its request: what came before its first poll is not charged to it.
    pub(crate) fn begins_later(&mut self) {
        *self.poll_began.get_mut() = 0;
    }

    pub(crate) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // Nothing that holds the lock can panic halfway through a change.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The guest's task is about to be polled.
    pub(crate) fn poll_begins(&self) {
        if self.poll_began.load(Ordering::Relaxed) == 0 {
            self.poll_began.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    /// The guest's task has been polled: what it took is charged, what it waits from now on is not.
    pub(crate) fn poll_ends(&self) {
        let began = self.poll_began.swap(0, Ordering::Relaxed);
        self.charge(Duration::from_nanos((self.now() + 1).saturating_sub(began)));
    }

    /// The crew is about to poll it: what that takes is charged when it is known.
    pub(crate) fn turn_begins(&self) {
        self.poll_began.store(0, Ordering::Relaxed);
    }

    /// What the task that drives the call looks at after the guest was polled, as far as it can be compared.
    pub(crate) fn said(&self) -> (bool, bool, bool, bool, bool) {
        let outbox = self.outbox();
        (outbox.committed, outbox.block.is_some(), outbox.ended, outbox.silent, self.awaits_input())
    }

    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Takes memory for a block of its response. None if its tenant may have no more.
    pub(crate) fn hold_memory(&self, bytes: u64) -> Option<Memory> {
        // One block at a time: nobody else counts meanwhile.
        let said = self.said.load(Ordering::Relaxed).saturating_add(bytes);
        self.said.store(said, Ordering::Relaxed);
        if said <= OWED_BYTES { Some(self.account.owe_memory(bytes)) } else { self.account.hold_memory(bytes) }
    }

    /// The guest has been polled, and has not ended. What it reads from disk it has at once; what it waits for of its client
    /// may take long, and others do not wait with it.
    pub(crate) fn run_pauses(&self) {
        if !self.is_run.load(Ordering::Relaxed) {
            return;
        }
        let waits_for_client = self.awaits_input() || self.outbox().block.is_some();
        let run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let is_worth_waiting = run.as_ref().is_some_and(|run| run.is_worth_waiting(self.cpu()));
        drop(run);
        if waits_for_client || !is_worth_waiting {
            self.run_ends();
        }
    }

    pub(crate) fn run_ends(&self) {
        if self.is_run.swap(false, Ordering::Relaxed) {
            let run = self.run.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(run);
        }
    }

    /// Its sandbox is one of those that are kept: it counts among the calls that compute.
    pub(crate) fn computes(&self, run: Run) {
        *self.run.lock().unwrap_or_else(PoisonError::into_inner) = Some(run);
        self.is_run.store(true, Ordering::Relaxed);
    }

    /// Processor time charged so far: the time in which the guest's task was polled, by the wall clock.
    pub fn cpu(&self) -> Duration {
        let under_way = match self.poll_began.load(Ordering::Relaxed) {
            0 => 0,
            began => (self.now() + 1).saturating_sub(began),
        };
        Duration::from_nanos(self.cpu_nanos.load(Ordering::Relaxed) + under_way)
    }

    /// Time that was spent for this call, in its own polls or elsewhere.
    pub(crate) fn charge(&self, time: Duration) {
        self.cpu_nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.account.charge_cpu(time);
    }

    /// Whether it has had more than its processor time.
    pub(crate) fn overdrawn(&self) -> Option<Error> {
        (self.cpu() > self.cpu_time).then_some(Error::Cpu(self.cpu_time))
    }

    /// Its guest runs in another task, which has to wake the one that calls this when something changes for it.
    pub(crate) fn watch(&self, context: &Context<'_>) {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if !elsewhere.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *elsewhere = Some(context.waker().clone());
        }
    }

    /// Something has changed for the task that drives the call, if that is another than the guest's.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    /// Stops a guest that has had its processor time; else it is about to yield. Called by the guest's own code, at each
    /// tick.
    pub(crate) fn interrupt(&self) -> wasmtime::Result<()> {
        self.interrupted.store(true, Ordering::Relaxed);
        match self.overdrawn() {
            Some(error) => Err(wasmtime::Error::new(Stopped(error))),
            None => {
                self.tell_pace();
                Ok(())
            }
        }
    }

    /// Its guest is running: whether for long is of interest to the others on this worker.
    pub(crate) fn tell_pace(&self) {
        if self.cpu() > pace::LONG {
            pace::long_call_runs();
        }
    }

    /// Whether the guest was interrupted since this was last asked.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted.swap(false, Ordering::Relaxed)
    }

    /// The guest waits for a piece of the request body.
    pub(crate) fn input_awaited(&self) {
        self.input_progress.store(self.now(), Ordering::Relaxed);
        self.awaits_input.store(true, Ordering::Relaxed);
        // Another clock runs from now on.
        self.wake();
    }

    /// It has arrived, or will never.
    pub(crate) fn input_arrived(&self) {
        self.input_progress.store(self.now(), Ordering::Relaxed);
        self.awaits_input.store(false, Ordering::Relaxed);
    }

    /// It still waits for it.
    pub(crate) fn input_watched(&self) {
        self.awaits_input.store(true, Ordering::Relaxed);
    }

    /// It may not wait for it any more.
    pub(crate) fn input_unwatched(&self) {
        self.awaits_input.store(false, Ordering::Relaxed);
    }

    /// It cannot be read.
    pub(crate) fn input_failed(&self, error: &ReadError) {
        self.outbox().input_error = Some(error.clone());
    }

    /// What was wrong with the request's body, if anything: then the guest's failure is the client's.
    pub(crate) fn clients_fault(&self) -> Option<Error> {
        self.outbox().input_error.take().map(Error::from)
    }

    pub(crate) fn awaits_input(&self) -> bool {
        self.awaits_input.load(Ordering::Relaxed)
    }

    /// When a piece of the request body last arrived; when the call began, if none has.
    pub(crate) fn last_input(&self) -> Instant {
        self.began + Duration::from_nanos(self.input_progress.load(Ordering::Relaxed))
    }
}
