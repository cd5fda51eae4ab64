//! One instance that serves several calls, and its task: calls leave their requests at its desk.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use wasmtime::component::Accessor;

use super::super::exchange::Answer;
use super::super::p3::{self, Function};
use super::super::request::RequestBody;
use crate::account::Account;
use crate::error::Error;
use crate::origin::Origin;
use crate::sandbox::crew::{Lendable, Payer};
use crate::sandbox::ledger::{Ledger, Rest};
use crate::sandbox::supply::Sandbox;
use crate::sandbox::{CallState, State, fault};

/// Calls of one instance at the same time. More memory for each call, or one more instance: beyond this the second is better.
const CALLS_AT_ONCE: usize = 16;

/// One instance, and the calls in it.
pub(super) struct Worker {
    desk: Mutex<Desk>,
    /// What runs the instance. None when it has ended.
    driver: Mutex<Option<Driver>>,
    ledger: Arc<Ledger>,
    account: Arc<Account>,
    /// The instance is being polled.
    runs: AtomicBool,
    /// The guest has tasks: a call's, or what calls have left behind.
    has_tasks: AtomicBool,
    /// With more memory than this it takes no further calls.
    memory_bytes_max: u64,
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Desk {
    /// Not yet begun.
    orders: Vec<Order>,
    /// Every call of this instance that is under way.
    seats: Vec<Arc<Seat>>,
    served: u32,
    /// Calls after which it is retired.
    requests_max: u32,
    /// More calls may come.
    open: bool,
    /// A call went away before its end: what the guest still does for it must not go on for long.
    deserted: bool,
    /// The guest waits; it could as well begin another call.
    at_rest: bool,
    /// Nothing is left of the calls before, as the instance was found after it was last polled.
    vacant: bool,
    /// Since when there are no calls.
    idle_since: Instant,
    /// Of the worker's task.
    waker: Option<Waker>,
}

pub(super) struct Order {
    pub(super) request: http::Request<RequestBody>,
    pub(super) origin: Arc<Origin>,
    pub(super) answer: Answer,
    pub(super) seat: Arc<Seat>,
    /// Nothing else goes on in the instance: until there is another call, whatever it writes is this one's.
    pub(super) is_alone: bool,
    /// Under way in the instance, with this one.
    pub(super) calls: u32,
}

/// A call's place in an instance.
pub(super) struct Seat {
    call: Arc<CallState>,
    /// Why the instance ended under it.
    fault: Mutex<Option<Error>>,
    has_failed: AtomicBool,
    /// The call waits for the poll of the instance that is under way to end.
    awaits_rest: AtomicBool,
}

/// Held by a call while it is under way.
pub(super) struct Ticket {
    worker: Arc<Worker>,
    seat: Arc<Seat>,
    /// The guest has done what the call wanted.
    pub(super) is_done: bool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these locks can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seat {
    pub(super) fn new(call: &Arc<CallState>) -> Self {
        Self {
            call: Arc::clone(call),
            fault: Mutex::default(),
            has_failed: AtomicBool::new(false),
            awaits_rest: AtomicBool::new(false),
        }
    }

    pub(super) fn call(&self) -> &Arc<CallState> {
        &self.call
    }
}

impl Ticket {
    pub(super) fn new(worker: Arc<Worker>, seat: &Arc<Seat>) -> Self {
        Self { worker, seat: Arc::clone(seat), is_done: false }
    }

    /// Why the instance ended under the call, if it did and nobody has asked before.
    pub(super) fn take_fault(&self) -> Option<Error> {
        lock(&self.seat.fault).take()
    }

