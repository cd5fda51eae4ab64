//! A host as a child process, with directories and a port of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::compiled::Compiled;
use crate::guests::root;
use crate::{Client, Event, Log, Request, Response, eventually};

/// A running host. Dropping it kills it.
pub struct Host {
    child: Child,
    /// None after a restart.
    folder: Option<TempDir>,
    flags: Vec<(String, String)>,
    apps: Vec<String>,
    binds: Vec<String>,
    starter: Vec<String>,
    is_cold: bool,
    /// Where it listens, as it says.
    places: Vec<String>,
    address: SocketAddr,
    log: Log,
    access: Log,
}

/// What a host is started with.
pub struct Builder {
    folder: TempDir,
    config: String,
    flags: Vec<(String, String)>,
    apps: Vec<String>,
    binds: Vec<String>,
    starter: Vec<String>,
    is_cold: bool,
}

/// The command `wasgi` with nothing in its environment that could reach in from outside.
///
/// # Panics
/// If it has not been built.
pub fn wasgi() -> Command {
    let deps = std::env::current_exe().expect("a test knows its own file");
    let path = deps.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").join("wasgi");
    assert!(path.exists(), "there is no {}: run `cargo build -p wasgi-host`", path.display());
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null());
    // A test never changes the machine: without this, rustup's stand-ins for cargo and rustc may replace the toolchain.
    command.env("RUSTUP_AUTO_INSTALL", "0");
    for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

impl Builder {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("wasgi-test-").tempdir().expect("there is a temporary directory");
        fs::create_dir(folder.path().join("apps")).expect("the directory is new");
        // Files that a test writes are whole: they need no long rest. The pool is as large as a test needs.
        let flags = [
            ("--settle-time", "50ms"),
            ("--rescan-time", "500ms"),
            ("--sandboxes", "100"),
            ("--log-filter", "info,wasgi=debug"),
        ];
        let mut flags = flags.map(|(flag, value)| (flag.to_owned(), value.to_owned())).to_vec();
        // For a run of the whole suite under another policy than the default: CONTRIBUTING.md.
        if let Ok(policy) = std::env::var("TEST_INSTANCES") {
            flags.push(("--instances".to_owned(), policy));
        }
        // Or without the passes that are not needed.
        if let Ok(passes) = std::env::var("TEST_PASSES") {
            flags.push(("--passes".to_owned(), passes));
        }
        Self {
            folder,
            config: String::new(),
            flags,
            apps: Vec::new(),
            binds: vec!["127.0.0.1:0".to_owned()],
            starter: Vec::new(),
            is_cold: false,
        }
    }

    /// The host's own folder, where it runs: `wasgi.toml` is there, and what a test puts there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where to listen, instead of a free port; nothing leaves it to the host.
    #[must_use]
    pub fn bind(mut self, places: &[&str]) -> Self {
        self.binds = places.iter().map(ToString::to_string).collect();
        self
    }

    /// With nothing in its cache, whatever other tests have compiled.
    #[must_use]
    pub fn cold(mut self) -> Self {
        self.is_cold = true;
        self
    }

    /// A shell's command that ends in `exec "$@"`: that starts the host.
    #[must_use]
    pub fn started_by(mut self, script: &str) -> Self {
        // Not sh, which may be dash: that knows no descriptor of two digits.
        self.starter = ["bash", "-c", script, "bash"].map(str::to_owned).to_vec();
        self
    }

    /// Puts a `.wasm` into the apps directory, and waits for it at the start until it is live or refused.
    #[must_use]
    pub fn app(mut self, name: &str, wasm: impl AsRef<[u8]>) -> Self {
        write(&self.folder.path().join("apps").join(format!("{name}.wasm")), wasm.as_ref());
        self.apps.push(name.to_owned());
        self
    }

    #[must_use]
    pub fn sidecar(self, name: &str, toml: &str) -> Self {
        write(&self.folder.path().join("apps").join(format!("{name}.toml")), toml.as_bytes());
        self
    }

    /// The text of `wasgi.toml`.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.config);
        self
    }

    #[must_use]
    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.retain(|(known, _)| known != flag || flag == "--limit" || flag == "--edge");
        self.flags.push((flag.to_owned(), value.to_owned()));
        self
    }

    /// Apps are called as soon as a request's head is there, and read its body as it arrives: a test holds a call by sending
    /// the body piece by piece.
    #[must_use]
    pub fn stream_bodies(self) -> Self {
        self.flag("--chunked-bodies", "stream")
    }

    /// A key of `[limits]`: `cpu_time=100ms`.
    #[must_use]
    pub fn limit(self, pair: &str) -> Self {
        self.flag("--limit", pair)
    }

    /// A key of `[edge]`: `drain_time=1s`.
    #[must_use]
    pub fn edge(self, pair: &str) -> Self {
        self.flag("--edge", pair)
    }

    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        self.flag("--workers", &workers.to_string())
    }
}

