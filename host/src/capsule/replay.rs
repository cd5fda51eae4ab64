//! Runs the request of a capsule again, against the very release that failed: a host of one app, in this process, that listens on a
//! Unix socket in a temporary folder. Everything goes the way of any request; what comes of it is told, and nothing is kept.
//!
//! The app gets its limits, variables, secrets and files as it would be served with now. It reaches nothing beyond that: no
//! destination, and neither its data, its key-value stores nor directories that it may write to, of which it finds empty ones.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::read;
use super::record::{Capsule, Field};
use super::redact::with_query_of_x;
use super::{Capsules, Job};
use crate::apps::Apps;
use crate::config::{Access, Bind, Config, Grants, KeepCapsules, Place, Scheme, StoreBackend, TrustedPeers};
use crate::deploy::{Deployer, scan};
use crate::gateway::{Faults, Gateway};
use crate::outbound::Plan;
use crate::sandbox::Engine;
use crate::server::{Doors, Inherited, Policy, Server};
use crate::telemetry::AccessLog;

/// What is shown of a response body.
const SHOWN_BYTES: usize = 2 << 10;
/// Pieces of a request body that was not kept.
const PIECE_BYTES: u64 = 64 << 10;
/// How long a fault may come after the response.
const AFTER_TIME: Duration = Duration::from_secs(2);
/// A sidecar is a page of text.
const SIDECAR_BYTES_MAX: u64 = 64 << 10;

/// What became of the request.
pub struct Replayed {
    /// None where the response broke off before its head.
    pub response: Option<Response>,
    /// The app has failed again: how.
    pub fault: Option<Capsule>,
    /// In which ways this was not quite what happened then.
    pub differences: Vec<String>,
}

pub struct Response {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    /// The beginning of its body.
    pub body: Vec<u8>,
    pub body_bytes: u64,
    /// It ended before its end.
    pub is_cut: bool,
}

impl Replayed {
    /// The cause, for comparing it with the capsule's.
    pub fn cause(&self) -> Option<&str> {
        self.fault.as_ref().map(|fault| fault.cause.as_str())
    }
}

/// Runs it. `config` is what the app is served with.
///
/// # Errors
/// If the release is not there any more, or would not deploy now; says what to do.
pub async fn run(config: Config, capsule: &Capsule) -> anyhow::Result<Replayed> {
    let folder = tempfile::Builder::new().prefix("wasgi-replay-").tempdir().context("no temporary directory")?;
    let mut differences = Vec::new();
    put_app(&config, capsule, &folder, &mut differences)?;
    let config = Arc::new(secluded(config, &folder, &mut differences)?);
    let (capsules, faults) = Capsules::channel(&config);
    let apps = Arc::new(Apps::default());
    let engine = Arc::new(Engine::new(&config)?);
    let deploy = Deployer::start(Arc::clone(&config), engine, Arc::clone(&apps), capsules)?;
    // What it asks for is judged by what is granted; what it gets is nothing.
    deploy.reload(Arc::clone(&config), Plan::of(&without_outbound(&config))?).await;
    live(&apps, &capsule.app, &deploy).await?;

    let access_log = Arc::new(AccessLog::open(None, config.access_log_format)?);
    let gateway = Arc::new(Gateway::new(apps, access_log, Faults::Hidden));
    let policy = Policy {
        limits: Arc::new(config.edge.clone()),
        trusted: Arc::new(config.forwarded_allow_ips.clone()),
        tls: None,
    };
    let doors = Doors::bind(&config.bind, Inherited::default(), false)?;
    let server = Server::new(doors, Arc::new(ArcSwap::from_pointee(policy)), gateway)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(server.run(async { _ = stopped.await }));
    let response = ask(&socket(folder.path()), capsule, &mut differences).await?;
    let fault = tokio::task::spawn_blocking(move || first_fault(&faults)).await?;
    let _ = stop.send(());
    served.abort();
    Ok(Replayed { response, fault, differences })
}

