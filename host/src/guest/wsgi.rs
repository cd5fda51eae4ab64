//! Guests that speak `wasgi:gateway`: WSGI through components.
//!
//! `wit/wasgi.wit` says what each function means; here is the server side of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, HasSelf, Instance, InstancePre, Lift, Linker, Lower, Resource,
    TypedFunc,
};

use crate::body::{ReadError, RequestBody};
use crate::config::{AppSpec, Instances};
use crate::error::Error;
use crate::guest::environ::{EnvironBlock, Place, wants_head_only};
use crate::guest::head::{Head, HeadError};
use crate::guest::{Call, Guest, Reuse};
use crate::sandbox::call::Outbox;
use crate::sandbox::task::{Finished, Task, Whole};
use crate::sandbox::{self, AppContext, CallState, Engine, State, fault};
use crate::telemetry::{AppLog, LineBuffer, LogStream};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "app",
        imports: {
            "wasgi:gateway/gateway.[method]write.call": async | trappable,
            "wasgi:gateway/gateway.[method]input.read": async | trappable,
            "wasgi:gateway/gateway.[method]input.readline": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "wasgi:gateway/gateway.start-response": super::StartResponse,
            "wasgi:gateway/gateway.write": super::Write,
            "wasgi:gateway/gateway.input": super::Input,
            "wasgi:gateway/gateway.errors": super::Errors,
        },
    });
}

use bindings::wasgi::gateway::gateway;
use bindings::wasgi::gateway::types::{self, ExcInfo, ProtocolError, StreamError};

/// `types.head`, and `types.part`.
type RawHead = (String, Vec<(String, String)>);
type Part = (Option<RawHead>, Vec<Vec<u8>>, bool);

type CallFunction = TypedFunc<(Vec<u8>, bool, bool, bool), (Result<Part, ExcInfo>,)>;
type NextFunction = TypedFunc<(), (Result<Part, ExcInfo>,)>;
type CloseFunction = TypedFunc<(), (Result<(), ExcInfo>,)>;

/// Where a component has the application's functions.
///
/// The bindings' own way would look all of them up for each new instance; most calls need but the first.
struct Exports {
    call: ComponentExportIndex,
    next: ComponentExportIndex,
    close: ComponentExportIndex,
}

impl Exports {
    fn of(component: &Component) -> anyhow::Result<Self> {
        let interface = component.get_export_index(None, INTERFACE);
        let function = |name: &str| {
            let interface = interface.as_ref().ok_or_else(|| anyhow::anyhow!("it does not export {INTERFACE}"))?;
            let function = component.get_export_index(Some(interface), name);
            function.ok_or_else(|| anyhow::anyhow!("its {INTERFACE} has no function {name}"))
        };
        Ok(Self { call: function("call")?, next: function("next")?, close: function("close")? })
    }
}

const INTERFACE: &str = "wasgi:gateway/application@0.1.0";

/// Handles of these have the number of their call as representation: one kept from an earlier call reaches nothing.
pub enum StartResponse {}
pub enum Write {}
pub enum Input {}
pub enum Errors {}

/// A guest may ask for more; it gets no more at once.
const READ_BYTES_MAX: u32 = 256 << 10;

/// What the host's side of the contract keeps in a store.
pub(crate) struct Host {
    /// Which call of this sandbox is being served.
    number: u32,
    input: Option<RequestBody>,
    errors: LineBuffer,
    head_only: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self { number: 0, input: None, errors: LineBuffer::new(LogStream::Errors), head_only: false }
    }
}

impl Host {
    pub(crate) fn begin(&mut self) {
        self.number = self.number.wrapping_add(1);
    }

    pub(crate) fn end(&mut self, app: &AppContext, call: &CallState) {
        self.input = None;
        self.errors.flush(&app.log, Some(call.id));
    }

    fn is_current<T>(&self, handle: &Resource<T>) -> bool {
        handle.rep() == self.number
    }
}

/// An app that speaks WSGI.
pub(crate) struct Wsgi {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Engine>,
    app: Arc<AppContext>,
    linked: InstancePre<State>,
    exports: Exports,
    environ: EnvironBlock,
    reuse: Option<Reuse>,
    idle: Mutex<Vec<Idle>>,
}

