//! One file (with its sidecar) → an app that is ready to be called, or the reason why not. It publishes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OnceCell, Semaphore};
use wasmtime::component::Component;

use super::Loaded;
use super::cache::{Cache, Code};
use super::code::{Known, Wanted};
use super::compile::{Compiler, Failure};
use super::content::{Archive, Content, read_sidecar, read_wasm, refused_sidecar};
use super::library::Library;
use super::notes::notes;
use super::own::{assets, descriptors, is_settled, open_data, open_directories};
use super::scan::Candidate;
use super::sleeper::{AWAKE_AT_START, Recipe, Shelf, Sleeper};
use crate::account::{Account, Accounts};
use crate::admission::Admission;
use crate::apps::{App, Release};
use crate::bundle::Tree;
use crate::capsule::{Capsules, Recorder, Subject};
use crate::config::{AppSpec, Config, Secrets};
use crate::data::Volumes;
use crate::granted::{Granted, Grip};
use crate::guest::{Guest, Kind};
use crate::keyvalue::{Keyvalue, Stores};
use crate::limits::Limits;
use crate::outbound::{Network, Outbound};
use crate::sandbox::{Belongings, Crew, Engine, MemoryImages, Uses};
use crate::telemetry::AppLog;

/// How a component becomes callable: `guest::load`, or a test's stand-in.
pub type LoadGuest = fn(&Arc<Engine>, Kind, &Component, &AppSpec, Belongings) -> anyhow::Result<Box<dyn Guest>>;

/// What all apps of a host have in common beside the engine.
pub(super) struct Common {
    pub(super) network: Arc<Network>,
    pub(super) stores: Arc<Stores>,
    pub(super) capsules: Arc<Capsules>,
    pub(super) granted: Arc<Granted>,
}

/// Loads apps, off the request path.
pub struct Loader {
    pub(super) engine: Arc<Engine>,
    pub(super) cache: Cache,
    library: Library,
    pub(super) compiler: Compiler,
    load_guest: LoadGuest,
    common: Common,
    volumes: Volumes,
    pub(super) accounts: Accounts,
    /// Releases whose code is in memory.
    pub(super) awake: Arc<AtomicUsize>,
    /// The same bytes under two names are compiled and mapped once.
    pub(super) components: Mutex<HashMap<Wanted, Arc<OnceCell<Known>>>>,
    /// Files in memory at the same time, and threads that read, hash and link.
    pub(super) hands: Semaphore,
}

/// What is to be loaded.
pub struct Order {
    pub name: String,
    pub candidate: Candidate,
    pub config: Arc<Config>,
    /// The release that serves now.
    pub live: Option<Arc<App>>,
}

pub enum Outcome {
    /// Ready to go live.
    Ready(Box<Ready>),
    /// It is what serves already.
    Unchanged,
    /// The file changed meanwhile: look again.
    Moved,
    /// Not until the file or its sidecar is another.
    Refused(String),
    /// Perhaps later.
    Passing(String),
}

pub struct Ready {
    pub app: App,
    pub origin: Origin,
    /// From the look at the file to here.
    pub took: Duration,
}

/// Where the compiled code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Compiled,
    /// The cache on disk.
    Cached,
    /// Another app, or this one's last release, has the same bytes.
    Shared,
}

/// All that an app is made of.
struct Parts {
    spec: AppSpec,
    secrets: Arc<Secrets>,
    kind: Kind,
    uses: Uses,
    shelf: Arc<Shelf>,
    /// Where it was loaded for this.
    code: Option<Arc<Code>>,
    not_rewound: Option<String>,
    files: Option<Arc<Tree>>,
    hash: String,
    code_hash: String,
    origin: Origin,
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(reason) => Self::Refused(reason),
            Failure::Passing(reason) => Self::Passing(reason),
            Failure::NotRewound(_) => Self::Refused(failure.to_string()),
        }
    }
}

