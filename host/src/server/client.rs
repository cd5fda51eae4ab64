//! A client's socket. A client that takes nothing for `client_idle_time`, or not all of a response by its deadline, is cut off.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

use super::connection::Connection;

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub(super) struct Client {
    stream: Stream,
    /// Read ahead to see what the client speaks.
    ahead: BytesMut,
    connection: Arc<Connection>,
    /// Runs while the client does not take what is there for it.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// As much as HTTP would read at first.
const AHEAD_BYTES: usize = 8 << 10;

impl Client {
    pub(super) fn new(stream: Stream, connection: Arc<Connection>) -> Self {
        Self { stream, ahead: BytesMut::new(), connection, stalled: None }
    }

    /// What has been read ahead.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads further ahead; false at the end.
    pub(super) async fn look_further(&mut self) -> io::Result<bool> {
        self.ahead.reserve(AHEAD_BYTES);
        Ok(self.stream.read_buf(&mut self.ahead).await? > 0)
    }

    /// Takes so many bytes out of what was read ahead.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.ahead.advance(bytes);
    }

    /// Watches over a write: `written` is what the socket said.
    fn watched<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let connection = &self.connection;
        if written.is_ready() {
            if self.stalled.take().is_some() {
                connection.write_goes_on();
            }
            return written;
        }
        connection.write_stalls();
        let stalled = self.stalled.get_or_insert_with(|| {
            let idle = Instant::now() + connection.edge.client_idle_time;
            let deadline = connection.end_by().map_or(idle, |end_by| idle.min(end_by));
            Box::pin(tokio::time::sleep_until(deadline.into()))
        });
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes too long to take the response")))
    }
}

/// Up to this size the pieces of a response are copied together: the kernel takes one piece quicker than several.
const SMALL_WRITE_BYTES: usize = 1 << 10;

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let bytes = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead.split_to(bytes));
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let written = if length <= SMALL_WRITE_BYTES {
            let mut buffer = [0; SMALL_WRITE_BYTES];
            let mut rest = &mut buffer[..];
            for slice in slices {
                let (into, left) = rest.split_at_mut(slice.len());
                into.copy_from_slice(slice);
                rest = left;
            }
            Pin::new(&mut self.stream).poll_write(context, &buffer[..length])
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(context, slices)
        };
        self.watched(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