/// A sandbox with the instance in it.
struct Sandbox {
    store: Store<State>,
    instance: Instance,
    call: CallFunction,
    served: u32,
}

struct Idle {
    sandbox: Sandbox,
    since: Instant,
}

impl Wsgi {
    pub(crate) fn load(
        engine: &Arc<Engine>,
        component: &Component,
        spec: &AppSpec,
        log: Arc<AppLog>,
    ) -> anyhow::Result<Self> {
        let exports = Exports::of(component)?;
        let linked = engine.linker().instantiate_pre(component);
        let linked = linked.map_err(|error| anyhow::anyhow!("{error:#}"))?;
        // Checks that the exports have the contract's types.
        bindings::AppPre::new(linked.clone()).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let reuse = match spec.instances {
            Instances::Fresh => None,
            Instances::Reuse { requests_max, idle_time } => Some(Reuse { requests_max, idle_time }),
        };
        let app = AppContext { name: spec.name.clone(), limits: spec.limits.clone(), env: spec.env.clone(), log };
        Ok(Self {
            shared: Arc::new(Shared {
                engine: Arc::clone(engine),
                environ: EnvironBlock::constant(&app.env),
                app: Arc::new(app),
                linked,
                exports,
                reuse,
                idle: Mutex::default(),
            }),
        })
    }
}

/// Offers the server's side of the contract.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::App::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl Guest for Wsgi {
    fn call(&self, call: Call) -> Task {
        let shared = Arc::clone(&self.shared);
        let limits = &self.shared.app.limits;
        Task::new(Arc::clone(&call.state), limits, async move { shared.serve(call).await })
    }

    fn sweep(&self) {
        let Some(reuse) = self.shared.reuse else { return };
        let retired: Vec<Idle> = {
            let mut idle = self.shared.idle();
            // The longest unused ones are at the bottom.
            let kept = idle.iter().position(|idle| idle.since.elapsed() < reuse.idle_time).unwrap_or(idle.len());
            idle.drain(..kept).collect()
        };
        drop(retired);
    }

    fn idle(&self) -> usize {
        self.shared.idle().len()
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call, in a sandbox of its own or in one that has served before.
    async fn serve(&self, call: Call) -> Result<Finished, Error> {
        self.engine.wake_ticker();
        let environ = self.environ(&call);
        let Call { state, parts, body, permit, .. } = call;
        let mut sandbox = self.open(&state).await?;
        let host = &mut sandbox.store.data_mut().wsgi;
        host.head_only = wants_head_only(&parts.method);
        host.input = Some(RequestBody::new(body, self.app.limits.request_body_bytes));

        // Concurrent requests are served by concurrent sandboxes: `wsgi.multiprocess`.
        let arguments = (environ, false, true, self.reuse.is_none());
        let exchange = Exchange { shared: self, sandbox: &mut sandbox, call: &state };
        let outcome = exchange.run(arguments).await;
        let outcome = match outcome {
            Ok(finished) => {
                self.keep(sandbox);
                Ok(finished)
            }
            Err(Failure::App(error)) => {
                self.keep(sandbox);
                Err(error)
            }
            // What misbehaved is never used again.
            Err(Failure::Sandbox(error)) => Err(error),
        };
        drop(permit);
        if outcome.is_err() && state.outbox().body_too_large {
            return Err(Error::BodyTooLarge(self.app.limits.request_body_bytes));
        }
        outcome
    }

    fn environ(&self, call: &Call) -> Vec<u8> {
        let place = Place {
            script_name: &call.script_name,
            path_info: &call.path_info,
            remote: call.remote,
            local: call.local,
        };
        EnvironBlock::of_request(&self.environ, &call.parts, &place).into_bytes()
    }

    async fn open(&self, call: &Arc<CallState>) -> Result<Sandbox, Error> {
        if self.reuse.is_some() {
            let idle = self.idle().pop();
            if let Some(Idle { mut sandbox, .. }) = idle {
                sandbox::renew(&mut sandbox.store, call);
                return Ok(sandbox);
            }
        }
        let mut store = sandbox::store(&self.engine, &self.app, call);
        let instantiated = self.linked.instantiate_async(&mut store).await;
        let found = instantiated.and_then(|instance| {
            let call = instance.get_typed_func(&mut store, &self.exports.call)?;
            Ok((instance, call))
        });
        match found {
            Ok((instance, call)) => Ok(Sandbox { store, instance, call, served: 0 }),
            Err(error) => Err(fault::classify(error, store.data())),
        }
    }

    /// Puts a sandbox that has served without fault back, where the app's policy says so.
    fn keep(&self, mut sandbox: Sandbox) {
        let Some(reuse) = self.reuse else { return };
        sandbox.served += 1;
        if sandbox.served < reuse.requests_max {
            sandbox.store.data_mut().end();
            self.idle().push(Idle { sandbox, since: Instant::now() });
        }
    }
}