/// The one that the app fails with, if it does.
fn first_fault(faults: &Receiver<Job>) -> Option<Capsule> {
    match faults.recv_timeout(AFTER_TIME) {
        Ok(Job::Write(draft)) => Some(draft.seal()),
        Ok(Job::Flush(_) | Job::Lost) | Err(_) => None,
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("http.sock")
}

/// Puts the release and the sidecar of today into an apps directory of their own.
fn put_app(config: &Config, capsule: &Capsule, folder: &TempDir, differences: &mut Vec<String>) -> anyhow::Result<()> {
    let apps_dir = folder.path().join("apps");
    let place = apps_dir.join(format!("{}.wasm", capsule.app));
    let parent = place.parent().context("an app has a name")?;
    ensure!(
        Path::new(&capsule.app).components().all(|part| matches!(part, std::path::Component::Normal(_))),
        "the capsule names an app that cannot be one"
    );
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    put_module(config, capsule, &place)?;
    match scan::open(&config.apps_dir, &format!("{}.toml", capsule.app)) {
        Ok((mut sidecar, stamp)) => {
            ensure!(stamp.bytes <= SIDECAR_BYTES_MAX, "the app's sidecar is larger than one may be");
            differences.push("its sidecar is the one that lies in the apps directory now".to_owned());
            io::copy(&mut sidecar, &mut File::create(apps_dir.join(format!("{}.toml", capsule.app)))?)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("{}.toml cannot be read", capsule.app)),
    }
    Ok(())
}

/// The bytes of the release: of the app as long as it is the same, else those that were kept.
fn put_module(config: &Config, capsule: &Capsule, place: &Path) -> anyhow::Result<()> {
    let hash = &capsule.release.hash;
    let served = scan::open(&config.apps_dir, &format!("{}.wasm", capsule.app)).ok().map(|(file, _)| file);
    let kept = || read::module(&config.state_dir, hash).and_then(|path| File::open(path).ok());
    for source in [served, kept()].into_iter().flatten() {
        if copy(source, place).is_ok_and(|copied| copied == *hash) {
            return Ok(());
        }
    }
    bail!(
        "the release {hash:.12} of {} is not the one in {} any more, and there is no copy of it: it was replaced before one was made, \
         or there was no room for it (capsules_module_size); it cannot be run again",
        capsule.app,
        config.apps_dir.display()
    )
}

/// Copies a file. Returns the SHA-256 of what was copied.
fn copy(mut source: File, place: &Path) -> io::Result<String> {
    let mut target = File::create(place)?;
    let mut sha256 = Sha256::new();
    let mut block = vec![0; 1 << 18];
    loop {
        let read = source.read(&mut block)?;
        if read == 0 {
            return Ok(sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        sha256.update(&block[..read]);
        target.write_all(&block[..read])?;
    }
}

/// What the app is served with, but for what it could do beyond its sandbox.
fn secluded(config: Config, folder: &TempDir, differences: &mut Vec<String>) -> anyhow::Result<Config> {
    // To directories that are granted no link leads.
    let place = folder.path().canonicalize()?;
    let scratch = |number: usize| place.join(format!("directory-{number}"));
    let mut number = 0;
    let mut seclude = |grants: &mut Grants| -> io::Result<()> {
        for directory in grants.directories.values_mut().filter(|directory| directory.access == Access::Write) {
            directory.path = scratch(number);
            fs::create_dir(&directory.path)?;
            number += 1;
        }
        // Those in a Redis are others' as well; the embedded ones are in the directory for data, which is an empty one.
        grants.keyvalue.values_mut().for_each(|store| store.backend = StoreBackend::Embedded);
        Ok(())
    };
    let mut config = config;
    seclude(&mut config.grants)?;
    for tenant in config.tenants.values_mut() {
        seclude(&mut tenant.grants)?;
    }
    differences.push(
        "the app reaches no destination, and finds its data, its key-value stores, and directories that it may write to, empty".to_owned(),
    );
    let bind = Bind { place: Place::Unix(socket(folder.path())), scheme: Some(Scheme::Http), proxied: false };
    Ok(Config {
        apps_dir: folder.path().join("apps"),
        data_dir: folder.path().join("data"),
        keyvalue_redis: None,
        bind: vec![bind],
        certificate: None,
        forwarded_allow_ips: TrustedPeers::unix(),
        dev: false,
        workers: 1,
        // One sandbox is all that runs here; the pool counts core instances and tables, of which one may take as many as several.
        sandboxes: 32,
        settle_time: Duration::ZERO,
        capsules: KeepCapsules::Redacted,
        access_log: None,
        ..config
    })
}

fn without_outbound(config: &Config) -> Config {
    let mut config = config.clone();
    let tenants = config.tenants.values_mut().map(|tenant| &mut tenant.grants);
    tenants.chain([&mut config.grants]).for_each(|grants| grants.outbound = Default::default());
    config
}

/// Waits until the app is live.
async fn live(apps: &Apps, name: &str, deploy: &crate::deploy::DeployHandle) -> anyhow::Result<()> {
    loop {
        deploy.ready().await;
        let table = apps.snapshot();
        let entry = table.entries.get(name);
        match entry {
            Some(entry) if entry.live.is_some() => return Ok(()),
            Some(entry) if entry.problem.is_some() => {
                let reason = entry.problem.as_ref().map_or("", |problem| problem.reason.as_str());
                bail!("the release would not be served with the settings of now: {reason}");
            }
            // Compiling takes as long as it may, and no longer.
            _ => drop(table),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends the request, and reads what comes.
async fn ask(socket: &Path, capsule: &Capsule, differences: &mut Vec<String>) -> anyhow::Result<Option<Response>> {
    let request = request(capsule, differences)?;
    let stream = UnixStream::connect(socket).await.context("the host for the replay does not listen")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        // It broke off: that is a result as well.
        Err(_) => return Ok(None),
    };
    let (parts, mut body) = response.into_parts();
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut response = Response {
        status: parts.status.as_u16(),
        fields: parts.headers.iter().map(field).collect(),
        body: Vec::new(),
        body_bytes: 0,
        is_cut: false,
    };
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            response.is_cut = true;
            break;
        };
        let Ok(data) = frame.into_data() else { continue };
        response.body_bytes += data.len() as u64;
        let room = SHOWN_BYTES - response.body.len();
        response.body.extend_from_slice(&data[..data.len().min(room)]);
    }
    connection.abort();
    Ok(Some(response))
}

/// The request, as far as it is known.
fn request(capsule: &Capsule, differences: &mut Vec<String>) -> anyhow::Result<Request<ReplayBody>> {
    let asked = &capsule.request;
    let damaged = |what: &str| anyhow!("the capsule's {what} cannot be sent: it is damaged");
    let body = body(capsule, differences).ok_or_else(|| damaged("body"))?;
    let mut request = Request::new(body);
    *request.method_mut() = asked.method.parse().map_err(|_| damaged("method"))?;
    let filled = with_query_of_x(&asked.target);
    *request.uri_mut() = filled.as_ref().unwrap_or(&asked.target).parse().map_err(|_| damaged("target"))?;
    if filled.is_some() {
        differences.push(
            "of the query the values were not kept: as many x were sent (capsules = \"whole\" keeps them)".to_owned(),
        );
    }
    let headers = request.headers_mut();
    let mut left_out = Vec::new();
    for Field { name, bytes, value } in &asked.fields {
        let name: HeaderName = name.parse().map_err(|_| damaged("header field"))?;
        if BETWEEN_NEIGHBOURS.contains(&name.as_str()) {
            continue;
        }
        let value = match value {
            Some(text) => text.bytes().ok_or_else(|| damaged("header field"))?,
            None => {
                left_out.push(name.to_string());
                vec![b'x'; *bytes]
            }
        };
        headers.append(name, HeaderValue::from_bytes(&value).map_err(|_| damaged("header field"))?);
    }
    if !left_out.is_empty() {
        differences.push(format!("of {} the values were not kept: as many x were sent", left_out.join(", ")));
    }
    if asked.fields_left_out > 0 {
        differences.push(format!("{} header fields were left out: there was no room for them", asked.fields_left_out));
    }
    headers.entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
    if asked.https {
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    }
    if asked.version != "HTTP/1.1" {
        differences.push(format!("it came by {} and is sent by HTTP/1.1", asked.version));
    }
    if capsule.release.instances != "fresh" {
        differences.push(format!(
            "instances = \"{}\": what calls before it had left in the instance is not there",
            capsule.release.instances
        ));
    }
    Ok(request)
}

/// What hyper says by itself.
const BETWEEN_NEIGHBOURS: &[&str] =
    &["connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// None where the capsule is damaged.
fn body(capsule: &Capsule, differences: &mut Vec<String>) -> Option<ReplayBody> {
    let asked = &capsule.request;
    let announced =
        asked.fields.iter().find(|field| field.name == "content-length").and_then(|field| field.value.as_ref());
    let announced: Option<u64> = announced.and_then(|text| String::from_utf8(text.bytes()?).ok()?.parse().ok());
    let kept = match &asked.body.kept {
        Some(text) => text.bytes()?,
        None => Vec::new(),
    };
    let length = announced.unwrap_or(asked.body.arrived_bytes).max(kept.len() as u64);
    let missing = length - kept.len() as u64;
    if missing > 0 {
        differences.push(match &asked.body.kept {
            None => {
                format!("the request body was not kept: {missing} zeros were sent (capsules = \"whole\" keeps bodies)")
            }
            Some(_) => format!(
                "of the request body, the last {missing} of {length} bytes were not kept or never came: zeros were sent"
            ),
        });
    }
    let is_chunked = announced.is_none() && length > 0;
    Some(ReplayBody { kept: Bytes::from(kept), zeros: missing, is_chunked })
}

/// What was kept of a body, and zeros for the rest.
struct ReplayBody {
    kept: Bytes,
    zeros: u64,
    is_chunked: bool,
}

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.kept.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.kept)))));
        }
        let piece = self.zeros.min(PIECE_BYTES);
        self.zeros -= piece;
        Poll::Ready((piece > 0).then(|| Ok(Frame::data(Bytes::from(vec![0; piece as usize])))))
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty() && self.zeros == 0
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_chunked {
            true => SizeHint::default(),
            false => SizeHint::with_exact(self.kept.len() as u64 + self.zeros),
        }
    }
}
