//! HTTP/2: many requests at once on one connection, each in a task of its own, with a client's time for each.
//!
//! The connection's own clocks cannot see a client that takes nothing of one response: it says so by opening no window for that
//! stream, while the socket is ready for others. So each stream is watched, and one that stands still is reset alone.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::Drain;
use super::connection::{Connection, Verdict};
use super::serve::until_end;
use crate::account::Memory;
use crate::body::Block;
use crate::error::Error;
use crate::gateway::{Gateway, Reply};

/// What a client may send of a request's body before the guest has read any of it.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same, of all requests of a connection together.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What may be queued of a response beyond the client's window.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that the client resets before they are seen at all (CVE-2023-44487); more end the connection.
const UNSEEN_RESETS_MAX: usize = 20;
/// Streams that are reset since the client broke the rules on them (RUSTSEC-2024-0003); more end the connection.
const FAULTS_MAX: usize = 100;

/// In the drain, how long a client without streams has to go: requests that were under way to us when it was told come in this
/// time.
const LEAVING_TIME: Duration = Duration::from_secs(2);

/// A response goes to the client in pieces of this size: a frame's. What is queued and never taken is small then.
const PIECE_BYTES: usize = 16 << 10;

pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: Arc<Connection>,
    gateway: Arc<Gateway>,
    drain: &Drain,
) -> anyhow::Result<()> {
    let edge = Arc::clone(&connection.edge);
    let service = service_fn(move |request| {
        let gateway = Arc::clone(&gateway);
        async move {
            let stream = STREAM.with(Arc::clone);
            let response = gateway.serve(request, &stream.client).await;
            stream.answered.store(true, Ordering::Relaxed);
            Ok::<_, Infallible>(response.map(|reply| Pieces { reply, rest: Bytes::new(), last: None, stream }))
        }
    });
    let served = http2::Builder::new(Tasks { connection: Arc::clone(&connection) })
        .max_concurrent_streams(edge.streams)
        .max_header_list_size(u32::try_from(edge.request_head_bytes).expect("config bounds the head"))
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(FAULTS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    loop {
        let ordered = tokio::select! {
            ended = until_end(served.as_mut(), |served| served.graceful_shutdown(), &connection, drain) => return Ok(ended?),
            ordered = connection.ordered() => ordered,
            () = overstays(&connection, drain) => return Ok(()),
        };
        match ordered {
            Verdict::Cut => anyhow::bail!("the client gives up more requests than it waits for"),
            Verdict::Leave | Verdict::Tell | Verdict::Stay => served.as_mut().graceful_shutdown(),
        }
    }
}

/// Waits until the client, told in the drain to go, has owed nothing and been owed nothing for [`LEAVING_TIME`]. The connection
/// ends by itself only once the client has answered a ping.
async fn overstays(connection: &Connection, drain: &Drain) {
    drain.begins().await;
    let told = Instant::now();
    loop {
        // A stream that is open may be so for long, and what is left of one that is through, too.
        let since = connection.without_streams_since().map_or_else(Instant::now, |since| since.max(told));
        let until = since + LEAVING_TIME;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until.into()).await;
    }
}

tokio::task_local! {
    /// The stream whose task this is.
    static STREAM: Arc<Stream>;
}

/// One request and its response.
struct Stream {
    /// As the gateway sees it.
    client: Arc<Connection>,
    connection: Arc<Connection>,
    /// Pieces of the body that were handed over.
    pieces: AtomicU64,
    /// The last time that more of the body was asked for, there was none yet: it is the guest that is waited for.
    guest_awaited: AtomicBool,
    /// The response has its head.
    answered: AtomicBool,
    /// The body broke off.
    broken: AtomicBool,
    queue: Arc<Queue>,
}

impl Stream {
    fn open(connection: &Arc<Connection>) -> Arc<Self> {
        connection.stream_opens();
        Arc::new(Self {
            client: Arc::new(connection.stream()),
            connection: Arc::clone(connection),
            pieces: AtomicU64::new(0),
            guest_awaited: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            queue: Arc::new(Queue::of(connection)),
        })
    }

    /// How many pieces the client has been offered, where it is the client that is waited for.
    fn client_awaited(&self) -> Option<u64> {
        let pieces = self.pieces.load(Ordering::Relaxed);
        (pieces > 0 && !self.guest_awaited.load(Ordering::Relaxed)).then_some(pieces)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.stream_closes(*self.answered.get_mut());
    }
}

