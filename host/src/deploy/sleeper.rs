//! An app's guest, awake or asleep. Asleep it has no code in memory and nothing linked; the next call wakes it, from the cache of compiled
//! code. It falls asleep when nobody has called it for long.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::cache::Code;
use super::load::Loader;
use crate::config::AppSpec;
use crate::error::Error;
use crate::guest::{Call, Guest, Kind};
use crate::sandbox::task::Task;
use crate::sandbox::{Belongings, Variant};

/// So many may be awake when the host starts; the others begin asleep. The first call of one that sleeps takes some
/// milliseconds more, which nobody should notice who has a few apps.
pub(super) const AWAKE_AT_START: usize = 100;

/// The guest of one release.
pub struct Sleeper {
    awake: ArcSwapOption<Awake>,
    /// It was called since somebody looked.
    was_called: AtomicBool,
    /// Since when it was not.
    idle_since: Mutex<Instant>,
    /// Held by whoever wakes it.
    waking: tokio::sync::Mutex<()>,
    recipe: Recipe,
}

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

/// One that is awake, among all.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(all: &Arc<AtomicUsize>) -> Self {
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

    async fn load(&self) -> anyhow::Result<Awake> {
        let code = self.loader.code_of(&self.shelf).await?;
        // Linking is quick where the code is there.
        self.make(code)
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
        Ok(Self {
            awake: ArcSwapOption::new(made.filter(|_| !sleeps).map(Arc::new)),
            was_called: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            waking: tokio::sync::Mutex::default(),
            recipe,
        })
    }

    /// Begins a call.
    ///
    /// # Errors
    /// Where it was asleep and cannot be woken.
    pub async fn call(&self, call: Call) -> Result<Task, Error> {
        // Read before written: all workers share the flag.
        if !self.was_called.load(Relaxed) {
            self.was_called.store(true, Relaxed);
        }
        if let Some(awake) = &*self.awake.load() {
            return Ok(awake.guest.call(call));
        }
        // Boxed: calls that find it awake need no room for it.
        let awake = Box::pin(self.wake()).await?;
        Ok(awake.guest.call(call))
    }

    async fn wake(&self) -> Result<Arc<Awake>, Error> {
        let _waking = self.waking.lock().await;
        if let Some(awake) = self.awake.load_full() {
            return Ok(awake);
        }
        let began = Instant::now();
        let awake = self.recipe.load().await;
        let awake =
            Arc::new(awake.map_err(|error| Error::Host(format!("its compiled code cannot be loaded: {error:#}")))?);
        self.awake.store(Some(Arc::clone(&awake)));
        let (app, ms) =
            (self.recipe.spec.name.as_str(), u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        tracing::debug!(app, ms, "awake");
        Ok(awake)
    }

    /// Retires idle instances whose time is over, and falls asleep if nobody has called for `idle_time` and none of `running` calls
    /// is under way. Called about once a second.
    pub fn sweep(&self, idle_time: Duration, running: u32) {
        let Some(awake) = self.awake.load_full() else { return };
        awake.guest.sweep();
        let mut idle_since = self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        if self.was_called.swap(false, Relaxed) || running > 0 {
            *idle_since = Instant::now();
        } else if idle_since.elapsed() >= idle_time {
            drop(idle_since);
            self.awake.store(None);
            tracing::debug!(app = self.recipe.spec.name.as_str(), "asleep");
        }
    }

    /// Whether its instances should be rewound, and are not since none could be.
    pub fn gave_up_rewinding(&self) -> bool {
        self.awake.load().as_ref().is_some_and(|awake| awake.guest.gave_up_rewinding())
    }

    /// Whether its code is in memory.
    pub fn is_awake(&self) -> bool {
        self.awake.load().is_some()
    }
}
