//! The apps directory → the table of apps. The directory is the truth: [`watch`] only says "look again", [`scan`] looks,
//! [`reconcile`] compares, [`load`] makes a file callable ([`inspect`], then [`passes`] and [`compile`], or [`cache`]), and one swap publishes
//! what came of it. Anything that fails leaves the old release serving.
//!
//! It never calls a guest.

pub mod cache;
mod child;
mod claims;
mod code;
mod command;
pub mod compile;
mod content;
pub mod images;
pub mod inspect;
mod library;
mod load;
mod measure;
mod notes;
mod own;
mod passes;
mod reconcile;
mod refit;
pub mod scan;
pub mod sleeper;
#[cfg(test)]
mod tests;
mod turns;
pub mod unpack;
mod watch;

pub use notes::notes;
pub use passes::rewind::component as prepare_for_rewinding;
pub use passes::{Content, Prepared, Report, prepare};

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use wasmtime::component::Component;

use self::cache::Cache;
use self::compile::Compiler;
use self::library::Library;
use self::load::{Common, LoadGuest, Loader, Order, Outcome};
use self::reconcile::{Finished, Purpose, Records};
use self::refit::Refit;
use self::scan::Scan;
use self::watch::Watch;
use crate::apps::Apps;
use crate::capsule::Capsules;
use crate::config::{AppSpec, Config};
use crate::granted::Granted;
use crate::guest;
use crate::keyvalue::Stores;
use crate::outbound::{Network, Plan};
use crate::sandbox::{Belongings, Engine};

/// Between two looks, however many events there are: a directory that changes all the time costs this much and no more.
const LOOK_TIME_MIN: Duration = Duration::from_millis(20);
/// Outcomes that arrive within this time go into one table.
const BATCH_TIME: Duration = Duration::from_millis(20);
/// A look, or a table, is followed by so many times its own time without one: of all apps' changes together no more of a processor is
/// used for them, however many apps there are and however often somebody changes one.
const REST_PART: u32 = 4;
/// But nobody waits for longer than this before the next.
const REST_TIME_MAX: Duration = Duration::from_secs(2);
/// At start-up everything goes into one table, unless something takes longer than this.
const START_TIME: Duration = Duration::from_secs(2);
/// What starts together with the deployer waits no longer than this for slow apps.
const READY_TIME: Duration = Duration::from_secs(10);
/// A directory that is missing for no longer than this is being replaced by another.
const MISSING_TIME: Duration = Duration::from_secs(1);
/// So many jobs are begun before others get their turn on this thread.
const JOBS_AT_ONCE: usize = 256;
/// How often compiled code is tidied.
const TIDY_TIME: Duration = Duration::from_secs(60 * 60);
/// How often [`guest::Guest::sweep`] is called.
const SWEEP_TIME: Duration = Duration::from_secs(1);

/// Keeps the table of apps as the directory says.
pub struct Deployer {
    config: Arc<Config>,
    apps: Arc<Apps>,
    loader: Arc<Loader>,
    watch: Watch,
    records: Records,
    jobs: JoinSet<(String, u64, Outcome)>,
    look_at: Instant,
    /// There is no look before.
    looks_from: Instant,
    publish_at: Option<Instant>,
    /// There is no table before.
    publishes_from: Instant,
    /// The last look found files that had not come to rest.
    unsettled: bool,
    /// Since when the directory cannot be found.
    missing_since: Option<Instant>,
    /// What the last look failed with, so that it is logged once.
    complaint: Option<String>,
    /// When compiled code was last tidied.
    tidied: Option<Instant>,
    started: Instant,
    ready: channel::Sender<bool>,
}

/// What a deployer is told by others than the disk.
enum Notice {
    Reload(Arc<Config>),
    Complaint { name: String, reason: String },
}

/// For those who know of an app that its newest sources are not what is served.
#[derive(Clone)]
pub struct Complaints(mpsc::Sender<Notice>);

impl Complaints {
    /// The live release stays, and the reason is shown with it until another one is live.
    pub async fn complain(&self, name: &str, reason: String) {
        // Without a receiver the deployer has ended, and so does the host.
        let _ = self.0.send(Notice::Complaint { name: name.to_owned(), reason }).await;
    }
}

