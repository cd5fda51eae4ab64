//! `start_response` and `write`: checks what an application says about its response and keeps it until it crosses to
//! the host together with what comes next, which saves a call.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

use crate::error::{Error, ProtocolError, Result};
use crate::host::{self, Sink};
use crate::rules;

/// PEP 3333's `start_response` of one call.
///
/// It may be moved into the iterator that the application returns, and be called as late as in that iterator's first
/// `next`.
pub struct StartResponse {
    call: Rc<Call>,
}

/// PEP 3333's `write`: for code that cannot return its output as a [`Body`](crate::Body). What is written goes before
/// what the application returns.
///
/// It may be used until the application returns; from within the returned iterator PEP 3333 forbids it.
pub struct Write {
    call: Rc<Call>,
}

/// What `start_response` was called with.
pub(crate) struct Head {
    pub(crate) status: String,
    pub(crate) headers: Vec<(String, String)>,
}

#[cfg(feature = "std")]
impl Head {
    /// A file's length is known: the head says it, unless the application did. It counts if it is less.
    pub(crate) fn promise(&mut self, file: &mut dyn crate::file::Blocks) {
        match self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            // What is no number is left to the host, which refuses it.
            Some((_, given)) => given.parse().into_iter().for_each(|bytes| file.limit(bytes)),
            None => self.headers.push(("Content-Length".into(), alloc::format!("{}", file.left()))),
        }
    }
}

/// One call of the application, shared by all that was handed out for it.
#[derive(Default)]
pub(crate) struct Call {
    /// Checked, but not yet with the host.
    head: Cell<Option<Head>>,
    phase: Cell<Phase>,
    /// `start_response` was called, successfully or not.
    started: Cell<bool>,
    /// A block that isn't empty went out, and the headers before it.
    sent: Cell<bool>,
    /// The host's `write`. Boxed, so that an app without `write` need not even import how to drop it.
    sink: Cell<Option<Box<dyn Sink>>>,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) enum Phase {
    #[default]
    Application,
    Iterating,
    Over,
}

impl StartResponse {
    pub(crate) fn new(call: Rc<Call>) -> StartResponse {
        StartResponse { call }
    }

    /// `start_response(status, response_headers)`.
    ///
    /// Nothing is sent yet: the headers go out with the first block that isn't empty. A second call is an error, even
    /// if the first one failed.
    pub fn call(&self, status: &str, headers: &[(&str, &str)]) -> Result<Write, ProtocolError> {
        self.call.check_open()?;
        if self.call.started.replace(true) {
            return Err(ProtocolError::AlreadyStarted);
        }
        self.call.head.set(Some(checked(status, headers)?));
        Ok(Write { call: self.call.clone() })
    }

    /// `start_response(status, response_headers, exc_info)`: replaces what an earlier call said, because of an error
    /// that came up since. The error goes to the app's log.
    ///
    /// When the headers are with the client already, the error comes back: return it, and the host breaks the response
    /// off so that the client can tell.
    pub fn call_with_exc_info(&self, status: &str, headers: &[(&str, &str)], exc_info: Error) -> Result<Write> {
        self.call.check_open()?;
        self.call.started.set(true);
        if self.call.sent.get() {
            return Err(exc_info);
        }
        let head = checked(status, headers)?;
        match host::start_response(&head, Some(&exc_info)) {
            Ok(sink) => {
                self.call.head.set(None);
                self.call.sink.set(Some(sink));
                Ok(Write { call: self.call.clone() })
            }
            Err(ProtocolError::HeadersSent) => Err(exc_info),
            Err(error) => Err(error.into()),
        }
    }
}

impl Write {
    /// `write(body_data)`. Returns when the block is on its way to the client.
    pub fn write(&self, block: &[u8]) -> Result<()> {
        self.call.check_open()?;
        if self.call.phase.get() == Phase::Iterating {
            return Err(ProtocolError::WriteInIterable.into());
        }
        let sink = match (self.call.head.take(), self.call.sink.take()) {
            (Some(head), _) => host::start_response(&head, None)?,
            (None, Some(sink)) => sink,
            // The head went to the host but was refused there: no sink came back.
            (None, None) => return Err(ProtocolError::AlreadyStarted.into()),
        };
        let written = sink.write(block);
        self.call.sink.set(Some(sink));
        if !block.is_empty() {
            self.call.sent.set(true);
        }
        Ok(written?)
    }
}

/// Each `write` is a call of the host: wrap it in a [`std::io::BufWriter`] where the pieces are small.
#[cfg(feature = "std")]
impl std::io::Write for Write {
    fn write(&mut self, block: &[u8]) -> std::io::Result<usize> {
        Write::write(self, block).map_err(|error| std::io::Error::other(alloc::format!("{error}")))?;
        Ok(block.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Call {
    /// The head, if it has to cross now.
    pub(crate) fn take_head(&self) -> Option<Head> {
        self.head.take()
    }

    /// The application returned, or its iterator ended.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        // A handle that outlived its call would only fill the instance's table.
        self.sink.set(None);
    }

    /// A block crosses to the host.
    pub(crate) fn note_block(&self, block: &[u8]) {
        if !block.is_empty() {
            self.sent.set(true);
        }
    }

    fn check_open(&self) -> Result<(), ProtocolError> {
        if self.phase.get() == Phase::Over { Err(ProtocolError::CallOver) } else { Ok(()) }
    }
}

fn checked(status: &str, headers: &[(&str, &str)]) -> Result<Head, ProtocolError> {
    if let Err(fault) = rules::check_status(status) {
        return Err(ProtocolError::BadStatus { status: status.into(), fault });
    }
    let mut kept = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        if let Err(fault) = rules::check_header(name, value) {
            return Err(ProtocolError::BadHeader { name: (*name).into(), fault });
        }
        kept.push(((*name).into(), (*value).into()));
    }
    Ok(Head { status: status.into(), headers: kept })
}
