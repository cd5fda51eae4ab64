//! Raw settings → one validated [`Config`]. The only reader of settings (flags, environment, `wasgi.toml`, sidecars) and the
//! only home of defaults.
//!
//! One naming scheme: the key `state_dir` of `wasgi.toml` is the flag `--state-dir` and the variable `WASGI_STATE_DIR`; the key
//! `format` of `[log]` is `--log-format` and `WASGI_LOG_FORMAT`; the keys of `[limits]` and `[edge]` are
//! `--limit KEY=VALUE` and `--edge KEY=VALUE`, or `WASGI_LIMITS` and `WASGI_EDGE` with commas between them. A flag
//! counts more than a variable, that more than the file, that more than a default.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::bundle::Manifest;
use crate::limits::{Budget, EdgeLimits, Limits};

mod app;
mod bind;
mod directory;
mod field;
mod file;
mod grant;
mod instances;
mod load;
mod machine;
mod places;
mod print;
mod route;
mod secret;
mod settings;
mod sidecar;
mod standing;
mod store;
mod tenant;
#[cfg(test)]
mod tests;
mod trust;

pub use app::{AppSpec, AssetSpec, Held, Want};
pub use bind::{Bind, Place, Scheme};
pub use directory::{Access, DirectoryGrant, DirectorySpec};
use field::{Field, TOP};
use file::{Given, Items, Section};
pub(crate) use grant::tenant_of_data;
pub use grant::{AppNames, Destination, Destinations, Grants, OutboundGrants, Protocol, host_name};
use instances::{INSTANCES, Policy};
pub use instances::{Instances, Kept};
pub use route::{HostPattern, RouteSpec};
pub use secret::{Secret, SecretGrant, SecretSource, Secrets};
pub use settings::{Environment, Settings};
pub use store::{RedisUrl, Sharing, StoreBackend, StoreGrant};
pub use tenant::{Tenant, tenant_name};
pub use trust::TrustedPeers;

