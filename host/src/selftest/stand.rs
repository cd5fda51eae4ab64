//! The host that is attacked: this very binary, with the operator's configuration, in a process and directories of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::wire::{self, Reply};
use crate::config::{Config, Confine};

/// How long anything may take that ends by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A variable in the host's environment that no guest may ever see.
pub(super) const SECRET_NAME: &str = "WASGI_SELFTEST_SECRET";
pub(super) const SECRET: &str = "the-hosts-own-secret-5f1c";

/// A tenant who has something that others want. It has no apps.
pub(super) const VICTIM: &str = "selftest-victim";

/// A tenant whose apps may keep something. It has none but those that attack.
pub(super) const KEEPER: &str = "selftest-keeper";

/// What the operator of the stand says of it: a directory of the stand's is for all its apps to read.
fn keeper(folder: &Path) -> String {
    let shared = folder.join("shared");
    format!(
        "[grant]\ndata = [\"*\"]\n[grant.keyvalue]\ndefault = {{}}\n\
         [grant.directories]\n\"/shared\" = {{ path = \"{}\" }}\n",
        shared.display()
    )
}

/// What the operator of the stand says of the victim.
fn victim() -> String {
    format!(
        "routes = [\"/{VICTIM}\", \"{VICTIM}.example\"]\n[grant]\ndata = [\"*\"]\n[grant.secrets]\nKEY = {{ env = \"{SECRET_NAME}\" }}\n\
         [grant.directories]\n\"/media\" = {{ path = \"media\" }}\n\
         [grant.keyvalue]\ndefault = {{}}\nsessions = {{ shared = true }}\n"
    )
}

pub(super) struct Stand {
    child: Child,
    folder: TempDir,
    pub(super) address: SocketAddr,
    pub(super) config: Config,
    pub(super) log: Lines,
    pub(super) access: Lines,
    /// Makes every target another, so that its line in the access log can be found.
    asked: u64,
}

/// What became of a file that was dropped into the apps directory.
pub(super) enum Judged {
    Live,
    Refused(String),
}

impl Stand {
    /// Starts the host. The configuration is the operator's; only where it listens and keeps things is another, and there is a tenant of
    /// our own.
    pub(super) fn start(config: Config) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("wasgi-selftest-").tempdir().context("no temporary directory")?;
        for name in ["apps", "tenants.d", "shared"] {
            fs::create_dir(folder.path().join(name))?;
        }
        fs::write(folder.path().join("tenants.d").join(format!("{VICTIM}.toml")), victim())?;
        fs::write(
            folder.path().join("tenants.d").join(format!("{KEEPER}.toml")),
            keeper(&folder.path().canonicalize()?),
        )?;
        let mut command = Command::new(std::env::current_exe().context("where this program lies is not known")?);
        command.arg("serve").arg(folder.path().join("apps"));
        // It runs in another folder.
        let file = folder.path().join("wasgi.toml");
        fs::write(&file, with_whole_paths(config.clone())?.to_toml())?;
        command.arg("--config").arg(&file);
        command
            .args(["--bind", "http://127.0.0.1:0", "--settle-time", "0s", "--rescan-time", "500ms"])
            .args([
                "--log-format",
                "json",
                "--log-filter",
                "info",
                "--access-log-file",
                "-",
                "--access-log-format",
                "json",
            ])
            .arg("--state-dir")
            .arg(folder.path().join("state"))
            // The operator's may lie beside the directories that are the stand's own.
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .arg("--tenants-dir")
            .arg(folder.path().join("tenants.d"))
            .env(SECRET_NAME, SECRET)
            .env_remove("PORT")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("the host cannot be started")?;
        let (log, access) = (Lines::default(), Lines::default());
        log.follow(child.stderr.take().expect("it is piped"));
        access.follow(child.stdout.take().expect("it is piped"));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut stand = Self { child, folder, address, config, log, access, asked: 0 };
        let listening = |line: &Value| text(line, "message").starts_with("listening on http://");
        let Some(line) = stand.log.wait(PATIENCE, listening) else {
            bail!("the host does not come up: {}", stand.log.last_words());
        };
        let place = text(&line, "message").trim_start_matches("listening on http://").to_owned();
        stand.address = place.parse().with_context(|| format!("the host listens on {place}"))?;
        Ok(stand)
    }

    pub(super) fn apps_dir(&self) -> PathBuf {
        self.folder.path().join("apps")
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Drops an app in, with its sidecar, and waits for the host's judgement.
    pub(super) fn deploy(&self, name: &str, wasm: &[u8], sidecar: &str) -> Result<Judged, String> {
        let seen = self.log.count();
        let fail = |error: std::io::Error| format!("the app cannot be written: {error}");
        if !sidecar.is_empty() {
            put(&self.apps_dir(), &format!("{name}.toml"), sidecar.as_bytes()).map_err(fail)?;
        }
        put(&self.apps_dir(), &format!("{name}.wasm"), wasm).map_err(fail)?;
        self.judgement(name, seen)
    }

    /// Waits for what the host says of an app, later than its `seen` lines before.
    pub(super) fn judgement(&self, name: &str, seen: usize) -> Result<Judged, String> {
        let patience = PATIENCE + self.config.limits.compile_time;
        let judged = self.log.wait_after(seen, patience, |line| {
            let message = text(line, "message");
            text(line, "app") == name && (message == "live" || message.starts_with("refused"))
        });
        match judged.map(|line| text(&line, "message")) {
            Some(message) if message == "live" => Ok(Judged::Live),
            Some(message) => Ok(Judged::Refused(message)),
            None => Err("the host neither takes nor refuses it".into()),
        }
    }

    pub(super) fn remove(&self, name: &str) {
        for end in ["wasm", "toml"] {
            // What an attack did not need is not there.
            let _ = fs::remove_file(self.apps_dir().join(format!("{name}.{end}")));
        }
    }

    /// Asks an app, and finds out what the access log says of it: the cause, "" where nothing failed.
    pub(super) fn ask(&mut self, app: &str) -> Result<(Reply, String), String> {
        self.asked += 1;
        let target = format!("/{app}?{}", self.asked);
        let reply = self.talk(&wire::get(&target))?;
        let line = self.access.wait(PATIENCE, |line| text(line, "target") == target);
        let cause = line.map(|line| text(&line, "cause")).ok_or("the access log has no line of the request")?;
        Ok((reply, cause))
    }

    pub(super) fn talk(&self, request: &[u8]) -> Result<Reply, String> {
        wire::talk(self.address, request, PATIENCE).map_err(|error| format!("the host takes no connection: {error}"))
    }

    /// Whether the host lives.
    pub(super) fn is_up(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The process of the host.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Memory of the host that is not file pages, in bytes.
    pub(super) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
    }
}

