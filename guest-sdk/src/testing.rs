//! Calls applications in native tests, with a stand-in for the host. Not on wasm32.
//!
//! ```
//! use wasgi::{Body, Environ, StartResponse, testing};
//!
//! fn app(environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
//!     start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
//!     Ok(Body::from(format!("You asked for {}", environ.path_info())))
//! }
//!
//! let response = testing::call(app, Environ::from_iter([("PATH_INFO", "/x")]), b"").unwrap();
//! assert_eq!((&*response.status, &*response.body), ("200 OK", &b"You asked for /x"[..]));
//! ```

use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use crate::body::{Body, Iterable};
use crate::environ::Environ;
use crate::error::{Error, Result};
use crate::host::native::{self, Record};
use crate::start_response::{Call, Phase, StartResponse};

/// What the client and the log would have got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// "200 OK"
    pub status: String,
    /// In the application's order and spelling; the host adds its own.
    pub headers: Vec<(String, String)>,
    /// All blocks, joined.
    pub body: Vec<u8>,
    /// What went to `wsgi.errors`, and the errors passed as `exc_info`.
    pub log: String,
}

/// Calls an application once and takes all of its blocks.
///
/// An error is one that the application let through, or that it never called `start_response`.
pub fn call(
    app: impl FnOnce(Environ, StartResponse) -> Result<Body>,
    environ: Environ,
    input: &[u8],
) -> Result<Response> {
    native::exchange(Record { input: input.to_vec(), ..Record::default() });
    let call = Rc::new(Call::default());
    let outcome = drive(app, environ, &call);
    call.enter(Phase::Over);
    let record = native::exchange(Record::default());
    let (head, blocks) = outcome?;
    let head = head.or(record.head);
    let (status, headers) = head.ok_or_else(|| Error::new("ProtocolError", "start_response was never called"))?;
    let body = [record.written, blocks].concat();
    Ok(Response { status, headers, body, log: record.log })
}

/// From now on, in this thread, `answer` is the servers that [`fetch`](crate::fetch) reaches.
#[cfg(feature = "fetch")]
pub fn answer_fetches(
    answer: impl Fn(&crate::fetch::Request) -> core::result::Result<crate::fetch::Response, crate::fetch::Error> + 'static,
) {
    crate::fetch::native::answer(answer);
}

/// Grants the test's thread a key-value store of this name, with nothing in it.
#[cfg(feature = "keyvalue")]
pub fn grant_store(name: &str) {
    crate::keyvalue::native::grant(name);
}

type Head = (String, Vec<(String, String)>);

fn drive(
    app: impl FnOnce(Environ, StartResponse) -> Result<Body>,
    environ: Environ,
    call: &Rc<Call>,
) -> Result<(Option<Head>, Vec<u8>)> {
    let Body(iterable) = app(environ, StartResponse::new(call.clone()))?;
    let mut head = call.take_head();
    let mut body = Vec::new();
    match iterable {
        Iterable::Blocks(blocks) => body = blocks.concat(),
        Iterable::Iterator(blocks) => {
            call.enter(Phase::Iterating);
            for block in blocks {
                let block = block?;
                call.note_block(&block);
                body.extend_from_slice(&block);
                head = head.or_else(|| call.take_head());
            }
            head = head.or_else(|| call.take_head());
        }
        #[cfg(feature = "std")]
        Iterable::File(mut file) => {
            if let Some(head) = &mut head {
                head.promise(&mut *file);
            }
            for block in file {
                body.extend_from_slice(&block?);
            }
        }
    }
    Ok((head.map(|head| (head.status, head.headers)), body))
}