    /// Whether what the call was given is sound: bodies of an instance that fails look as if they had ended by themselves. While
    /// the instance is being polled on another thread that is not known yet.
    pub(super) fn poll_sound(&self) -> Poll<Result<(), Error>> {
        if self.worker.runs.load(Ordering::SeqCst) {
            self.seat.awaits_rest.store(true, Ordering::SeqCst);
            if self.worker.runs.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
        }
        if !self.seat.has_failed.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        // Where it is gone, the guest's side has told it already.
        let fault = self.take_fault();
        Poll::Ready(Err(fault.unwrap_or_else(|| Error::Shared("it has ended".to_owned()))))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.worker.leave(&self.seat, self.is_done);
    }
}

impl Worker {
    pub(super) fn start(mut sandbox: Sandbox<Function>, memory_bytes_max: u64) -> Arc<Self> {
        let ledger = Arc::new(Ledger::default());
        sandbox.store.data_mut().ledger = Some(Arc::clone(&ledger));
        let desk = Desk {
            orders: Vec::new(),
            seats: Vec::new(),
            served: 0,
            requests_max: sandbox.requests_max(),
            open: true,
            deserted: false,
            at_rest: true,
            vacant: true,
            idle_since: Instant::now(),
            waker: None,
        };
        let account = Arc::clone(&sandbox.store.data().app.account);
        let worker = Arc::new(Self {
            desk: Mutex::new(desk),
            driver: Mutex::default(),
            ledger,
            account: Arc::clone(&account),
            runs: AtomicBool::new(false),
            has_tasks: AtomicBool::new(false),
            memory_bytes_max,
        });
        let driver = drive(Arc::clone(&worker), sandbox);
        *lock(&worker.driver) = Some(Box::pin(driver));
        let owner = Arc::clone(&worker);
        let mut running = Lendable::new(Payer::Itself(account), poll_fn(move |context| owner.poll(context)));
        tokio::spawn(poll_fn(move |context| running.poll(context)));
        worker
    }

    /// Runs the instance until it has to wait.
    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut slot = lock(&self.driver);
        let Some(driver) = &mut *slot else { return Poll::Ready(()) };
        self.runs.store(true, Ordering::SeqCst);
        self.ledger.poll_begins();
        let polled = driver.as_mut().poll(context);
        match (polled, self.ledger.poll_ends()) {
            (Poll::Ready(()), _) => {}
            (Poll::Pending, Err(error)) => self.close(Err(error)),
            (Poll::Pending, Ok(rest)) => {
                self.runs.store(false, Ordering::SeqCst);
                let mut desk = lock(&self.desk);
                desk.at_rest = rest == Rest::Waiting;
                desk.vacant = desk.orders.is_empty() && !self.has_tasks.load(Ordering::Relaxed);
                for seat in &desk.seats {
                    if seat.awaits_rest.swap(false, Ordering::SeqCst) {
                        seat.call.wake();
                    }
                }
                // What an abandoned call has begun, and nobody waits for, is not gone on with.
                if !(desk.deserted && desk.seats.is_empty()) {
                    return Poll::Pending;
                }
            }
        }
        self.runs.store(false, Ordering::SeqCst);
        *slot = None;
        Poll::Ready(())
    }

    /// The instance has ended: whoever is still in it learns why.
    fn close(&self, ended: Result<(), Error>) {
        let seats = {
            let mut desk = lock(&self.desk);
            desk.open = false;
            desk.orders.clear();
            std::mem::take(&mut desk.seats)
        };
        let Err(error) = ended else { return };
        if seats.is_empty() {
            if self.account.may_report(0, Instant::now()) {
                tracing::warn!(target: "wasgi::request", cause = error.label(), "after its calls, an instance: {error}");
            }
            return;
        }
        let debtor = self.ledger.debtor();
        let why = error.to_string();
        let mut error = Some(error);
        for seat in seats {
            // Where it is not known whose fault it was, it is everybody's.
            let is_its_fault = debtor.is_none_or(|debtor| debtor == seat.call.id);
            let own = if is_its_fault { error.take() } else { None };
            *lock(&seat.fault) = Some(own.unwrap_or_else(|| Error::Shared(why.clone())));
            seat.has_failed.store(true, Ordering::SeqCst);
            seat.call.wake();
        }
    }

    /// Takes a call, if there is one and room for it.
    pub(super) fn offer(&self, order: &mut Option<Order>) -> bool {
        let mut desk = lock(&self.desk);
        if !desk.open || !desk.at_rest || desk.seats.len() >= CALLS_AT_ONCE {
            return false;
        }
        let Some(mut order) = order.take() else { return false };
        order.is_alone = std::mem::take(&mut desk.vacant);
        desk.served += 1;
        desk.open &= desk.served < desk.requests_max;
        // Until it is known whether this one computes or waits, others go elsewhere.
        desk.at_rest = false;
        desk.seats.push(Arc::clone(&order.seat));
        order.calls = u32::try_from(desk.seats.len()).unwrap_or(u32::MAX);
        desk.orders.push(order);
        desk.wake();
        true
    }