/// Why a call failed, and so whether its sandbox is sound.
enum Failure {
    /// The app said so, by the contract's means: the sandbox is sound.
    App(Error),
    /// The guest trapped, was stopped, or broke the rules.
    Sandbox(Error),
}

/// One call of the application, and the iterable that it returned.
struct Exchange<'a> {
    shared: &'a Shared,
    sandbox: &'a mut Sandbox,
    call: &'a CallState,
}

impl Exchange<'_> {
    async fn run(mut self, arguments: (Vec<u8>, bool, bool, bool)) -> Result<Finished, Failure> {
        let Sandbox { store, call, .. } = &mut *self.sandbox;
        let returned = call.call_async(store, arguments).await;
        let (head, blocks, more) = self.unwrap(returned)?;
        if more {
            let sent = self.iterate(head, blocks).await;
            // Whatever happened, close() comes after it, once; unless the sandbox is lost anyway.
            if !matches!(sent, Err(Failure::Sandbox(_))) {
                self.close().await?;
            }
            return sent;
        }
        if let Some(head) = head {
            self.start_response(&head)?;
        }
        self.send_all(blocks).await
    }

    fn unwrap<T>(&self, returned: wasmtime::Result<(Result<T, ExcInfo>,)>) -> Result<T, Failure> {
        match returned {
            Ok((Ok(value),)) => Ok(value),
            Ok((Err(raised),)) => Err(Failure::App(Error::Exception(exception_text(&raised)))),
            Err(error) => Err(Failure::Sandbox(fault::classify(error, self.sandbox.store.data()))),
        }
    }

    /// The application handed over what it would have called `start_response` with.
    fn start_response(&self, (status, headers): &RawHead) -> Result<(), Failure> {
        let head = checked_head(status, headers, &self.sandbox.store.data().app)
            .map_err(|error| Failure::App(head_failure(&error)))?;
        let mut outbox = self.call.outbox();
        if outbox.head.is_some() || outbox.committed {
            return Err(Failure::App(Error::Protocol("start_response was called twice, without exc_info".into())));
        }
        outbox.head = Some(head);
        Ok(())
    }

    /// Python's list: everything is there.
    async fn send_all(&mut self, blocks: Vec<Vec<u8>>) -> Result<Finished, Failure> {
        let blocks = blocks.into_iter().filter(|block| !block.is_empty()).map(Bytes::from);
        if let Some(head) = self.uncommitted_head()? {
            return Ok(Finished::Whole(Whole { head, blocks: blocks.collect() }));
        }
        if !self.head_only() {
            for block in blocks {
                hand_over(self.call, block).await;
            }
        }
        Ok(Finished::Streamed)
    }

    /// The head, where nothing has been sent: then everything can go at once.
    fn uncommitted_head(&self) -> Result<Option<Head>, Failure> {
        let mut outbox = self.call.outbox();
        if outbox.committed {
            return Ok(None);
        }
        outbox.head.take().map(Some).ok_or_else(never_started)
    }

    /// Python's generator: the next part when the client has taken the last.
    async fn iterate(&mut self, head: Option<RawHead>, blocks: Vec<Vec<u8>>) -> Result<Finished, Failure> {
        let mut owed = None;
        let mut part = (head, blocks, true);
        let next: NextFunction = self.function(&self.shared.exports.next)?;
        loop {
            let (head, blocks, more) = part;
            if let Some(head) = head {
                self.start_response(&head)?;
            }
            for block in blocks.into_iter().filter(|block| !block.is_empty()) {
                if let Some(length) = commit(&mut self.call.outbox())? {
                    owed = length;
                }
                if self.head_only() {
                    return Ok(Finished::Streamed);
                }
                // The rest is not asked for: the client has what it was promised.
                if let Some(owed) = &mut owed {
                    *owed = owed.saturating_sub(block.len() as u64);
                    if *owed == 0 {
                        self.call.outbox().block = Some(block.into());
                        return Ok(Finished::Streamed);
                    }
                }
                hand_over(self.call, block.into()).await;
            }
            if !more {
                break;
            }
            let stepped = next.call_async(&mut self.sandbox.store, ()).await;
            part = self.unwrap(stepped)?;
        }
        Ok(match self.uncommitted_head()? {
            Some(head) => Finished::Whole(Whole { head, blocks: Vec::new() }),
            None => Finished::Streamed,
        })
    }

    fn head_only(&self) -> bool {
        self.sandbox.store.data().wsgi.head_only
    }

    async fn close(&mut self) -> Result<(), Failure> {
        let close: CloseFunction = self.function(&self.shared.exports.close)?;
        let closed = close.call_async(&mut self.sandbox.store, ()).await;
        self.unwrap(closed)
    }

    fn function<P, R>(&mut self, index: &ComponentExportIndex) -> Result<TypedFunc<P, R>, Failure>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let Sandbox { store, instance, .. } = &mut *self.sandbox;
        let function = instance.get_typed_func(&mut *store, index);
        function.map_err(|error| Failure::Sandbox(fault::classify(error, store.data())))
    }
}

