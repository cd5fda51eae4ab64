//! The glue between the contract's exports and an application written in Rust.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
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

impl<A: App> export::Guest for Exported<A> {
    type Iterator = Blocks;

    fn call(environ: types::Environ) -> Result<export::Response, types::ExcInfo> {
        let url_scheme = match environ.url_scheme {
            types::UrlScheme::Http => UrlScheme::Http,
            types::UrlScheme::Https => UrlScheme::Https,
        };
        let environ = Environ::new(environ.variables, url_scheme, environ.multiprocess, environ.run_once);
        let call = Rc::new(Call::default());
        let body = A::call(environ, StartResponse::new(call.clone()));
        let head = call.take_head().map(cross);
        match body {
            Ok(Body(Iterable::Blocks(blocks))) => {
                call.enter(Phase::Over);
                Ok(export::Response {
                    head,
                    body: export::Iterable::Blocks(blocks),
                })
            }
            Ok(Body(Iterable::Iterator(blocks))) => {
                call.enter(Phase::Iterating);
                let blocks = export::Iterator::new(Blocks {
                    call,
                    blocks: RefCell::new(Some(blocks)),
                });
                Ok(export::Response {
                    head,
                    body: export::Iterable::Iterator(blocks),
                })
            }
            Err(error) => {
                call.enter(Phase::Over);
                Err(exc_info(error))
            }
        }
    }
}

/// A streamed body while the host drives it.
pub struct Blocks {
    call: Rc<Call>,
    /// None once closed.
    blocks: RefCell<Option<BlockIterator>>,
}

impl export::GuestIterator for Blocks {
    fn next(&self) -> Result<export::Step, types::ExcInfo> {
        let block: Option<Vec<u8>> = match self.blocks.borrow_mut().as_mut().and_then(Iterator::next) {
            Some(Ok(block)) => Some(block),
            Some(Err(error)) => return Err(exc_info(error)),
            None => None,
        };
        self.call.note_block(block.as_deref().unwrap_or_default());
        Ok(export::Step {
            head: self.call.take_head().map(cross),
            block,
        })
    }

    fn close(&self) -> Result<(), types::ExcInfo> {
        // Dropping is closing; a second close, and the drop of the handle after it, find nothing left to drop.
        self.blocks.borrow_mut().take();
        self.call.enter(Phase::Over);
        Ok(())
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.call.enter(Phase::Over);
    }
}

fn cross(head: Head) -> types::Head {
    types::Head {
        status: head.status,
        headers: head.headers,
    }
}

fn exc_info(error: Error) -> types::ExcInfo {
    let info = error.into_exc_info();
    types::ExcInfo {
        name: info.name,
        message: info.message,
        traceback: info.traceback,
    }
}
