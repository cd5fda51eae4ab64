//! Crash capsules: of a call that its app failed, all that is needed to understand it and to run it again. They are the operator's:
//! files in `state_dir/capsules`, bounded in number and size, for the host's user alone.
//!
//! A call costs nothing for it while it goes well: what a capsule needs is left with the call ([`witness`]) and read when the call
//! has failed. A thread of its own makes files of it ([`record`], [`redact`], [`ring`]); where it does not keep up, capsules are
//! dropped and counted. [`replay`] runs a request again.

mod rates;
pub mod read;
pub mod record;
mod redact;
pub mod replay;
mod ring;
mod witness;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use self::rates::Rates;
pub use self::record::Capsule;
use self::record::Draft;
pub(crate) use self::redact::without_secrets;
pub(crate) use self::witness::Witness;
use crate::config::{Config, KeepCapsules, Secrets};
use crate::error::Error;
use crate::guest::Kind;
use crate::sandbox::CallState;
use crate::telemetry::AppLog;

/// What else the writer is told may wait beside the capsules.
const NOTICES: usize = 8;
/// Of so many that are lost, the writer is told of one.
const LOST_TOLD_EVERY: u64 = 64;

/// Where capsules of all apps go.
pub struct Capsules {
    settings: ArcSwap<Settings>,
    queue: SyncSender<Job>,
    rates: Mutex<Rates>,
    counts: Counts,
}

/// The operator's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    keep: KeepCapsules,
    count_max: u64,
    bytes_max: u64,
    body_bytes_max: usize,
    module_bytes_max: u64,
}

/// What the writer is told.
enum Job {
    Write(Box<Draft>),
    /// There was one that it has not been given.
    Lost,
    /// Tell when all that came before is done.
    Flush(SyncSender<()>),
}

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    /// The app, or all of them, had too many.
    dropped: AtomicU64,
    /// The disk was full, say.
    failed: AtomicU64,
}

/// What has become of capsules since the host started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub written: u64,
    pub dropped: u64,
    pub failed: u64,
}

impl Capsules {
    /// Takes over what is in `config.state_dir`, and starts the thread that writes.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(config: &Config) -> anyhow::Result<Arc<Self>> {
        let (capsules, jobs) = Self::channel(config);
        writer::start(&capsules, jobs, config.state_dir.join(read::FOLDER))?;
        Ok(capsules)
    }

    /// For apps of which nothing is kept.
    pub fn off() -> Arc<Self> {
        Self::channel(&Config { capsules: KeepCapsules::Off, ..Config::default() }).0
    }

    fn channel(config: &Config) -> (Arc<Self>, Receiver<Job>) {
        let (queue, jobs) = sync_channel(rates::PLACES + NOTICES);
        let settings = ArcSwap::from_pointee(Settings::of(config));
        (Arc::new(Self { settings, queue, rates: Mutex::default(), counts: Counts::default() }), jobs)
    }

    /// New settings count for the next capsule.
    pub fn reload(&self, config: &Config) {
        self.settings.store(Arc::new(Settings::of(config)));
    }

    /// Waits until what is on its way has been written.
    pub fn flush(&self, time: Duration) {
        let (done, is_done) = sync_channel(1);
        // A queue that is full at the end is not worth waiting for.
        if self.queue.try_send(Job::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(time);
        }
    }

    pub fn totals(&self) -> Totals {
        let Counts { written, dropped, failed } = &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals { written: read(written), dropped: read(dropped), failed: read(failed) }
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        // Nothing that holds the lock can panic halfway through a change.
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settings {
    fn of(config: &Config) -> Self {
        Self {
            keep: config.capsules,
            count_max: config.capsules_count.into(),
            bytes_max: config.capsules_bytes,
            body_bytes_max: usize::try_from(config.capsules_body_bytes).unwrap_or(usize::MAX),
            module_bytes_max: config.capsules_module_bytes,
        }
    }
}

/// Makes the capsules of one release of an app. It holds nothing of the release itself, so that a call may hold it.
pub struct Recorder {
    capsules: Arc<Capsules>,
    app: String,
    tenant: String,
    hash: String,
    kind: Kind,
    instances: String,
    /// The apps directory, where the release's bytes were when it went live.
    apps_dir: PathBuf,
    log: Arc<AppLog>,
    secrets: Arc<Secrets>,
}

/// Whose capsules they are.
pub(crate) struct Subject<'a> {
    pub(crate) app: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) hash: &'a str,
    pub(crate) kind: Kind,
    pub(crate) instances: String,
    pub(crate) apps_dir: PathBuf,
}

impl Recorder {
    pub(crate) fn new(
        capsules: &Arc<Capsules>,
        subject: Subject<'_>,
        log: &Arc<AppLog>,
        secrets: &Arc<Secrets>,
    ) -> Arc<Self> {
        let Subject { app, tenant, hash, kind, instances, apps_dir } = subject;
        Arc::new(Self {
            capsules: Arc::clone(capsules),
            app: app.to_owned(),
            tenant: tenant.to_owned(),
            hash: hash.to_owned(),
            kind,
            instances,
            apps_dir,
            log: Arc::clone(log),
            secrets: Arc::clone(secrets),
        })
    }

    fn is_on(&self) -> bool {
        self.capsules.settings.load().keep != KeepCapsules::Off
    }

    /// How much of request bodies is kept; none where nothing is.
    fn body_bytes_max(&self) -> Option<usize> {
        let settings = self.capsules.settings.load();
        (settings.keep == KeepCapsules::Whole).then_some(settings.body_bytes_max)
    }

    fn record(self: &Arc<Self>, call: &CallState, error: &Error) {
        let capsules = &self.capsules;
        let keep = capsules.settings.load().keep;
        if keep == KeepCapsules::Off || !error.is_apps() || !call.witness.begin_record() {
            return;
        }
        let dropped = || {
            // Where the queue is full, the writer is awake.
            if capsules.counts.dropped.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOST_TOLD_EVERY) {
                let _ = capsules.queue.try_send(Job::Lost);
            }
        };
        if !capsules.rates().enter(&self.tenant, &self.app, Instant::now()) {
            return dropped();
        }
        let is_whole = keep == KeepCapsules::Whole;
        let draft = Draft::new(self, call, error.label(), error.to_string(), is_whole);
        match capsules.queue.try_send(Job::Write(Box::new(draft))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                capsules.rates().leave(&self.tenant);
                dropped();
            }
        }
    }
}

impl CallState {
    /// The call's app has failed it: a capsule is made of that, if it is the first of the call.
    pub(crate) fn failed(&self, error: &Error) {
        if let Some(recorder) = self.witness.recorder() {
            recorder.record(self, error);
        }
    }
}