/// Everything an operator can say, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The directory whose `.wasm` files are the apps.
    pub apps_dir: PathBuf,
    /// Where the host keeps compiled code and its admin socket; nobody else may write there.
    pub state_dir: PathBuf,
    /// Where the data of apps is kept, a directory for each that has some.
    pub data_dir: PathBuf,
    /// What apps that lie in no folder may have beyond their sandboxes.
    pub grants: Grants,
    /// The certificates that servers of outgoing requests are judged by: PEM. None for the system's.
    pub outbound_cafile: Option<PathBuf>,
    /// Where key-value stores are that hosts share.
    pub keyvalue_redis: Option<RedisUrl>,
    /// What the operator says of tenants, by their folders.
    pub tenants: BTreeMap<String, Tenant>,
    /// Where to listen.
    pub bind: Vec<Bind>,
    /// What HTTPS is spoken with.
    pub certificate: Option<Certificate>,
    /// Whose word about a client counts.
    pub forwarded_allow_ips: TrustedPeers,
    /// What this process keeps itself from.
    pub confine: Confine,
    /// Folders in which grants may lead to places later, without a restart.
    pub confine_paths: Vec<PathBuf>,
    /// Whom it becomes when root has started it: a name or a number.
    pub user: Option<String>,
    /// And of which group, where that is not the user's.
    pub group: Option<String>,
    /// Development mode: whoever asks is shown why an app failed.
    pub dev: bool,
    /// Threads that serve requests.
    pub workers: usize,
    /// Sandboxes that may exist at the same time, of all apps together: the size of the pool.
    pub sandboxes: u32,
    /// Linear memories and tables of all sandboxes together, in bytes.
    pub sandbox_memory_bytes: u64,
    /// The wasm stack of a sandbox, in bytes.
    pub stack_bytes: u64,
    pub edge: EdgeLimits,
    /// The default and the ceiling of every app's limits.
    pub limits: Limits,
    /// What each tenant may use where nothing else is said of it.
    pub budget: Budget,
    /// How instances serve calls where an app does not say.
    pub instances: Instances,
    /// What becomes of request bodies of unknown length where an app does not say.
    pub chunked_bodies: ChunkedBodies,
    /// What is done to apps before they are compiled.
    pub passes: Passes,
    /// Of an app that says "reuse" or "rewind": calls after which an instance is retired. An app may lower it.
    pub reuse_requests_max: u32,
    /// Of an app that says "reuse" or "rewind": an instance unused for this long is retired. An app may lower it.
    pub reuse_idle_time: Duration,
    /// Of an app that says "reuse": an instance whose memory is larger than this is retired. An app may lower it.
    pub reuse_memory_bytes: u64,
    /// An app that nobody has called for this long gives its compiled code back; the next call loads it again.
    pub app_idle_time: Duration,
    /// What is kept of calls that their apps failed.
    pub capsules: KeepCapsules,
    /// How many of those.
    pub capsules_count: u32,
    /// And how much disk they take together.
    pub capsules_bytes: u64,
    /// Where bodies are kept: so much of each.
    pub capsules_body_bytes: u64,
    /// The releases of apps that failed, kept for running requests again: what they take together.
    pub capsules_module_bytes: u64,
    /// How often the apps directory is read without a file event.
    pub rescan_time: Duration,
    /// How long a file must not change before it is taken, unless it was renamed into place.
    pub settle_time: Duration,
    pub log: LogConfig,
    /// Where the access log goes; none means off.
    pub access_log: Option<AccessLogTarget>,
    pub access_log_format: AccessLogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            apps_dir: PathBuf::from("apps"),
            state_dir: PathBuf::from(".wasgi"),
            data_dir: PathBuf::from("data"),
            grants: Grants::default(),
            outbound_cafile: None,
            keyvalue_redis: None,
            tenants: BTreeMap::new(),
            bind: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)).into()],
            certificate: None,
            forwarded_allow_ips: TrustedPeers::default(),
            confine: Confine::On,
            confine_paths: Vec::new(),
            user: None,
            group: None,
            dev: false,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            sandboxes: 1000,
            sandbox_memory_bytes: machine::sandbox_memory_bytes(),
            stack_bytes: 1 << 20,
            edge: EdgeLimits::default(),
            limits: Limits::default(),
            budget: Budget::default(),
            instances: Instances::Fresh,
            chunked_bodies: ChunkedBodies::Spool,
            passes: Passes::All,
            reuse_requests_max: 1000,
            reuse_idle_time: Duration::from_secs(60),
            reuse_memory_bytes: 96 << 20,
            app_idle_time: Duration::from_secs(600),
            capsules: KeepCapsules::Redacted,
            capsules_count: 1000,
            capsules_bytes: 64 << 20,
            capsules_body_bytes: 64 << 10,
            capsules_module_bytes: 256 << 20,
            rescan_time: Duration::from_secs(2),
            settle_time: Duration::from_millis(250),
            log: LogConfig { filter: "info".to_owned(), json: false },
            access_log: Some(AccessLogTarget::Stdout),
            access_log_format: AccessLogFormat::Combined,
        }
    }
}

impl Config {
    /// Reads the settings: `wasgi.toml`, with `settings` (flags and environment) on top. For a reload it is called
    /// again with the same `settings`.
    ///
    /// # Errors
    /// Names the file, line, flag or variable, what it says, and what is allowed there.
    pub fn load(settings: &Settings) -> Result<Self, ConfigError> {
        load::load(settings)
    }

    /// What the app `name` (its path in the apps directory without `.wasm`) is to be, as its sidecar's text says, if it has
    /// one, and its manifest where the sidecar does not say.
    ///
    /// # Errors
    /// Names line and key, what it says, and what is allowed there; where an app asks for more than the operator
    /// allows, the operator's value.
    pub fn app_spec(&self, name: &str, sidecar: Option<&str>, manifest: &Manifest) -> Result<AppSpec, ConfigError> {
        sidecar::app_spec(self, name, sidecar, manifest)
    }