impl Loader {
    pub fn new(
        engine: Arc<Engine>,
        cache: Cache,
        library: Library,
        compiler: Compiler,
        load_guest: LoadGuest,
        common: Common,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let hands = Semaphore::new(cores);
        let ticking = Arc::clone(&engine);
        let crew = Crew::new(engine.workers(), move || ticking.wake_ticker());
        let accounts = Accounts::new(engine.sandboxes(), crew);
        let (awake, components) = (Arc::default(), Mutex::default());
        let volumes = Volumes::default();
        Self { engine, cache, library, compiler, load_guest, common, volumes, accounts, awake, components, hands }
    }

    /// Does all of it: read, inspect, compile or fetch, link.
    pub async fn load(self: &Arc<Self>, order: Order) -> Outcome {
        match self.try_load(order).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    /// Forgets components that no app uses any more.
    pub fn retain(&self, hashes: &HashSet<&str>) {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        // A cell that is held elsewhere is about to be used.
        components.retain(|(hash, _), cell| hashes.contains(hash.as_str()) || Arc::strong_count(cell) > 1);
    }

    /// Removes compiled code that none of these components needs any more. It takes a thread.
    pub fn tidy_cache(self: &Arc<Self>, used: HashSet<String>) {
        let loader = Arc::clone(self);
        tokio::task::spawn_blocking(move || loader.cache.tidy(&used));
    }

    /// Removes files that no app uses any more. It takes a thread if there may be some.
    pub fn tidy(self: &Arc<Self>) {
        if self.library.is_untidy() {
            let loader = Arc::clone(self);
            tokio::task::spawn_blocking(move || loader.library.tidy());
        }
    }

    async fn try_load(self: &Arc<Self>, order: Order) -> Result<Outcome, Outcome> {
        let started = Instant::now();
        let order = Arc::new(order);
        let Some(parts) = self.parts(&order).await? else { return Ok(Outcome::Unchanged) };
        let origin = parts.origin;
        let account = self.accounts.of(&order.config, &parts.spec.name);
        let keyvalue = self.keyvalue(&parts.spec, &account);
        if let Some(keyvalue) = keyvalue.clone() {
            // Not with one of the hands: a file that was not closed in order is repaired now.
            let measured = tokio::task::spawn_blocking(move || keyvalue.measure()).await;
            measured.map_err(|error| Outcome::Passing(format!("its key-value stores cannot be measured: {error}")))?;
        }
        self.by_hand(move |loader| {
            let app = loader.app(&order, parts, (account, keyvalue))?;
            Ok(Outcome::Ready(Box::new(Ready { app, origin, took: started.elapsed() })))
        })
        .await
    }

    /// One app for others than a host.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn load_one(self: &Arc<Self>, order: Order) -> Result<Loaded, Outcome> {
        let order = Arc::new(order);
        let Parts { spec, secrets, uses, shelf, code, files, .. } =
            self.parts(&order).await?.ok_or(Outcome::Unchanged)?;
        let code = match code {
            Some(code) => code,
            None => self.code_of(&shelf).await.map_err(|error| Outcome::Passing(format!("{error:#}")))?,
        };
        // Whoever runs it by hand has their own patience.
        let account = Account::of_nobody();
        let data = open_data(&spec, None, &account)?;
        let directories = open_directories(&spec, &self.volumes, &account)?;
        let outbound = self.outbound(&spec, &account);
        let keyvalue = self.keyvalue(&spec, &account);
        let log = Arc::new(AppLog::new(&spec.name, &spec.limits, &account));
        let Code { component, images } = Code::clone(&code);
        let grip = Grip::new(&self.common.granted, &Arc::new(spec.clone()));
        let own = Belongings {
            log,
            files,
            data,
            directories,
            secrets,
            account,
            outbound,
            keyvalue,
            descriptors: None,
            grip,
            uses,
            images,
        };
        Ok(Loaded { spec, component, own })
    }