/// A running deployer. Dropping it stops the deployer without waiting.
pub struct DeployHandle {
    notices: mpsc::Sender<Notice>,
    network: Arc<Network>,
    stores: Arc<Stores>,
    granted: Arc<Granted>,
    ready: channel::Receiver<bool>,
    task: JoinHandle<()>,
}

impl DeployHandle {
    /// Judges every app again by a new configuration. What apps may reach, their stores, files and clocks change at once, also for calls that run.
    pub async fn reload(&self, config: Arc<Config>, plan: Plan) {
        self.network.change(plan);
        self.stores.change(Arc::clone(&config));
        self.granted.change(Arc::clone(&config));
        // Without a receiver the deployer has ended, and nothing is served by old settings either.
        let _ = self.notices.send(Notice::Reload(config)).await;
    }

    pub fn complaints(&self) -> Complaints {
        Complaints(self.notices.clone())
    }

    /// Resolves when all that was in the directory at the start is live or refused, or after ten seconds: one app that takes
    /// a minute to compile does not keep the others from being served.
    pub async fn ready(&self) {
        let _ = tokio::time::timeout(READY_TIME, self.ready.clone().wait_for(|&ready| ready)).await;
    }

    /// Stops looking and compiling. What is live stays.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for DeployHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Deployer {
    /// Starts to keep `apps` as `config.apps_dir` says. To be called within a tokio runtime.
    ///
    /// # Errors
    /// If compiled code cannot be kept safely in `config.state_dir`, or the certificates of authorities cannot be read that apps
    /// need for what they may reach.
    pub fn start(
        config: Arc<Config>,
        engine: Arc<Engine>,
        apps: Arc<Apps>,
        capsules: Arc<Capsules>,
    ) -> anyhow::Result<DeployHandle> {
        let compiler = Compiler::new(config.stack_bytes, config.passes).confined(config.confine);
        Self::start_with(config, engine, apps, capsules, compiler, guest::load)
    }

    fn start_with(
        config: Arc<Config>,
        engine: Arc<Engine>,
        apps: Arc<Apps>,
        capsules: Arc<Capsules>,
        compiler: Compiler,
        load_guest: LoadGuest,
    ) -> anyhow::Result<DeployHandle> {
        let cache = Cache::open(&config.state_dir, config.passes)?;
        let library = Library::open(&config.state_dir, compiler.unpacker())?;
        let (network, stores) = (Network::new(Plan::of(&config)?), Stores::new(Arc::clone(&config)));
        let granted = Granted::new(Arc::clone(&config))?;
        let common = Common {
            network: Arc::clone(&network),
            stores: Arc::clone(&stores),
            capsules,
            granted: Arc::clone(&granted),
        };
        let (notices, told) = mpsc::channel(1);
        let (ready, is_ready) = channel::channel(false);
        let loader = Loader::new(engine, cache, library, compiler, load_guest, common, &config.data_dir);
        loader.accounts.reconfigure(&config);
        let now = Instant::now();
        let deployer = Self {
            watch: Watch::new(&config.apps_dir),
            loader: Arc::new(loader),
            config,
            apps,
            records: Records::default(),
            jobs: JoinSet::new(),
            look_at: now,
            looks_from: now,
            publish_at: None,
            publishes_from: now,
            unsettled: false,
            missing_since: None,
            complaint: None,
            tidied: None,
            started: now,
            ready,
        };
        let task = tokio::spawn(deployer.run(told));
        Ok(DeployHandle { notices, network, stores, granted, ready: is_ready, task })
    }

    async fn run(mut self, mut told: mpsc::Receiver<Notice>) {
        let mut sweep = tokio::time::interval(SWEEP_TIME);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look().await;
        loop {
            let publish_at = self.publish_at;
            tokio::select! {
                () = tokio::time::sleep_until(self.look_at) => self.look().await,
                () = self.watch.changed() => self.look_soon(LOOK_TIME_MIN),
                Some(done) = self.jobs.join_next() => self.take(done),
                () = sleep_until(publish_at) => self.publish().await,
                _ = sweep.tick() => self.sweep(),
                Some(notice) = told.recv() => match notice {
                    Notice::Reload(config) => self.reconfigure(config).await,
                    Notice::Complaint { name, reason } => {
                        self.records.complain(&name, reason);
                        self.publish_soon();
                    }
                },
            }
        }
    }