    /// The limits of the app `name` by its sidecar: what has to be known before its file is read.
    ///
    /// # Errors
    /// As [`Self::app_spec`].
    pub fn app_limits(&self, name: &str, sidecar: Option<&str>) -> Result<Limits, ConfigError> {
        sidecar::app_limits(self, name, sidecar)
    }

    /// What an app that is live may go on as: the same, or with less. None if it may not, since it has a place or a grant that the
    /// operator has taken away.
    pub fn fitted(&self, spec: &AppSpec) -> Option<AppSpec> {
        standing::fitted(self, spec)
    }

    /// What the operator grants the app at this moment of what is looked at anew at each use.
    pub fn held_by(&self, spec: &AppSpec) -> Held {
        standing::held(self, spec)
    }

    /// Directories that are granted by way of a link, and are not opened: a line for each, with the path to write.
    pub fn linked_directories(&self) -> Vec<String> {
        places::linked(self)
    }

    /// `new` as far as a running host that was started with this can take it over, and the keys where it cannot: they stay
    /// as they are here, and only a restart changes them.
    pub fn reloaded(&self, new: Self) -> (Self, Vec<&'static str>) {
        let fixed = self.needs_restart(&new);
        // The pool's slots are laid out for the largest sandbox when the host starts: smaller fits, larger does not.
        let fitting = |limits: Limits| Limits {
            memory_bytes: limits.memory_bytes.min(self.limits.memory_bytes),
            table_elements: limits.table_elements.min(self.limits.table_elements),
            ..limits
        };
        let tenants = new.tenants.into_iter().map(|(name, tenant)| {
            let limits = fitting(tenant.limits);
            (name, Tenant { limits, ..tenant })
        });
        let reloaded = Self {
            state_dir: self.state_dir.clone(),
            data_dir: self.data_dir.clone(),
            bind: self.bind.clone(),
            // Other files with a certificate are read; whether there is one decides what the listeners speak.
            certificate: new.certificate.filter(|_| self.certificate.is_some()).or_else(|| self.certificate.clone()),
            confine: self.confine,
            confine_paths: self.confine_paths.clone(),
            user: self.user.clone(),
            group: self.group.clone(),
            dev: self.dev,
            passes: self.passes,
            workers: self.workers,
            sandboxes: self.sandboxes,
            stack_bytes: self.stack_bytes,
            edge: EdgeLimits { connections: self.edge.connections, ..new.edge },
            limits: fitting(new.limits),
            tenants: tenants.collect(),
            log: self.log.clone(),
            ..new
        };
        (reloaded, fixed)
    }

    /// The keys in which `new` differs from this, the configuration that a host was started with, and that only a restart
    /// changes.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let differences = [
            ("state_dir", self.state_dir != new.state_dir),
            ("data_dir", self.data_dir != new.data_dir),
            ("bind", self.bind != new.bind),
            ("certfile", self.certificate.is_some() != new.certificate.is_some()),
            ("confine", self.confine != new.confine),
            ("confine_paths", self.confine_paths != new.confine_paths),
            ("user", self.user != new.user),
            ("group", self.group != new.group),
            ("dev", self.dev != new.dev),
            ("passes", self.passes != new.passes),
            ("workers", self.workers != new.workers),
            ("sandboxes", self.sandboxes != new.sandboxes),
            ("stack", self.stack_bytes != new.stack_bytes),
            ("edge.connections", self.edge.connections != new.edge.connections),
            ("limits.memory", self.limits.memory_bytes < new.limits.memory_bytes),
            ("limits.table_elements", self.limits.table_elements < new.limits.table_elements),
            ("log", self.log != new.log),
        ];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Whether any app may keep something: data, or key-value stores.
    pub fn has_data(&self) -> bool {
        let tenants = self.tenants.values().map(|tenant| &tenant.grants);
        tenants.chain([&self.grants]).any(|grants| !grants.data.is_empty() || !grants.keyvalue.is_empty())
    }

    /// The folder in which tenants have files of their own.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn tenants_dir(settings: &Settings) -> Result<PathBuf, ConfigError> {
        load::tenants_dir_of(settings)
    }

    /// All of it as a `wasgi.toml`, defaults too: what `wasgi check --config` prints.
    pub fn to_toml(&self) -> String {
        print::to_toml(self)
    }
}

