//! One call of an application: its parts, in order, to the connection.

use std::time::Instant;

use wasmtime::component::{ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Lower, TypedFunc};

use super::gateway::ExcInfo;
use super::{Sandbox, Shared};
use crate::body::Block;
use crate::error::Error;
use crate::guest;
use crate::guest::head::{Head, HeadError};
use crate::sandbox::call::Commit;
use crate::sandbox::task::{Finished, Whole};
use crate::sandbox::{AppContext, CallState, State, fault};
use crate::telemetry::printable;

/// `types.head`, and `types.part`.
type RawHead = (String, Vec<(String, String)>);
type Part = (Option<RawHead>, Vec<Vec<u8>>, bool);

/// `environ`, and whether the scheme is https, there are more processes, and this is the only call.
type Arguments = (Vec<u8>, bool, bool, bool);
type Returned<T> = (Result<T, ExcInfo>,);

pub(super) type CallFunction = TypedFunc<Arguments, Returned<Part>>;
type NextFunction = TypedFunc<(), Returned<Part>>;
type CloseFunction = TypedFunc<(), Returned<()>>;

/// Where a component has the application's functions.
///
/// The bindings' own way would look all of them up for each new instance; most calls need but the first.
pub(super) struct Exports {
    pub(super) call: ComponentExportIndex,
    next: ComponentExportIndex,
    close: ComponentExportIndex,
}

impl Exports {
    pub(super) fn of(linked: &InstancePre<State>) -> anyhow::Result<Self> {
        Ok(Self {
            call: guest::exported::<Arguments, Returned<Part>>(linked, INTERFACE, "call")?,
            next: guest::exported::<(), Returned<Part>>(linked, INTERFACE, "next")?,
            close: guest::exported::<(), Returned<()>>(linked, INTERFACE, "close")?,
        })
    }
}

const INTERFACE: &str = "wasgi:gateway/application@0.1.0";

/// Why a call failed, and so whether its sandbox is sound.
pub(super) enum Failure {
    /// The app said so, by the contract's means: the sandbox is sound.
    App(Error),
    /// The guest trapped, was stopped, or broke the rules.
    Sandbox(Error),
}

/// One call of the application, and the iterable that it returned.
pub(super) struct Exchange<'a> {
    pub(super) shared: &'a Shared,
    pub(super) sandbox: &'a mut Sandbox,
    pub(super) call: &'a CallState,
}

