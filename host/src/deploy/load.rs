//! One file (with its sidecar) → an app that is ready to be called, or the reason why not. It publishes nothing.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OnceCell, Semaphore};
use wasmtime::component::Component;

use super::cache::{self, Cache};
use super::compile::{Compiler, Failure};
use super::inspect;
use super::scan::{self, Candidate};
use crate::admission::Admission;
use crate::apps::{App, Release};
use crate::config::{AppSpec, Config, Instances};
use crate::guest::{Guest, Kind};
use crate::limits::Limits;
use crate::sandbox::{Abi, Engine, Variant};
use crate::telemetry::AppLog;

/// A sidecar is a page of text.
const SIDECAR_BYTES_MAX: u64 = 64 << 10;

/// How a component becomes callable: `guest::load`, or a test's stand-in.
pub type LoadGuest = fn(&Arc<Engine>, Kind, &Component, &AppSpec, Arc<AppLog>) -> anyhow::Result<Box<dyn Guest>>;

/// Loads apps, off the request path.
pub struct Loader {
    engine: Arc<Engine>,
    cache: Cache,
    compiler: Compiler,
    load_guest: LoadGuest,
    /// The same bytes under two names are compiled and mapped once.
    components: Mutex<HashMap<Wanted, Arc<OnceCell<Code>>>>,
    /// Files in memory at the same time, and threads that read, hash and link.
    hands: Semaphore,
}

/// A component: by the hash of its file, and whether its instances are to be rewound.
type Wanted = (String, bool);

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

/// A component, ready to be linked.
#[derive(Clone)]
struct Code {
    component: Component,
    kind: Kind,
    /// Why its instances are not rewound, though that is wanted.
    not_rewound: Option<String>,
}

/// What the compiler's process has made.
enum Compiled {
    Component(Component),
    NotRewound(String),
}

/// A file's content, known to be what its hash says.
struct Content {
    bytes: Vec<u8>,
    hash: String,
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
    pub fn new(engine: Arc<Engine>, cache: Cache, compiler: Compiler, load_guest: LoadGuest) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { engine, cache, compiler, load_guest, components: Mutex::default(), hands: Semaphore::new(cores) }
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

    async fn try_load(self: &Arc<Self>, order: Order) -> Result<Outcome, Outcome> {
        let started = Instant::now();
        let order = Arc::new(order);
        let (spec, content) = self
            .by_hand({
                let order = Arc::clone(&order);
                move |_| {
                    let spec = read_spec(&order)?;
                    let content = read_wasm(&order, &spec.limits)?;
                    Ok((spec, content))
                }
            })
            .await?;
        let hash = content.hash.clone();
        if order.live.as_ref().is_some_and(|live| live.release.hash == hash && is_settled(&spec, live)) {
            return Ok(Outcome::Unchanged);
        }
        let (code, origin) = self.code(&order, &spec, content).await?;
        let spec = code.kind.settle(spec).map_err(|error| Outcome::Refused(format!("{}.toml: {error}", order.name)))?;
        self.by_hand(move |loader| {
            let app = loader.app(&order, spec, hash, code).map_err(|error| Outcome::Refused(format!("{error:#}")))?;
            Ok(Outcome::Ready(Box::new(Ready { app, origin, took: started.elapsed() })))
        })
        .await
    }