/// A setting that cannot be used: where it stands, and why, in one line without full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct ConfigError {
    place: String,
    reason: String,
}

impl ConfigError {
    fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { place: place.into(), reason: reason.into() }
    }
}

/// The files of a certificate: PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate and those that lead from it to a root, in this order.
    pub certfile: PathBuf,
    /// Its private key; may be the same file.
    pub keyfile: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A `tracing_subscriber::EnvFilter`: `info`, `wasgi=debug`.
    pub filter: String,
    pub json: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// Apache's combined log format.
    Combined,
    /// One JSON object a line.
    Json,
}

/// What an app gets of a request body that does not say how long it is (`Transfer-Encoding: chunked`, or HTTP/2 without
/// `content-length`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkedBodies {
    /// All of it is read before the app is called, and `CONTENT_LENGTH` says how long it is.
    Spool,
    /// The app is called at once and reads what arrives; there is no `CONTENT_LENGTH`.
    Stream,
}

/// What is done to apps before they are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Passes {
    /// All that makes their instances cheaper.
    All,
    /// What is needed to run them at all.
    Needed,
}

/// How much of what its user may do the host may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confine {
    /// All of it.
    Off,
    /// What it needs, as far as the kernel can see to that.
    On,
    /// What it needs, or it does not start.
    Strict,
}

const CONFINE: &[(&str, Confine)] = &[("off", Confine::Off), ("on", Confine::On), ("strict", Confine::Strict)];

/// What is kept of calls that their apps failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepCapsules {
    Off,
    /// Neither bodies nor the values of header fields that could be secrets.
    Redacted,
    /// All that the client has sent, up to a size.
    Whole,
}

const KEEP_CAPSULES: &[(&str, KeepCapsules)] =
    &[("off", KeepCapsules::Off), ("redacted", KeepCapsules::Redacted), ("whole", KeepCapsules::Whole)];

const PASSES: &[(&str, Passes)] = &[("all", Passes::All), ("needed", Passes::Needed)];

/// The values of `chunked_bodies`.
const CHUNKED_BODIES: &[(&str, ChunkedBodies)] = &[("spool", ChunkedBodies::Spool), ("stream", ChunkedBodies::Stream)];

/// The values of `log.format`; whether it is JSON.
const LOG_FORMATS: &[(&str, bool)] = &[("text", false), ("json", true)];

/// The numeric setting `key` of the top level.
fn top(key: &str) -> &'static Field<Config> {
    TOP.iter().find(|field| field.key == key).expect("each key is asked for by a literal that stands in the table")
}

/// Sets the fields of a table such as `[limits]`; `check` has the last word on each.
fn apply_table<T>(
    fields: &[Field<T>],
    table: &str,
    section: &Section<'_>,
    items: &Items,
    of: &mut T,
    check: impl Fn(&Field<T>, &Given<'_>, &T) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    for (key, item) in items {
        let given = section.given(&format!("{table}.{}", key.as_ref()), item);
        let Some(field) = fields.iter().find(|field| field.key == key.as_ref()) else {
            let known = field::keys(fields);
            return Err(ConfigError::new(
                given.place,
                format!("{} is unknown; there are {known}", given.key.escape_debug()),
            ));
        };
        field.assign(of, &given.value).map_err(|reason| given.refuse(reason))?;
        check(field, &given, of)?;
    }
    Ok(())
}
