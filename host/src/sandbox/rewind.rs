//! Rewinding: a sandbox that has served is put back to where it began, all of it, or thrown away.
//!
//! | state | goes back by |
//! | --- | --- |
//! | linear memories, and what they grew by | [`super::memory`] |
//! | mutable globals, the memories' lengths as the guest knows them | the function that `deploy/passes/rewind` adds to the component |
//! | tables, segments | never changed: the pass refuses components with code that could |
//! | handles | none left, and given back in an order that leaves no trace, or the sandbox is thrown away |
//! | the host's side of the store | a new [`State`] |
//!
//! After a trap, a time-out or a client that left nobody asks for it: such sandboxes are dropped by their calls.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, TypedFunc};

use super::memory::{Images, Made, Memories};
use super::meter::Mark;
use super::step::Step;
use super::{State, no_deadline};

/// The function that `deploy/passes/rewind` adds. A component that has one of this name itself is refused by the pass.
pub const FUNCTION: &str = "wasgi-rewind";

/// Where a release's instances begin, and how they get there.
pub(super) struct Rewind {
    /// The function that the pass has added.
    pub(super) function: ComponentExportIndex,
    pub(super) images: Images,
}

/// Where one sandbox began.
pub(super) struct Beginning {
    put_back: TypedFunc<(), ()>,
    memories: Memories,
    mark: Mark,
}

/// Why a sandbox serves no further call.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lasting {
    #[error("while it is made it asks for something that may differ each time (time, randomness, variables, output)")]
    Asked,
    #[error("no two of its instances begin alike")]
    Differs,
    #[error(
        "it keeps handles, or has given them back in an order that shows (what it prints, streams and WASI's resources are \
         handles)"
    )]
    Handles,
    #[error("its state cannot be put back: {0}")]
    Failed(String),
}

impl Rewind {
    /// Takes a new instance's state as the one that it is put back to.
    pub(super) fn begin(&self, made: Made, store: &mut Store<State>) -> Result<Beginning, Lasting> {
        if !store.data_mut().was_not_asked() {
            return Err(Lasting::Asked);
        }
        let failed = |error: &dyn std::fmt::Display| Lasting::Failed(error.to_string());
        let put_back = made.instance.get_typed_func(&mut *store, self.function).map_err(|error| failed(&error))?;
        let kept = Memories::keep(made, store, &self.images).map_err(|error| failed(&error))?;
        let memories = kept.ok_or(Lasting::Differs)?;
        // The first time it keeps the globals' values.
        run(&put_back, store).map_err(|error| failed(&error))?;
        let mark = store.data().meter.mark();
        store.data_mut().rewind(mark);
        Ok(Beginning { put_back, memories, mark })
    }
}

impl Beginning {
    /// Puts a sandbox back whose call has ended without fault.
    pub(super) fn put_back(&mut self, store: &mut Store<State>) -> Result<(), Lasting> {
        if !store.data_mut().handles_are_as_new() && Step::Handles.is_taken() {
            return Err(Lasting::Handles);
        }
        self.memories.put_back(store).map_err(|error| Lasting::Failed(error.to_string()))?;
        run(&self.put_back, store).map_err(|error| Lasting::Failed(error.to_string()))?;
        if Step::Host.is_taken() {
            store.data_mut().rewind(self.mark);
        }
        Ok(())
    }
}

/// Calls the function of our own, which waits for nothing and takes a moment.
fn run(function: &TypedFunc<(), ()>, store: &mut Store<State>) -> wasmtime::Result<()> {
    no_deadline(store);
    let mut running = pin!(function.call_async(store, ()));
    match running.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ended) => ended,
        Poll::Pending => Err(wasmtime::Error::msg("it waits")),
    }
}
