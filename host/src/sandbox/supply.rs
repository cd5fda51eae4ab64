//! Where the sandboxes of one release come from and go to: fresh ones, some of them made in advance, or ones that have
//! served before, as they are or put back to where they began. Every kind of guest has its sandboxes from here.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use super::memory::{Images, Shelves};
use super::rewind::{Beginning, Lasting, Rewind};
use super::runs::{Patience, Run, Runs};
use super::stock::Stock;
use super::{AppContext, Belongings, CallState, Engine, Keeper, REWIND_FUNCTION, State, fault, memory};
use crate::config::{AppSpec, Instances, Kept};
use crate::data::Turn;
use crate::error::{Busy, Error};

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
    /// None where a sandbox serves one call.
    kept: Option<Kept>,
    /// Between two calls a sandbox is put back to where it began.
    rewind: Option<Rewind>,
    /// Where memories come from; wasmtime's pool, if none.
    shelves: Option<Arc<Shelves>>,
    /// It was said why sandboxes are thrown away that should have been put back.
    has_complained: AtomicBool,
    /// How many of them have been since one was put back; from [`IN_VAIN_MAX`] on nobody tries any more.
    in_vain: AtomicU32,
    /// Sandboxes that wait for their next call; where each serves only one, for that.
    idle: Mutex<Vec<Idle<E::Functions>>>,
    /// Where they are reused.
    runs: Option<Arc<Runs>>,
    pub(super) stock: Stock<E::Functions>,
}

/// A sandbox with the instance in it.
pub(crate) struct Sandbox<F> {
    pub(crate) store: Store<State>,
    pub(crate) instance: Instance,
    pub(crate) functions: F,
    served: u32,
    /// Calls after which it is retired.
    requests_max: u32,
    /// None where it is not to be put back.
    beginning: Option<Beginning>,
    _seat: Option<OwnedSemaphorePermit>,
    /// Held while it runs, by one that sees the app's data.
    turn: Option<Turn>,
}

pub(super) struct Idle<F> {
    sandbox: Sandbox<F>,
    since: Instant,
}

/// So many sandboxes in a row could not be put back: the next ones could not be either.
const IN_VAIN_MAX: u32 = 8;

/// Of an instance's calls, the part that is left to chance.
const JITTER_PART: u32 = 10;

/// How often an instance serves: up to a tenth less than it may, so that instances that began together do not end together.
fn requests_of_one(kept: Kept) -> u32 {
    let spread = kept.requests_max / JITTER_PART;
    let random = RandomState::new().build_hasher().finish();
    kept.requests_max - u32::try_from(random % (u64::from(spread) + 1)).unwrap_or(0)
}

impl<F> Sandbox<F> {
    pub(crate) fn new(store: Store<State>, instance: Instance, functions: F) -> Self {
        Self { store, instance, functions, served: 0, requests_max: 1, beginning: None, _seat: None, turn: None }
    }

    /// Calls after which it is retired.
    pub(crate) fn requests_max(&self) -> u32 {
        self.requests_max
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
        own: Belongings,
    ) -> Arc<Self> {
        // What the pass has not been through may export anything of that name.
        let is_prepared = engine.is_for_rewinding(linked.component());
        let function = linked.component().get_export_index(None, REWIND_FUNCTION).filter(|_| is_prepared);
        let (kept, rewind) = match (spec.instances, function) {
            (Instances::Reuse(kept), _) => (Some(kept), None),
            (Instances::Rewind(kept), Some(function)) => (Some(kept), Some(Rewind { function, images: Images::new() })),
            (Instances::Fresh | Instances::Rewind(_), _) => (None, None),
        };
        // Calls that share an instance wait in it, and not for it.
        let is_waited_for = matches!(spec.instances, Instances::Reuse(_)) && !engine.is_concurrent(linked.component());
        let shelves = engine.shelves(linked.component(), &own.images);
        let supply = Arc::new(Self {
            engine: Arc::clone(engine),
            app: Arc::new(AppContext::new(spec, own)),
            linked,
            entry,
            kept,
            rewind,
            shelves,
            has_complained: AtomicBool::new(false),
            in_vain: AtomicU32::new(0),
            idle: Mutex::default(),
            runs: is_waited_for.then(|| Runs::new(engine.workers())),
            stock: Stock::default(),
        });
        let keeper: Weak<Self> = Arc::downgrade(&supply);
        engine.register(supply.linked.engine(), keeper);
        supply
    }