    /// Reads, inspects, compiles or fetches, unpacks or finds. None if it is what serves already.
    ///
    /// # Errors
    /// What else became of it.
    async fn parts(self: &Arc<Self>, order: &Arc<Order>) -> Result<Option<Parts>, Outcome> {
        let (spec, secrets, mut content) = self
            .by_hand({
                let order = Arc::clone(order);
                move |_| {
                    let sidecar = read_sidecar(&order)?;
                    let refused = |error| refused_sidecar(&order, error);
                    let limits = order.config.app_limits(&order.name, sidecar.as_deref()).map_err(refused)?;
                    let content = read_wasm(&order, &limits)?;
                    let spec = order.config.app_spec(&order.name, sidecar.as_deref(), &content.manifest);
                    let spec = spec.map_err(refused)?;
                    let secrets = spec.read_secrets().map_err(Outcome::Passing)?;
                    Ok((spec, Arc::new(secrets), content))
                }
            })
            .await?;
        let (hash, code_hash) = (content.hash.clone(), content.code_hash.clone());
        if order.live.as_ref().is_some_and(|live| live.release.hash == hash && is_settled(&spec, &secrets, live)) {
            return Ok(None);
        }
        // Its bytes would wait in memory for their turn.
        let archive_hash = content.archive.take().map(|archive| archive.hash);
        let (known, code, origin) = self.code(order, &spec, content).await?;
        let files = match archive_hash {
            Some(archive_hash) => Some(self.files(order, &spec.limits, archive_hash).await?),
            None => None,
        };
        let settled = known.kind.settle(spec);
        let spec = settled.map_err(|error| Outcome::Refused(format!("{}.toml: {error}", order.name)))?;
        let Known { shelf, kind, uses, not_rewound } = known;
        Ok(Some(Parts { spec, secrets, kind, uses, shelf, code, not_rewound, files, hash, code_hash, origin }))
    }

    /// The files of its bundle: known, found on disk, or unpacked.
    async fn files(
        self: &Arc<Self>,
        order: &Arc<Order>,
        limits: &Limits,
        archive_hash: String,
    ) -> Result<Arc<Tree>, Outcome> {
        let found = self
            .by_hand({
                let (limits, hash) = (limits.clone(), archive_hash.clone());
                move |loader| Ok(loader.library.find(&hash, &limits)?)
            })
            .await?;
        if let Some(tree) = found {
            return Ok(tree);
        }
        let slot = self.compiler.unpacking_slot().await;
        let content = self.read_again(order, limits).await?;
        match content.archive.filter(|archive| archive.hash == archive_hash) {
            Some(Archive { bytes, hash }) => Ok(self.library.unpack(&slot, &hash, &bytes, limits).await?),
            None => Err(Outcome::Moved),
        }
    }

    /// While a queue of files waits for its turn only the one whose turn it is should be in memory.
    pub(super) async fn read_again(self: &Arc<Self>, order: &Arc<Order>, limits: &Limits) -> Result<Content, Outcome> {
        let (order, limits) = (Arc::clone(order), limits.clone());
        self.by_hand(move |_| read_wasm(&order, &limits)).await
    }

    /// Links it.
    pub(super) fn guest(
        &self,
        kind: Kind,
        code: &Code,
        spec: &AppSpec,
        own: Belongings,
    ) -> anyhow::Result<Box<dyn Guest>> {
        let own = Belongings { images: code.images.clone(), ..own };
        (self.load_guest)(&self.engine, kind, &code.component, spec, own)
    }

