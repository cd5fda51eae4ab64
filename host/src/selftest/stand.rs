//! The host that is attacked: this very binary, with the operator's configuration, in a process and directories of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::attack::{Unstopped, no_attack};
use super::guests::Source;
use super::terms::PROTECTS_UP_TO;
use super::wire::{self, Reply};
use crate::config::{Config, Confine, Settings};

/// How long anything may take that ends by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A variable in the host's environment that no guest may ever see.
pub(super) const SECRET_NAME: &str = "WASGI_SELFTEST_SECRET";
pub(super) const SECRET: &str = "the-hosts-own-secret-5f1c";

/// The app that behaves, alone in a tenant of its own.
pub(super) const NEIGHBOUR: &str = "selftest-neighbour/app";

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

/// The app of an attack, alone in a tenant of its own: what one attack has used of the operator's budget is not the next one's.
pub(super) fn attacker(name: &str) -> String {
    format!("selftest-{name}/app")
}

/// What the operator of the stand says of one that may go elsewhere.
fn traveller(destinations: &[&str]) -> String {
    format!("[grant.outbound]\napp = {destinations:?}\n")
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
    /// Makes names others: an app that went and comes back may be taken for one that never went.
    named: AtomicU64,
}

/// What became of a file that was dropped into the apps directory.
pub(super) enum Judged {
    Live,
    Refused(String),
}

