//! An app's guest, awake or asleep. Asleep it has no code in memory and nothing linked; the next call wakes it, from the cache of compiled
//! code. It falls asleep when nobody has called it for long.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::cache::Code;
use super::load::Loader;
use crate::config::AppSpec;
use crate::error::{Busy, Error};
use crate::guest::{Call, Guest, Kind};
use crate::sandbox::task::Task;
use crate::sandbox::{Belongings, Variant};

/// So many may be awake when the host starts; the others begin asleep. The first call of one that sleeps takes some
/// milliseconds more, which nobody should notice who has a few apps.
pub(super) const AWAKE_AT_START: usize = 100;

/// The guest of one release.
pub struct Sleeper(Arc<State>);

struct State {
    awake: ArcSwapOption<Awake>,
    /// It was called since somebody looked.
    was_called: AtomicBool,
    /// Since when it was not.
    idle_since: Mutex<Instant>,
    /// While it is being woken: what will come of that.
    waking: Mutex<Option<watch::Receiver<Woken>>>,
    recipe: Arc<Recipe>,
}

/// None until it is known; then the guest, or why there is none.
type Woken = Option<Result<Arc<Awake>, String>>;

/// What it takes to wake it.
pub(super) struct Recipe {
    pub(super) loader: Arc<Loader>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) kind: Kind,
    pub(super) spec: Arc<AppSpec>,
    pub(super) own: Belongings,
}

pub(super) struct Awake {
    guest: Box<dyn Guest>,
    _code: Arc<Code>,
    _counted: Counted,
}

/// One among all that are counted, as long as it is there.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(super) fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Where compiled code is found: in memory, as long as an app that has it is awake, or in the cache.
pub(super) struct Shelf {
    /// As the cache knows it.
    pub(super) hash: String,
    pub(super) variant: Variant,
    code: Mutex<Weak<Code>>,
    /// It was loaded and linked once in this host: it fits.
    is_proven: AtomicBool,
}

impl Shelf {
    pub(super) fn new(hash: &str, variant: Variant) -> Arc<Self> {
        let (code, is_proven) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { hash: hash.to_owned(), variant, code, is_proven })
    }

    pub(super) fn code(&self) -> Option<Arc<Code>> {
        self.code.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Whether it is known to fit.
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.load(Relaxed)
    }

    /// Remembers it, as long as somebody has it.
    pub(super) fn put(&self, code: Code) -> Arc<Code> {
        let code = Arc::new(code);
        *self.code.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&code);
        code
    }
}

impl Recipe {
    /// Links the code. Blocks for some milliseconds.
    ///
    /// # Errors
    /// Why it does not fit this host.
    pub(super) fn make(&self, code: Arc<Code>) -> anyhow::Result<Awake> {
        let Self { loader, shelf, kind, spec, own } = self;
        let guest = loader.guest(*kind, &code, spec, own.clone())?;
        shelf.is_proven.store(true, Relaxed);
        Ok(Awake { guest, _code: code, _counted: Counted::new(&loader.awake) })
    }

    /// Loads the code and links it, on a thread for that, when it is its tenant's turn.
    async fn load(self: &Arc<Self>) -> anyhow::Result<Awake> {
        let turn = self.loader.waking.take(&self.spec.tenant).await;
        let recipe = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            recipe.make(recipe.loader.code_of(&recipe.shelf)?)
        });
        work.await?
    }
}

impl Sleeper {
    /// A release that goes live, with its code. Where it `sleeps` that is linked all the same, so that what does not fit is refused; and
    /// left out where that was done before. Blocks for some milliseconds.
    ///
    /// # Errors
    /// Why it does not fit this host.
    pub(super) fn new(recipe: Recipe, code: Option<Arc<Code>>, sleeps: bool) -> anyhow::Result<Self> {
        let made = code.map(|code| recipe.make(code)).transpose()?;
        Ok(Self(Arc::new(State {
            awake: ArcSwapOption::new(made.filter(|_| !sleeps).map(Arc::new)),
            was_called: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            waking: Mutex::default(),
            recipe: Arc::new(recipe),
        })))
    }

