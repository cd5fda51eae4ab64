//! Streams of files: what is written is counted, and nothing goes on after it was taken away.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use super::Space;
use crate::granted::Grip;
use crate::sandbox::AppContext;
use crate::telemetry::RequestId;

fn failed(errno: Errno) -> StreamError {
    StreamError::LastOperationFailed(std::io::Error::from(errno).into())
}

/// What is written to a file that is counted.
pub(super) struct Metered {
    stream: DynOutputStream,
    space: Arc<Space>,
    key: u64,
    /// As the host has it open: a write may be under way to it after the stream is gone.
    file: Option<Arc<File>>,
    /// None at the end of the file.
    position: Option<u64>,
    app: Arc<AppContext>,
    call: RequestId,
}

impl Metered {
    pub(super) fn new(
        stream: DynOutputStream,
        space: Arc<Space>,
        (key, file): (u64, Arc<File>),
        position: Option<u64>,
        app: Arc<AppContext>,
        call: RequestId,
    ) -> Self {
        Self { stream, space, key, file: Some(file), position, app, call }
    }

    fn check(&self) -> StreamResult<()> {
        if self.app.grip.has_files() { Ok(()) } else { Err(failed(Errno::ACCESS)) }
    }

    fn count(&mut self, bytes: usize) -> StreamResult<()> {
        self.check()?;
        let (bytes, space) = (bytes as u64, &self.space);
        let counted = match &mut self.position {
            Some(position) => {
                let end = position.saturating_add(bytes);
                let counted = space.volume.reach(self.key, end, space.quota);
                if counted.is_ok() {
                    *position = end;
                }
                counted
            }
            None => space.volume.append(self.key, bytes, space.quota),
        };
        counted.map_err(|full| {
            space.note(&self.app, Some(self.call), full);
            failed(Errno::NOSPC)
        })
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        // It was not ended in order: what was begun may go on.
        if let Some(file) = self.file.take() {
            drop(self.space.volume.begin(file));
        }
    }
}

#[async_trait]
impl Pollable for Metered {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[async_trait]
impl OutputStream for Metered {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.count(bytes.len())?;
        self.stream.write(bytes)
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.count(bytes.len())?;
        self.stream.blocking_write_and_flush(bytes).await
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.check()?;
        self.stream.check_write()
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
        self.file = None;
    }
}

/// What is read of a file that may be taken away.
pub(super) struct Guarded {
    pub(super) stream: DynInputStream,
    pub(super) grip: Arc<Grip>,
}

#[async_trait]
impl Pollable for Guarded {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[async_trait]
impl InputStream for Guarded {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        match self.grip.has_files() {
            true => self.stream.read(size),
            false => Err(failed(Errno::ACCESS)),
        }
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}