/// So many no attack opens.
const CONNECTIONS_PER_ADDRESS: u32 = 2000;

/// The paths in it, wherever it is read.
fn with_whole_paths(mut config: Config) -> anyhow::Result<Config> {
    let certificate = config.certificate.iter_mut().flat_map(|files| [&mut files.certfile, &mut files.keyfile]);
    for path in certificate.chain(&mut config.outbound_cafile).chain([&mut config.data_dir]) {
        *path = std::path::absolute(&*path).with_context(|| path.display().to_string())?;
    }
    // Attackers and neighbours have one address here.
    let per_address = &mut config.edge.connections_per_address;
    *per_address = CONNECTIONS_PER_ADDRESS.max(*per_address);
    // Its directories are those of whoever attacks.
    (config.user, config.group, config.confine_paths) = (None, None, Vec::new());
    if config.confine == Confine::Strict {
        config.confine = Confine::On;
    }
    Ok(config)
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes beside, then renames: a whole file appears at once.
pub(super) fn put(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let place = folder.join(name);
    let file_name = place.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = place.with_file_name(format!(".{file_name}.new"));
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&beside, bytes)?;
    fs::rename(&beside, place)
}

/// A field of a line as text; "" where it is not there.
pub(super) fn text(line: &Value, field: &str) -> String {
    match &line[field] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What the host writes to one of its outputs, line by line.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<Value>>,
    grown: Condvar,
}

impl Lines {
    fn follow(&self, pipe: impl Read + Send + 'static) {
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let parsed = serde_json::from_slice(&line);
                let line = parsed.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&line).into_owned()));
                lines.lock().push(line);
                lines.0.grown.notify_all();
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Value>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Those after the first `seen` that fit, now.
    pub(super) fn all(&self, seen: usize, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.lock().iter().skip(seen).filter(|line| fits(line)).cloned().collect()
    }

    pub(super) fn wait(&self, patience: Duration, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        self.wait_after(0, patience, fits)
    }

    /// Waits for the first line that fits, the first `seen` left out.
    fn wait_after(&self, seen: usize, patience: Duration, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        let deadline = Instant::now() + patience;
        let (mut next, mut lines) = (seen, self.lock());
        loop {
            if let Some(found) = lines.iter().skip(next).find(|line| fits(line)) {
                return Some(found.clone());
            }
            next = lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            lines = self.0.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn last_words(&self) -> String {
        self.lock().last().map_or_else(|| "it says nothing".to_owned(), ToString::to_string)
    }
}