fn never_started() -> Failure {
    Failure::App(Error::Protocol("the app never called start_response".into()))
}

/// Makes the head final. The promised length, where this is the block that does it.
fn commit(outbox: &mut Outbox) -> Result<Option<Option<u64>>, Failure> {
    if outbox.committed {
        return Ok(None);
    }
    let head = outbox.head.as_ref().ok_or_else(never_started)?;
    outbox.committed = true;
    Ok(Some(head.content_length))
}

/// Leaves a block for the connection, and returns when it has been taken (PEP 3333: a block is handed over before the next
/// is asked for). Whoever takes it polls this again, so no waker is needed.
async fn hand_over(call: &CallState, block: Bytes) {
    let mut block = Some(block);
    std::future::poll_fn(|_| {
        let mut outbox = call.outbox();
        if outbox.block.is_some() {
            return std::task::Poll::Pending;
        }
        match block.take() {
            Some(block) => {
                outbox.block = Some(block);
                std::task::Poll::Pending
            }
            None => std::task::Poll::Ready(()),
        }
    })
    .await;
}

fn checked_head(status: &str, headers: &[(String, String)], app: &AppContext) -> Result<Head, HeadError> {
    Head::new(status, headers.iter().map(|(name, value)| (name.as_str(), value.as_str())), &app.limits)
}

fn head_failure(error: &HeadError) -> Error {
    match error {
        HeadError::TooLarge(why) => Error::ResponseHead(why.clone()),
        HeadError::Status(_) | HeadError::Header(_) => Error::Protocol(error.to_string()),
    }
}

fn exception_text(raised: &ExcInfo) -> String {
    let mut text = format!("{}: {}", raised.name, raised.message);
    if !raised.traceback.is_empty() {
        text.push('\n');
        text.push_str(&raised.traceback);
    }
    text
}

impl types::Host for State {}

impl gateway::Host for State {}

impl gateway::HostStartResponse for State {
    fn current(&mut self) -> wasmtime::Result<Resource<StartResponse>> {
        Ok(Resource::new_own(self.wsgi.number))
    }

