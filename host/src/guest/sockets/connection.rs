//! Connections of guests: what goes over them is counted, and each is closed when its time is over or its grant is
//! gone. The socket is the host's, whatever the guest has of it then. As long as it is open it has its place among
//! those that the app may have.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;
use wasmtime_wasi::p2::bindings::sockets::tcp::ShutdownType;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::lock;
use crate::account::Held;
use crate::outbound::{Bounds, Counter, Ended, Lease, Slot, TooMuch};
use crate::sandbox::AppContext;
use crate::telemetry::RequestId;

/// What is read, or taken to be written, at once.
const CHUNK_BYTES: usize = 64 << 10;

/// A connection, from when it is asked for. Dropping it closes it: the socket and its streams share it.
pub(super) struct Connection {
    wire: Arc<Wire>,
    _watch: AbortOnDropJoinHandle<()>,
}

/// What the connection's streams and its watch both need.
struct Wire {
    /// None once it is closed.
    open: Mutex<Option<Open>>,
    /// The guest knows that it has come about.
    is_established: AtomicBool,
    /// Why it was closed, where the guest has not done it.
    cut: OnceLock<Cut>,
    changed: Notify,
}

struct Open {
    /// The first to go: what follows is the right to it.
    stream: TcpStream,
    /// What the guest has written and the kernel has not taken yet.
    unsent: Bytes,
    /// Nothing more is read; nothing more is written.
    is_read: bool,
    is_written: bool,
    _slot: Arc<Slot>,
    _held: Held,
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Cut {
    #[error("it did not come about in time")]
    Late,
    #[error(transparent)]
    Ended(Ended),
}

impl Cut {
    fn code(self) -> ErrorCode {
        match self {
            Self::Late | Self::Ended(Ended::Time(_)) => ErrorCode::Timeout,
            Self::Ended(Ended::Revoked) => ErrorCode::AccessDenied,
        }
    }
}

impl Connection {
    /// Begins to connect a socket that does not block, to where its lease says.
    pub(super) fn begin(
        socket: OwnedFd,
        remote: SocketAddr,
        (lease, held): (Lease, Held),
        connect_time: Duration,
        (app, call): (Arc<AppContext>, RequestId),
    ) -> io::Result<Self> {
        match rustix::net::connect(&socket, &remote) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from_std(std::net::TcpStream::from(socket))?;
        let Lease { bounds, slot } = lease;
        let open = Open { stream, unsent: Bytes::new(), is_read: false, is_written: false, _slot: slot, _held: held };
        let wire = Arc::new(Wire {
            open: Mutex::new(Some(open)),
            is_established: AtomicBool::new(false),
            cut: OnceLock::new(),
            changed: Notify::new(),
        });
        let watched = Arc::clone(&wire);
        let watch = spawn(async move {
            let cut = watched.has_to_end(bounds, connect_time).await;
            watched.close(Some(cut));
            if let Cut::Ended(ended) = cut {
                app.note(Some(call), format!("ended an outgoing connection ({remote}): {ended}"));
            }
        });
        Ok(Self { wire, _watch: watch })
    }

    /// Ready when it has come about, or never will.
    pub(super) async fn settled(&self) {
        let writable = |context: &mut Context<'_>| match &*lock(&self.wire.open) {
            Some(open) => open.stream.poll_write_ready(context).map(drop),
            None => Poll::Ready(()),
        };
        tokio::select! {
            () = self.wire.is_cut() => {}
            () = std::future::poll_fn(writable) => {}
        }
    }

    /// Whether it has come about.
    pub(super) fn poll_established(&self) -> Poll<Result<(), ErrorCode>> {
        let asked = self.with(|stream| (stream.take_error(), stream.peer_addr()));
        match asked {
            Err(code) => Poll::Ready(Err(code)),
            Ok((Ok(Some(error)) | Err(error), _)) => Poll::Ready(Err(error.into())),
            Ok((Ok(None), Err(_))) => Poll::Pending,
            Ok((Ok(None), Ok(_))) => {
                self.wire.is_established.store(true, Relaxed);
                Poll::Ready(Ok(()))
            }
        }
    }