    /// A call is over.
    fn leave(&self, seat: &Arc<Seat>, is_done: bool) {
        self.ledger.leave(&seat.call);
        let mut desk = lock(&self.desk);
        desk.seats.retain(|other| !Arc::ptr_eq(other, seat));
        if !is_done {
            desk.open = false;
            desk.deserted = true;
        }
        if desk.seats.is_empty() {
            desk.idle_since = Instant::now();
            desk.wake();
        }
    }

    /// Ends the instance as soon as there are no calls in it.
    pub(super) fn desert(&self) {
        let mut desk = lock(&self.desk);
        desk.open = false;
        desk.deserted = true;
        desk.wake();
    }

    /// Ends an idle instance at once. False if it is running.
    pub(super) fn end_now(&self) -> bool {
        self.desert();
        let driver = self.driver.try_lock().ok().and_then(|mut driver| driver.take());
        driver.is_some()
    }

    /// Nothing of the instance is left. One that is being polled is still there.
    pub(super) fn has_ended(&self) -> bool {
        self.driver.try_lock().is_ok_and(|driver| driver.is_none())
    }

    /// Whether it has had no calls for so long, whatever it still does.
    pub(super) fn has_no_calls_for(&self, time: Duration) -> bool {
        let desk = lock(&self.desk);
        desk.seats.is_empty() && desk.idle_since.elapsed() >= time
    }

    pub(super) fn is_idle_for(&self, time: Duration) -> bool {
        let desk = lock(&self.desk);
        desk.seats.is_empty() && desk.at_rest && desk.idle_since.elapsed() >= time
    }

    /// What there is to do; none where the instance is over.
    fn next_orders(&self, context: &Context<'_>) -> Vec<Order> {
        let mut desk = lock(&self.desk);
        if !desk.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            desk.waker = Some(context.waker().clone());
        }
        std::mem::take(&mut desk.orders)
    }

    fn is_over(&self) -> bool {
        let desk = lock(&self.desk);
        !desk.open && desk.seats.is_empty()
    }
}

impl Desk {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// Runs an instance until it has served its last call.
async fn drive(worker: Arc<Worker>, mut sandbox: Sandbox<Function>) {
    let (store, handle) = (&mut sandbox.store, sandbox.functions);
    let ran = store.run_concurrent(async |accessor| work(&worker, accessor, handle).await).await.flatten();
    worker.close(ran.map_err(|error| fault::classify(error, store.data())));
}

/// Begins calls as they come, and sees to their responses.
async fn work(worker: &Worker, accessor: &Accessor<State>, handle: Function) -> wasmtime::Result<()> {
    let mut calls: Vec<Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send + '_>>> = Vec::new();
    poll_fn(|context| {
        loop {
            for index in (0..calls.len()).rev() {
                if let Poll::Ready(done) = calls[index].as_mut().poll(context) {
                    done?;
                    drop(calls.swap_remove(index));
                    let memory_bytes = accessor.with(|mut access| access.get().meter.memory_bytes());
                    if memory_bytes > worker.memory_bytes_max {
                        lock(&worker.desk).open = false;
                    }
                }
            }
            let orders = worker.next_orders(context);
            if orders.is_empty() {
                break;
            }
            worker.has_tasks.store(true, Ordering::Relaxed);
            calls.extend(orders.into_iter().map(|order| -> Pin<Box<dyn Future<Output = _> + Send + '_>> {
                Box::pin(begin(worker, accessor, handle, order))
            }));
        }
        if calls.is_empty() && accessor.poll_no_interesting_tasks(context).is_ready() {
            worker.has_tasks.store(false, Ordering::Relaxed);
            worker.ledger.settle();
            accessor.with(|mut access| access.get().end());
            if worker.is_over() {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    })
    .await
}

async fn begin(worker: &Worker, accessor: &Accessor<State>, handle: Function, order: Order) -> wasmtime::Result<()> {
    let Order { request, origin, answer, seat, is_alone, calls } = order;
    accessor.with(|mut access| if is_alone { access.get().begin(&seat.call) } else { access.get().join(calls) });
    let entered = |task| worker.ledger.enter(task, Arc::clone(&seat.call));
    p3::respond(accessor, handle, request, &origin, (&seat.call, &answer), entered).await?;
    seat.call.wake();
    Ok(())
}
