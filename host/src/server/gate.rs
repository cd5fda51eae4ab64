//! Between a client and hyper: heads go through whole, one at a time, and checked ([`Framing`]); a client that is refused, or
//! too slow with its head, gets an answer that says so before it is closed.
//!
//! Since hyper is never given a piece of a head, nor a head before the response under way is through, it always waits for bytes
//! while a guest runs, and so sees that a client is gone. One that has only stopped sending gets its response first.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::connection::Connection;
use super::framing::{Framing, Refused};
use crate::error::Error;
use crate::gateway::Gateway;

pub(super) struct Gate<S> {
    client: S,
    connection: Arc<Connection>,
    gateway: Arc<Gateway>,
    framing: Framing,
    /// Received, and not yet given to hyper.
    held: BytesMut,
    /// So many of them may go.
    admitted: usize,
    end: Option<End>,
    /// What the client is told before the connection is closed.
    last_words: Bytes,
    closing: Closing,
}

/// Why nothing more is read from the client.
enum End {
    /// It has stopped sending. While a response is on its way, so long may nothing of it be sent.
    Finished(Pin<Box<Sleep>>),
    Refused(Box<Refused>),
    /// hyper knows.
    Told,
}

enum Closing {
    Speaks,
    ShutsDown,
    /// What the client still sends is thrown away for a while: closing at once would reset the connection, and with it what
    /// the client was told (RFC 9112 §9.6).
    Lingers(Pin<Box<Sleep>>),
    Closed,
}

const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_READ_BYTES: usize = 4 << 10;

impl<S> Gate<S> {
    pub(super) fn new(client: S, connection: Arc<Connection>, gateway: Arc<Gateway>) -> Self {
        Self {
            framing: Framing::new(&connection.edge),
            client,
            connection,
            gateway,
            held: BytesMut::new(),
            admitted: 0,
            end: None,
            last_words: Bytes::new(),
            closing: Closing::Speaks,
        }
    }

    /// Whether the next byte begins a request that has to wait: hyper asks no more whether its client is gone when it has one.
    fn next_waits(&self) -> bool {
        self.admitted == 0 && self.framing.is_between_requests() && !self.connection.owes_nothing()
    }

    /// Whether enough is held of what has to wait.
    fn is_full(&self) -> bool {
        self.held.len() as u64 >= self.connection.edge.request_head_bytes
    }

    /// Gives hyper what is held and may go: how much that was.
    fn release(&mut self, buffer: &mut ReadBuf<'_>) -> Result<usize, Box<Refused>> {
        if self.admitted == 0 {
            self.admitted = admit(&mut self.framing, &self.connection, &self.held)?;
        }
        let bytes = self.admitted.min(buffer.remaining());
        buffer.put_slice(&self.held.split_to(bytes));
        self.admitted -= bytes;
        if self.held.is_empty() {
            // Idle connections hold nothing.
            self.held = BytesMut::new();
        }
        Ok(bytes)
    }

    /// Keeps back what may not go yet of the bytes that were read into hyper's buffer: how many may.
    fn sift(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> Result<usize, Box<Refused>> {
        let read = &buffer.filled()[before..];
        if !self.held.is_empty() || self.next_waits() {
            self.held.extend_from_slice(read);
            buffer.set_filled(before);
            return if self.next_waits() { Ok(0) } else { self.release(buffer) };
        }
        let admitted = admit(&mut self.framing, &self.connection, read);
        let passes = *admitted.as_ref().unwrap_or(&0);
        self.held.extend_from_slice(&read[passes..]);
        buffer.set_filled(before + passes);
        admitted
    }

    /// The client's last byte was read, or its last that counts: ready when hyper is to know.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let owes_nothing = self.connection.owes_nothing();
        match &mut self.end {
            Some(End::Refused(refused)) if owes_nothing => {
                let Refused { error, method, target } = &**refused;
                self.last_words = self.gateway.refuse(error, method, target, &self.connection);
            }
            Some(End::Finished(_)) if owes_nothing => {}
            // A response is on its way, and goes first.
            Some(End::Refused(_)) => {
                self.connection.hold_end();
                return Poll::Pending;
            }
            Some(End::Finished(patience)) => {
                self.connection.hold_end();
                ready!(patience.as_mut().poll(context));
            }
            None | Some(End::Told) => {}
        }
        self.end = Some(End::Told);
        Poll::Ready(())
    }

