//! Standard input: the request body, as it arrives, and then the end. A client that is slow makes the program wait.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

use crate::body::RequestBody;
use crate::sandbox::CallState;

/// A program may ask for more; it gets no more at once.
const READ_BYTES_MAX: usize = 256 << 10;

/// All handles that a program opens read from the same body.
#[derive(Clone)]
pub(super) struct Stdin {
    body: Arc<Mutex<RequestBody>>,
    call: Arc<CallState>,
}

impl Stdin {
    pub(super) fn new(body: RequestBody, call: &Arc<CallState>) -> Self {
        Self { body: Arc::new(Mutex::new(body)), call: Arc::clone(call) }
    }

    fn body(&self) -> MutexGuard<'_, RequestBody> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `size` bytes; none at the end.
    fn poll_take(&self, context: &mut Context<'_>, size: usize) -> Poll<std::io::Result<Bytes>> {
        let mut body = self.body();
        match ready!(body.poll_fill(context, &self.call)) {
            Ok(_) => Poll::Ready(Ok(body.take(size.min(READ_BYTES_MAX)))),
            Err(error) => {
                self.call.input_failed(&error);
                Poll::Ready(Err(std::io::Error::other(error)))
            }
        }
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Stdin {
    /// Data, the end and an error are all worth a read.
    async fn ready(&mut self) {
        poll_fn(|context| self.poll_take(context, 0).map(drop)).await;
    }
}

fn taken(taken: std::io::Result<Bytes>) -> StreamResult<Bytes> {
    match taken {
        Ok(bytes) if bytes.is_empty() => Err(StreamError::Closed),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(StreamError::LastOperationFailed(error.into())),
    }
}

#[async_trait]
impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        // Whoever wants to be told when there is more asks `ready`.
        match self.poll_take(&mut Context::from_waker(Waker::noop()), size) {
            Poll::Ready(read) => taken(read),
            Poll::Pending => Ok(Bytes::new()),
        }
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        taken(poll_fn(|context| self.poll_take(context, size)).await)
    }
}

impl AsyncRead for Stdin {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let bytes = ready!(self.poll_take(context, into.remaining()))?;
        into.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}
