//! The connection of a request, below TLS: all that goes over it is counted, whatever it is part of, and held up above
//! the tenant's rate.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::outgoing::{Notes, Why};
use crate::outbound::{Counter, TooMuch};

pub(super) struct Counted {
    stream: TcpStream,
    counter: Counter,
    notes: Arc<Notes>,
}

impl Counted {
    pub(super) fn new(stream: TcpStream, counter: Counter, notes: Arc<Notes>) -> Self {
        Self { stream, counter, notes }
    }

    /// Breaks the connection: noted first, since whoever speaks over it only learns that it is broken.
    fn stop(&self, why: TooMuch) -> io::Error {
        self.notes.stop(Why::TooMuch(why));
        io::Error::other(why)
    }

    /// Writes as many of the bytes as may be sent.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        bytes: usize,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>, usize) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.counter.poll_free(context));
        let taken = self.counter.send(bytes).map_err(|why| self.stop(why))?;
        let written = write(Pin::new(&mut self.stream), context, taken);
        let sent = if let Poll::Ready(Ok(sent)) = &written { *sent } else { 0 };
        self.counter.sent(taken, sent);
        written
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.counter.poll_free(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let bytes = buffer.filled().len() - before;
        Poll::Ready(this.counter.receive(bytes).map_err(|why| this.stop(why)))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(context, bytes.len(), |stream, context, taken| stream.poll_write(context, &bytes[..taken]))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.poll_send(context, bytes, |stream, context, taken| {
            if taken == bytes {
                return stream.poll_write_vectored(context, slices);
            }
            // The last that may go: the rest is met by the next write.
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| &**slice);
            stream.poll_write(context, &first[..first.len().min(taken)])
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
