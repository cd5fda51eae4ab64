//! What a store holds: the app, the call that it serves, the meter, and what host functions keep.

use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::Dir;
use wasmtime_wasi::sockets::{WasiSocketsCtx, WasiSocketsCtxView};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::account::{Account, Held};
use crate::bundle::Tree;
use crate::capsule::without_secrets;
use crate::config::{AppSpec, ChunkedBodies, Config, Secrets};
use crate::data::{DataDir, Directory};
use crate::granted::{Granted, Grip};
use crate::guest::clocks::Sight;
use crate::guest::descriptors::Opened;
use crate::guest::filesystem::{Counted, Space};
use crate::guest::random::Chance;
use crate::guest::sockets::Sockets;
use crate::guest::{http, wasi, wsgi};
use crate::keyvalue::Keyvalue;
use crate::limits::Limits;
use crate::outbound::Outbound;
use crate::sandbox::MemoryImages;
use crate::sandbox::call::CallState;
use crate::sandbox::ledger::Ledger;
use crate::sandbox::meter::{Mark, Meter};
use crate::sandbox::uses::Uses;
use crate::telemetry::{AppLog, LogStream, RequestId, printable};

/// What all sandboxes of one app share.
pub struct AppContext {
    pub name: String,
    pub limits: Limits,
    pub env: Vec<(String, String)>,
    pub secrets: Arc<Secrets>,
    pub chunked_bodies: ChunkedBodies,
    /// Where spooled request bodies go that are too large for memory.
    pub spool_dir: PathBuf,
    pub log: Arc<AppLog>,
    pub files: Option<Arc<Tree>>,
    pub data: Option<Arc<DataDir>>,
    pub outbound: Option<Arc<Outbound>>,
    pub keyvalue: Option<Arc<Keyvalue>>,
    pub directories: Arc<[Directory]>,
    /// What its tenant has in use.
    pub account: Arc<Account>,
    /// What it is granted, looked at anew at each use.
    pub(crate) grip: Arc<Grip>,
    /// Where numbers begin that are not random.
    pub(crate) chance: Chance,
    uses: Uses,
    spaces: Arc<[Arc<Space>]>,
    /// For what is open as long as the app is live.
    _descriptors: Option<Arc<Held>>,
}

/// Of a line of the host's own, with what a guest has put into it.
const NOTE_BYTES_MAX: usize = 1 << 10;

impl AppContext {
    /// Its variables and its secrets: what guests are given.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let variables = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        variables.chain(self.secrets.iter().map(|(name, secret)| (name.as_str(), secret.expose())))
    }

    /// A line of the host's own in the app's log, of what a guest has wanted elsewhere: it may have put its secrets
    /// into that.
    pub(crate) fn note(&self, call: Option<RequestId>, line: String) {
        let line = printable(&without_secrets(line, &self.secrets), NOTE_BYTES_MAX);
        self.log.line(LogStream::Errors, call, line.as_bytes());
    }

    /// Places that its guests write to.
    pub(crate) fn spaces(&self) -> &[Arc<Space>] {
        &self.spaces
    }

    /// Whether it sees anything that may be taken away.
    pub(crate) fn has_granted_files(&self) -> bool {
        self.data.is_some() || !self.directories.is_empty()
    }

    /// Whether its guests write to what is counted.
    pub(crate) fn writes_files(&self) -> bool {
        !self.uses.newer_files
    }

    /// The way to where its guests connect to by WASI 0.2.
    pub(crate) fn sockets(&self) -> Option<&Arc<Outbound>> {
        self.outbound.as_ref().filter(|_| !self.uses.newer_sockets)
    }

    /// How it sees times.
    pub(crate) fn sight(&self) -> Sight {
        Sight::new(&self.grip, self.limits.clock_resolution)
    }

    pub(crate) fn new(spec: &AppSpec, own: Belongings) -> Self {
        let mut new = Self {
            uses: own.uses,
            spaces: Arc::default(),
            chance: Chance::unknown(),
            grip: own.grip,
            name: spec.name.clone(),
            limits: spec.limits.clone(),
            env: spec.env.clone(),
            secrets: own.secrets,
            chunked_bodies: spec.chunked_bodies,
            spool_dir: spec.spool_dir.clone(),
            log: own.log,
            files: own.files,
            data: own.data,
            outbound: own.outbound,
            keyvalue: own.keyvalue,
            directories: own.directories,
            account: own.account,
            _descriptors: own.descriptors,
        };
        new.spaces = Space::of(&new).into();
        new
    }
}

