//! Crash capsules: of a call that its app failed, all that is needed to understand it and to run it again. They are the operator's:
//! files in `state_dir/capsules`, bounded in number and size, for the host's user alone.
//!
//! A call costs nothing for it while it goes well: what a capsule needs is left with the call ([`witness`]) and read when the call
//! has failed. A thread of its own makes files of it ([`record`], [`redact`], [`ring`]); where it does not keep up, capsules are
//! dropped and counted. [`replay`] runs a request again.

pub mod read;
pub mod record;
mod redact;
pub mod replay;
mod ring;
mod witness;
mod writer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

pub use self::record::Capsule;
use self::record::Draft;
pub(crate) use self::redact::without_secrets;
pub(crate) use self::witness::Witness;
use crate::config::{Config, KeepCapsules, Secrets};
use crate::error::Error;
use crate::guest::Kind;
use crate::sandbox::CallState;
use crate::telemetry::AppLog;

/// Capsules that wait to be written. Each has a head, some lines, and perhaps a body.
const QUEUE: usize = 64;
/// An app's first capsules are kept at once, further ones as slowly as this: a thousand of the same say no more, and would keep the
/// disk busy.
const BURST: f64 = 10.0;
const PER_SECOND: f64 = 1.0;
/// Apps that have crashed lately; beyond this, the list is gone through.
const RATES_MAX: usize = 1024;

/// Where capsules of all apps go.
pub struct Capsules {
    settings: ArcSwap<Settings>,
    queue: SyncSender<Job>,
    rates: Mutex<HashMap<String, Rate>>,
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

struct Rate {
    tokens: f64,
    filled: Instant,
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
        let (queue, jobs) = sync_channel(QUEUE);
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

    /// Whether the app may have another one now.
    fn admits(&self, app: &str) -> bool {
        let now = Instant::now();
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= RATES_MAX && !rates.contains_key(app) {
            rates.retain(|_, rate| !rate.is_full(now));
            // So many apps crash at once that one more is no news.
            if rates.len() >= RATES_MAX {
                return false;
            }
        }
        match rates.get_mut(app) {
            Some(rate) => rate.take(now),
            None => rates.entry(app.to_owned()).or_insert(Rate { tokens: BURST, filled: now }).take(now),
        }
    }
}

impl Rate {
    fn tokens(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.tokens + elapsed * PER_SECOND).min(BURST)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.tokens(now) >= BURST
    }

    fn take(&mut self, now: Instant) -> bool {
        self.tokens = self.tokens(now);
        self.filled = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
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
            if capsules.counts.dropped.fetch_add(1, Ordering::Relaxed).is_multiple_of(QUEUE as u64) {
                let _ = capsules.queue.try_send(Job::Lost);
            }
        };
        if !capsules.admits(&self.app) {
            return dropped();
        }
        let is_whole = keep == KeepCapsules::Whole;
        let draft = Draft::new(self, call, error.label(), error.to_string(), is_whole);
        match capsules.queue.try_send(Job::Write(Box::new(draft))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => dropped(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_crashes_all_the_time_is_recorded_now_and_then_and_another_at_once() {
        let capsules = Capsules::off();
        let admitted = (0..10_000).filter(|_| capsules.admits("loud")).count();
        assert!((10..100).contains(&admitted), "{admitted}");
        assert!(capsules.admits("quiet"));
    }

    #[test]
    fn no_number_of_apps_fills_the_memory() {
        let capsules = Capsules::off();
        let admitted = (0..10_000).filter(|number| capsules.admits(&number.to_string())).count();
        // A slow machine gives some of them time to recover.
        assert!((RATES_MAX..9000).contains(&admitted), "{admitted}");
        assert!(capsules.rates.lock().unwrap().len() <= RATES_MAX);
    }

    #[test]
    fn a_rate_fills_again() {
        let start = Instant::now();
        let mut rate = Rate { tokens: BURST, filled: start };
        assert_eq!((0..100).filter(|_| rate.take(start)).count(), 10);
        assert!(rate.take(start + Duration::from_secs(1)) && !rate.take(start + Duration::from_secs(1)));
        assert!(rate.is_full(start + Duration::from_secs(60)));
    }
}