    /// What is to be done from time to time.
    fn sweep(&mut self) {
        let idle_time = self.config.app_idle_time;
        self.records.live().for_each(|app| app.guest.sweep(idle_time, app.admission.running()));
        self.loader.accounts.tidy(Instant::now().into_std());
        self.loader.recount();
        // At the start, files may be there that are about to be used.
        if *self.ready.borrow() {
            self.loader.tidy();
            if self.tidied.is_none_or(|tidied| tidied.elapsed() >= TIDY_TIME) {
                self.tidied = Some(Instant::now());
                self.loader.tidy_cache(self.records.code_hashes().into_iter().map(str::to_owned).collect());
            }
        }
    }

    /// Looks at the directory and starts to load what is new.
    async fn look(&mut self) {
        let began = Instant::now();
        // Before the scan: what is renamed while it runs belongs to the next look.
        let renamed = self.watch.take_renamed();
        let scan = self.scan().await;
        let now = Instant::now();
        (self.look_at, self.looks_from) = (now + self.config.rescan_time, now + LOOK_TIME_MIN);
        let Some(scan) = scan else { return };
        let settle_time = self.config.settle_time;
        let findings = self.with_records(move |records| records.look(&scan, &renamed, settle_time)).await;
        self.looks_from = Instant::now() + rest(began.elapsed()).max(LOOK_TIME_MIN);
        for (count, task) in findings.tasks.into_iter().enumerate() {
            if count % JOBS_AT_ONCE == JOBS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let (name, ticket) = (task.name.clone(), task.ticket);
            let order =
                Order { name: task.name, candidate: task.candidate, config: Arc::clone(&self.config), live: task.live };
            let loader = Arc::clone(&self.loader);
            let job_name = name.clone();
            let abort = self.jobs.spawn(async move { (job_name, ticket, loader.load(order).await) });
            self.records.started(&name, ticket, (Purpose::Load, abort));
        }
        self.unsettled = findings.unsettled;
        if let Some(time) = findings.again_in {
            self.look_soon(time);
        }
        if findings.changed || !*self.ready.borrow() {
            self.publish_soon();
        }
    }