impl Exchange<'_> {
    pub(super) async fn run(mut self, arguments: Arguments) -> Result<Finished, Failure> {
        let Sandbox { store, functions: call, .. } = &mut *self.sandbox;
        let returned = call.call_async(store, arguments).await;
        let (head, blocks, more) = self.unwrap(returned)?;
        if more {
            // Boxed: other calls' futures need no room for it. What that saves was not measured.
            let sent = Box::pin(self.iterate(head, blocks)).await;
            // Whatever happened, close() comes after it, once; unless the sandbox is lost anyway.
            if !matches!(sent, Err(Failure::Sandbox(_))) {
                match (Box::pin(self.close()).await, &sent) {
                    // What went wrong first is what the log should say.
                    (Err(Failure::App(_)), Err(_)) => {}
                    // The client has the whole response: only the log is told.
                    (Err(Failure::App(error)), Ok(_)) => {
                        let (app, request) = (self.shared.supply.app.name.as_str(), self.call.id);
                        if self.call.account().may_report(0, Instant::now()) {
                            tracing::warn!(target: "wasgi::request", %request, app, "after the response, close(): {error}");
                        }
                        self.call.failed(&error);
                    }
                    (closed, _) => closed?,
                }
            }
            return sent;
        }
        if let Some(head) = head {
            self.start_response(&head)?;
        }
        self.send_all(blocks).await
    }

    fn unwrap<T>(&self, returned: wasmtime::Result<Returned<T>>) -> Result<T, Failure> {
        match returned {
            Ok((Ok(value),)) => Ok(value),
            Ok((Err(raised),)) => {
                let (text, state) = (exception_text(&raised), self.sandbox.store.data());
                self.call.witness.used(state.meter.bytes());
                self.call.witness.explain(&text);
                Err(Failure::App(Error::Exception(state.app.log.charged(text))))
            }
            Err(error) => Err(Failure::Sandbox(fault::classify(error, self.sandbox.store.data()))),
        }
    }

    /// The application handed over what it would have called `start_response` with.
    fn start_response(&self, (status, headers): &RawHead) -> Result<(), Failure> {
        let head = checked_head(status, headers, &self.sandbox.store.data().app)
            .map_err(|error| Failure::App(head_failure(&error)))?;
        let mut outbox = self.call.outbox();
        if std::mem::replace(&mut outbox.started, true) {
            return Err(Failure::App(Error::Protocol("start_response was called twice, without exc_info".into())));
        }
        outbox.head = Some(head);
        Ok(())
    }

    /// Python's list: everything is there.
    async fn send_all(&mut self, blocks: Vec<Vec<u8>>) -> Result<Finished, Failure> {
        // Many small blocks would cost more memory than their bytes, and a poll each.
        let blocks = if blocks.len() > SEPARATE_BLOCKS_MAX { vec![blocks.concat()] } else { blocks };
        let blocks = self.on_their_way(blocks)?;
        if let Some(head) = self.uncommitted_head()? {
            return Ok(Finished::Whole(Whole { head, blocks }));
        }
        if !self.no_body() {
            for block in blocks {
                self.call.hand_over(block).await;
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
        let next: NextFunction = self.function(&self.shared.supply.entry.next)?;
        loop {
            let (head, blocks, more) = part;
            if let Some(head) = head {
                self.start_response(&head)?;
            }
            for block in self.on_their_way(blocks)? {
                if let Commit::Now { length, allows_body } = self.call.outbox().commit().ok_or_else(never_started)? {
                    owed = length;
                    self.sandbox.store.data_mut().wsgi.no_body |= !allows_body;
                }
                if self.no_body() {
                    self.call.outbox().silent = true;
                    return Ok(Finished::Streamed);
                }
                // The rest is not asked for: the client has what it was promised.
                if let Some(owed) = &mut owed {
                    *owed = owed.saturating_sub(block.len() as u64);
                    if *owed == 0 {
                        self.call.outbox().block = Some(block);
                        return Ok(Finished::Streamed);
                    }
                }
                self.call.hand_over(block).await;
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

    /// What waits for the client from now on.
    fn on_their_way(&self, blocks: Vec<Vec<u8>>) -> Result<Vec<Block>, Failure> {
        Block::all(blocks, self.call).map_err(Failure::App)
    }

    fn no_body(&self) -> bool {
        self.sandbox.store.data().wsgi.no_body
    }

    async fn close(&mut self) -> Result<(), Failure> {
        let close: CloseFunction = self.function(&self.shared.supply.entry.close)?;
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

/// More blocks of one part that ends the response become one.
const SEPARATE_BLOCKS_MAX: usize = 64;

fn never_started() -> Failure {
    Failure::App(Error::Protocol("the app never called start_response".into()))
}

pub(super) fn checked_head(status: &str, headers: &[(String, String)], app: &AppContext) -> Result<Head, HeadError> {
    Head::new(status, headers.iter().map(|(name, value)| (name.as_str(), value.as_str())), &app.limits)
}

fn head_failure(error: &HeadError) -> Error {
    match error {
        HeadError::TooLarge(why) => Error::ResponseHead(why.clone()),
        HeadError::Status(_) | HeadError::Header(_) => Error::Protocol(error.to_string()),
    }
}

/// An exception's text for the log, where nothing of it may look like a line of the host.
pub(super) fn exception_text(raised: &ExcInfo) -> String {
    let ExcInfo { name, message, traceback } = raised;
    printable(&format!("{name}: {message}\n{traceback}"), EXCEPTION_BYTES_MAX)
}

/// What is logged of an exception. Guests may hand over megabytes.
const EXCEPTION_BYTES_MAX: usize = 16 << 10;
