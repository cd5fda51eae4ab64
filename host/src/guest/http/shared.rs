//! Apps of WASI 0.3 that chose reuse: an instance serves several calls at once.
//!
//! Calls do not drive such an instance, since one that stands still must not hold up the others: each instance has a task of its
//! own, its [`Worker`], for as long as the instance lives. A call leaves its request at the worker's desk and carries the
//! response to its client like any other ([`Exchange`]). What ends an instance ends all calls in it.

mod worker;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use wasmtime::component::Component;

use self::worker::{Order, Seat, Ticket, Worker, lock};
use super::exchange::{Answer, End, Exchange};
use super::p3::{self, Handle};
use super::request;
use crate::config::AppSpec;
use crate::error::Error;
use crate::guest::{Call, Guest};
use crate::sandbox::supply::Supply;
use crate::sandbox::task::{Finished, Task};
use crate::sandbox::{Belongings, Engine, Keeper};

/// An app that speaks `wasi:http` 0.3, with instances that are reused.
pub(super) struct Http {
    pool: Arc<Pool>,
}

struct Pool {
    supply: Arc<Supply<Handle>>,
    idle_time: Duration,
    workers: Mutex<Vec<Arc<Worker>>>,
}

impl Http {
    pub(super) fn load(
        engine: &Arc<Engine>,
        component: &Component,
        spec: &AppSpec,
        idle_time: Duration,
        own: Belongings,
    ) -> anyhow::Result<Self> {
        let (linked, handle) = p3::link(engine, component)?;
        let supply = Supply::new(engine, linked, handle, spec, own);
        let pool = Arc::new(Pool { supply, idle_time, workers: Mutex::default() });
        let keeper: Weak<Pool> = Arc::downgrade(&pool);
        engine.register(component.engine(), keeper);
        Ok(Self { pool })
    }
}

impl Guest for Http {
    fn call(&self, call: Call) -> Task {
        let pool = Arc::clone(&self.pool);
        let limits = &self.pool.supply.app.limits;
        Task::new(Arc::clone(&call.state), limits, async move { pool.serve(call).await })
    }

    fn sweep(&self) {
        self.pool.sweep();
    }
}

impl Pool {
    async fn serve(&self, call: Call) -> Result<Finished, Error> {
        self.supply.engine.wake_ticker();
        let app = &self.supply.app;
        let Call { state: call, parts, body, origin, permit, .. } = call;
        let method = parts.method.clone();
        call.witness.keep_head(parts);
        let (request, upload) = request::open(body, &origin, &call, app.limits.request_body_bytes)?;
        let answer = Answer::default();
        let seat = Arc::new(Seat::new(&call));
        let mut ticket =
            self.place(Order { request, origin, answer: answer.clone(), seat, is_alone: false, calls: 1 }).await?;
        let guest = pin!(poll_fn(|context| {
            call.watch(context);
            match ticket.take_fault() {
                Some(error) => Poll::Ready(Err(error)),
                None if answer.is_delivered() => Poll::Ready(Ok(())),
                None => Poll::Pending,
            }
        }));
        let vouch = |_: &mut Context<'_>| ticket.poll_sound();
        let outcome = Exchange::new(app, &call, &method, &answer, &upload).run(guest, vouch).await;
        let sent = match outcome {
            End::Sound(sent) => {
                ticket.is_done = true;
                sent
            }
            End::Faulty(sent) => sent,
        };
        drop(ticket);
        let sent = sent.map(|finished| finished.holding(permit));
        sent.map_err(|error| call.clients_fault().unwrap_or(error))
    }

    /// Finds an instance that can take the call, or makes one.
    async fn place(&self, order: Order) -> Result<Ticket, Error> {
        let seat = Arc::clone(&order.seat);
        let ticket = |worker| Ticket::new(worker, &seat);
        let mut order = Some(order);
        if let Some(worker) = self.offer(&mut order) {
            return Ok(ticket(worker));
        }
        self.make_way();
        let sandbox = self.supply.open(seat.call()).await?;
        let worker = Worker::start(sandbox, self.supply.memory_bytes_max());
        // Nobody else knows it yet: it has room.
        worker.offer(&mut order);
        lock(&self.workers).push(Arc::clone(&worker));
        Ok(ticket(worker))
    }

    /// Leaves the order where there is room for it.
    fn offer(&self, order: &mut Option<Order>) -> Option<Arc<Worker>> {
        let mut workers = lock(&self.workers);
        workers.retain(|worker| !worker.has_ended());
        workers.iter().find(|worker| worker.offer(order)).cloned()
    }

    /// Calls are bounded by their permits, and what instances still do after their calls by this: beyond twice as many instances
    /// as there may be calls, the one that has gone on for longest ends.
    fn make_way(&self) {
        let instances_max = self.supply.app.limits.concurrent_calls.saturating_mul(2);
        let surplus = {
            let mut workers = lock(&self.workers);
            let found = (workers.len() >= instances_max as usize)
                .then(|| workers.iter().position(|worker| worker.has_no_calls_for(Duration::ZERO)))
                .flatten();
            found.map(|found| workers.remove(found))
        };
        if let Some(worker) = surplus {
            worker.desert();
        }
    }

    /// Ends instances that have been idle, or that go on without a call, for too long.
    fn sweep(&self) {
        let wall_time = self.supply.app.limits.wall_time;
        let ended: Vec<_> = {
            let mut workers = lock(&self.workers);
            workers.retain(|worker| !worker.has_ended());
            let is_over = |worker: &mut Arc<Worker>| {
                worker.is_idle_for(self.idle_time.min(wall_time)) || worker.has_no_calls_for(wall_time)
            };
            workers.extract_if(.., is_over).collect()
        };
        for worker in ended {
            worker.desert();
        }
    }
}

impl Keeper for Pool {
    fn give_up_one(&self) -> bool {
        let given_up = {
            let mut workers = lock(&self.workers);
            let idle = workers.iter().position(|worker| worker.is_idle_for(Duration::ZERO));
            // What goes on after its calls gives way to calls.
            let found = idle.or_else(|| workers.iter().position(|worker| worker.has_no_calls_for(Duration::ZERO)));
            found.map(|found| workers.remove(found))
        };
        given_up.is_some_and(|worker| worker.end_now())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // There are no calls any more: they hold the pool.
        for worker in lock(&self.workers).drain(..) {
            worker.desert();
        }
    }
}
