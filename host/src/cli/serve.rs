//! `wasgi serve`: puts the parts of the host together, and is the owner of the process's signals.

use std::fs::DirBuilder;
use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use clap::Args;
use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wasgi_host::admin::{AdminSocket, StateLock};
use wasgi_host::apps::Apps;
use wasgi_host::capsule::Capsules;
use wasgi_host::config::{Config, Environment, Settings};
use wasgi_host::confine::user::User;
use wasgi_host::confine::{self, Confinement};
use wasgi_host::deploy::{DeployHandle, Deployer};
use wasgi_host::descriptors::Shares;
use wasgi_host::gateway::{Faults, Gateway};
use wasgi_host::limits::EdgeLimits;
use wasgi_host::outbound::Plan;
use wasgi_host::rebuild;
use wasgi_host::sandbox::{Engine, go_first};
use wasgi_host::server::{Doors, Inherited, Policy, Server, Tls};
use wasgi_host::telemetry::{self, AccessLog};

/// Serve the apps of a directory, and keep up with what happens to it
#[derive(Args)]
#[command(after_help = "Examples:
  wasgi serve                                  ./apps on http://127.0.0.1:8000
  wasgi serve sites -b 0.0.0.0:80 -b [::]:80   another directory, two addresses
  wasgi serve -b 0.0.0.0:443 --certfile chain.pem --keyfile key.pem
  wasgi serve -b unix:/run/wasgi/http.sock --forwarded-allow-ips unix
  wasgi serve --limit cpu_time=2s --limit memory=64MiB

apps/hello.wasm is served at /hello, apps/shop/cart.wasm at /shop/cart, apps/index.wasm at /. \
A file hello.toml beside hello.wasm may set routes, environment variables, instances and lower limits. \
`wasgi check --config` prints every key of wasgi.toml with its value.

SIGTERM and SIGINT let the calls that run end (at most edge.drain_time); SIGHUP reads the settings and the certificate again.")]
pub(crate) struct Serve {
    /// The directory whose .wasm files are the apps [default: apps]
    #[arg(value_name = "DIR", env = "WASGI_APPS_DIR", hide_env_values = true)]
    apps_dir: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

/// Apps that are there at the start should not be missing in the first answers; one that compiles for minutes should not hold
/// up the others.
const START_TIME: Duration = Duration::from_secs(3);

/// After the drain, what still runs is dropped; a thread that cannot be interrupted is left behind after this.
const END_TIME: Duration = Duration::from_secs(1);

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let settings = Settings { apps_dir: self.apps_dir, environment: Environment::read(), ..self.settings };
        let config = Config::load(&settings)?;
        if !config.apps_dir.is_dir() {
            let path = config.apps_dir.display();
            bail!("the apps directory {path} does not exist: create it, or name another one (wasgi serve DIR)");
        }
        // Before anything else is open.
        let inherited = Inherited::take(&config.bind)?;
        let standing = Standing::take(&config, inherited)?;
        raise_open_files();
        // Before there is a second thread: Landlock confines threads.
        let confinement = Confinement::put_up(&config, &settings)?;
        let _log = telemetry::init(&config.log)?;
        tracing::info!("{confinement}");
        say_open_files(&config);
        say_linked(&config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.workers)
            .thread_name("worker")
            .on_thread_start(|| {
                if let Err(error) = go_first() {
                    tracing::debug!("a thread that serves has slices as all others: {error}");
                }
            })
            .enable_all()
            .build()
            .context("the worker threads cannot be started")?;
        let outcome = runtime.block_on(serve(settings, config, standing, confinement));
        runtime.shutdown_timeout(END_TIME);
        outcome
    }
}

/// What may take the rights of root, who may have started this process; afterwards it is the user that the settings name.
struct Standing {
    lock: StateLock,
    doors: Doors,
}

impl Standing {
    fn take(config: &Config, inherited: Inherited) -> anyhow::Result<Self> {
        confine::host::check(config)?;
        let user = User::of(config)?;
        if let Some(user) = &user {
            user.settle("state_dir", &config.state_dir)?;
        }
        let made = make_data_dir(config, user.as_ref());
        if config.has_data() {
            made?;
        }
        // First of all, so that a second host with the same state directory touches nothing.
        let lock = StateLock::take(&config.state_dir)?;
        let doors = Doors::bind(&config.bind, inherited, config.certificate.is_some())?;
        if let Some(user) = &user {
            let made = doors.paths().map(Path::to_owned).chain([lock.path()]);
            for path in made {
                user.own(&path).with_context(|| format!("{} cannot be given to user {user}", path.display()))?;
            }
            user.become_it().with_context(|| format!("this process cannot become user {user}"))?;
            user.can_read(&config.apps_dir)?;
        }
        Ok(Self { lock, doors })
    }
}