    /// Whether a guest serves one call and no other, as far as it can know: `wsgi.run_once`.
    pub(crate) fn serves_once(&self) -> bool {
        self.rewind.is_some() || self.kept.is_none_or(|kept| kept.requests_max == 1)
    }

    /// Where memories come from; wasmtime's pool, if none.
    pub(crate) fn shelves(&self) -> Option<&Arc<Shelves>> {
        self.shelves.as_ref()
    }

    /// The memory of an instance that may serve again.
    pub(crate) fn memory_bytes_max(&self) -> u64 {
        self.kept.map_or(u64::MAX, |kept| kept.memory_bytes_max)
    }

    /// Whether each call has a sandbox of its own.
    pub(crate) fn is_fresh(&self) -> bool {
        self.kept.is_none() || self.gave_up_rewinding()
    }

    /// Whether its sandboxes should have been put back after calls, and none could be.
    pub(crate) fn gave_up_rewinding(&self) -> bool {
        self.rewind.is_some() && self.in_vain.load(Ordering::Relaxed) >= IN_VAIN_MAX
    }

    /// A sandbox for a call: one that waits, or a new one.
    pub(crate) async fn open(self: &Arc<Self>, call: &Arc<CallState>) -> Result<Sandbox<E::Functions>, Error> {
        let turn = self.turn().await?;
        let (mut idle, left) = {
            let mut idle = self.idle();
            (idle.pop(), idle.len())
        };
        // What initialisers do to the app's data they do in a turn: nothing is made in advance.
        if self.is_fresh() && turn.is_none() {
            self.restock(left);
        }
        if let Some(runs) = &self.runs {
            let run = match &idle {
                Some(_) => runs.begin(),
                None => {
                    let (run, freed) = Box::pin(self.run(runs)).await;
                    idle = freed;
                    run
                }
            };
            call.computes(run);
        }
        if let Some(Idle { mut sandbox, .. }) = idle {
            super::renew(&mut sandbox.store, call);
            sandbox.turn = turn;
            return Ok(sandbox);
        }
        loop {
            // Boxed: a call that finds a sandbox waiting needs no room for it. What that saves was not measured.
            match Box::pin(self.instantiate(call)).await {
                // A sandbox that serves goes before ones that wait to be used again.
                Err(Error::Busy(Busy::Pool)) if self.engine.make_room(self.linked.engine()) => {}
                Ok(mut sandbox) => {
                    sandbox.turn = turn;
                    sandbox.requests_max = self.kept.map_or(1, requests_of_one);
                    return Ok(sandbox);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until a sandbox is idle, or a worker that could run another one. Those that wait are calls, and no more than there are
    /// permits.
    async fn run(&self, runs: &Arc<Runs>) -> (Run, Option<Idle<E::Functions>>) {
        let waiting = runs.wait();
        let mut patience = Patience::Left;
        loop {
            if let Some(idle) = self.idle().pop() {
                return (runs.begin(), Some(idle));
            }
            if let Some(run) = runs.begin_another(patience) {
                return (run, None);
            }
            patience = waiting.changed().await;
        }
    }

    /// Waits until no other sandbox is at the app's data, if it has some. Those that wait are calls, and no more than there are
    /// permits; how long is bounded as for these.
    async fn turn(&self) -> Result<Option<Turn>, Error> {
        let Some(data) = &self.app.data else { return Ok(None) };
        // Boxed: tokio's timers are aligned to 128 bytes, and would make every call's future so.
        match Box::pin(tokio::time::timeout(self.app.limits.queue_time, data.turn())).await {
            Ok(Ok(turn)) => Ok(Some(turn)),
            Ok(Err(error)) => Err(Error::Host(format!("{} cannot be locked: {error}", data.path().display()))),
            Err(_) => Err(Error::Busy(Busy::Data)),
        }
    }

    pub(super) async fn instantiate(&self, call: &Arc<CallState>) -> Result<Sandbox<E::Functions>, Error> {
        if let Some(shelves) = &self.shelves {
            return self.instantiate_on(shelves, call).await;
        }
        let mut store = super::store(self.linked.engine(), &self.app, call);
        let instantiated = self.linked.instantiate_async(&mut store).await;
        let found = instantiated.and_then(|instance| Ok((instance, self.entry.find(&mut store, &instance)?)));
        match found {
            Ok((instance, functions)) => Ok(Sandbox::new(store, instance, functions)),
            Err(error) => Err(fault::classify(error, store.data())),
        }
    }

    /// With memories of our own.
    async fn instantiate_on(
        &self,
        shelves: &Arc<Shelves>,
        call: &Arc<CallState>,
    ) -> Result<Sandbox<E::Functions>, Error> {
        let seat = self.engine.seat().ok_or(Error::Busy(Busy::Pool))?;
        let mut store = super::store(self.linked.engine(), &self.app, call);
        let made = memory::instantiate(shelves, &self.linked, &mut store).await;
        let found = made.and_then(|made| {
            let functions = self.entry.find(&mut store, &made.instance)?;
            Ok((made, functions))
        });
        let (made, functions) = found.map_err(|error| fault::classify(error, store.data()))?;
        let instance = made.instance;
        let mut beginning = None;
        if let Some(rewind) = self.rewind.as_ref().filter(|_| !self.is_fresh()) {
            let begun = rewind.begin(made, &mut store);
            super::renew(&mut store, call);
            beginning = begun.map_err(|lasting| self.complain(&lasting)).ok();
        }
        Ok(Sandbox { beginning, _seat: Some(seat), ..Sandbox::new(store, instance, functions) })
    }

    /// A sandbox has served without fault: the app's policy says what becomes of it. One with a fault is dropped instead:
    /// what misbehaved is never used again.
    pub(crate) fn keep(&self, mut sandbox: Sandbox<E::Functions>) {
        let Some(kept) = self.kept.filter(|_| !self.is_fresh()) else { return self.discard(sandbox) };
        sandbox.served += 1;
        let meter = &sandbox.store.data().meter;
        // One that wanted more than it may have could need it again, and interpreters give nothing back.
        let outgrew = meter.refused().is_some() || meter.memory_bytes() > kept.memory_bytes_max;
        if sandbox.served >= sandbox.requests_max || outgrew {
            return;
        }
        if self.rewind.is_some() {
            let Some(beginning) = &mut sandbox.beginning else { return self.count_in_vain() };
            if let Err(lasting) = beginning.put_back(&mut sandbox.store) {
                self.complain(&lasting);
                return self.count_in_vain();
            }
            if self.in_vain.load(Ordering::Relaxed) > 0 {
                self.in_vain.store(0, Ordering::Relaxed);
            }
        } else {
            sandbox.store.data_mut().end();
        }
        sandbox.turn = None;
        self.idle().push(Idle::new(sandbox));
    }

    /// Says once why sandboxes that should be put back are made anew.
    fn complain(&self, lasting: &Lasting) {
        if !self.has_complained.swap(true, Ordering::Relaxed) {
            let app = self.app.name.as_str();
            tracing::warn!(app, "an instance is not rewound but made anew, which costs more than \"fresh\": {lasting}");
        }
    }

    /// A sandbox that should have been put back is thrown away.
    fn count_in_vain(&self) {
        if self.in_vain.fetch_add(1, Ordering::Relaxed) + 1 == IN_VAIN_MAX {
            let app = self.app.name.as_str();
            tracing::warn!(
                app,
                "after {IN_VAIN_MAX} calls in a row its instance could not be rewound: from now on each call gets a fresh one"
            );
        }
    }

    /// Retires idle sandboxes whose time is over. Called about once a second.
    pub(crate) fn sweep(&self) {
        if let Some(shelves) = &self.shelves {
            shelves.sweep();
        }
        let Some(kept) = self.kept.filter(|_| !self.is_fresh()) else { return self.sweep_stock() };
        let retired: Vec<_> = {
            let mut idle = self.idle();
            // The longest unused ones are at the bottom.
            let young = idle.iter().position(|idle| idle.since.elapsed() < kept.idle_time).unwrap_or(idle.len());
            idle.drain(..young).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_that_begin_together_do_not_end_together() {
        let requests = |requests_max| {
            let kept = Kept { requests_max, idle_time: std::time::Duration::ZERO, memory_bytes_max: 0 };
            (0..1000).map(|_| requests_of_one(kept)).collect::<std::collections::BTreeSet<_>>()
        };
        let many = requests(1000);
        assert!(many.len() > 50 && many.iter().all(|requests| (900..=1000).contains(requests)), "{many:?}");
        // Of few requests none is given away.
        assert_eq!(requests(9), [9].into());
        assert_eq!(requests(1), [1].into());
    }
}