    fn app(
        self: &Arc<Self>,
        order: &Order,
        parts: Parts,
        (account, keyvalue): (Arc<Account>, Option<Arc<Keyvalue>>),
    ) -> Result<App, Outcome> {
        let Parts { spec, secrets, kind, uses, shelf, code, not_rewound, files, hash, code_hash, origin } = parts;
        let spec = Arc::new(spec);
        let refused = |error: anyhow::Error| Outcome::Refused(format!("{error:#}"));
        let log = AppLog::new(&spec.name, &spec.limits, &account);
        let log = Arc::new(if order.config.dev { log.keeping_more() } else { log });
        let live = order.live.as_ref();
        let assets = assets(&spec, files.as_ref(), &account).map_err(refused)?;
        let descriptors = descriptors(&spec, files.as_ref(), &account)?;
        let data = open_data(&spec, live, &account)?;
        let directories = open_directories(&spec, &self.volumes, &account)?;
        let outbound = self.outbound(&spec, &account);
        let own = Belongings {
            log: Arc::clone(&log),
            files,
            data: data.clone(),
            directories,
            secrets: Arc::clone(&secrets),
            account: Arc::clone(&account),
            outbound: outbound.clone(),
            keyvalue,
            grip: Grip::new(&self.common.granted, &spec),
            uses,
            descriptors,
            // Its code brings it, when it is linked.
            images: MemoryImages::default(),
        };
        for note in notes(uses, &spec, order.config.held_by(&spec)) {
            tracing::warn!(app = order.name.as_str(), "{note}");
        }
        let subject = Subject {
            app: &spec.name,
            tenant: &spec.tenant,
            hash: &hash,
            kind,
            instances: spec.instances.to_string(),
            apps_dir: order.config.apps_dir.clone(),
        };
        let recorder = Recorder::new(&self.common.capsules, subject, &log, &secrets);
        let sleeps =
            live.is_none() && origin != Origin::Compiled && self.awake.load(Ordering::Relaxed) >= AWAKE_AT_START;
        let code = match code.or_else(|| shelf.code()) {
            None if sleeps && shelf.is_proven() => None,
            None => Some(self.read_code(&shelf).map_err(|error| Outcome::Passing(format!("{error:#}")))?),
            found => found,
        };
        let recipe = Recipe { loader: Arc::clone(self), shelf, kind, spec: Arc::clone(&spec), own };
        let guest = Sleeper::new(recipe, code, sleeps).map_err(refused)?;
        let now = SystemTime::now();
        let release = Release {
            // With the same bytes, only the sidecar is new.
            live_since: live.filter(|live| live.release.hash == hash).map_or(now, |live| live.release.live_since),
            hash,
            code_hash,
            bytes: order.candidate.wasm.bytes,
            kind,
            not_rewound,
        };
        if let Some(reason) = &release.not_rewound {
            let app = order.name.as_str();
            tracing::warn!(app, "its instances cannot be rewound, so that each call gets a fresh one: {reason}");
        }
        let stats = live.map(|live| Arc::clone(&live.stats)).unwrap_or_default();
        let admission = match live {
            Some(live) if live.spec.limits == spec.limits => Arc::clone(&live.admission),
            _ => Arc::new(Admission::new(&spec.limits, account)),
        };
        // Another file may do better.
        let throttle = live.filter(|live| live.release.hash == release.hash).map(|live| Arc::clone(&live.throttle));
        let throttle = throttle.unwrap_or_default();
        Ok(App { admission, throttle, spec, release, guest, log, stats, assets, data, outbound, secrets, recorder })
    }

    /// The way to where it asks to go, if it does.
    fn outbound(&self, spec: &AppSpec, account: &Arc<Account>) -> Option<Arc<Outbound>> {
        (!spec.outbound.is_empty())
            .then(|| Outbound::new(&self.common.network, &spec.name, &spec.outbound, &spec.limits, account))
    }

    /// The way to the stores that it asks for, if it does.
    fn keyvalue(&self, spec: &AppSpec, account: &Arc<Account>) -> Option<Arc<Keyvalue>> {
        (!spec.keyvalue.is_empty())
            .then(|| Keyvalue::new(&self.common.stores, &spec.name, &spec.keyvalue, &spec.limits, account))
    }

    /// Does blocking work on a thread for it, not more at a time than there are cores.
    pub(super) async fn by_hand<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, Outcome> + Send + 'static,
    ) -> Result<T, Outcome> {
        let _hand = self.hands.acquire().await;
        let loader = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&loader)).await {
            Ok(result) => result,
            Err(error) => Err(Outcome::Refused(format!("loading it failed unexpectedly: {error}"))),
        }
    }
}