impl Stand {
    /// Starts the host. The configuration is the operator's; only where it listens and keeps things is another, and there is a tenant of
    /// our own. `travellers` are the attacks that may go to the destinations beside them.
    pub(super) fn start(config: Config, travellers: &[(&str, &[&str])]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("wasgi-selftest-").tempdir().context("no temporary directory")?;
        for name in ["apps", "tenants.d", "shared"] {
            fs::create_dir(folder.path().join(name))?;
        }
        let tenants = folder.path().join("tenants.d");
        fs::write(tenants.join(format!("{VICTIM}.toml")), victim())?;
        fs::write(tenants.join(format!("{KEEPER}.toml")), keeper(&folder.path().canonicalize()?))?;
        for (name, destinations) in travellers {
            fs::write(tenants.join(format!("selftest-{name}.toml")), traveller(destinations))?;
        }
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
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // What they say is in the configuration already; here they would count more than what the stand changes in it.
        for name in Settings::variables() {
            command.env_remove(name);
        }
        command.env(SECRET_NAME, SECRET);
        let mut child = command.spawn().context("the host cannot be started")?;
        let (log, access) = (Lines::default(), Lines::default());
        log.follow(child.stderr.take().expect("it is piped"));
        access.follow(child.stdout.take().expect("it is piped"));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut stand = Self { child, folder, address, config, log, access, asked: 0, named: AtomicU64::new(0) };
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

    /// A name that no app of this tenant had.
    pub(super) fn new_name(&self, tenant: &str) -> String {
        format!("{tenant}/app-{}", self.named.fetch_add(1, Ordering::Relaxed))
    }

    /// Drops an app in, with its sidecar, and waits for the host's judgement.
    pub(super) fn deploy(&self, name: &str, wasm: &[u8], sidecar: &str) -> Result<Judged, String> {
        self.deploy_within(PATIENCE, name, wasm, sidecar)
    }

    /// The same, with so much time beside what compilers have where that is bounded.
    pub(super) fn deploy_within(
        &self,
        patience: Duration,
        name: &str,
        wasm: &[u8],
        sidecar: &str,
    ) -> Result<Judged, String> {
        let seen = self.log.count();
        let fail = |error: std::io::Error| format!("the app cannot be written: {error}");
        if !sidecar.is_empty() {
            put(&self.apps_dir(), &format!("{name}.toml"), sidecar.as_bytes()).map_err(fail)?;
        }
        put(&self.apps_dir(), &format!("{name}.wasm"), wasm).map_err(fail)?;
        let patience = match self.config.limits.compile_time {
            operators if operators > PROTECTS_UP_TO => patience,
            operators => patience + operators,
        };
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

    /// Drops an app in that has to go live before anything can be tried with it.
    pub(super) fn serve(&self, name: &str, source: &Source, sidecar: &str) -> Result<(), Unstopped> {
        let wasm = source.assemble().map_err(|error| no_attack(format!("{error:#}")))?;
        match self.deploy(name, &wasm, sidecar)? {
            Judged::Live => Ok(()),
            Judged::Refused(reason) => Err(no_attack(reason)),
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
        self.ask_within(PATIENCE, app, "")
    }

    /// The same with words that the app may read, given up after a while.
    pub(super) fn ask_within(&mut self, patience: Duration, app: &str, words: &str) -> Result<(Reply, String), String> {
        self.asked += 1;
        let target = format!("/{app}?{}{words}", self.asked);
        let reply = wire::talk(self.address, &wire::get(&target), patience);
        let reply = reply.map_err(|error| format!("the host takes no connection: {error}"))?;
        // Nothing came: the log may say why, and need not.
        let patience = if reply.status == 0 { Duration::from_millis(500) } else { PATIENCE };
        match self.access.wait(patience, |line| text(line, "target") == target) {
            Some(line) => Ok((reply, text(&line, "cause"))),
            None if reply.status == 0 => Ok((reply, String::new())),
            None => Err("the access log has no line of the request".into()),
        }
    }

    /// Asks an app with these words, without a look at the log: that is done for many at once, by [`Self::causes`].
    pub(super) fn ask_quickly(&self, app: &str, words: &str) -> Result<Reply, String> {
        self.talk(&wire::get(&format!("/{app}?{words}")))
    }

    /// How many requests with these words in their targets the access log has, of which it is to have `count`, and how many of them failed
    /// for this cause.
    pub(super) fn causes(&self, app: &str, words: &str, cause: &str, count: usize) -> (usize, usize) {
        let target = format!("/{app}?{words}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.access.all(0, |line| text(line, "target") == target);
            if lines.len() >= count || Instant::now() > deadline {
                return (lines.len(), lines.iter().filter(|line| text(line, "cause") == cause).count());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
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

    /// Memory of the host now, and the most that it had since that was last forgotten: resident pages, in bytes.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    pub(super) fn most_resident_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    pub(super) fn forget_most(&self) {
        // Where the kernel has no such file, the most is that since the start: more than it should be.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    fn status_bytes(&self, name: &str) -> u64 {
        status_bytes(self.child.id(), name)
    }
}

/// A field of what the kernel says of a process.
pub(super) fn status_bytes(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

/// What of the operator's configuration the stand has in another way, for the report.
pub(super) fn differences(config: &Config) -> Vec<String> {
    let mut differences = Vec::new();
    if config.confine == Confine::Strict {
        differences
            .push("confine = \"on\" (yours is \"strict\": `wasgi check` tells whether this kernel can)".to_owned());
    }
    for (key, is_said) in [("user", config.user.is_some()), ("group", config.group.is_some())] {
        if is_said {
            differences.push(format!("no {key}: it is whose this command is"));
        }
    }
    if !config.confine_paths.is_empty() {
        differences.push("no confine_paths: its directories are its own".to_owned());
    }
    differences
}

/// The paths in it, wherever it is read.
fn with_whole_paths(mut config: Config) -> anyhow::Result<Config> {
    let certificate = config.certificate.iter_mut().flat_map(|files| [&mut files.certfile, &mut files.keyfile]);
    for path in certificate.chain(&mut config.outbound_cafile).chain([&mut config.data_dir]) {
        *path = std::path::absolute(&*path).with_context(|| path.display().to_string())?;
    }
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
    pub(super) fn wait_after(&self, seen: usize, patience: Duration, fits: impl Fn(&Value) -> bool) -> Option<Value> {
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