    /// Nothing more came. Ready if that has lasted too long.
    fn poll_overdue(&mut self) -> Poll<()> {
        if !(self.connection.was_told_overdue() && self.connection.owes_nothing()) {
            return Poll::Pending;
        }
        // Who waits with its next request is not waited for, and needs not be told.
        if self.connection.is_new() || !self.held.is_empty() {
            let error = Error::HeadTooSlow(self.connection.edge.header_time);
            self.last_words = self.gateway.refuse(&error, "", "", &self.connection);
        }
        self.end = Some(End::Told);
        Poll::Ready(())
    }

    /// Whether the client may be sending what nobody will read.
    fn may_be_interrupted(&self) -> bool {
        !(self.framing.is_between_requests() && self.held.is_empty())
    }

    fn patience(&self) -> Instant {
        Instant::now() + self.connection.edge.half_closed_time
    }

    /// Something was sent: whoever has stopped sending still takes what it asked for.
    fn sent<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let deadline = self.patience();
        if let (Poll::Ready(Ok(_)), Some(End::Finished(patience))) = (&written, &mut self.end) {
            patience.as_mut().reset(deadline);
        }
        written
    }
}

fn admit(framing: &mut Framing, connection: &Connection, bytes: &[u8]) -> Result<usize, Box<Refused>> {
    let is_head = framing.is_between_requests();
    let admitted = framing.admit(bytes)?;
    if is_head && admitted > 0 {
        connection.head_given();
    }
    Ok(admitted)
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = &mut *self;
        loop {
            let is_over = matches!(gate.end, Some(End::Refused(_) | End::Told));
            let waits = gate.next_waits();
            let mut passed = if is_over || waits || gate.held.is_empty() { Ok(0) } else { gate.release(buffer) };
            if let Ok(0) = passed {
                match &gate.end {
                    // The rest of a body does not come.
                    Some(End::Finished(_)) if !gate.framing.is_between_requests() => return Poll::Ready(Ok(())),
                    Some(_) => return gate.poll_end(context).map(Ok),
                    None => {}
                }
                if waits && !gate.held.is_empty() {
                    gate.connection.hold_end();
                    if gate.is_full() {
                        return Poll::Pending;
                    }
                }
                let before = buffer.filled().len();
                match Pin::new(&mut gate.client).poll_read(context, buffer)? {
                    Poll::Pending => return gate.poll_overdue().map(Ok),
                    Poll::Ready(()) if buffer.filled().len() > before => passed = gate.sift(buffer, before),
                    // The rest of a body does not come.
                    Poll::Ready(()) if !gate.framing.is_between_requests() => return Poll::Ready(Ok(())),
                    Poll::Ready(()) => {
                        gate.end = Some(End::Finished(Box::pin(tokio::time::sleep_until(gate.patience()))));
                    }
                }
            }
            match passed {
                Ok(0) => {}
                Ok(_) => return Poll::Ready(Ok(())),
                Err(refused) => gate.end = Some(End::Refused(refused)),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.client).poll_write(context, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.client).poll_write_vectored(context, slices);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.client.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = &mut *self;
        loop {
            match &mut gate.closing {
                Closing::Speaks if gate.last_words.has_remaining() => {
                    let bytes = ready!(Pin::new(&mut gate.client).poll_write(context, &gate.last_words))?;
                    gate.last_words.advance(bytes);
                }
                Closing::Speaks => gate.closing = Closing::ShutsDown,
                Closing::ShutsDown => {
                    ready!(Pin::new(&mut gate.client).poll_shutdown(context))?;
                    gate.closing = if gate.may_be_interrupted() {
                        Closing::Lingers(Box::pin(tokio::time::sleep(LINGER_TIME)))
                    } else {
                        Closing::Closed
                    };
                }
                Closing::Lingers(patience) => {
                    let mut bytes = [0; LINGER_READ_BYTES];
                    let mut thrown_away = ReadBuf::new(&mut bytes);
                    let read = Pin::new(&mut gate.client).poll_read(context, &mut thrown_away);
                    let is_over = match read {
                        Poll::Pending => {
                            ready!(patience.as_mut().poll(context));
                            true
                        }
                        Poll::Ready(read) => read.is_err() || thrown_away.filled().is_empty(),
                    };
                    // A client that never pauses is not read for ever.
                    if is_over || patience.is_elapsed() || patience.deadline() < Instant::now() {
                        gate.closing = Closing::Closed;
                    }
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}
