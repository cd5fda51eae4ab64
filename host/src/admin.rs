//! The local admin socket: what `wasgi apps` and a Prometheus scraper ask. It reads the table of apps and calls no guest; it
//! changes nothing. Whoever may open the socket, the host's own user, may read.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as ClientStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use crate::account::Account;
use crate::apps::{Apps, Entry, Table};
use crate::capsule::{Capsules, Totals};
use crate::config::{Instances, tenant_name};
use crate::telemetry::prometheus;

const SOCKET_NAME: &str = "admin.sock";
const LOCK_NAME: &str = "lock";

/// More connections wait in the kernel.
const CONNECTIONS_MAX: usize = 16;
/// A connection that is not done after this is cut: nothing here takes long.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// What a client of the socket reads at most.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// One app, as `GET /apps` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    pub name: String,
    /// Whose it is: the first folder of its name; none where it lies in none.
    pub tenant: Option<String>,
    pub state: State,
    /// SHA-256 of the live release, in hex.
    pub release: Option<String>,
    /// What the live release speaks.
    pub kind: Option<String>,
    /// As in a sidecar: `/shop`, `*.example.com/`.
    pub routes: Vec<String>,
    /// "fresh", or "reuse" with its numbers.
    pub instances: Option<String>,
    /// When the live release went live; RFC 3339.
    pub since: Option<String>,
    /// Requests since the host started.
    pub requests: u64,
    /// It keeps failing: for how long its calls are still refused.
    pub throttled: Option<String>,
    /// Why the newest file or sidecar is not what is served.
    pub problem: Option<String>,
    /// Since when that is so; RFC 3339.
    pub problem_since: Option<String>,
    /// Younger apps that claim a route of this one, and so are refused.
    pub rivals: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The newest file is being served.
    Live,
    /// An older release is served while the newest is made ready.
    LiveLoading,
    /// An older release is served, since there is something wrong with the newest file or sidecar.
    LiveProblem,
    /// It keeps failing: its calls are refused for a while.
    LiveThrottled,
    Loading,
    /// Nothing is served.
    Refused,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::LiveLoading => "live+loading",
            Self::LiveProblem => "live+problem",
            Self::LiveThrottled => "live+throttled",
            Self::Loading => "loading",
            Self::Refused => "refused",
        }
    }
}

/// The state directory of this host, taken: no second host has it.
pub struct StateLock {
    state_dir: PathBuf,
    /// Locked as long as it is open; the kernel unlocks it however the process ends.
    _lock: File,
}

/// The socket of this host. Dropping it removes the socket.
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    _lock: StateLock,
}

impl StateLock {
    /// Makes the state directory, and takes it.
    ///
    /// # Errors
    /// Where another host has the directory, or it cannot be written.
    pub fn take(state_dir: &Path) -> anyhow::Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
        made.with_context(|| format!("the state directory {} cannot be made", state_dir.display()))?;
        let lock_path = state_dir.join(LOCK_NAME);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.with_context(|| format!("{} cannot be written", lock_path.display()))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => anyhow::anyhow!(
                "another wasgi is running with the state directory {}: stop it, or give this one another --state-dir",
                state_dir.display()
            ),
            std::fs::TryLockError::Error(error) => anyhow::anyhow!("{} cannot be locked: {error}", lock_path.display()),
        })?;
        Ok(Self { state_dir: state_dir.to_owned(), _lock: lock })
    }

    /// The file that is locked.
    pub fn path(&self) -> PathBuf {
        self.state_dir.join(LOCK_NAME)
    }
}

