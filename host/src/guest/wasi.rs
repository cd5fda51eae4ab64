//! WASI for guests: what every sandbox has (clocks and randomness as the operator says, environment, lines to its log, the files of its bundle), the
//! directories and the connections that an app was granted, and nothing else that would need a grant.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use rustix::fs::OFlags;
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, HasSelf, Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream, WasiCliView};
use wasmtime_wasi::filesystem::Dir;
use wasmtime_wasi::p2::bindings::cli::environment::Host;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{FsPerms, OpenMode, WasiCtx, async_trait};

use super::{clocks, random};
use crate::account::Held;
use crate::config::Access;
use crate::sandbox::{AppContext, State};
use crate::telemetry::{AppLog, LineBuffer, LogStream, RequestId};

/// What a write to the log takes at once; WASI makes guests ask before each write.
const LOG_WRITE_BYTES: usize = 64 << 10;

/// Where guests see their data.
pub(crate) const DATA: &str = "/data";

/// Offers WASI 0.2. A context is made when a guest first asks for something of it: streams and polls need the table alone, and what every
/// interpreter asks for first, variables and arguments, the app has.
pub(crate) fn link_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::{cli, io};

    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    io::error::add_to_linker::<State, Table>(linker, |state| &mut state.table)?;
    io::poll::add_to_linker::<State, Table>(linker, |state| &mut state.table)?;
    io::streams::add_to_linker::<State, Table>(linker, |state| &mut state.table)?;
    cli::environment::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Offers WASI 0.3, beside 0.2.
pub(crate) fn link_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p3::add_to_linker(linker)
}

/// Of a state, the table of its resources.
struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// What a guest that is a program finds when it is started.
pub(crate) struct Process {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stdin: Box<dyn StdinStream + Sync>,
    pub(crate) stdout: Box<dyn StdoutStream + Sync>,
    /// The app's log, where it is none.
    pub(crate) stderr: Option<Box<dyn StdoutStream + Sync>>,
}

/// A program's own variables are in its context.
impl Host for State {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        if self.has_context() {
            return self.cli().get_environment();
        }
        self.was_asked();
        Ok(variables(&self.app))
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        if self.has_context() {
            return self.cli().get_arguments();
        }
        self.was_asked();
        Ok(arguments(&self.app))
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        self.cli().initial_cwd()
    }
}

fn variables(app: &AppContext) -> Vec<(String, String)> {
    app.variables().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn arguments(app: &AppContext) -> Vec<String> {
    vec![app.name.clone()]
}

/// A sandbox's WASI, but for its [`Preopens`]. What is no program has the app's own variables, and prints to its log.
pub(crate) fn context(app: &AppContext, stdio: &Stdio, process: Option<Process>) -> WasiCtx {
    let mut builder = WasiCtx::builder();
    builder.stderr(stdio.stderr.clone());
    match process {
        Some(Process { args, env, stdin, stdout, stderr }) => {
            if let Some(stderr) = stderr {
                builder.stderr(stderr);
            }
            builder.envs(&env).args(&args).stdin(stdin).stdout(stdout)
        }
        None => builder.envs(&variables(app)).args(&arguments(app)).stdout(stdio.stdout.clone()),
    };
    builder
        .max_random_size(random::BYTES_MAX)
        // Those who may connect have the host's own sockets.
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        // A disk that is slow must not hold up the other calls of the thread.
        .allow_blocking_current_thread(false);
    clocks::wind(&mut builder, app);
    builder.build()
}

/// What a sandbox sees of directories: the app's files at `/`, read-only, its data at `/data`, and what else it was granted. Opened
/// when a guest asks for them, since most calls never do.
#[derive(Default)]
pub(crate) struct Preopens {
    pub(crate) directories: Vec<(Dir, String)>,
    /// The right to that many descriptors.
    _held: Option<Held>,
}

impl Preopens {
    /// One that cannot be opened the guest goes without, and says what it makes of that.
    pub(crate) fn open(app: &AppContext) -> Self {
        let files = app.files.iter().map(|files| (files.root(), "/", FsPerms::ReadOnly));
        let data = app.data.iter().map(|data| (data.root(), DATA, FsPerms::ReadWrite));
        let others = app.directories.iter().map(|directory| {
            let perms = match directory.spec.access {
                Access::Read => FsPerms::ReadOnly,
                Access::Write => FsPerms::ReadWrite,
            };
            (directory.root(), directory.spec.place.as_str(), perms)
        });
        let count = files.len() + data.len() + others.len();
        if count == 0 {
            return Self::default();
        }
        let Some(held) = app.account.take_descriptors(count as u64) else {
            let line =
                "a sandbox goes without its directories: its tenant has budget.descriptors, or its part of LimitNOFILE";
            app.log.line(LogStream::Errors, None, line.as_bytes());
            return Self::default();
        };
        let opened = files.chain(data).chain(others).filter_map(|(host, guest, perms)| match open(&host, perms) {
            Ok(directory) => Some((directory, guest.to_owned())),
            Err(error) => {
                tracing::error!(app = %app.name, "a sandbox goes without {guest}: {error:#}");
                None
            }
        });
        Self { directories: opened.collect(), _held: Some(held) }
    }
}

fn open(path: &Path, perms: FsPerms) -> io::Result<Dir> {
    let flags = OFlags::DIRECTORY | OFlags::PATH;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let mode = match perms {
        FsPerms::ReadOnly => OpenMode::READ,
        FsPerms::ReadWrite => OpenMode::READ | OpenMode::WRITE,
    };
    // As in the context: files that are opened below it are as it is.
    Ok(Dir::new(opened, perms, mode, false))
}

/// Standard output and standard error of a sandbox as lines of the app's log.
pub(crate) struct Stdio {
    stdout: LogPipe,
    stderr: LogPipe,
}

impl Stdio {
    pub(crate) fn new(log: &Arc<AppLog>, call: Option<RequestId>) -> Self {
        Self { stdout: LogPipe::new(log, LogStream::Stdout, call), stderr: LogPipe::new(log, LogStream::Stderr, call) }
    }

    pub(crate) fn begin(&self, call: Option<RequestId>) {
        self.stdout.lock().call = call;
        self.stderr.lock().call = call;
    }

    pub(crate) fn end(&self) {
        self.stdout.lock().flush();
        self.stderr.lock().flush();
    }
}

/// One of the two; all handles that a guest opens on it write to the same lines.
#[derive(Clone)]
struct LogPipe(Arc<Mutex<Lines>>);

struct Lines {
    log: Arc<AppLog>,
    buffer: LineBuffer,
    call: Option<RequestId>,
}

impl LogPipe {
    fn new(log: &Arc<AppLog>, stream: LogStream, call: Option<RequestId>) -> Self {
        Self(Arc::new(Mutex::new(Lines { log: Arc::clone(log), buffer: LineBuffer::new(stream), call })))
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn write(&mut self, bytes: &[u8]) {
        self.buffer.write(&self.log, self.call, bytes);
    }

    fn flush(&mut self) {
        self.buffer.flush(&self.log, self.call);
    }
}

impl IsTerminal for LogPipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogPipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for LogPipe {
    async fn ready(&mut self) {}
}

impl OutputStream for LogPipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.lock().write(&bytes);
        Ok(())
    }

    /// A flush in the middle of a line does not end it: programs flush prompts and dots.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LOG_WRITE_BYTES)
    }
}

impl AsyncWrite for LogPipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.lock().write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
