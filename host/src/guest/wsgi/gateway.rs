//! What the host offers to applications, as the contract names it: `start-response`, `write`, `input`, `errors`.

use wasmtime::component::{HasSelf, Linker, Resource};

use super::exchange::{checked_head, exception_text};
use crate::body::{Block, ReadError, RequestBody};
use crate::guest::head::HeadError;
use crate::sandbox::call::Commit;
use crate::sandbox::fault::Stopped;
use crate::sandbox::{AppContext, CallState, State};
use crate::telemetry::{LineBuffer, LogStream};

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

pub(super) use bindings::wasgi::gateway::types::ExcInfo;

use bindings::wasgi::gateway::gateway;
use bindings::wasgi::gateway::types::{self, ProtocolError, StreamError};

/// Offers the server's side of the contract.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::App::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

/// Handles of these have the number of their call as representation: one kept from an earlier call reaches nothing.
pub enum StartResponse {}
pub enum Write {}
pub enum Input {}
pub enum Errors {}

/// A guest may ask for more; it gets no more at once.
const READ_BYTES_MAX: u32 = 256 << 10;

/// What a guest has a handle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    StartResponse,
    Write,
    Input,
    Errors,
}

/// The handles that the guest holds, in the order in which it got them.
#[derive(Default)]
struct Handles {
    open: Vec<Kind>,
    /// It has given them back in another order than the reverse one, or they cannot be told apart: the numbers of handles that
    /// it would get from now on are not those that a fresh instance gets.
    disordered: bool,
}

impl Handles {
    fn opened(&mut self, kind: Kind) {
        if self.open.contains(&kind) {
            self.disordered = true;
        } else {
            self.open.push(kind);
        }
    }

    fn dropped(&mut self, kind: Kind) {
        if self.open.pop() != Some(kind) {
            self.disordered = true;
        }
    }

    fn are_as_new(&self) -> bool {
        self.open.is_empty() && !self.disordered
    }
}

/// What the host's side of the contract keeps in a store.
pub(crate) struct Host {
    /// Which call of this sandbox is being served.
    number: u32,
    pub(super) input: Option<RequestBody>,
    errors: LineBuffer,
    /// The method is HEAD, or the status allows no body.
    pub(super) no_body: bool,
    handles: Handles,
}

impl Default for Host {
    fn default() -> Self {
        let errors = LineBuffer::new(LogStream::Errors);
        Self { number: 0, input: None, errors, no_body: false, handles: Handles::default() }
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

    /// Whether the guest's handles are as if it had never had any: none is left, and their numbers come in the same order.
    pub(crate) fn handles_are_as_new(&self) -> bool {
        self.handles.are_as_new()
    }

    fn open<T: 'static>(&mut self, kind: Kind) -> Resource<T> {
        self.handles.opened(kind);
        Resource::new_own(self.number)
    }

    fn is_current<T>(&self, handle: &Resource<T>) -> bool {
        handle.rep() == self.number
    }
}

impl types::Host for State {}

impl gateway::Host for State {}

impl gateway::HostStartResponse for State {
    fn current(&mut self) -> wasmtime::Result<Resource<StartResponse>> {
        Ok(self.wsgi.open(Kind::StartResponse))
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
            self.call.witness.caught(text);
        }
        let head = checked_head(&status, &headers, &self.app);
        let mut outbox = self.call.outbox();
        if outbox.committed && exc_info.is_some() {
            return Ok(Err(ProtocolError::HeadersSent));
        }
        if outbox.committed || (outbox.started && exc_info.is_none()) {
            return Ok(Err(ProtocolError::AlreadyStarted));
        }
        outbox.started = true;
        Ok(match head {
            Ok(head) => {
                outbox.head = Some(head);
                Ok(self.wsgi.open(Kind::Write))
            }
            Err(HeadError::Status(why)) => Err(ProtocolError::BadStatus(why)),
            Err(HeadError::Header(why)) => Err(ProtocolError::BadHeader(why)),
            Err(HeadError::TooLarge(_)) => Err(ProtocolError::TooLarge),
        })
    }

    fn drop(&mut self, _: Resource<StartResponse>) -> wasmtime::Result<()> {
        self.wsgi.handles.dropped(Kind::StartResponse);
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
        let block = Block::new(block.into(), &self.call).map_err(|error| wasmtime::Error::new(Stopped(error)))?;
        // A `write` comes from start_response, so there is a head.
        if let Some(Commit::Now { allows_body, .. }) = self.call.outbox().commit() {
            self.wsgi.no_body |= !allows_body;
        }
        if self.wsgi.no_body {
            self.call.outbox().silent = true;
        } else {
            self.call.hand_over(block).await;
        }
        Ok(Ok(()))
    }

    fn drop(&mut self, _: Resource<Write>) -> wasmtime::Result<()> {
        self.wsgi.handles.dropped(Kind::Write);
        Ok(())
    }
}

impl State {
    fn read_failed(&mut self, error: ReadError) -> StreamError {
        self.call.input_failed(&error);
        match error {
            ReadError::TooLarge(_) => StreamError::TooLarge,
            ReadError::Broken(why) | ReadError::Malformed(why) => StreamError::Disconnected(why),
            ReadError::Spool(_) | ReadError::Busy(_) => {
                let (app, request) = (self.app.name.as_str(), self.call.id);
                tracing::error!(target: "wasgi::request", %request, app, "{error}");
                StreamError::Disconnected("the host has lost it".to_owned())
            }
        }
    }
}

impl gateway::HostInput for State {
    fn current(&mut self) -> wasmtime::Result<Resource<Input>> {
        Ok(self.wsgi.open(Kind::Input))
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
        self.wsgi.handles.dropped(Kind::Input);
        Ok(())
    }
}

impl gateway::HostErrors for State {
    fn current(&mut self) -> wasmtime::Result<Resource<Errors>> {
        Ok(self.wsgi.open(Kind::Errors))
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
        self.wsgi.handles.dropped(Kind::Errors);
        Ok(())
    }
}