    pub(super) fn recipe(&self) -> &Recipe {
        &self.0.recipe
    }

    /// Begins a call.
    ///
    /// # Errors
    /// Where it was asleep and cannot be woken, or is not awake in time.
    pub async fn call(&self, call: Call) -> Result<Task, Error> {
        let Self(state) = self;
        // Read before written: all workers share the flag.
        if !state.was_called.load(Relaxed) {
            state.was_called.store(true, Relaxed);
        }
        if let Some(awake) = &*state.awake.load() {
            return Ok(awake.guest.call(call));
        }
        let limits = &state.recipe.spec.limits;
        let deadline = call.state.began + limits.first_byte_time.min(limits.wall_time);
        // Boxed: calls that find it awake need no room for it.
        let awake = Box::pin(self.awake_by(deadline)).await?;
        Ok(awake.guest.call(call))
    }

    pub(super) async fn awake_by(&self, deadline: Instant) -> Result<Arc<Awake>, Error> {
        let mut woken = match self.wake() {
            Ok(awake) => return Ok(awake),
            Err(woken) => woken,
        };
        let woken = tokio::time::timeout_at(deadline.into(), woken.wait_for(Option::is_some)).await;
        let woken = woken.map_err(|_| Error::Busy(Busy::Asleep))?;
        let failed = |reason: &str| Error::Host(format!("its compiled code cannot be loaded: {reason}"));
        match woken.as_deref() {
            Ok(Some(Ok(awake))) => Ok(Arc::clone(awake)),
            Ok(Some(Err(reason))) => Err(failed(reason)),
            Ok(None) | Err(_) => Err(failed("whoever loaded it has gone")),
        }
    }

    /// What it is awake with, or what will come of waking it: once for all that wait, and to its end also where none of them
    /// waits any more. Else clients that come and go would have it loaded again and again.
    fn wake(&self) -> Result<Arc<Awake>, watch::Receiver<Woken>> {
        let Self(state) = self;
        let mut waking = state.waking();
        if let Some(woken) = &*waking {
            return Err(woken.clone());
        }
        // It was put there before the lock was free.
        if let Some(awake) = state.awake.load_full() {
            return Ok(awake);
        }
        let (sender, woken) = watch::channel(None);
        *waking = Some(woken.clone());
        tokio::spawn(Arc::clone(state).rouse(sender));
        Err(woken)
    }

    /// Retires idle instances whose time is over, and falls asleep if nobody has called for `idle_time` and none of `running` calls
    /// is under way. Called about once a second.
    pub fn sweep(&self, idle_time: Duration, running: u32) {
        let Self(state) = self;
        let Some(awake) = state.awake.load_full() else { return };
        awake.guest.sweep();
        let mut idle_since = state.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        if state.was_called.swap(false, Relaxed) || running > 0 {
            *idle_since = Instant::now();
        } else if idle_since.elapsed() >= idle_time {
            drop(idle_since);
            state.awake.store(None);
            tracing::debug!(app = state.recipe.spec.name.as_str(), "asleep");
        }
    }

    /// Whether its instances should be rewound, and are not since none could be.
    pub fn gave_up_rewinding(&self) -> bool {
        self.0.awake.load().as_ref().is_some_and(|awake| awake.guest.gave_up_rewinding())
    }

    /// Whether its code is in memory.
    pub fn is_awake(&self) -> bool {
        self.0.awake.load().is_some()
    }
}

impl State {
    async fn rouse(self: Arc<Self>, sender: watch::Sender<Woken>) {
        let began = Instant::now();
        let woken = self.recipe.load().await.map(Arc::new).map_err(|error| format!("{error:#}"));
        if let Ok(awake) = &woken {
            self.awake.store(Some(Arc::clone(awake)));
            let (app, ms) =
                (self.recipe.spec.name.as_str(), u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
            tracing::debug!(app, ms, "awake");
        }
        // Whoever comes now finds it awake, or tries again.
        *self.waking() = None;
        // None may be waiting any more.
        let _ = sender.send(Some(woken));
    }

    fn waking(&self) -> MutexGuard<'_, Option<watch::Receiver<Woken>>> {
        self.waking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