/// What belongs to an app beside its settings.
#[derive(Clone)]
pub struct Belongings {
    pub log: Arc<AppLog>,
    /// What its guests see at `/`.
    pub files: Option<Arc<Tree>>,
    /// What its guests see at `/data`.
    pub data: Option<Arc<DataDir>>,
    /// The way to where it may go.
    pub outbound: Option<Arc<Outbound>>,
    /// The way to its key-value stores.
    pub keyvalue: Option<Arc<Keyvalue>>,
    /// What they see at other places.
    pub directories: Arc<[Directory]>,
    pub secrets: Arc<Secrets>,
    pub account: Arc<Account>,
    /// What it is granted, looked at anew at each use.
    pub grip: Arc<Grip>,
    /// What it imports that is treated apart.
    pub uses: Uses,
    /// The right to what of this is open: files, data, directories.
    pub(crate) descriptors: Option<Arc<Held>>,
    /// What its memories begin with, where that is not in its code.
    pub images: MemoryImages,
}

impl Belongings {
    /// Of an app that nobody has deployed: it has nothing but its memories. For measurements and tests.
    ///
    /// # Errors
    /// Where the process may have no more descriptors.
    pub(crate) fn of_nobody(config: &Config, spec: &AppSpec, images: MemoryImages) -> anyhow::Result<Self> {
        let account = Account::of_nobody();
        let granted = Granted::new(Arc::new(config.clone()))?;
        Ok(Self {
            log: Arc::new(AppLog::new(&spec.name, &spec.limits, &account)),
            files: None,
            data: None,
            outbound: None,
            keyvalue: None,
            directories: Arc::default(),
            secrets: Arc::default(),
            account,
            grip: Grip::new(&granted, &Arc::new(spec.clone())),
            uses: Uses::default(),
            descriptors: None,
            images,
        })
    }
}

/// The data of a store.
pub struct State {
    pub(crate) app: Arc<AppContext>,
    pub(crate) call: Arc<CallState>,
    /// For whom lines are logged; none where it may be any of several.
    speaker: Option<RequestId>,
    pub(crate) meter: Meter,
    /// Set where several calls share the instance.
    pub(crate) ledger: Option<Arc<Ledger>>,
    pub(crate) wsgi: wsgi::gateway::Host,
    pub(crate) http: http::Host,
    /// What it has open of its data.
    pub(crate) counted: Counted,
    /// The last number that it was given for randomness that it may not have.
    pub(crate) chance: Option<Chance>,
    /// What it has open at all.
    pub(crate) opened: Opened,
    /// The directories that it begins with, from when it first asks for them.
    preopens: Option<Box<wasi::Preopens>>,
    /// It has asked for something that could differ for another, for which no WASI is made.
    was_asked: bool,
    /// Made when it first looks a name up, or connects.
    sockets: Option<Box<Sockets>>,
    /// What guests have handles of: streams, fields, bodies.
    pub(crate) table: ResourceTable,
    /// What the guest's run finds, if it is a program, until its WASI is made.
    process: Option<wasi::Process>,
    /// Made when it is first asked for: most calls never do.
    wasi: Option<Box<Wasi>>,
}

struct Wasi {
    context: WasiCtx,
    stdio: wasi::Stdio,
    /// For who may have none.
    no_sockets: WasiSocketsCtx,
}

impl State {
    pub(crate) fn new(app: &Arc<AppContext>, call: &Arc<CallState>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(app.limits.handles as usize);
        Self {
            app: Arc::clone(app),
            call: Arc::clone(call),
            speaker: Some(call.id),
            meter: Meter::new(&app.limits, &app.account),
            ledger: None,
            wsgi: wsgi::gateway::Host::default(),
            http: http::Host::new(app, call.id),
            counted: Counted::default(),
            chance: None,
            opened: Opened::default(),
            preopens: None,
            was_asked: false,
            sockets: None,
            table,
            process: None,
            wasi: None,
        }
    }