    pub(super) fn streams(self: &Arc<Self>, counter: impl Fn() -> Counter) -> (Reader, Writer) {
        let reader = Reader { connection: Arc::clone(self), counter: counter() };
        (reader, Writer { connection: Arc::clone(self), counter: counter(), permit: 0, sending: None })
    }

    /// What the kernel says of it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&TcpStream) -> T) -> Result<T, ErrorCode> {
        self.wire.with(|open| act(&open.stream)).map_err(|cut| cut.map_or(ErrorCode::InvalidState, Cut::code))
    }

    /// Ends one direction, or both; what was written before still goes out.
    pub(super) fn shut(&self, how: ShutdownType) {
        // One that is closed is shut.
        let _ = self.wire.with(|open| {
            if matches!(how, ShutdownType::Receive | ShutdownType::Both) {
                open.is_read = true;
                let _ = SockRef::from(&open.stream).shutdown(Shutdown::Read);
            }
            if matches!(how, ShutdownType::Send | ShutdownType::Both) {
                open.is_written = true;
                // Else when that is sent.
                if open.unsent.is_empty() {
                    let _ = SockRef::from(&open.stream).shutdown(Shutdown::Write);
                }
            }
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.wire.close(None);
    }
}

impl Wire {
    fn with<T>(&self, act: impl FnOnce(&mut Open) -> T) -> Result<T, Option<Cut>> {
        lock(&self.open).as_mut().map(act).ok_or_else(|| self.cut.get().copied())
    }

    /// The same for a stream.
    fn stream<T>(&self, act: impl FnOnce(&mut Open) -> StreamResult<T>) -> StreamResult<T> {
        self.with(act).map_err(|cut| match cut {
            Some(cut) => failed(io::Error::new(ErrorKind::ConnectionAborted, cut)),
            None => StreamError::Closed,
        })?
    }

    /// Resolves when the connection has to end.
    async fn has_to_end(&self, bounds: Bounds, connect_time: Duration) -> Cut {
        let late = async {
            tokio::time::sleep(connect_time).await;
            let has_come_about = |open: &mut Open| open.stream.peer_addr().is_ok();
            // One that has may be broken by now: the guest reads what came before that.
            if self.is_established.load(Relaxed) || self.with(has_come_about).unwrap_or(true) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = bounds.ended() => Cut::Ended(ended),
            () = late => Cut::Late,
        }
    }

    /// Closes the socket, and so gives back what it had. One that is cut is reset: what is on its way does not arrive.
    fn close(&self, cut: Option<Cut>) {
        let mut open = lock(&self.open);
        if let Some(cut) = cut {
            let _ = self.cut.set(cut);
            if let Some(open) = &*open {
                let _ = open.stream.set_zero_linger();
            }
        }
        *open = None;
        drop(open);
        self.changed.notify_waiters();
    }

    async fn is_cut(&self) {
        let changed = self.changed.notified();
        if self.cut.get().is_none() {
            changed.await;
        }
    }

    /// Ready when all that was written is the kernel's.
    fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.open).as_mut().map_or(Poll::Ready(Ok(())), |open| open.poll_send(context))
    }
}

impl Open {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(bytes) => self.unsent.advance(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(self.stream.poll_write_ready(context))?,
                Err(error) => {
                    self.unsent.clear();
                    return Poll::Ready(Err(error));
                }
            }
        }
        if self.is_written {
            let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
        }
        Poll::Ready(Ok(()))
    }
}

fn failed(error: io::Error) -> StreamError {
    StreamError::LastOperationFailed(error.into())
}

fn too_much(error: TooMuch) -> StreamError {
    failed(io::Error::other(error))
}