    /// The compiled component: shared, from the cache, or new.
    async fn code(
        self: &Arc<Self>,
        order: &Arc<Order>,
        spec: &AppSpec,
        content: Content,
    ) -> Result<(Code, Origin), Outcome> {
        let rewinds = matches!(spec.instances, Instances::Rewind(_));
        let cell = {
            let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(components.entry((content.hash.clone(), rewinds)).or_default())
        };
        let mut origin = Origin::Shared;
        let code = cell
            .get_or_try_init(|| async {
                let hash = content.hash.clone();
                let (kind, abi) = self
                    .by_hand(move |_| {
                        let found = inspect::outline(&content.bytes)
                            .map_err(|refusal| Outcome::Refused(refusal.to_string()))?;
                        Ok((found.kind, found.abi))
                    })
                    .await?;
                let mut not_rewound = None;
                if rewinds && kind == Kind::Wsgi && abi == Abi::Sync {
                    match self.compiled(order, &spec.limits, &hash, Variant::Rewind, &mut origin).await? {
                        Compiled::Component(component) => return Ok(Code { component, kind, not_rewound }),
                        Compiled::NotRewound(reason) => not_rewound = Some(reason),
                    }
                }
                match self.compiled(order, &spec.limits, &hash, abi.into(), &mut origin).await? {
                    Compiled::Component(component) => Ok(Code { component, kind, not_rewound }),
                    Compiled::NotRewound(reason) => Err(Outcome::Refused(reason)),
                }
            })
            .await?
            .clone();
        Ok((code, origin))
    }

    /// From the cache, or new.
    async fn compiled(
        self: &Arc<Self>,
        order: &Arc<Order>,
        limits: &Limits,
        hash: &str,
        variant: Variant,
        origin: &mut Origin,
    ) -> Result<Compiled, Outcome> {
        let owned = hash.to_owned();
        let cached = self.by_hand(move |loader| Ok(loader.cache.load(loader.engine(variant)?, &owned))).await?;
        *origin = if cached.is_some() { Origin::Cached } else { Origin::Compiled };
        match cached {
            Some(component) => Ok(Compiled::Component(component)),
            None => self.compile(order, limits, hash.to_owned(), variant).await,
        }
    }

    /// Compiles into the cache and loads it from there.
    async fn compile(
        self: &Arc<Self>,
        order: &Arc<Order>,
        limits: &Limits,
        hash: String,
        variant: Variant,
    ) -> Result<Compiled, Outcome> {
        // While a queue of files waits to be compiled only the one whose turn it is should be in memory: read it again.
        let slot = self.compiler.slot().await;
        let (content, output) = self
            .by_hand({
                let (order, limits) = (Arc::clone(order), limits.clone());
                move |loader| {
                    let output = loader
                        .cache
                        .temp()
                        .map_err(|error| Outcome::Passing(format!("cannot write to the cache: {error}")))?;
                    Ok((read_wasm(&order, &limits)?, output))
                }
            })
            .await?;
        // What is compiled is what was inspected and what the cache will call it: else one tenant could plant code for the
        // hash of another's file.
        if content.hash != hash {
            return Err(Outcome::Moved);
        }
        match self.compiler.compile(&slot, &content.bytes, variant, limits, &output).await {
            Err(Failure::NotRewound(reason)) => return Ok(Compiled::NotRewound(reason)),
            compiled => compiled?,
        }
        drop((slot, content));
        self.by_hand(move |loader| {
            let engine = loader.engine(variant)?;
            loader
                .cache
                .keep(engine, &hash, output)
                .map_err(|error| Outcome::Passing(format!("cannot write to the cache: {error:#}")))?;
            let loaded = loader.cache.load_new(engine, &hash);
            let loaded = loaded.map_err(|error| Outcome::Refused(format!("it does not fit this host: {error:#}")))?;
            Ok(Compiled::Component(loaded))
        })
        .await
    }

    /// The engine that runs components of this variant.
    fn engine(&self, variant: Variant) -> Result<&wasmtime::Engine, Outcome> {
        self.engine.wasmtime(variant).map_err(|error| Outcome::Passing(format!("{error:#}")))
    }