    /// The next call begins in a sandbox that has served one.
    pub(crate) fn begin(&mut self, call: &Arc<CallState>) {
        self.call = Arc::clone(call);
        self.meter.begin();
        self.wsgi.begin();
        self.speak_for(Some(call.id));
    }

    /// Whether nothing is left of what the guest had of the host: no handles, and none that came and went in an order which
    /// shows in the numbers of later ones. `wasi` and streams of it have handles through `table` alone.
    pub(crate) fn handles_are_as_new(&mut self) -> bool {
        self.wsgi.handles_are_as_new() && !was_used(&mut self.table)
    }

    /// Whether an instance was made without asking the host for anything that could differ for another: the time, randomness,
    /// variables.
    pub(crate) fn was_not_asked(&mut self) -> bool {
        !self.was_asked && self.wasi.is_none() && self.chance.is_none() && self.handles_are_as_new()
    }

    /// Something is given to it that could differ for another.
    pub(crate) fn was_asked(&mut self) {
        self.was_asked = true;
    }

    /// Whether there is a context of WASI that knows more than the app, or will be.
    pub(crate) fn has_context(&self) -> bool {
        self.wasi.is_some() || self.process.is_some()
    }

    /// The directories that it begins with.
    pub(crate) fn preopened(&mut self) -> Vec<(Dir, String)> {
        let app = &self.app;
        self.preopens.get_or_insert_with(|| Box::new(wasi::Preopens::open(app))).directories.clone()
    }

    /// Becomes a new state, but for what the instance has of memory: the call's is over.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.call.witness.used(self.meter.bytes());
        let mut new = Self::new(&Arc::clone(&self.app), &Arc::clone(&self.call));
        // What the instance has stays charged to its tenant.
        std::mem::swap(&mut new.meter, &mut self.meter);
        new.meter.go_back(mark);
        *self = new;
    }

    /// Another call begins beside those that are under way: what is written from now on is nobody's in particular.
    /// With it so many are under way.
    pub(crate) fn join(&mut self, calls: u32) {
        self.speak_for(None);
        self.http.join(calls);
    }

    fn speak_for(&mut self, speaker: Option<RequestId>) {
        self.speaker = speaker;
        self.http.begin(speaker);
        if let Some(wasi) = &self.wasi {
            wasi.stdio.begin(speaker);
        }
    }

    /// What it knows of its connections.
    pub(crate) fn connections(&mut self) -> &mut Sockets {
        self.sockets.get_or_insert_default()
    }

    /// Sockets with which nothing can be done.
    pub(crate) fn no_sockets(&mut self) -> WasiSocketsCtxView<'_> {
        self.ctx();
        let wasi = self.wasi.as_mut().expect("it was made just now");
        WasiSocketsCtxView { ctx: &mut wasi.no_sockets, table: &mut self.table }
    }

    /// A program is about to be started. What its initialisers may have opened when the instance was made stays valid.
    pub(crate) fn start(&mut self, process: wasi::Process) {
        match &mut self.wasi {
            Some(made) => {
                made.context = wasi::context(&self.app, &made.stdio, Some(process));
            }
            None => self.process = Some(process),
        }
    }

    /// The call is over: what the guest wrote without ending the line becomes one.
    pub(crate) fn end(&mut self) {
        self.call.witness.used(self.meter.bytes());
        self.wsgi.end(&self.app, &self.call);
        if let Some(wasi) = &self.wasi {
            wasi.stdio.end();
        }
    }
}

/// Whether there ever was anything in the table.
fn was_used(table: &mut ResourceTable) -> bool {
    let capacity = table.max_capacity();
    // A place that was free before is taken whatever the capacity; a new one is not.
    table.set_max_capacity(0);
    let taken = table.push(()).map(|place| table.delete(place));
    table.set_max_capacity(capacity);
    taken.is_ok() || !table.is_empty()
}

impl Drop for State {
    fn drop(&mut self) {
        self.end();
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.get_or_insert_with(|| {
            let stdio = wasi::Stdio::new(&self.app.log, self.speaker);
            let context = wasi::context(&self.app, &stdio, self.process.take());
            Box::new(Wasi { context, stdio, no_sockets: WasiSocketsCtx::default() })
        });
        WasiCtxView { ctx: &mut wasi.context, table: &mut self.table }
    }
}
