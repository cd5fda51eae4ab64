//! One file (with its sidecar) → an app that is ready to be called, or the reason why not. It publishes nothing.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use wasmtime::component::Component;

use super::Loaded;
use super::cache::{Cache, Code};
use super::code::{Components, Found, Known, wanted};
use super::compile::{Compiler, Failure};
use super::content::{Archive, read_sidecar, read_wasm, refused_sidecar};
use super::library::Library;
use super::measure;
use super::notes::notes;
use super::own::{Opened, assets, is_settled, open_data, open_directories};
use super::scan::Candidate;
use super::sleeper::{AWAKE_AT_START, Recipe, Shelf, Sleeper};
use super::turns::{Turn, Turns};
use crate::account::{Account, Accounts};
use crate::admission::Admission;
use crate::apps::{App, Release};
use crate::bundle::Tree;
use crate::capsule::{Capsules, Recorder, Subject};
use crate::config::{AppSpec, Config, Secrets, tenant_name};
use crate::data::{Left, Volumes};
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
    pub(super) common: Common,
    volumes: Volumes,
    pub(super) left: Left,
    pub(super) accounts: Accounts,
    /// Releases whose code is in memory.
    pub(super) awake: Arc<AtomicUsize>,
    /// The same bytes under two names are compiled and mapped once.
    pub(super) components: Mutex<Components>,
    /// Files in memory at the same time, and threads that read, hash and link.
    hands: Turns,
    /// Threads that load and link code for calls that wait. They do not wait for files of any number or size.
    pub(super) waking: Turns,
    /// Threads that count what tenants keep.
    pub(super) measuring: Turns,
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
    /// Perhaps later, and what is live may not go on until then.
    Closed(String),
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

/// What a file and its sidecar say.
struct Read {
    spec: AppSpec,
    secrets: Arc<Secrets>,
    hash: String,
    code_hash: String,
    archive_hash: Option<String>,
    found: Found,
}