/// What is not there when the walls are put up stays outside of them, and data may be granted without a restart.
fn make_data_dir(config: &Config, user: Option<&User>) -> anyhow::Result<()> {
    let data_dir = &config.data_dir;
    // It may not lie there once there is something in it.
    if std::path::absolute(data_dir)?.starts_with(std::path::absolute(&config.apps_dir)?) {
        return Ok(());
    }
    match user {
        Some(user) => user.settle("data_dir", data_dir),
        None => {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
            made.with_context(|| format!("data_dir {} cannot be made", data_dir.display()))
        }
    }
}

/// Everything from the first request to the end of the drain.
async fn serve(
    settings: Settings,
    config: Config,
    Standing { lock, doors }: Standing,
    confinement: Confinement,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let config = Arc::new(config);
    let admin = AdminSocket::bind(lock)?;
    let access_log = Arc::new(AccessLog::open(config.access_log.as_ref(), config.access_log_format)?);
    let engine = Arc::new(Engine::new(&config)?);
    let apps = Arc::new(Apps::default());
    let policy = Arc::new(ArcSwap::from_pointee(policy(&config)?));
    let gateway = Arc::new(Gateway::new(Arc::clone(&apps), Arc::clone(&access_log), faults_shown(&config)));
    let server = Server::new(doors, Arc::clone(&policy), gateway)?;
    let capsules = Capsules::start(&config)?;
    let deploy = Deployer::start(Arc::clone(&config), engine, Arc::clone(&apps), Arc::clone(&capsules))?;
    let rebuild = rebuild(&settings, &config, &apps, &deploy);
    let admin = tokio::spawn(admin.run(apps, Arc::clone(&capsules)));
    let in_force = ArcSwap::new(Arc::clone(&config));
    let host = Host { settings, started: config, in_force, policy, deploy, access_log, capsules, confinement };

    let (stop, stopped) = oneshot::channel();
    let served = host.serve(server, async {
        // A sender that is dropped means the end as well.
        let _ = stopped.await;
    });
    let drained = host.until_end(served, &mut signals, stop).await;
    if let Some(rebuild) = rebuild {
        rebuild.abort();
    }
    admin.abort();
    let _ = admin.await;
    host.access_log.close();
    host.capsules.flush(END_TIME);
    if !drained {
        tracing::warn!("calls that were still running after edge.drain_time were cut off");
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// To whom, and a word of it at the start: it must not happen unseen.
fn faults_shown(config: &Config) -> Faults {
    if !config.dev {
        return Faults::Hidden;
    }
    tracing::warn!(
        "development mode: clients on this machine are shown the insides of apps that fail; never serve others so"
    );
    Faults::Shown
}

/// Development mode builds apps again that were built here.
fn rebuild(settings: &Settings, config: &Config, apps: &Arc<Apps>, deploy: &DeployHandle) -> Option<JoinHandle<()>> {
    let records = settings.environment.cache_dir.as_ref().filter(|_| config.dev)?.join("wasgi/builds");
    let work = rebuild::run(records, config.apps_dir.clone(), Arc::clone(apps), deploy.complaints());
    Some(tokio::spawn(work))
}

/// What counts for new connections. The certificate is read from its files.
fn policy(config: &Config) -> anyhow::Result<Policy> {
    Ok(Policy {
        limits: Arc::new(config.edge.clone()),
        trusted: Arc::new(config.forwarded_allow_ips.clone()),
        tls: config.certificate.as_ref().map(Tls::load).transpose()?,
    })
}

/// What a reload changes.
struct Host {
    settings: Settings,
    /// The configuration at the start: what only a restart changes stays as it is in here.
    started: Arc<Config>,
    in_force: ArcSwap<Config>,
    policy: Arc<ArcSwap<Policy>>,
    deploy: DeployHandle,
    access_log: Arc<AccessLog>,
    capsules: Arc<Capsules>,
    confinement: Confinement,
}

impl Host {
    /// True if all calls ended by themselves.
    async fn serve(&self, server: Server, shutdown: impl Future<Output = ()>) -> bool {
        // Until then clients wait in the kernel's backlog.
        let ready = tokio::time::timeout(START_TIME, self.deploy.ready()).await;
        if ready.is_err() {
            tracing::info!("some apps are still being compiled; they go live as they are done");
        }
        for address in server.addresses().unwrap_or_default() {
            tracing::info!("listening on {address}");
        }
        server.run(shutdown).await
    }

    /// Minds the signals while `served` runs.
    async fn until_end(
        &self,
        served: impl Future<Output = bool>,
        signals: &mut Signals,
        stop: oneshot::Sender<()>,
    ) -> bool {
        let mut stop = Some(stop);
        let mut served = std::pin::pin!(served);
        loop {
            tokio::select! {
                drained = &mut served => return drained,
                event = signals.next() => match (event, stop.take()) {
                    (Event::Reload, sender) => {
                        stop = sender;
                        self.reload().await;
                    }
                    (Event::Stop, Some(stop)) => {
                        let time = humantime::format_duration(self.policy.load().limits.drain_time);
                        tracing::info!("stopping: calls that run have {time} to end; a second signal ends them now");
                        let _ = stop.send(());
                    }
                    (Event::Stop, None) => return false,
                },
            }
        }
    }

    /// Reads the settings again. Bad ones change nothing.
    async fn reload(&self) {
        let (config, fixed) = match Config::load(&self.settings) {
            Ok(new) => self.started.reloaded(new),
            Err(error) => {
                tracing::error!("the configuration stays as it is: {error}");
                return;
            }
        };
        let narrowed = self.confinement.narrow(config, &self.in_force.load(), &self.settings);
        let (config, left_out) = match narrowed {
            Ok(narrowed) => narrowed,
            Err(error) => {
                tracing::error!("the configuration stays as it is: {error:#}");
                return;
            }
        };
        let policy = match policy(&config) {
            Ok(policy) => policy,
            Err(error) => {
                tracing::error!("the configuration stays as it is: {error:#}");
                return;
            }
        };
        let plan = match Plan::of(&config) {
            Ok(plan) => plan,
            Err(error) => {
                tracing::error!("the configuration stays as it is: {error:#}");
                return;
            }
        };
        if let Err(error) = self.access_log.reload(config.access_log.as_ref(), config.access_log_format) {
            tracing::error!("the configuration stays as it is: {error}");
            return;
        }
        if !fixed.is_empty() {
            tracing::warn!("only a restart changes {}: what was said at the start stays in force", fixed.join(", "));
        }
        for what in left_out {
            tracing::error!(
                "{what} lies outside of what this host has confined itself to when it was started, and is left out: a restart leads there \
                 (and confine_paths names folders of which none is needed)"
            );
        }
        say_linked(&config);
        let config = Arc::new(config);
        self.in_force.store(Arc::clone(&config));
        self.policy.store(Arc::new(policy));
        self.capsules.reload(&config);
        self.deploy.reload(config, plan).await;
        tracing::info!("the configuration was read again");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be received");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Stop,
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.hang_up.recv() => Event::Reload,
        }
    }
}

/// What is granted, and not opened.
fn say_linked(config: &Config) {
    for line in config.linked_directories() {
        tracing::warn!("{line}");
    }
}

/// Many systems start processes with 1024 open files, for the sake of programs that use `select`. This one needs one for each
/// connection, and may take what it is allowed.
fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
}

/// With fewer connections than this an operator who has not said how many should hear of it.
const CONNECTIONS_PLENTY: u32 = 4096;

/// What there is of them, where that is less than the operator wants.
fn say_open_files(config: &Config) {
    let Shares { all, clients, guests } = Shares::of_process(config.edge.connections);
    let wanted = config.edge.connections;
    if clients >= wanted {
        return;
    }
    let said = format!(
        "this process may have {all} files open (LimitNOFILE): {clients} connections at once instead of \
         edge.connections = {wanted}, and {guests} for all guests"
    );
    // Who has asked for nothing in particular misses nothing, where there are some thousands.
    match wanted == EdgeLimits::default().connections && clients >= CONNECTIONS_PLENTY {
        true => tracing::info!("{said}"),
        false => tracing::warn!("{said}"),
    }
}