impl Host {
    /// Starts a host and waits until it listens and has judged every app that it was given.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    pub fn start(build: impl FnOnce(Builder) -> Builder) -> Self {
        Self::run(build(Builder::new()))
    }

    /// Kills the host and starts another on the same directories.
    #[track_caller]
    pub fn restart(mut self) -> Self {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let folder = self.folder.take().expect("a host has its folder until it is dropped");
        let config = fs::read_to_string(folder.path().join("wasgi.toml")).expect("it was written at the start");
        Self::run(Builder {
            folder,
            config,
            flags: std::mem::take(&mut self.flags),
            apps: std::mem::take(&mut self.apps),
            binds: std::mem::take(&mut self.binds),
            starter: std::mem::take(&mut self.starter),
            is_cold: self.is_cold,
        })
    }

    #[track_caller]
    fn run(builder: Builder) -> Self {
        let folder = builder.folder.path();
        fs::write(folder.join("wasgi.toml"), &builder.config).expect("the directory is ours");
        let mut compiled = Compiled::of(folder, &builder.apps);
        // What another user is to have, that makes it.
        if builder.is_cold || builder.flags.iter().any(|(flag, _)| flag == "--user") {
            compiled = compiled.cold();
        }
        let state = folder.join("state");
        compiled.around(&state, || Self::spawn(builder, &compiled))
    }

    /// Starts it, and waits until its apps are live or refused.
    #[track_caller]
    fn spawn(Builder { folder, flags, apps, binds, starter, is_cold, .. }: Builder, compiled: &Compiled) -> Self {
        let mut command = through(&starter, wasgi());
        command.arg("serve").arg(folder.path().join("apps"));
        for place in &binds {
            command.args(["--bind", place]);
        }
        command.arg("--config").arg(folder.path().join("wasgi.toml"));
        command.arg("--state-dir").arg(folder.path().join("state"));
        command.args(["--log-format", "json", "--access-log-format", "json"]);
        for (flag, value) in flags.iter().chain(&compiled.flags()) {
            command.args([flag, value]);
        }
        let mut child = command
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be run");
        let (log, access) = (Log::default(), Log::default());
        log.follow(child.stderr.take().expect("it is piped"));
        access.follow(child.stdout.take().expect("it is piped"));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let folder = Some(folder);
        let mut host =
            Self { child, folder, flags, apps, binds, starter, is_cold, places: Vec::new(), address, log, access };
        let listening = host
            .log
            .wait_for("listening on", host.binds.len().max(1), |event| event.message().starts_with("listening on "));
        let places = listening.iter().map(|event| event.message().trim_start_matches("listening on ").to_owned());
        host.places = places.collect();
        // That of the first place with a port.
        let mut addresses = host.places.iter().filter_map(|place| place.rsplit_once("://")?.1.parse().ok());
        host.address = addresses.next().unwrap_or(address);
        for app in &host.apps {
            let what = format!("{app} is live or refused");
            let fits = |event: &Event| event.text("app") == *app && is_judged(event);
            let judged = host.log.wait_within(compiled.patience(), &what, 1, fits);
            // Shown where the test fails.
            println!("{app}: {}", judged[0].message());
        }
        host
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as it says, in the order of the places it was given: `https://127.0.0.1:40123`.
    pub fn places(&self) -> &[String] {
        &self.places
    }

    /// The address of one of these places.
    pub fn address_of(&self, place: usize) -> SocketAddr {
        let address = self.places[place].rsplit_once("://").map(|(_, address)| address.parse());
        address.and_then(Result::ok).expect("it is a TCP address")
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, request: &Request) -> Response {
        self.connect().ask(request)
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.ask(&Request::get(target))
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The access log.
    pub fn access(&self) -> &Log {
        &self.access
    }

    /// Waits for the line of the log that says why this request failed.
    #[track_caller]
    pub fn failure(&self, response: &Response) -> Event {
        let id = response.request_id();
        self.log.wait(&format!("why request {id} failed"), |event| {
            event.text("request") == id && !event.text("cause").is_empty()
        })
    }

    /// Waits for a failure with this label.
    #[track_caller]
    pub fn failed(&self, cause: &str) -> Event {
        self.log.wait(&format!("a failure with cause {cause}"), |event| event.text("cause") == cause)
    }

    /// Waits for a line of the log with `words` in it.
    #[track_caller]
    pub fn log_contains(&self, words: &str) -> Event {
        self.log.wait(words, |event| event.message().contains(words))
    }

    /// What `wasgi apps` shows of an app: its fields as text.
    ///
    /// # Panics
    /// If the command fails.
    #[track_caller]
    pub fn listed(&self, app: &str) -> Option<Event> {
        let listed = wasgi().arg("apps").arg("--json").arg("--state-dir").arg(self.state_dir()).output();
        let listed = listed.expect("the binary can be run");
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let apps: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).expect("it prints JSON");
        apps.into_iter().map(Event::new).find(|event| event.text("name") == app)
    }

    /// A figure of `/metrics` by its name and labels; none where it is not there.
    ///
    /// # Panics
    /// If the admin socket does not answer.
    #[track_caller]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let socket = UnixStream::connect(self.state_dir().join("admin.sock"));
        let mut socket = socket.expect("the admin socket can be opened");
        socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: wasgi\r\n\r\n").expect("it takes a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers");
        answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until `wasgi apps` shows the app with a problem that says `words`.
    #[track_caller]
    pub fn listed_problem(&self, app: &str, words: &str) -> Event {
        self.log.wait(&format!("{app} has a problem: {words}"), |event| {
            event.text("app") == app && event.message().contains(words)
        });
        eventually(&format!("wasgi apps shows a problem of {app}: {words}"), || {
            self.listed(app).filter(|event| event.text("problem").contains(words))
        })
    }

    /// Waits until a path answers so.
    #[track_caller]
    pub fn until(&self, target: &str, status: u16, text: &str) {
        let mut last = String::new();
        eventually(&format!("{target} answers {status} {text}"), || {
            let response = self.get(target);
            last = response.text();
            (response.status() == status && last.contains(text)).then_some(())
        });
    }

    pub fn apps_dir(&self) -> PathBuf {
        self.folder().join("apps")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder().join("state")
    }

    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("a host has its folder until it is restarted").path()
    }

    /// Renames a file into place in the apps directory: `hello.wasm`, `shop/cart.toml`.
    pub fn drop_in(&self, file: &str, bytes: impl AsRef<[u8]>) {
        let path = self.apps_dir().join(file);
        write(&path, bytes.as_ref());
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.apps_dir().join(file)).expect("the file is there");
    }

    /// Replaces `wasgi.toml`, without telling the host.
    pub fn write_config(&self, toml: &str) {
        fs::write(self.folder().join("wasgi.toml"), toml).expect("the directory is ours");
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the host runs");
    }

    fn pid(&self) -> Pid {
        let pid = i32::try_from(self.child.id()).expect("process numbers fit");
        Pid::from_raw(pid).expect("process numbers are not zero")
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the host ends", || self.child.try_wait().expect("it is our child"))
    }

    /// How many mappings of files with this in their names the host has.
    pub fn mappings(&self, file: &str) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id())).expect("it runs");
        maps.lines().filter(|line| line.contains(file)).count()
    }

    /// What the kernel says of the process: `/proc/PID/status`.
    pub fn status(&self) -> String {
        fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the host runs")
    }

    /// How often a file is mapped so that it can be written, as copy.
    pub fn writable_mappings(&self, file: &str) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id())).expect("it runs");
        maps.lines().filter(|line| line.contains(" rw-p ") && line.contains(file)).count()
    }

    /// Memory of the host that is not file pages, in bytes, and the most that it ever was.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the host runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux shows it");
        let kilobytes = line.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number");
        kilobytes << 10
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command with its environment, started by another one.
fn through(starter: &[String], command: Command) -> Command {
    let Some((program, arguments)) = starter.split_first() else { return command };
    let mut starting = Command::new(program);
    starting.args(arguments).arg(command.get_program()).env_clear().stdin(Stdio::null());
    starting.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    starting
}

fn is_judged(event: &Event) -> bool {
    event.message() == "live" || event.message().starts_with("refused")
}

/// Writes beside, then renames: whoever looks sees the old file or the new one.
fn write(path: &Path, bytes: &[u8]) {
    let folder = path.parent().expect("a file lies in a directory");
    fs::create_dir_all(folder).expect("the directory is ours");
    let file = path.file_name().expect("it has a name").to_string_lossy();
    let new = folder.join(format!(".{file}.new"));
    fs::write(&new, bytes).expect("the directory is ours");
    fs::rename(&new, path).expect("the directory is ours");
}

/// The repository, for tests about its sources.
pub fn repository() -> PathBuf {
    root()
}