impl AdminSocket {
    /// Listens. To be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the directory cannot be written.
    pub fn bind(lock: StateLock) -> anyhow::Result<Self> {
        let path = lock.state_dir.join(SOCKET_NAME);
        // Whoever holds the lock may remove what a host that was killed left behind.
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("{} cannot be replaced", path.display()));
        }
        let listener = UnixListener::bind(&path).with_context(|| {
            format!("the admin socket {} cannot be made (its path may have about 100 bytes)", path.display())
        })?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))
            .with_context(|| format!("{} cannot be closed to others", path.display()))?;
        Ok(Self { listener, path, _lock: lock })
    }

    /// Answers, until it is dropped.
    pub async fn run(self, apps: Arc<Apps>, capsules: Arc<Capsules>) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, say: trying again at once would only burn the CPU.
                    tracing::warn!("the admin socket accepts no connection: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let (apps, capsules) = (Arc::clone(&apps), Arc::clone(&capsules));
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let totals = capsules.totals();
                    let response = respond(&apps.snapshot(), totals, request.method(), request.uri().path());
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(CONNECTION_TIME)
                    .serve_connection(TokioIo::new(stream), service);
                // A client that breaks off is its own concern.
                let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
                drop(permit);
            });
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn respond(table: &Table, totals: Totals, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let (status, content_type, body) = match (method, path) {
        (&Method::GET, "/apps") => match serde_json::to_vec_pretty(&statuses(table)) {
            Ok(json) => (StatusCode::OK, "application/json", json),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n").into_bytes()),
        },
        (&Method::GET, "/metrics") => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics(table, totals).into_bytes())
        }
        (_, "/apps" | "/metrics") => {
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain", b"only GET is known here\n".to_vec())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", b"there are /apps and /metrics\n".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

fn metrics(table: &Table, totals: Totals) -> String {
    let live = table.entries.iter().filter_map(|(name, entry)| Some((name, entry.live.as_ref()?)));
    let mut text = prometheus(live.map(|(name, app)| (name.as_str(), app.stats.snapshot())));
    text.push_str("# HELP wasgi_apps Apps by state.\n# TYPE wasgi_apps gauge\n");
    for state in
        [State::Live, State::LiveLoading, State::LiveProblem, State::LiveThrottled, State::Loading, State::Refused]
    {
        let count = table.entries.values().filter(|entry| self::state(entry) == state).count();
        text.push_str(&format!("wasgi_apps{{state=\"{}\"}} {count}\n", state.as_str()));
    }
    text.push_str(&tenant_metrics(table));
    text.push_str(
        "# HELP wasgi_capsules_total Crash capsules by what became of them.\n# TYPE wasgi_capsules_total counter\n",
    );
    for (outcome, count) in [("written", totals.written), ("dropped", totals.dropped), ("failed", totals.failed)] {
        text.push_str(&format!("wasgi_capsules_total{{outcome=\"{outcome}\"}} {count}\n"));
    }
    text
}

/// What tenants have in use now.
fn tenant_metrics(table: &Table) -> String {
    let live = table.entries.values().filter_map(|entry| entry.live.as_ref());
    let accounts: BTreeMap<_, _> =
        live.map(|app| (app.spec.tenant.as_str(), Arc::clone(app.admission.account()))).collect();
    type Metric = (&'static str, &'static str, &'static str, fn(&Account) -> u64);
    let metrics: [Metric; 7] = [
        ("wasgi_tenant_calls", "gauge", "Calls of the tenant that run.", |account| account.running().into()),
        ("wasgi_tenant_waiting", "gauge", "Requests of the tenant that wait.", |account| account.waiting().into()),
        ("wasgi_tenant_memory_bytes", "gauge", "Memory of the tenant's sandboxes.", Account::memory_bytes),
        (
            "wasgi_tenant_disk_bytes",
            "gauge",
            "What the tenant's apps keep: data and key-value stores.",
            Account::disk_bytes,
        ),
        ("wasgi_tenant_disk_files", "gauge", "Files, folders and links among the tenant's data.", Account::disk_names),
        (
            "wasgi_tenant_descriptors",
            "gauge",
            "Files, sockets and connections open for the tenant's guests.",
            Account::descriptors,
        ),
        (
            "wasgi_tenant_descriptors_refused_total",
            "counter",
            "How often the tenant's guests were refused another of them.",
            Account::descriptors_refused,
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in metrics {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (tenant, account) in &accounts {
            // Names of folders have nothing that would have to be escaped.
            text.push_str(&format!("{name}{{tenant=\"{tenant}\"}} {}\n", value(account)));
        }
    }
    text
}

/// All apps, and all files that should be one, by name.
pub fn statuses(table: &Table) -> Vec<AppStatus> {
    table.entries.iter().map(|(name, entry)| status(name, entry)).collect()
}

fn status(name: &str, entry: &Entry) -> AppStatus {
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let live = entry.live.as_deref();
    AppStatus {
        name: name.to_owned(),
        tenant: Some(tenant_name(name)).filter(|tenant| !tenant.is_empty()).map(str::to_owned),
        state: state(entry),
        release: live.map(|app| app.release.hash.clone()),
        kind: live.and_then(|app| serde_json::to_value(app.release.kind).ok()?.as_str().map(str::to_owned)),
        routes: live.map(|app| app.spec.routes.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        instances: live.map(|app| match app.release.not_rewound {
            Some(_) => "fresh (cannot be rewound)".to_owned(),
            None if app.guest.gave_up_rewinding() => "fresh (none could be rewound)".to_owned(),
            None => instances_text(app.spec.instances),
        }),
        since: live.map(|app| time(app.release.live_since)),
        requests: live.map_or(0, |app| app.stats.requests()),
        throttled: live.and_then(|app| app.throttle.pause()).map(|pause| {
            let seconds = pause.as_secs() + 1;
            humantime::format_duration(Duration::from_secs(seconds)).to_string()
        }),
        problem: entry.problem.as_ref().map(|problem| problem.reason.clone()),
        problem_since: entry.problem.as_ref().map(|problem| time(problem.since)),
        rivals: entry.rivals.clone(),
    }
}

fn state(entry: &Entry) -> State {
    if entry.live.as_ref().is_some_and(|app| app.throttle.pause().is_some()) {
        return State::LiveThrottled;
    }
    match (entry.live.is_some(), entry.loading, entry.problem.is_some()) {
        (true, true, _) => State::LiveLoading,
        (true, false, true) => State::LiveProblem,
        (true, false, false) => State::Live,
        (false, true, _) => State::Loading,
        (false, false, _) => State::Refused,
    }
}

/// "fresh", or "reuse (1000 requests, 1m idle)".
pub fn instances_text(instances: Instances) -> String {
    match instances {
        Instances::Fresh => instances.to_string(),
        Instances::Rewind(kept) | Instances::Reuse(kept) => {
            let idle = humantime::format_duration(kept.idle_time);
            format!("{instances} ({} requests, {idle} idle)", kept.requests_max)
        }
    }
}

/// Asks the running host for its apps.
///
/// # Errors
/// Where none runs with this state directory, or it is not this version's; says what to do.
pub fn ask_apps(state_dir: &Path) -> anyhow::Result<Vec<AppStatus>> {
    let json = ask(state_dir, "/apps")?;
    serde_json::from_slice(&json)
        .context("the running wasgi answers in a form that this one does not know: use the same version for both")
}

/// The body of what the running host answers to `GET path`.
fn ask(state_dir: &Path, path: &str) -> anyhow::Result<Vec<u8>> {
    let socket = state_dir.join(SOCKET_NAME);
    let mut stream = ClientStream::connect(&socket).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => anyhow::anyhow!(
            "no wasgi is running with the state directory {}: start `wasgi serve`, or name its directory with --state-dir",
            state_dir.display()
        ),
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{} is another user's: ask as the user that wasgi runs as", socket.display())
        }
        _ => anyhow::anyhow!("{} cannot be opened: {error}", socket.display()),
    })?;
    stream.set_read_timeout(Some(CONNECTION_TIME))?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: wasgi\r\n\r\n")?;
    let mut answer = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    read.with_context(|| format!("the wasgi at {} does not answer", socket.display()))?;
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").context("the answer is not HTTP")?;
    let body = answer.split_off(head + 4);
    let status = answer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    anyhow::ensure!(status == b"200", "the running wasgi answers {}", String::from_utf8_lossy(status));
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::apps::Problem;

    fn table() -> Table {
        let problem =
            Some(Problem { reason: "apps/bad.wasm: not a component".to_owned(), since: SystemTime::UNIX_EPOCH });
        let mut table = Table::default();
        table.entries.insert("bad".to_owned(), Entry { problem, ..Entry::default() });
        table.entries.insert("new".to_owned(), Entry { loading: true, ..Entry::default() });
        table
    }

    #[test]
    fn apps_are_listed_with_state_and_reason() {
        let found = statuses(&table());
        assert_eq!((found[0].name.as_str(), found[0].state), ("bad", State::Refused));
        assert_eq!(found[0].problem.as_deref(), Some("apps/bad.wasm: not a component"));
        assert_eq!(found[0].problem_since.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!((found[1].name.as_str(), found[1].state), ("new", State::Loading));
    }

    #[test]
    fn routes_read_as_in_a_sidecar() {
        for text in ["/", "/shop", "example.com/", "*.example.com/x"] {
            let sidecar = format!("routes = [\"{text}\"]");
            let spec = crate::config::Config::default()
                .app_spec("a", Some(&sidecar), &crate::bundle::Manifest::default())
                .expect(text);
            assert_eq!(spec.routes[0].to_string(), text);
        }
    }

    #[tokio::test]
    async fn the_socket_answers_and_belongs_to_one_host() {
        let folder = tempfile::tempdir().expect("a folder");
        let state_dir = folder.path().join("state");
        let nobody = ask_apps(&state_dir).expect_err("none is running").to_string();
        assert!(nobody.starts_with("no wasgi is running with the state directory"), "{nobody}");

        let socket = AdminSocket::bind(StateLock::take(&state_dir).expect("it is free")).expect("binds");
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&state_dir), mode(&state_dir.join(SOCKET_NAME))), (0o700, 0o600));
        let second = StateLock::take(&state_dir).err().expect("it is taken").to_string();
        assert!(second.starts_with("another wasgi is running with the state directory"), "{second}");

        let apps = Arc::new(Apps::default());
        apps.publish(table());
        let running = tokio::spawn(socket.run(apps, Capsules::off()));
        let asked = state_dir.clone();
        let (listed, metrics, other) =
            tokio::task::spawn_blocking(move || (ask_apps(&asked), ask(&asked, "/metrics"), ask(&asked, "/x")))
                .await
                .expect("no panic");
        assert_eq!(listed.expect("an answer").len(), 2);
        let metrics = String::from_utf8(metrics.expect("an answer")).expect("text");
        assert!(metrics.contains("wasgi_apps{state=\"refused\"} 1\n"), "{metrics}");
        assert_eq!(other.expect_err("not found").to_string(), "the running wasgi answers 404");

        running.abort();
        let _ = running.await;
        assert!(!state_dir.join(SOCKET_NAME).exists());
        // What a killed host leaves behind is no hindrance.
        std::fs::write(state_dir.join(SOCKET_NAME), "").expect("written");
        AdminSocket::bind(StateLock::take(&state_dir).expect("it is free again")).expect("binds again");
    }
}
