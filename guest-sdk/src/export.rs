//! The glue between the contract's exports and an application written in Rust.
//!
//! The symbols are exported by hand rather than by the bindings' own macro, to leave out the iterator's destructor; the
//! exact version of wit-bindgen in Cargo.toml keeps both in step.

use alloc::rc::Rc;
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
                STREAM.set(Some(Stream { call, blocks }));
                Ok(export::Response {
                    head,
                    body: export::Iterable::Iterator(export::Iterator::new(Blocks)),
                })
            }
            Err(error) => {
                call.enter(Phase::Over);
                Err(exc_info(error))
            }
        }
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

/// The `iterator` resource. It holds nothing: what it stands for is in [`STREAM`], and `close` takes it from there. So
/// it needs no destructor, and without an exported destructor the component is one core module instead of three.
pub struct Blocks;

impl export::GuestIterator for Blocks {
    fn next(&self) -> Result<export::Step, types::ExcInfo> {
        let Some(mut stream) = STREAM.take() else {
            return Ok(export::Step {
                head: None,
                block: None,
            });
        };
        let block = stream.blocks.next();
        let head = stream.call.take_head().map(cross);
        let step = match block {
            Some(Ok(block)) => {
                stream.call.note_block(&block);
                Ok(export::Step {
                    head,
                    block: Some(block),
                })
            }
            None => Ok(export::Step { head, block: None }),
            Some(Err(error)) => Err(exc_info(error)),
        };
        STREAM.set(Some(stream));
        step
    }

    fn close(&self) -> Result<(), types::ExcInfo> {
        // Dropping is closing; a second close finds nothing left to drop.
        drop(STREAM.take());
        Ok(())
    }

    #[allow(
        unsafe_code,
        reason = "the bindings declare it so; this override does nothing unsafe"
    )]
    unsafe fn resource_into_raw_(_: Self::Rep) -> *mut Self::Rep {
        // Read only, and never freed, there being no destructor.
        static REP: Option<Blocks> = Some(Blocks);
        (&raw const REP).cast_mut()
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

/// Exports an [`App`] as the component's application, in the program that the macro is used in.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_application {
    ($app:ty) => {
        #[unsafe(export_name = "wasgi:gateway/application@0.1.0#call")]
        unsafe extern "C" fn call(
            block: *mut u8,
            bytes: usize,
            scheme: i32,
            multiprocess: i32,
            run_once: i32,
        ) -> *mut u8 {
            use $crate::__private::{Exported, application};
            unsafe { application::_export_call_cabi::<Exported<$app>>(block, bytes, scheme, multiprocess, run_once) }
        }

        #[unsafe(export_name = "cabi_post_wasgi:gateway/application@0.1.0#call")]
        unsafe extern "C" fn post_call(returned: *mut u8) {
            use $crate::__private::{Exported, application};
            unsafe { application::__post_return_call::<Exported<$app>>(returned) }
        }

        #[unsafe(export_name = "wasgi:gateway/application@0.1.0#[method]iterator.next")]
        unsafe extern "C" fn next(iterator: *mut u8) -> *mut u8 {
            use $crate::__private::{Blocks, application};
            unsafe { application::_export_method_iterator_next_cabi::<Blocks>(iterator) }
        }

        #[unsafe(export_name = "cabi_post_wasgi:gateway/application@0.1.0#[method]iterator.next")]
        unsafe extern "C" fn post_next(returned: *mut u8) {
            use $crate::__private::{Blocks, application};
            unsafe { application::__post_return_method_iterator_next::<Blocks>(returned) }
        }

        #[unsafe(export_name = "wasgi:gateway/application@0.1.0#[method]iterator.close")]
        unsafe extern "C" fn close(iterator: *mut u8) -> *mut u8 {
            use $crate::__private::{Blocks, application};
            unsafe { application::_export_method_iterator_close_cabi::<Blocks>(iterator) }
        }
    };
}