/// What comes.
pub(super) struct Reader {
    connection: Arc<Connection>,
    counter: Counter,
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        let Self { connection, counter } = self;
        let wire = &connection.wire;
        let readable = |context: &mut Context<'_>| match &*lock(&wire.open) {
            Some(open) if !open.is_read => open.stream.poll_read_ready(context).map(drop),
            _ => Poll::Ready(()),
        };
        tokio::select! {
            () = wire.is_cut() => {}
            () = async {
                std::future::poll_fn(readable).await;
                std::future::poll_fn(|context| counter.poll_free(context)).await;
            } => {}
        }
    }
}

#[async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.connection.wire.stream(|open| {
            if open.is_read {
                return Err(StreamError::Closed);
            }
            // Nothing yet: it is to wait until there is something.
            if size == 0 || self.counter.is_held_up() {
                return Ok(Bytes::new());
            }
            let mut buffer = BytesMut::zeroed(size.min(CHUNK_BYTES));
            let bytes = match open.stream.try_read(&mut buffer) {
                Ok(0) => {
                    open.is_read = true;
                    return Err(StreamError::Closed);
                }
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(failed(error)),
            };
            self.counter.receive(bytes).map_err(too_much)?;
            buffer.truncate(bytes);
            Ok(buffer.freeze())
        })
    }
}

/// What goes.
pub(super) struct Writer {
    connection: Arc<Connection>,
    counter: Counter,
    /// So many bytes may be written now.
    permit: usize,
    /// Moves what the kernel did not take at once: it goes out whether or not the guest asks again.
    sending: Option<AbortOnDropJoinHandle<()>>,
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        let Self { connection, counter, sending, .. } = self;
        let wire = &connection.wire;
        let writable = |context: &mut Context<'_>| match &*lock(&wire.open) {
            Some(open) => open.stream.poll_write_ready(context).map(drop),
            None => Poll::Ready(()),
        };
        tokio::select! {
            () = wire.is_cut() => {}
            () = async {
                if let Some(task) = sending {
                    task.await;
                    *sending = None;
                }
                std::future::poll_fn(writable).await;
                std::future::poll_fn(|context| counter.poll_free(context)).await;
            } => {}
        }
    }
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > self.permit {
            return Err(StreamError::Trap(wasmtime::format_err!("{} bytes were not asked for", bytes.len())));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.permit = 0;
        let wire = &self.connection.wire;
        let sent = wire.stream(|open| {
            if open.is_written {
                return Err(StreamError::Closed);
            }
            self.counter.send_all(bytes.len()).map_err(too_much)?;
            open.unsent = bytes;
            Ok(open.poll_send(&mut Context::from_waker(Waker::noop())))
        })?;
        match sent {
            Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::BrokenPipe => Err(StreamError::Closed),
            Poll::Ready(Err(error)) => Err(failed(error)),
            Poll::Pending => {
                let wire = Arc::clone(wire);
                self.sending = Some(spawn(async move {
                    // The next that is written meets what has broken it.
                    let _ = std::future::poll_fn(|context| wire.poll_send(context)).await;
                }));
                Ok(())
            }
        }
    }

    /// What is written goes out as soon as it can.
    fn flush(&mut self) -> StreamResult<()> {
        self.connection.wire.stream(|_| Ok(()))
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.sending.take_if(|sending| sending.is_finished());
        let waits = self.sending.is_some() || self.counter.is_held_up();
        let is_writable = self.connection.wire.stream(|open| {
            if open.is_written {
                return Err(StreamError::Closed);
            }
            Ok(!waits && open.stream.poll_write_ready(&mut Context::from_waker(Waker::noop())).is_ready())
        })?;
        self.permit = if is_writable { CHUNK_BYTES } else { 0 };
        Ok(self.permit)
    }

    /// What a guest has written before it drops the stream arrives.
    async fn cancel(&mut self) {
        let Some(sending) = &mut self.sending else { return };
        tokio::select! {
            () = self.connection.wire.is_cut() => {}
            () = sending => {}
        }
    }
}
