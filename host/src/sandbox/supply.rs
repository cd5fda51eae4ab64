//! Where the sandboxes of one release come from and go to: fresh ones, some of them made in advance, or ones that have
//! served before. Every kind of guest has its sandboxes from here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use super::stock::Stock;
use super::{AppContext, CallState, Engine, Keeper, State, fault};
use crate::config::{AppSpec, Instances};
use crate::error::{Busy, Error};
use crate::telemetry::AppLog;

/// How a kind of guest finds what it calls in an instance. Done once for each instance, before it serves.
pub(crate) trait Entry: Send + Sync + 'static {
    /// The functions that most calls need.
    type Functions: Send + 'static;

    fn find(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Self::Functions>;
}

/// The sandboxes of one release.
pub(crate) struct Supply<E: Entry> {
    pub(crate) engine: Arc<Engine>,
    pub(crate) app: Arc<AppContext>,
    pub(crate) linked: InstancePre<State>,
    pub(crate) entry: E,
    reuse: Option<Reuse>,
    /// Under `reuse`, sandboxes that wait for their next call; under `fresh`, for their only one.
    idle: Mutex<Vec<Idle<E::Functions>>>,
    pub(super) stock: Stock<E::Functions>,
}

/// A sandbox with the instance in it.
pub(crate) struct Sandbox<F> {
    pub(crate) store: Store<State>,
    pub(crate) instance: Instance,
    pub(crate) functions: F,
    served: u32,
}

pub(super) struct Idle<F> {
    sandbox: Sandbox<F>,
    since: Instant,
}

/// How long an idle instance is kept, and how often it may serve.
#[derive(Clone, Copy, Debug)]
struct Reuse {
    requests_max: u32,
    idle_time: Duration,
}

impl<F> Sandbox<F> {
    pub(crate) fn new(store: Store<State>, instance: Instance, functions: F) -> Self {
        Self { store, instance, functions, served: 0 }
    }
}

impl<F> Idle<F> {
    pub(super) fn new(sandbox: Sandbox<F>) -> Self {
        Self { sandbox, since: Instant::now() }
    }
}

impl<E: Entry> Supply<E> {
    pub(crate) fn new(
        engine: &Arc<Engine>,
        linked: InstancePre<State>,
        entry: E,
        spec: &AppSpec,
        log: Arc<AppLog>,
    ) -> Arc<Self> {
        let reuse = match spec.instances {
            Instances::Fresh => None,
            Instances::Reuse { requests_max, idle_time } => Some(Reuse { requests_max, idle_time }),
        };
        let app = AppContext {
            name: spec.name.clone(),
            limits: spec.limits.clone(),
            env: spec.env.clone(),
            chunked_bodies: spec.chunked_bodies,
            spool_dir: spec.spool_dir.clone(),
            log,
        };
        let supply = Arc::new(Self {
            engine: Arc::clone(engine),
            app: Arc::new(app),
            linked,
            entry,
            reuse,
            idle: Mutex::default(),
            stock: Stock::default(),
        });
        let keeper: Weak<Self> = Arc::downgrade(&supply);
        engine.register(supply.linked.engine(), keeper);
        supply
    }

    /// Whether a sandbox serves one call and no other: `wsgi.run_once`.
    pub(crate) fn serves_once(&self) -> bool {
        self.reuse.is_none_or(|reuse| reuse.requests_max == 1)
    }

    /// Whether each call has a sandbox of its own.
    pub(crate) fn is_fresh(&self) -> bool {
        self.reuse.is_none()
    }

    /// A sandbox for a call: one that waits, or a new one.
    pub(crate) async fn open(self: &Arc<Self>, call: &Arc<CallState>) -> Result<Sandbox<E::Functions>, Error> {
        let (idle, left) = {
            let mut idle = self.idle();
            (idle.pop(), idle.len())
        };
        if self.is_fresh() {
            self.restock(left);
        }
        if let Some(Idle { mut sandbox, .. }) = idle {
            super::renew(&mut sandbox.store, call);
            return Ok(sandbox);
        }
        loop {
            // Boxed: a call that finds a sandbox waiting needs no room for it. What that saves was not measured.
            match Box::pin(self.instantiate(call)).await {
                // A sandbox that serves goes before ones that wait to be used again.
                Err(Error::Busy(Busy::Pool)) if self.engine.make_room(self.linked.engine()) => {}
                opened => return opened,
            }
        }
    }

    pub(super) async fn instantiate(&self, call: &Arc<CallState>) -> Result<Sandbox<E::Functions>, Error> {
        let mut store = super::store(self.linked.engine(), &self.app, call);
        let instantiated = self.linked.instantiate_async(&mut store).await;
        let found = instantiated.and_then(|instance| Ok((instance, self.entry.find(&mut store, &instance)?)));
        match found {
            Ok((instance, functions)) => Ok(Sandbox::new(store, instance, functions)),
            Err(error) => Err(fault::classify(error, store.data())),
        }
    }

    /// A sandbox has served without fault: the app's policy says what becomes of it. One with a fault is dropped instead:
    /// what misbehaved is never used again.
    pub(crate) fn keep(&self, mut sandbox: Sandbox<E::Functions>) {
        let Some(reuse) = self.reuse else { return self.discard(sandbox) };
        sandbox.served += 1;
        if sandbox.served < reuse.requests_max {
            sandbox.store.data_mut().end();
            self.idle().push(Idle::new(sandbox));
        }
    }

    /// Retires idle sandboxes whose time is over. Called about once a second.
    pub(crate) fn sweep(&self) {
        let Some(reuse) = self.reuse else { return self.sweep_stock() };
        let retired: Vec<_> = {
            let mut idle = self.idle();
            // The longest unused ones are at the bottom.
            let kept = idle.iter().position(|idle| idle.since.elapsed() < reuse.idle_time).unwrap_or(idle.len());
            idle.drain(..kept).collect()
        };
        drop(retired);
    }

    pub(super) fn idle(&self) -> MutexGuard<'_, Vec<Idle<E::Functions>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Entry> Keeper for Supply<E> {
    fn give_up_one(&self) -> bool {
        if self.stock.give_up_one() {
            return true;
        }
        // The longest unused one is at the bottom.
        let given_up = {
            let mut idle = self.idle();
            (!idle.is_empty()).then(|| idle.remove(0))
        };
        given_up.is_some()
    }
}