/// Runs each stream in a task of its own: what runs for one delays neither the others nor the connection.
#[derive(Clone)]
struct Tasks {
    connection: Arc<Connection>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, exchange: F) {
        let stream = Stream::open(&self.connection);
        tokio::spawn(STREAM.scope(Arc::clone(&stream), watch(stream, exchange)));
    }
}

/// Drives the exchange of a stream. When the client takes nothing for `client_idle_time`, or not all by the response's
/// deadline, the exchange is dropped: that resets the stream, and frees what is queued for it.
async fn watch(stream: Arc<Stream>, exchange: impl Future<Output = ()>) {
    let mut exchange = std::pin::pin!(exchange);
    let mut stalled: Option<(u64, Pin<Box<Sleep>>)> = None;
    std::future::poll_fn(|context| {
        if exchange.as_mut().poll(context).is_ready() || stream.broken.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let Some(pieces) = stream.client_awaited() else {
            stalled = None;
            return Poll::Pending;
        };
        if stalled.as_ref().is_none_or(|(before, _)| *before != pieces) {
            let idle = Instant::now() + stream.client.edge.client_idle_time;
            let deadline = stream.client.end_by().map_or(idle, |end_by| idle.min(end_by));
            stalled = Some((pieces, Box::pin(tokio::time::sleep_until(deadline.into()))));
        }
        stalled.as_mut().map_or(Poll::Pending, |(_, timer)| timer.as_mut().poll(context))
    })
    .await;
    if stream.broken.load(Ordering::Relaxed) {
        // What came before the fault is the client's.
        let _ = tokio::time::timeout(stream.client.edge.client_idle_time, stream.queue.emptied()).await;
    }
}

/// The pieces of one response that were handed over and are not yet written.
struct Queue {
    pieces: AtomicU32,
    written: Notify,
    connection: Arc<Connection>,
}

impl Queue {
    fn of(connection: &Arc<Connection>) -> Self {
        Self { pieces: AtomicU32::new(0), written: Notify::new(), connection: Arc::clone(connection) }
    }

    fn push(self: &Arc<Self>, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        if self.pieces.fetch_add(1, Ordering::Relaxed) == 0 {
            self.connection.queue_fills();
        }
        Bytes::from_owner(Queued { bytes, queue: Arc::clone(self) })
    }

    async fn emptied(&self) {
        while self.pieces.load(Ordering::Relaxed) > 0 {
            self.written.notified().await;
        }
    }
}

struct Queued<T> {
    bytes: T,
    queue: Arc<Queue>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Queued<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<T> Drop for Queued<T> {
    fn drop(&mut self) {
        if self.queue.pieces.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.queue.connection.queue_empties();
            self.queue.written.notify_one();
        }
    }
}

/// A response's body, in pieces.
struct Pieces {
    reply: Reply,
    /// Of the block under way, if it has more than one piece.
    rest: Bytes,
    /// For a copy of its last piece.
    last: Option<Memory>,
    stream: Arc<Stream>,
}

impl Pieces {
    fn piece(&mut self) -> Block {
        if self.rest.len() > PIECE_BYTES {
            return Block::hosts(self.rest.split_to(PIECE_BYTES));
        }
        let last = std::mem::take(&mut self.rest);
        // The last piece may be queued for long: it must not keep the whole block, and with it a call's permit.
        match self.last.take() {
            Some(room) => Block::within(room, Bytes::copy_from_slice(&last)),
            None => Block::hosts(last),
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut whole = None;
        if self.rest.is_empty() {
            let frame = self.reply.poll_block(context);
            self.stream.guest_awaited.store(frame.is_pending(), Ordering::Relaxed);
            match std::task::ready!(frame) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(block) if block.len() <= PIECE_BYTES => whole = Some(block),
                    Ok(block) => (self.rest, self.last) = block.into_pieces(PIECE_BYTES),
                    Err(other) => return Poll::Ready(Some(Ok(other.map_data(Block::into_bytes)))),
                },
                // Told of it, hyper would reset the stream at once, and what is queued of the response would be lost.
                Some(Err(_)) => {
                    self.stream.broken.store(true, Ordering::Relaxed);
                    return Poll::Pending;
                }
                None => return Poll::Ready(None),
            }
        }
        self.stream.pieces.fetch_add(1, Ordering::Relaxed);
        let piece = whole.unwrap_or_else(|| self.piece());
        Poll::Ready(Some(Ok(Frame::data(self.stream.queue.push(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked for before the first piece alone, for Content-Length.
        self.reply.size_hint()
    }
}