    fn app(&self, order: &Order, spec: AppSpec, hash: String, code: Code) -> anyhow::Result<App> {
        let log = AppLog::new(&spec.name, &spec.limits);
        let log = Arc::new(if order.config.dev { log.keeping_lines() } else { log });
        let guest = (self.load_guest)(&self.engine, code.kind, &code.component, &spec, Arc::clone(&log))?;
        let now = SystemTime::now();
        let live = order.live.as_ref();
        let release = Release {
            // With the same bytes, only the sidecar is new.
            live_since: live.filter(|live| live.release.hash == hash).map_or(now, |live| live.release.live_since),
            hash,
            bytes: order.candidate.wasm.bytes,
            kind: code.kind,
            not_rewound: code.not_rewound,
        };
        if let Some(reason) = &release.not_rewound {
            let app = order.name.as_str();
            tracing::warn!(app, "its instances cannot be rewound, so that each call gets a fresh one: {reason}");
        }
        let stats = live.map(|live| Arc::clone(&live.stats)).unwrap_or_default();
        let admission = match live {
            Some(live) if live.spec.limits == spec.limits => Arc::clone(&live.admission),
            _ => Arc::new(Admission::new(&spec.limits)),
        };
        Ok(App { admission, spec, release, guest, log, stats })
    }

    /// Does blocking work on a thread for it, not more at a time than there are cores.
    async fn by_hand<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Outcome> + Send + 'static,
    ) -> Result<T, Outcome> {
        let _hand = self.hands.acquire().await;
        let loader = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&loader)).await {
            Ok(result) => result,
            Err(error) => Err(Outcome::Refused(format!("loading it failed unexpectedly: {error}"))),
        }
    }
}

/// Whether an app with the same bytes already is what it should be.
fn is_settled(spec: &AppSpec, live: &App) -> bool {
    live.release.kind.settle(spec.clone()).is_ok_and(|spec| spec == live.spec)
}

/// What the app is to be, by its sidecar. One that cannot be read refuses the app: its limits might be in it.
fn read_spec(order: &Order) -> Result<AppSpec, Outcome> {
    let text = match order.candidate.sidecar {
        None => None,
        Some(stamp) => {
            let path = format!("{}.toml", order.name);
            let bytes = read(&order.config.apps_dir, &path, stamp, SIDECAR_BYTES_MAX)?;
            let text = String::from_utf8(bytes).map_err(|_| Outcome::Refused(format!("{path} is not UTF-8 text")))?;
            Some(text)
        }
    };
    let spec = order.config.app_spec(&order.name, text.as_deref());
    spec.map_err(|error| Outcome::Refused(one_line(&format!("{}.toml: {error}", order.name))))
}

fn read_wasm(order: &Order, limits: &Limits) -> Result<Content, Outcome> {
    let path = format!("{}.wasm", order.name);
    let bytes = read(&order.config.apps_dir, &path, order.candidate.wasm, limits.module_bytes)?;
    let hash = cache::hash_bytes(&bytes);
    Ok(Content { bytes, hash })
}

/// Reads a whole file that should be in the state that was seen. Its size is judged before anything is read.
fn read(apps_dir: &Path, path: &str, seen: scan::Stamp, bytes_max: u64) -> Result<Vec<u8>, Outcome> {
    if seen.bytes > bytes_max {
        let (size, limit) = (bytesize::ByteSize::b(seen.bytes), bytesize::ByteSize::b(bytes_max));
        return Err(Outcome::Refused(format!("{path} has {size}, the limit is {limit}")));
    }
    let read = || -> io::Result<Option<Vec<u8>>> {
        let (file, stamp) = scan::open(apps_dir, path)?;
        if stamp != seen {
            return Ok(None);
        }
        // The sizes fit: they were compared with the limit, and a limit beyond the address space reads nothing extra.
        let mut bytes = Vec::with_capacity(usize::try_from(seen.bytes).unwrap_or(0));
        // One more than expected, to notice growth without reading all of it.
        (&file).take(seen.bytes + 1).read_to_end(&mut bytes)?;
        let still = scan::stamp(&file)? == seen && bytes.len() as u64 == seen.bytes;
        Ok(still.then_some(bytes))
    };
    match read() {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(Outcome::Moved),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Outcome::Moved),
        // A change of mode is a change that is noticed.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Outcome::Refused(format!("{path} cannot be read by wasgi: chmod it ({error})")))
        }
        Err(error) => Err(Outcome::Passing(format!("{path} cannot be read: {error}"))),
    }
}

/// Messages about TOML point at the place in several lines; a log line is one.
fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / ")
}
