//! What the command line and the environment say, unchecked. It is the help text of the flags, too.

use std::path::PathBuf;

use clap::{Args, Parser};

/// The flags that override `wasgi.toml`; each also has an environment variable.
#[derive(Args, Clone, Debug, Default)]
pub struct Settings {
    /// Read settings from FILE, which must exist [default: wasgi.toml, where there is one]
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "WASGI_CONFIG", hide_env_values = true)]
    pub file: Option<PathBuf>,

    /// The directory whose .wasm files are the apps [default: apps]
    #[arg(skip)]
    pub apps_dir: Option<PathBuf>,

    /// Listen on ADDR: IP:PORT, a port alone for 127.0.0.1, unix:PATH or fd://N; with https:// or http:// before it, or
    /// proxy+ for the PROXY protocol; may be repeated
    /// [default: the sockets of systemd, or 0.0.0.0:$PORT where PORT is set, or 127.0.0.1:8000]
    #[arg(short, long, value_name = "ADDR", env = "WASGI_BIND", value_delimiter = ',', hide_env_values = true)]
    pub bind: Vec<String>,

    /// Speak HTTPS with the certificate (chain) in FILE, PEM; read again on SIGHUP
    #[arg(long, value_name = "FILE", env = "WASGI_CERTFILE", hide_env_values = true)]
    pub certfile: Option<PathBuf>,

    /// The private key of the certificate, PEM [default: the file of the certificate]
    #[arg(long, value_name = "FILE", env = "WASGI_KEYFILE", hide_env_values = true)]
    pub keyfile: Option<PathBuf>,

    /// Believe these peers what they say of their clients (Forwarded, X-Forwarded-For and -Proto, PROXY protocol): addresses,
    /// networks, "unix" or "*" [default: nobody]
    #[arg(long, value_name = "LIST", env = "WASGI_FORWARDED_ALLOW_IPS", value_delimiter = ',', hide_env_values = true)]
    pub forwarded_allow_ips: Vec<String>,

    /// Keep compiled code and the admin socket in DIR [default: .wasgi]
    #[arg(long, value_name = "DIR", env = "WASGI_STATE_DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,

    /// Keep the data of apps that may have some in DIR [default: data]
    #[arg(long, value_name = "DIR", env = "WASGI_DATA_DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,

    /// Judge the servers of apps' outgoing requests by the certificates in FILE, PEM; read again on SIGHUP
    /// [default: the system's]
    #[arg(long, value_name = "FILE", env = "WASGI_OUTBOUND_CAFILE", hide_env_values = true)]
    pub outbound_cafile: Option<PathBuf>,

    /// Read what tenants may have from the files NAME.toml in DIR [default: tenants.d beside wasgi.toml]
    #[arg(long, value_name = "DIR", env = "WASGI_TENANTS_DIR", hide_env_values = true)]
    pub tenants_dir: Option<PathBuf>,

    /// Development mode: show why an app failed to whoever asks; listens on this machine only
    #[arg(long, env = "WASGI_DEV", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    pub dev: bool,

    /// Keep this process from what it does not need of the machine, as far as the kernel can: "off", "on" or "strict" (do not start where
    /// anything of it is missing) [default: on]
    #[arg(long, value_name = "HOW", env = "WASGI_CONFINE", hide_env_values = true)]
    pub confine: Option<String>,

    /// Keep these folders within reach for grants that come later: directories that apps see, and files of secrets
    #[arg(long, value_name = "LIST", env = "WASGI_CONFINE_PATHS", value_delimiter = ',', hide_env_values = true)]
    pub confine_paths: Vec<String>,

    /// Started by root: become this user once the ports are bound
    #[arg(long, value_name = "USER", env = "WASGI_USER", hide_env_values = true)]
    pub user: Option<String>,

    /// With --user: and of this group [default: the user's]
    #[arg(long, value_name = "GROUP", env = "WASGI_GROUP", hide_env_values = true)]
    pub group: Option<String>,

    /// Threads that serve requests [default: one per CPU]
    #[arg(long, value_name = "N", env = "WASGI_WORKERS", hide_env_values = true)]
    pub workers: Option<String>,

    /// Sandboxes that may exist at the same time, of all apps together [default: 1000]
    #[arg(long, value_name = "N", env = "WASGI_SANDBOXES", hide_env_values = true)]
    pub sandboxes: Option<String>,

    /// Memory of all sandboxes together [default: three quarters of the machine's, or of its control group's]
    #[arg(long, value_name = "SIZE", env = "WASGI_SANDBOX_MEMORY", hide_env_values = true)]
    pub sandbox_memory: Option<String>,

    /// The wasm stack of a sandbox [default: 1MiB]
    #[arg(long, value_name = "SIZE", env = "WASGI_STACK", hide_env_values = true)]
    pub stack: Option<String>,

    /// How instances serve requests where an app's sidecar does not say: "fresh" (a new one for each), "rewind" (one that was
    /// put back to where it began) or "reuse" [default: fresh]
    #[arg(long, value_name = "POLICY", env = "WASGI_INSTANCES", hide_env_values = true)]
    pub instances: Option<String>,

    /// What an app gets of a request body of unknown length where its sidecar does not say: "spool" (its length, once all
    /// of it is there) or "stream" [default: spool]
    #[arg(long, value_name = "WAY", env = "WASGI_CHUNKED_BODIES", hide_env_values = true)]
    pub chunked_bodies: Option<String>,

    /// What is done to apps before they are compiled: "all" (what makes their instances cheaper) or "needed" (what they cannot
    /// run without) [default: all]
    #[arg(long, value_name = "PASSES", env = "WASGI_PASSES", hide_env_values = true)]
    pub passes: Option<String>,

    /// With "reuse": requests after which an instance is retired [default: 1000]
    #[arg(long, value_name = "N", env = "WASGI_REUSE_REQUESTS", hide_env_values = true)]
    pub reuse_requests: Option<String>,

    /// With "reuse": an instance unused for this long is retired [default: 1m]
    #[arg(long, value_name = "TIME", env = "WASGI_REUSE_IDLE_TIME", hide_env_values = true)]
    pub reuse_idle_time: Option<String>,

    /// With "reuse": an instance with more memory than this is retired after its response [default: 96MiB]
    #[arg(long, value_name = "SIZE", env = "WASGI_REUSE_MEMORY", hide_env_values = true)]
    pub reuse_memory: Option<String>,

    /// An app that nobody has called for this long gives its compiled code back, and loads it at the next call [default: 10m]
    #[arg(long, value_name = "TIME", env = "WASGI_APP_IDLE_TIME", hide_env_values = true)]
    pub app_idle_time: Option<String>,

    /// What is kept of calls that their apps failed, for `wasgi capsule`: "off", "redacted" (no bodies, no header fields that could
    /// be secrets) or "whole" [default: redacted]
    #[arg(long, value_name = "WHAT", env = "WASGI_CAPSULES", hide_env_values = true)]
    pub capsules: Option<String>,

    /// How many of them are kept [default: 1000]
    #[arg(long, value_name = "N", env = "WASGI_CAPSULES_COUNT", hide_env_values = true)]
    pub capsules_count: Option<String>,

    /// What they take together [default: 64MiB]
    #[arg(long, value_name = "SIZE", env = "WASGI_CAPSULES_SIZE", hide_env_values = true)]
    pub capsules_size: Option<String>,

    /// With "whole": what is kept of a request body [default: 64KiB]
    #[arg(long, value_name = "SIZE", env = "WASGI_CAPSULES_BODY_SIZE", hide_env_values = true)]
    pub capsules_body_size: Option<String>,

    /// Releases that crashed are kept for `wasgi replay`: what they take together [default: 256MiB]
    #[arg(long, value_name = "SIZE", env = "WASGI_CAPSULES_MODULE_SIZE", hide_env_values = true)]
    pub capsules_module_size: Option<String>,

    /// How often the apps directory is read without a file event [default: 2s]
    #[arg(long, value_name = "TIME", env = "WASGI_RESCAN_TIME", hide_env_values = true)]
    pub rescan_time: Option<String>,

    /// How long a file that was not renamed into place must rest before it is taken [default: 250ms]
    #[arg(long, value_name = "TIME", env = "WASGI_SETTLE_TIME", hide_env_values = true)]
    pub settle_time: Option<String>,

    /// Set a key of [limits], such as cpu_time=2s or memory=64MiB; may be repeated
    /// [env: WASGI_LIMITS="cpu_time=2s,memory=64MiB"]
    #[arg(long = "limit", value_name = "KEY=VALUE")]
    pub limits: Vec<String>,

    /// Set a key of [edge], such as connections=500 or header_time=5s; may be repeated
    /// [env: WASGI_EDGE="connections=500,header_time=5s"]
    #[arg(long = "edge", value_name = "KEY=VALUE")]
    pub edge: Vec<String>,

    /// What is logged: a level, or levels by module ("info", "warn,wasgi_host::deploy=debug") [default: info]
    #[arg(long, value_name = "FILTER", env = "WASGI_LOG_FILTER", hide_env_values = true)]
    pub log_filter: Option<String>,

    /// How the log on stderr is written: "text" or "json" [default: text]
    #[arg(long, value_name = "FORMAT", env = "WASGI_LOG_FORMAT", hide_env_values = true)]
    pub log_format: Option<String>,

    /// Where the access log goes: a file, "-" for stdout, or "off" [default: -]
    #[arg(long, value_name = "FILE", env = "WASGI_ACCESS_LOG_FILE", hide_env_values = true)]
    pub access_log_file: Option<String>,

    /// How the access log is written: "combined" or "json" [default: combined]
    #[arg(long, value_name = "FORMAT", env = "WASGI_ACCESS_LOG_FORMAT", hide_env_values = true)]
    pub access_log_format: Option<String>,

    #[arg(skip)]
    pub environment: Environment,
}

