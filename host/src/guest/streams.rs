//! Putting something of ours around a stream that a guest was given.

use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

/// Replaces a stream by what is made of it.
pub(super) fn around_input<W: InputStream>(stream: &mut DynInputStream, make: impl FnOnce(DynInputStream) -> W) {
    let inner = std::mem::replace(stream, Box::new(Nothing));
    *stream = Box::new(make(inner));
}

pub(super) fn around_output<W: OutputStream>(stream: &mut DynOutputStream, make: impl FnOnce(DynOutputStream) -> W) {
    let inner = std::mem::replace(stream, Box::new(Nothing));
    *stream = Box::new(make(inner));
}

/// A stream with nothing behind it: for the moment in which one is wrapped, and where one was taken away.
pub(super) struct Nothing;

#[async_trait]
impl Pollable for Nothing {
    async fn ready(&mut self) {}
}

#[async_trait]
impl InputStream for Nothing {
    fn read(&mut self, _: usize) -> StreamResult<Bytes> {
        Err(StreamError::Closed)
    }
}

#[async_trait]
impl OutputStream for Nothing {
    fn write(&mut self, _: Bytes) -> StreamResult<()> {
        Err(StreamError::Closed)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Err(StreamError::Closed)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Err(StreamError::Closed)
    }
}
