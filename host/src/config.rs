//! Raw settings → one validated [`Config`]. The only reader of settings (flags, environment, `wasgi.toml`, sidecars) and the
//! only home of defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits::{EdgeLimits, Limits};

/// Everything an operator can say, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The directory whose `.wasm` files are the apps.
    pub apps_dir: PathBuf,
    /// Where the host keeps compiled code and its admin socket; nobody else may write there.
    pub state_dir: PathBuf,
    /// Addresses to listen on.
    pub bind: Vec<SocketAddr>,
    /// Threads that serve requests.
    pub workers: usize,
    /// Sandboxes that may exist at the same time, of all apps together: the size of the pool.
    pub sandboxes: u32,
    /// The wasm stack of a sandbox, in bytes.
    pub stack_bytes: u64,
    pub edge: EdgeLimits,
    /// The default and the ceiling of every app's limits.
    pub limits: Limits,
    /// How instances serve calls where an app does not say.
    pub instances: Instances,
    /// How often the apps directory is read without a file event.
    pub rescan_time: Duration,
    /// How long a file must not change before it is taken, unless it was renamed into place.
    pub settle_time: Duration,
    pub log: LogConfig,
    /// Where the access log goes; none means off.
    pub access_log: Option<AccessLogTarget>,
    pub access_log_format: AccessLogFormat,
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

/// Which sandbox serves a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// A new one for each call (`wsgi.run_once` is true).
    Fresh,
    /// One that has served before, as long as nothing ever went wrong in it (`wsgi.run_once` is false).
    Reuse {
        /// Calls after which an instance is retired.
        requests_max: u32,
        /// An instance unused for this long is retired.
        idle_time: Duration,
    },
}

/// What one app is to be: its sidecar, checked against the operator's [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub struct AppSpec {
    /// Its path in the apps directory without `.wasm`: `hello`, `shop/cart`.
    pub name: String,
    pub routes: Vec<RouteSpec>,
    /// Environment variables for the guest, in order.
    pub env: Vec<(String, String)>,
    pub instances: Instances,
    pub limits: Limits,
}

/// One place in the URL space.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteSpec {
    pub host: HostPattern,
    /// "" for the root, else `/a/b`: no trailing slash, no empty or dot segments, decoded.
    pub prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Any host, tried last.
    Any,
    /// `*.example.com`: the suffix `.example.com`, lower case. Tried second, the longest suffix first.
    Suffix(String),
    /// `example.com`, lower case, no port. Tried first.
    Exact(String),
}