/// All that an app is made of.
pub(super) struct Parts {
    pub(super) spec: AppSpec,
    pub(super) secrets: Arc<Secrets>,
    pub(super) kind: Kind,
    pub(super) uses: Uses,
    pub(super) shelf: Arc<Shelf>,
    /// Where it was loaded for this.
    pub(super) code: Option<Arc<Code>>,
    pub(super) not_rewound: Option<String>,
    pub(super) files: Option<Arc<Tree>>,
    pub(super) hash: String,
    pub(super) code_hash: String,
    /// The file's size.
    pub(super) bytes: u64,
    pub(super) origin: Origin,
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
        data_dir: &Path,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // One tenant has all cores where it is alone, and another never waits for it.
        let (hands, waking) = (Turns::new(cores + 1, cores), Turns::new(cores + 1, cores));
        let ticking = Arc::clone(&engine);
        let crew = Crew::new(engine.workers(), move || ticking.wake_ticker());
        let accounts = Accounts::new(engine.sandboxes(), crew);
        let (awake, components) = (Arc::default(), Mutex::default());
        let (volumes, left) = (Volumes::default(), Left::new(data_dir));
        Self {
            engine,
            cache,
            library,
            compiler,
            load_guest,
            common,
            volumes,
            left,
            accounts,
            awake,
            components,
            hands,
            waking,
            measuring: measure::turns(),
        }
    }

    /// Does all of it: read, inspect, compile or fetch, link.
    pub async fn load(self: &Arc<Self>, order: Order) -> Outcome {
        match self.try_load(order).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    /// Forgets components that no app uses any more.
    pub fn retain(&self, hashes: &HashSet<&str>) {
        // A cell that is held elsewhere is about to be used.
        self.components().retain(|(hash, _), cell| hashes.contains(hash.as_str()) || Arc::strong_count(cell) > 1);
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
        self.measure(&account).await?;
        let keyvalue = self.keyvalue(&parts.spec, &account);
        let tenant = tenant_name(&order.name).to_owned();
        self.by_hand(&tenant, move |loader| {
            let live = order.live.as_ref();
            let opened = Opened::new(&parts.spec, parts.files.as_ref(), live, &loader.volumes, &account)?;
            let app = loader.app(&order.config, live, parts, opened, (account, keyvalue))?;
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
            None => self.by_hand(&spec.tenant, move |loader| loader.code_of(&shelf).map_err(passing)).await?,
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
        let Some(Read { spec, secrets, hash, code_hash, archive_hash, found }) = self
            .by_hand(tenant_name(&order.name), {
                let order = Arc::clone(order);
                move |loader| loader.read(&order)
            })
            .await?
        else {
            return Ok(None);
        };
        let (known, code, origin) = self.code(order, &spec, &code_hash, found).await?;
        let files = match archive_hash {
            Some(archive_hash) => Some(self.files(order, &spec.limits, archive_hash).await?),
            None => None,
        };
        let settled = known.kind.settle(spec);
        let spec = settled.map_err(|error| Outcome::Refused(format!("{}.toml: {error}", order.name)))?;
        let Known { shelf, kind, uses, not_rewound } = known;
        let bytes = order.candidate.wasm.bytes;
        Ok(Some(Parts { spec, secrets, kind, uses, shelf, code, not_rewound, files, hash, code_hash, bytes, origin }))
    }

    /// Reads it. None if it is what serves already.
    fn read(&self, order: &Order) -> Result<Option<Read>, Outcome> {
        let sidecar = read_sidecar(order)?;
        let refused = |error| refused_sidecar(order, error);
        let limits = order.config.app_limits(&order.name, sidecar.as_deref()).map_err(refused)?;
        let content = read_wasm(order, &limits)?;
        let spec = order.config.app_spec(&order.name, sidecar.as_deref(), &content.manifest).map_err(refused)?;
        let secrets = spec.read_secrets().map_err(|reason| without_secret(order, reason))?;
        spec.check_environment(&secrets).map_err(Outcome::Passing)?;
        if order
            .live
            .as_ref()
            .is_some_and(|live| live.release.hash == content.hash && is_settled(&spec, &secrets, live))
        {
            return Ok(None);
        }
        // Here its bytes end: they would wait in memory for their turn.
        Ok(Some(Read {
            found: self.find(&wanted(&content.code_hash, &spec), &content.code)?,
            spec,
            secrets: Arc::new(secrets),
            hash: content.hash,
            code_hash: content.code_hash,
            archive_hash: content.archive.map(|archive| archive.hash),
        }))
    }

    /// The files of its bundle: known, found on disk, or unpacked.
    async fn files(
        self: &Arc<Self>,
        order: &Arc<Order>,
        limits: &Limits,
        archive_hash: String,
    ) -> Result<Arc<Tree>, Outcome> {
        let tenant = tenant_name(&order.name);
        let found = self
            .by_hand(tenant, {
                let (limits, hash) = (limits.clone(), archive_hash.clone());
                move |loader| Ok(loader.library.find(&hash, &limits)?)
            })
            .await?;
        if let Some(tree) = found {
            return Ok(tree);
        }
        let turn = self.compiler.unpacking_turn(tenant).await;
        let (turn, content) = self
            .under(turn, {
                let (order, limits) = (Arc::clone(order), limits.clone());
                move |_| read_wasm(&order, &limits)
            })
            .await?;
        match content.archive.filter(|archive| archive.hash == archive_hash) {
            Some(Archive { bytes, hash }) => Ok(self.library.unpack(&turn, &hash, &bytes, limits).await?),
            None => Err(Outcome::Moved),
        }
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

    /// What goes live, beside or in place of what is. Blocks.
    pub(super) fn app(
        self: &Arc<Self>,
        config: &Config,
        live: Option<&Arc<App>>,
        parts: Parts,
        Opened { data, directories, descriptors }: Opened,
        (account, keyvalue): (Arc<Account>, Option<Arc<Keyvalue>>),
    ) -> Result<App, Outcome> {
        let Parts { spec, secrets, kind, uses, shelf, code, not_rewound, files, hash, code_hash, bytes, origin } =
            parts;
        let spec = Arc::new(spec);
        let refused = |error: anyhow::Error| Outcome::Refused(format!("{error:#}"));
        let log = AppLog::new(&spec.name, &spec.limits, &account);
        let log = Arc::new(if config.dev { log.keeping_more() } else { log });
        let assets = assets(&spec, files.as_ref(), &account).map_err(refused)?;
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
        for note in notes(uses, &spec, config.held_by(&spec)) {
            tracing::warn!(app = spec.name.as_str(), "{note}");
        }
        let subject = Subject {
            app: &spec.name,
            tenant: &spec.tenant,
            hash: &hash,
            kind,
            instances: spec.instances.to_string(),
            apps_dir: config.apps_dir.clone(),
        };
        let recorder = Recorder::new(&self.common.capsules, subject, &log, &secrets);
        // One that sleeps goes on to sleep, whatever was said of it.
        let is_idle = |live: &Arc<App>| !live.guest.is_awake();
        let are_many = || self.awake.load(Ordering::Relaxed) >= AWAKE_AT_START;
        let sleeps = origin != Origin::Compiled && live.map_or_else(are_many, is_idle);
        // Within other limits it may not fit.
        let is_same = live.is_none_or(|live| live.spec.limits == spec.limits);
        let code = match code.or_else(|| shelf.code()) {
            None if sleeps && is_same && shelf.is_proven() => None,
            None => Some(self.code_of(&shelf).map_err(passing)?),
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
            bytes,
            kind,
            not_rewound,
        };
        if let Some(reason) = &release.not_rewound {
            let app = spec.name.as_str();
            tracing::warn!(app, "its instances cannot be rewound, so that each call gets a fresh one: {reason}");
        }
        let stats = live.map(|live| Arc::clone(&live.stats)).unwrap_or_default();
        let admission = match live {
            Some(live) if live.spec.limits == spec.limits => Arc::clone(&live.admission),
            live => Arc::new(Admission::new(&spec.limits, account, live.map(|live| &*live.admission))),
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
    pub(super) fn keyvalue(&self, spec: &AppSpec, account: &Arc<Account>) -> Option<Arc<Keyvalue>> {
        (!spec.keyvalue.is_empty())
            .then(|| Keyvalue::new(&self.common.stores, &spec.name, &spec.keyvalue, &spec.limits, account))
    }

    /// Does blocking work on a thread for it, when it is this tenant's turn.
    pub(super) async fn by_hand<T: Send + 'static>(
        self: &Arc<Self>,
        tenant: &str,
        work: impl FnOnce(&Arc<Self>) -> Result<T, Outcome> + Send + 'static,
    ) -> Result<T, Outcome> {
        let turn = self.hands.take(tenant).await;
        Ok(self.under(turn, work).await?.1)
    }

    /// Does blocking work on a thread for it, which has the turn until it is done: a thread goes on where its job was cancelled.
    pub(super) async fn under<T: Send + 'static>(
        self: &Arc<Self>,
        turn: Turn,
        work: impl FnOnce(&Arc<Self>) -> Result<T, Outcome> + Send + 'static,
    ) -> Result<(Turn, T), Outcome> {
        let loader = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&loader);
            (turn, done)
        });
        match done.await {
            Ok((turn, done)) => Ok((turn, done?)),
            Err(error) => Err(Outcome::Refused(format!("loading it failed unexpectedly: {error}"))),
        }
    }
}

/// What is live goes with a secret that it has itself. What is to come may ask for others.
fn without_secret(order: &Order, reason: String) -> Outcome {
    match &order.live {
        Some(live) if live.spec.read_secrets().is_ok() => Outcome::Passing(reason),
        _ => Outcome::Closed(reason),
    }
}

/// What the machine cannot do at the moment.
fn passing(error: anyhow::Error) -> Outcome {
    Outcome::Passing(format!("{error:#}"))
}
