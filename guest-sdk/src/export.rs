//! The glue between the contract's exports and an application written in Rust.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::marker::PhantomData;

use crate::bindings::exports::wasgi::gateway::application as export;
use crate::bindings::wasgi::gateway::types;
use crate::body::{BlockIterator, Body, Iterable};
use crate::environ::{Environ, UrlScheme};
use crate::error::{Error, Result};
use crate::start_response::{Call, Head, Phase, StartResponse};

/// What `#[wasgi::application]` makes of a function.
pub trait App: 'static {
    fn call(environ: Environ, start_response: StartResponse) -> Result<Body>;
}

/// An [`App`] in the shape that the bindings export.
pub struct Exported<A>(PhantomData<A>);

/// What crosses: the head, if it has to; blocks; whether there may be more.
type Part = (Option<(String, Vec<(String, String)>)>, Vec<Vec<u8>>, bool);

impl<A: App> export::Guest for Exported<A> {
    fn call(variables: Vec<u8>, https: bool, multiprocess: bool, run_once: bool) -> Result<Part, types::ExcInfo> {
        let url_scheme = if https { UrlScheme::Https } else { UrlScheme::Http };
        let environ = Environ::new(variables, url_scheme, multiprocess, run_once);
        let call = Rc::new(Call::default());
        let body = A::call(environ, StartResponse::new(call.clone()));
        let head = call.take_head();
        match body {
            Ok(Body(Iterable::Blocks(blocks))) => {
                call.enter(Phase::Over);
                Ok((head.map(cross), blocks, false))
            }
            Ok(Body(Iterable::Iterator(blocks))) => {
                call.enter(Phase::Iterating);
                STREAM.set(Some(Stream { call, blocks }));
                Ok((head.map(cross), Vec::new(), true))
            }
            #[cfg(feature = "std")]
            Ok(Body(Iterable::File(file))) => open_file(call, head, file),
            Err(error) => {
                call.enter(Phase::Over);
                Err(exc_info(error))
            }
        }
    }

    fn next() -> Result<Part, types::ExcInfo> {
        let Some(mut stream) = STREAM.take() else { return Ok((None, Vec::new(), false)) };
        let block = stream.blocks.next();
        let head = stream.call.take_head().map(cross);
        let part = match block {
            Some(Ok(block)) => {
                stream.call.note_block(&block);
                Ok((head, vec![block], true))
            }
            None => Ok((head, Vec::new(), false)),
            Some(Err(error)) => Err(exc_info(error)),
        };
        STREAM.set(Some(stream));
        part
    }

    fn close() -> Result<(), types::ExcInfo> {
        // Dropping is closing; a second close finds nothing left to drop.
        drop(STREAM.take());
        Ok(())
    }
}

/// A file of one block is a whole response; of a longer one the first block goes with the head.
#[cfg(feature = "std")]
fn open_file(
    call: Rc<Call>,
    mut head: Option<Head>,
    mut file: alloc::boxed::Box<dyn crate::file::Blocks>,
) -> Result<Part, types::ExcInfo> {
    if let Some(head) = &mut head {
        head.promise(&mut *file);
    }
    let block = file.next();
    let more = file.left() > 0;
    if more {
        call.enter(Phase::Iterating);
        STREAM.set(Some(Stream { call, blocks: alloc::boxed::Box::new(file) }));
    } else {
        call.enter(Phase::Over);
    }
    match block {
        Some(Err(error)) => Err(exc_info(error)),
        block => Ok((head.map(cross), block.into_iter().flatten().collect(), more)),
    }
}

/// The streamed body that the host is driving. There is one at most, since an instance serves one call at a time.
static STREAM: Slot = Slot(Cell::new(None));

struct Stream {
    call: Rc<Call>,
    blocks: BlockIterator,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.call.enter(Phase::Over);
    }
}

struct Slot(Cell<Option<Stream>>);

// SAFETY: a component has one thread.
#[allow(unsafe_code, reason = "a static needs Sync, which only threads would make untrue")]
unsafe impl Sync for Slot {}

impl core::ops::Deref for Slot {
    type Target = Cell<Option<Stream>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn cross(head: Head) -> (String, Vec<(String, String)>) {
    (head.status, head.headers)
}

fn exc_info(error: Error) -> types::ExcInfo {
    let info = error.into_exc_info();
    types::ExcInfo { name: info.name, message: info.message, traceback: info.traceback }
}