    /// What the directory holds; none if that cannot be told, so that everything stays as it is.
    async fn scan(&mut self) -> Option<Scan> {
        let apps_dir = self.config.apps_dir.clone();
        // The watch begins before the scan, so that no change falls between the two. Both block.
        let mut watch = std::mem::replace(&mut self.watch, Watch::new(&PathBuf::new()));
        let worked = tokio::task::spawn_blocking(move || {
            watch.arm();
            (watch, scan::scan(&apps_dir))
        });
        let result = match worked.await {
            Ok((watch, result)) => {
                self.watch = watch;
                result
            }
            Err(error) => {
                self.watch = Watch::new(&self.config.apps_dir);
                Err(io::Error::other(error))
            }
        };
        let missing = matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound);
        if !missing {
            self.missing_since = None;
        }
        let path = self.config.apps_dir.display();
        match result {
            Ok(scan) => {
                if self.complaint.take().is_some() {
                    tracing::info!("the apps directory {path} can be read again");
                }
                Some(scan)
            }
            Err(error) => {
                let complaint = if missing {
                    format!("there is no apps directory {path}: create it")
                } else {
                    format!("the apps directory {path} cannot be read, what is live stays: {error}")
                };
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!("{complaint}");
                    self.complaint = Some(complaint);
                }
                let since = *self.missing_since.get_or_insert_with(Instant::now);
                (missing && since.elapsed() >= MISSING_TIME).then(Scan::default)
            }
        }
    }

    /// Does work on all records on a thread for it: there may be many, and this one serves requests.
    async fn with_records<T: Send + 'static>(&mut self, work: impl FnOnce(&mut Records) -> T + Send + 'static) -> T {
        let mut records = std::mem::take(&mut self.records);
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&mut records);
            (records, done)
        });
        match worked.await {
            Ok((records, done)) => {
                self.records = records;
                done
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The host ends.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn look_soon(&mut self, time: Duration) {
        let wanted = (Instant::now() + time).max(self.looks_from);
        self.look_at = self.look_at.min(wanted);
    }

    fn take(&mut self, done: Result<(String, u64, Outcome), tokio::task::JoinError>) {
        // One that was cancelled has no outcome.
        let Ok((name, ticket, outcome)) = done else { return };
        if matches!(outcome, Outcome::Moved) {
            self.look_soon(self.config.settle_time);
        }
        let finished = self.records.finished(&name, ticket, outcome);
        if finished == Finished::Refit {
            // Now it is its file's turn.
            self.look_soon(Duration::ZERO);
        }
        if finished != Finished::Nothing {
            self.publish_soon();
        }
    }

    fn publish_soon(&mut self) {
        let now = Instant::now();
        let at = if self.has_judged_all() {
            now
        } else if *self.ready.borrow() {
            now + BATCH_TIME
        } else {
            (now + BATCH_TIME).max(self.started + START_TIME)
        };
        let at = at.max(self.publishes_from);
        self.publish_at = Some(self.publish_at.map_or(at, |sooner| sooner.min(at)));
    }

    async fn publish(&mut self) {
        self.publish_at = None;
        let began = Instant::now();
        let (config, loader, apps) = (Arc::clone(&self.config), Arc::clone(&self.loader), Arc::clone(&self.apps));
        self.with_records(move |records| {
            let table = records.table(&config);
            loader.retain(&records.code_hashes());
            apps.publish(table);
            records.announce();
        })
        .await;
        self.publishes_from = Instant::now() + rest(began.elapsed());
        if self.has_judged_all() {
            self.ready.send_replace(true);
        }
    }

    /// Whether everything in the directory is live or refused; a file that never comes to rest does not count for ever.
    fn has_judged_all(&self) -> bool {
        let waits = self.unsettled && !*self.ready.borrow() && self.started.elapsed() < START_TIME;
        !self.records.is_busy() && !waits
    }

    async fn reconfigure(&mut self, config: Arc<Config>) {
        if config.apps_dir != self.config.apps_dir {
            self.watch = Watch::new(&config.apps_dir);
        }
        self.config = config;
        let config = Arc::clone(&self.config);
        let standing = self.with_records(move |records| records.judge_again(&config)).await;
        // Now that no job is left which would open an account by what was said before.
        self.loader.accounts.reconfigure(&self.config);
        if standing.is_less {
            // What was taken away is not served until the rest has been judged.
            self.publish().await;
        }
        for Refit { name, ticket, live, spec } in standing.refits {
            let (loader, config, job_name) = (Arc::clone(&self.loader), Arc::clone(&self.config), name.clone());
            let abort = self.jobs.spawn(async move { (job_name, ticket, loader.refit(config, live, spec).await) });
            self.records.started(&name, ticket, (Purpose::Refit, abort));
        }
        self.look_soon(Duration::ZERO);
    }
}

/// One app, ready to be run by others than a host.
pub struct Loaded {
    pub spec: AppSpec,
    pub component: Component,
    pub own: Belongings,
}

/// Loads one app of the apps directory, as a deployer would.
///
/// # Errors
/// Why it would not be deployed.
pub async fn load_one(config: &Arc<Config>, engine: &Arc<Engine>, name: &str) -> anyhow::Result<Loaded> {
    let cache = Cache::open(&config.state_dir, config.passes)?;
    let compiler = Compiler::new(config.stack_bytes, config.passes).confined(config.confine);
    let library = Library::open(&config.state_dir, compiler.unpacker())?;
    let (network, stores) = (Network::new(Plan::of(config)?), Stores::new(Arc::clone(config)));
    let common = Common { network, stores, capsules: Capsules::off(), granted: Granted::new(Arc::clone(config))? };
    let loader =
        Arc::new(Loader::new(Arc::clone(engine), cache, library, compiler, guest::load, common, &config.data_dir));
    let scan = scan::scan(&config.apps_dir)?;
    let Some(&candidate) = scan.candidates.get(name) else {
        let refused = scan.refused.get(name).cloned();
        anyhow::bail!(refused.unwrap_or_else(|| format!("there is no {name}.wasm in the apps directory")));
    };
    let order = Order { name: name.to_owned(), candidate, config: Arc::clone(config), live: None };
    let loaded = loader.load_one(order).await;
    loaded.map_err(|outcome| match outcome {
        Outcome::Refused(reason) | Outcome::Passing(reason) | Outcome::Closed(reason) => anyhow::anyhow!(reason),
        Outcome::Ready(_) | Outcome::Unchanged | Outcome::Moved => {
            anyhow::anyhow!("{name}.wasm changed while it was read: try again")
        }
    })
}

/// How long to leave be what took so long.
fn rest(took: Duration) -> Duration {
    (took * REST_PART).min(REST_TIME_MAX)
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