    fn call(
        &mut self,
        this: Resource<StartResponse>,
        status: String,
        headers: Vec<(String, String)>,
        exc_info: Option<ExcInfo>,
    ) -> wasmtime::Result<Result<Resource<Write>, ProtocolError>> {
        if !self.wsgi.is_current(&this) {
            return Ok(Err(ProtocolError::CallOver));
        }
        if let Some(raised) = &exc_info {
            let text = exception_text(raised);
            for line in text.lines() {
                self.app.log.line(LogStream::Errors, Some(self.call.id), line.as_bytes());
            }
        }
        let head = checked_head(&status, &headers, &self.app);
        let mut outbox = self.call.outbox();
        if outbox.committed && exc_info.is_some() {
            return Ok(Err(ProtocolError::HeadersSent));
        }
        if outbox.committed || (outbox.head.is_some() && exc_info.is_none()) {
            return Ok(Err(ProtocolError::AlreadyStarted));
        }
        Ok(match head {
            Ok(head) => {
                outbox.head = Some(head);
                Ok(Resource::new_own(self.wsgi.number))
            }
            Err(HeadError::Status(why)) => Err(ProtocolError::BadStatus(why)),
            Err(HeadError::Header(why)) => Err(ProtocolError::BadHeader(why)),
            Err(HeadError::TooLarge(_)) => Err(ProtocolError::TooLarge),
        })
    }

    fn drop(&mut self, _: Resource<StartResponse>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl gateway::HostWrite for State {
    async fn call(&mut self, this: Resource<Write>, block: Vec<u8>) -> wasmtime::Result<Result<(), StreamError>> {
        if !self.wsgi.is_current(&this) {
            return Ok(Err(StreamError::CallOver));
        }
        if block.is_empty() {
            return Ok(Ok(()));
        }
        // A `write` comes from start_response, so there is a head.
        self.call.outbox().committed = true;
        if !self.wsgi.head_only {
            hand_over(&self.call, block.into()).await;
        }
        Ok(Ok(()))
    }

    fn drop(&mut self, _: Resource<Write>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl State {
    fn read_failed(&mut self, error: ReadError) -> StreamError {
        match error {
            ReadError::TooLarge(_) => {
                self.call.outbox().body_too_large = true;
                StreamError::TooLarge
            }
            ReadError::Broken(why) => StreamError::Disconnected(why),
        }
    }
}

impl gateway::HostInput for State {
    fn current(&mut self) -> wasmtime::Result<Resource<Input>> {
        Ok(Resource::new_own(self.wsgi.number))
    }

    async fn read(&mut self, this: Resource<Input>, size: u32) -> wasmtime::Result<Result<Vec<u8>, StreamError>> {
        if !self.wsgi.is_current(&this) {
            return Ok(Err(StreamError::CallOver));
        }
        let Some(input) = &mut self.wsgi.input else {
            return Ok(Ok(Vec::new()));
        };
        let read = input.read(size.min(READ_BYTES_MAX) as usize, &self.call).await;
        Ok(read.map(Vec::from).map_err(|error| self.read_failed(error)))
    }

    async fn readline(&mut self, this: Resource<Input>, size: u32) -> wasmtime::Result<Result<Vec<u8>, StreamError>> {
        if !self.wsgi.is_current(&this) {
            return Ok(Err(StreamError::CallOver));
        }
        let Some(input) = &mut self.wsgi.input else {
            return Ok(Ok(Vec::new()));
        };
        let read = input.read_line(size.min(READ_BYTES_MAX) as usize, &self.call).await;
        Ok(read.map(Vec::from).map_err(|error| self.read_failed(error)))
    }

    fn drop(&mut self, _: Resource<Input>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl gateway::HostErrors for State {
    fn current(&mut self) -> wasmtime::Result<Resource<Errors>> {
        Ok(Resource::new_own(self.wsgi.number))
    }

    fn write(&mut self, this: Resource<Errors>, text: String) -> wasmtime::Result<()> {
        if self.wsgi.is_current(&this) {
            self.wsgi.errors.write(&self.app.log, Some(self.call.id), text.as_bytes());
        }
        Ok(())
    }

    fn flush(&mut self, this: Resource<Errors>) -> wasmtime::Result<()> {
        if self.wsgi.is_current(&this) {
            self.wsgi.errors.flush(&self.app.log, Some(self.call.id));
        }
        Ok(())
    }

    fn drop(&mut self, _: Resource<Errors>) -> wasmtime::Result<()> {
        Ok(())
    }
}
