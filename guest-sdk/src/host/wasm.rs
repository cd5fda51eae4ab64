//! The host as the component imports it. Each function is imported only by programs that reach it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Sink;
use crate::bindings::wasgi::gateway::gateway;
use crate::bindings::wasgi::gateway::types;
use crate::error::{Error, ProtocolError, StreamError};
use crate::start_response::Head;

pub(crate) fn start_response(head: &Head, exc_info: Option<&Error>) -> Result<Box<dyn Sink>, ProtocolError> {
    let exc_info = exc_info.map(|error| {
        let (name, message) = (error.name().into(), error.message().into());
        types::ExcInfo { name, message, traceback: error.traceback().into() }
    });
    match gateway::StartResponse::current().call(&head.status, &head.headers, exc_info.as_ref()) {
        Ok(write) => Ok(Box::new(write)),
        Err(error) => Err(match error {
            types::ProtocolError::AlreadyStarted => ProtocolError::AlreadyStarted,
            types::ProtocolError::HeadersSent => ProtocolError::HeadersSent,
            types::ProtocolError::BadStatus(why) | types::ProtocolError::BadHeader(why) => ProtocolError::Refused(why),
            types::ProtocolError::TooLarge => ProtocolError::TooLarge,
            types::ProtocolError::CallOver => ProtocolError::CallOver,
        }),
    }
}

impl Sink for gateway::Write {
    fn write(&self, block: &[u8]) -> Result<(), StreamError> {
        self.call(block).map_err(stream_error)
    }
}

pub(crate) struct Input(gateway::Input);

impl Input {
    pub(crate) fn current() -> Input {
        Input(gateway::Input::current())
    }

    pub(crate) fn read(&mut self, bytes_max: u32) -> Result<Vec<u8>, StreamError> {
        self.0.read(bytes_max).map_err(stream_error)
    }

    pub(crate) fn readline(&mut self, bytes_max: u32) -> Result<Vec<u8>, StreamError> {
        self.0.readline(bytes_max).map_err(stream_error)
    }
}

pub(crate) struct Errors(gateway::Errors);

impl Errors {
    pub(crate) fn current() -> Errors {
        Errors(gateway::Errors::current())
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.0.write(text);
    }

    pub(crate) fn flush(&mut self) {
        self.0.flush();
    }
}

fn stream_error(error: types::StreamError) -> StreamError {
    match error {
        types::StreamError::Disconnected(why) => StreamError::Disconnected(why),
        types::StreamError::TooLarge => StreamError::TooLarge,
        types::StreamError::CallOver => StreamError::CallOver,
    }
}