/// The environment variables that are not simply another spelling of one flag.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `PORT`, as hosting platforms set it.
    pub port: Option<String>,
    /// `LISTEN_FDS` and `LISTEN_PID`, as systemd sets them for the sockets that it passes.
    pub listen_fds: Option<String>,
    pub listen_pid: Option<String>,
    /// `WASGI_LIMITS`: `cpu_time=2s,memory=64MiB`.
    pub limits: Option<String>,
    /// `WASGI_EDGE`, in the same form.
    pub edge: Option<String>,
    /// `XDG_CACHE_HOME`, else `.cache` in `HOME`: where builders keep what they have built of what.
    pub cache_dir: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process. A variable that is empty counts as not set.
    pub fn read() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            port: variable("PORT"),
            listen_fds: variable("LISTEN_FDS"),
            listen_pid: variable("LISTEN_PID"),
            limits: variable("WASGI_LIMITS"),
            edge: variable("WASGI_EDGE"),
            cache_dir: variable("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache"))),
        }
    }
}

impl Settings {
    /// The names of those variables of the environment in which settings are looked for.
    pub fn variables() -> impl Iterator<Item = std::ffi::OsString> {
        let is_setting = |name: &std::ffi::OsString| name == "PORT" || name.as_encoded_bytes().starts_with(b"WASGI_");
        std::env::vars_os().map(|(name, _)| name).filter(is_setting)
    }

    /// What the environment alone says: for commands that take none of the flags.
    ///
    /// # Errors
    /// Where a variable is not text.
    pub fn from_environment() -> Result<Self, clap::Error> {
        #[derive(Parser)]
        struct NoFlags {
            #[command(flatten)]
            settings: Settings,
            #[arg(env = "WASGI_APPS_DIR")]
            apps_dir: Option<PathBuf>,
        }
        let NoFlags { mut settings, apps_dir } = NoFlags::try_parse_from(["wasgi"])?;
        settings.apps_dir = apps_dir;
        settings.environment = Environment::read();
        Ok(settings)
    }
}
