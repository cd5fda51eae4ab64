//! Web apps in Rust against `environ` and `start_response`, as [PEP 3333](https://peps.python.org/pep-3333/) has them,
//! compiled to a WebAssembly component that the wasgi host serves.
//!
//! ```
//! use wasgi::{Body, Environ, StartResponse};
//!
//! #[wasgi::application]
//! fn app(environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
//!     start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
//!     Ok(Body::from("This is a sample WSGI Application."))
//! }
//! ```
//!
//! In `Cargo.toml`: `crate-type = ["cdylib"]`; then `cargo build --release --target wasm32-wasip2`.
//!
//! | PEP 3333 | here |
//! | --- | --- |
//! | `environ` | [`Environ`]: [`get`](Environ::get), [`header`](Environ::header), … |
//! | `start_response(status, headers)` | [`StartResponse::call`]; with `exc_info` [`StartResponse::call_with_exc_info`] |
//! | `write(data)` | [`Write::write`] |
//! | the returned list, string or generator | [`Body`], for a generator [`Body::stream`] |
//! | `wsgi.file_wrapper(file)` | `FileWrapper` |
//! | `close()` of the returned iterable | [`Drop`] of the iterator |
//! | an exception let through | `Err(`[`Error`]`)`; a panic is a trap |
//! | `wsgi.input`, `wsgi.errors` | [`Environ::input`], [`Environ::errors`] |
//!
//! Features: `quiet` (`std` without standard streams: an app that does no I/O imports no WASI and starts about twice as
//! fast, but `println!` and panic messages go nowhere), `form` (query strings, forms, uploads: [`form`]), `cookie` ([`Environ::cookies`]), `http` ([`http`]), `fetch` (requests to elsewhere: [`fetch`]), `keyvalue` (key-value stores: [`keyvalue`]). With
//! `default-features = false` the crate and the app are `no_std`, import nothing that they do not use, and start fastest.
//! Natively the crate has a stand-in for the host, so that apps can be tested with plain `cargo test`: [`testing`].

#![cfg_attr(not(any(feature = "std", not(target_arch = "wasm32"))), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;

pub use body::{Body, IntoBlock};
pub use environ::{Environ, UrlScheme, Variables};
pub use error::{Error, ProtocolError, Result, StreamError};
#[cfg(feature = "std")]
pub use file::FileWrapper;
pub use io::{Errors, Input};
pub use start_response::{StartResponse, Write};
pub use wasgi_macros::application;

mod body;
#[cfg(feature = "cookie")]
pub mod cookies;
mod environ;
mod error;
#[cfg(target_arch = "wasm32")]
mod export;
#[cfg(feature = "fetch")]
pub mod fetch;
#[cfg(feature = "std")]
mod file;
#[cfg(feature = "form")]
pub mod form;
mod host;
#[cfg(feature = "http")]
pub mod http;
mod io;
#[cfg(feature = "keyvalue")]
pub mod keyvalue;
#[cfg(all(target_arch = "wasm32", not(feature = "std")))]
mod lean;
#[cfg(all(target_arch = "wasm32", feature = "quiet"))]
mod quiet;
pub mod rules;
mod start_response;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, unreachable_pub, reason = "generated: the component ABI passes raw pointers")]
#[rustfmt::skip]
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "app",
        std_feature,
        disable_run_ctors_once_workaround: true,
        pub_export_macro: true,
        export_macro_name: "export_application",
        default_bindings_module: "::wasgi::__private::bindings",
    });
}

/// For the code that `#[wasgi::application]` generates; not an interface.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_arch = "wasm32")]
    pub use crate::bindings;
    #[cfg(target_arch = "wasm32")]
    pub use crate::export::{App, Exported};

    /// What an application may return: a body or anything that becomes one, with any error that converts.
    pub fn answer<B: Into<crate::Body>, E: Into<crate::Error>>(
        answer: core::result::Result<B, E>,
    ) -> crate::Result<crate::Body> {
        answer.map(Into::into).map_err(Into::into)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
