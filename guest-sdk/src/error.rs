//! What can go wrong in an application, and how it reaches the host's log.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::fmt;

use crate::rules::{HeaderError, StatusError};

/// What an application returns: `Err` is PEP 3333's uncaught exception. The client gets a 500 page without any of
/// its text, the log of the app gets it all.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// An error that an application lets through. Any `core::error::Error` becomes one with `?`.
///
/// Like `anyhow::Error` it is not an [`Error`](core::error::Error) itself: that is what makes `?` possible.
pub struct Error(Box<ExcInfo>);

/// `exc_info` of PEP 3333, as text.
pub(crate) struct ExcInfo {
    pub(crate) name: String,
    pub(crate) message: String,
    pub(crate) traceback: String,
}

impl Error {
    /// An error of the application's own: what kind (`OutOfStock`), and what it says.
    pub fn new(name: impl Into<String>, message: impl fmt::Display) -> Error {
        Error(Box::new(ExcInfo { name: name.into(), message: message.to_string(), traceback: String::new() }))
    }

    /// What kind of error it is: the type's name, `ParseIntError`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it says.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where it came from: the chain of its sources, a line each; may be empty.
    pub fn traceback(&self) -> &str {
        &self.0.traceback
    }

    #[cfg(target_arch = "wasm32")]
    pub(crate) fn into_exc_info(self) -> ExcInfo {
        *self.0
    }
}

impl<E: core::error::Error> From<E> for Error {
    fn from(error: E) -> Error {
        let mut traceback = String::new();
        let mut source = error.source();
        while let Some(cause) = source {
            traceback.push_str("caused by: ");
            traceback.push_str(&cause.to_string());
            traceback.push('\n');
            source = cause.source();
        }
        let name = short_name(core::any::type_name::<E>()).into();
        Error(Box::new(ExcInfo { name, message: error.to_string(), traceback }))
    }
}

/// `core::num::error::ParseIntError` → `ParseIntError`; `a::Wrapper<b::Inner>` → `Wrapper<b::Inner>`.
///
/// By hand: the string searcher of `core` and its slicing by checked ranges would be a tenth of a small app.
fn short_name(path: &str) -> &str {
    let bytes = path.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b'<').unwrap_or(bytes.len());
    let start = bytes.iter().take(end).rposition(|byte| *byte == b':').map_or(0, |at| at + 1);
    path.get(start..).unwrap_or(path)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)?;
        f.write_str(": ")?;
        f.write_str(&self.0.message)?;
        if !self.0.traceback.is_empty() {
            f.write_str("\n")?;
            f.write_str(self.0.traceback.trim_end())?;
        }
        Ok(())
    }
}

/// Why `start_response` refused, or `write` could not be used (PEP 3333, The start_response() Callable).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// It was called a second time; use [`call_with_exc_info`](crate::StartResponse::call_with_exc_info) to replace
    /// what the first call said.
    AlreadyStarted,
    /// The headers are with the client already.
    HeadersSent,
    /// The status breaks a rule.
    BadStatus { status: String, fault: StatusError },
    /// A header breaks a rule.
    BadHeader { name: String, fault: HeaderError },
    /// The host refused the status or a header, with its reason.
    Refused(String),
    /// More headers, or more bytes in them, than the host allows.
    TooLarge,
    /// `write` was called from within the returned iterable, which PEP 3333 forbids; yield the block.
    WriteInIterable,
    /// The call that this handle belongs to is over.
    CallOver,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Strings are put together by hand: `{:?}` would bring Unicode's tables into every app.
        let mut say = |parts: &[&str]| parts.iter().try_for_each(|part| f.write_str(part));
        match self {
            ProtocolError::AlreadyStarted => say(&["start_response was called a second time without exc_info"]),
            ProtocolError::HeadersSent => say(&["the headers have been sent"]),
            ProtocolError::BadStatus { status, fault } => {
                say(&["bad status '", status, "': "])?;
                fmt::Display::fmt(fault, f)
            }
            ProtocolError::BadHeader { name, fault } => {
                say(&["bad header '", name, "': "])?;
                fmt::Display::fmt(fault, f)
            }
            ProtocolError::Refused(reason) => say(&["the host refused the head: ", reason]),
            ProtocolError::TooLarge => say(&["more headers, or more bytes in them, than the host allows"]),
            ProtocolError::WriteInIterable => say(&["write was called from within the returned iterable"]),
            ProtocolError::CallOver => say(&["the call is over"]),
        }
    }
}

impl core::error::Error for ProtocolError {}

/// Why a block could not be written, or the input not read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// The client broke off, was too slow, or sent what is not HTTP; says what happened.
    Disconnected(String),
    /// The request body is larger than the host allows.
    TooLarge,
    /// The call that this handle belongs to is over.
    CallOver,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::Disconnected(reason) => {
                f.write_str("the client is gone: ")?;
                f.write_str(reason)
            }
            StreamError::TooLarge => f.write_str("the request body is larger than the host allows"),
            StreamError::CallOver => f.write_str("the call is over"),
        }
    }
}

impl core::error::Error for StreamError {}

#[cfg(feature = "std")]
impl From<StreamError> for std::io::Error {
    fn from(error: StreamError) -> std::io::Error {
        let kind = match error {
            StreamError::Disconnected(_) => std::io::ErrorKind::ConnectionAborted,
            StreamError::TooLarge => std::io::ErrorKind::FileTooLarge,
            StreamError::CallOver => std::io::ErrorKind::BrokenPipe,
        };
        std::io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_converts_with_its_type_name_and_message() {
        fn fails() -> Result<u8> {
            Ok("x".parse::<u8>()?)
        }
        let error = fails().unwrap_err();
        assert_eq!(error.name(), "ParseIntError");
        assert_eq!(error.message(), "invalid digit found in string");
    }

    #[test]
    fn type_names_lose_their_path_but_not_their_arguments() {
        assert_eq!(short_name("Plain"), "Plain");
        assert_eq!(short_name("a::b::Deep"), "Deep");
        assert_eq!(short_name("a::Wrapper<b::Inner>"), "Wrapper<b::Inner>");
    }

    #[test]
    fn a_protocol_error_names_the_header_and_the_rule() {
        let error = ProtocolError::BadHeader { name: "TE".into(), fault: HeaderError::HopByHop };
        assert_eq!(error.to_string(), "bad header 'TE': it is hop-by-hop, which only the server may set");
    }
}
