//! Listeners and connections: how many, how long a head may take, how slow a client may be, and the drain at the end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Sleep;

use crate::gateway::Gateway;
use crate::guest::client_environ;
use crate::limits::EdgeLimits;

/// Connections that the kernel may hold for us before they are accepted.
const BACKLOG: i32 = 1024;

/// After a failed accept (out of file descriptors, say), the wait before the next.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The host's front: sockets that are bound, and the gateway behind them.
pub struct Server {
    listeners: Vec<TcpListener>,
    gateway: Arc<Gateway>,
    edge: Arc<ArcSwap<EdgeLimits>>,
    connections: Arc<Semaphore>,
    drain: Arc<Drain>,
}

/// Told to all connections at the end: finish what you have, take nothing new.
#[derive(Default)]
struct Drain {
    begun: AtomicBool,
    told: Notify,
}

/// A client's connection, as the gateway sees it.
pub struct Connection {
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub edge: Arc<EdgeLimits>,
    /// REMOTE_ADDR and REMOTE_PORT, packed once for all requests.
    pub environ: Arc<[u8]>,
    began: Instant,
    /// When the response under way has to be through, however slowly it is taken: in nanoseconds since `began`, 0 for none.
    end_by: AtomicU64,
    /// Since when the client owes a request head: in nanoseconds since `began`, plus one; 0 while a request is served.
    head_awaited: AtomicU64,
    /// Something waits for the client to take it: then it owes that first, and [`Client`] has an eye on it.
    write_stalled: AtomicBool,
}

impl Connection {
    /// A response that is still being made is on its way. It is cut off at `deadline`.
    pub fn expect_end_by(&self, deadline: Instant) {
        self.end_by.store(self.nanos(deadline).max(1), Ordering::Relaxed);
    }

    /// A request's head is there; the last response is through.
    pub fn request_arrived(&self) {
        self.end_by.store(0, Ordering::Relaxed);
        self.head_awaited.store(0, Ordering::Relaxed);
    }

    /// The response is through: from now on the client owes the next request.
    pub fn response_ended(&self, now: Instant) {
        self.head_awaited.store(self.nanos(now) + 1, Ordering::Relaxed);
    }

    fn write_stalls(&self) {
        self.write_stalled.store(true, Ordering::Relaxed);
    }

    fn write_goes_on(&self) {
        self.write_stalled.store(false, Ordering::Relaxed);
        if self.head_awaited.load(Ordering::Relaxed) != 0 {
            self.response_ended(Instant::now());
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX - 1)
    }

    /// Whether the client has been owing a request head for longer than it may.
    fn is_overdue(&self, now: Instant) -> bool {
        match self.head_awaited.load(Ordering::Relaxed) {
            _ if self.write_stalled.load(Ordering::Relaxed) => false,
            0 => false,
            since => self.nanos(now).saturating_sub(since) > self.edge.header_time.as_nanos() as u64,
        }
    }

    fn end_by(&self) -> Option<Instant> {
        match self.end_by.load(Ordering::Relaxed) {
            0 => None,
            nanos => self.began.checked_add(Duration::from_nanos(nanos)),
        }
    }
}

impl Server {
    /// Binds all addresses.
    ///
    /// # Errors
    /// Names the address that cannot be had.
    pub fn bind(
        addresses: &[SocketAddr],
        edge: Arc<ArcSwap<EdgeLimits>>,
        gateway: Arc<Gateway>,
    ) -> anyhow::Result<Self> {
        let listeners = addresses
            .iter()
            .map(|address| listen(*address).with_context(|| format!("cannot listen on {address}")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let connections = Arc::new(Semaphore::new(edge.load().connections as usize));
        Ok(Self { listeners, gateway, edge, connections, drain: Arc::default() })
    }

    /// The addresses in use: with port 0, the one that the kernel chose.
    ///
    /// # Errors
    /// Where the kernel does not know its own socket.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves until `shutdown` resolves, then lets calls that run end, at most for `drain_time`. True if all did.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> bool {
        // Every connection holds a sender: when the last is dropped, all are done.
        let (alive, mut all_done) = mpsc::channel::<()>(1);
        let mut accepting = tokio::task::JoinSet::new();
        let roll = Arc::new(Roll::default());
        let roll_calls = tokio::spawn(Arc::clone(&roll).call());
        for listener in self.listeners {
            let acceptor = Acceptor {
                gateway: Arc::clone(&self.gateway),
                edge: Arc::clone(&self.edge),
                connections: Arc::clone(&self.connections),
                drain: Arc::clone(&self.drain),
                roll: Arc::clone(&roll),
                alive: alive.clone(),
            };
            accepting.spawn(acceptor.accept(listener));
        }
        drop(alive);
        shutdown.await;

        accepting.shutdown().await;
        self.drain.begun.store(true, Ordering::SeqCst);
        self.drain.told.notify_waiters();
        let drain_time = self.edge.load().drain_time;
        let drained = tokio::time::timeout(drain_time, all_done.recv()).await.is_ok();
        roll_calls.abort();
        drained
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

struct Acceptor {
    gateway: Arc<Gateway>,
    edge: Arc<ArcSwap<EdgeLimits>>,
    connections: Arc<Semaphore>,
    drain: Arc<Drain>,
    roll: Arc<Roll>,
    alive: mpsc::Sender<()>,
}

impl Acceptor {
    async fn accept(self, listener: TcpListener) {
        loop {
            let permit = Arc::clone(&self.connections).acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, remote)) => self.serve(stream, remote, permit),
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, remote: SocketAddr, permit: OwnedSemaphorePermit) {
        let Ok(local) = stream.local_addr() else { return };
        // Small responses must not wait for the client's acknowledgement of the last.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let connection = Arc::new(Connection {
            remote,
            local,
            edge: self.edge.load_full(),
            environ: client_environ(remote),
            began: Instant::now(),
            end_by: AtomicU64::new(0),
            head_awaited: AtomicU64::new(1),
            write_stalled: AtomicBool::new(false),
        });
        let (gateway, drain, alive) = (Arc::clone(&self.gateway), Arc::clone(&self.drain), self.alive.clone());
        let watched = Arc::clone(&connection);
        let task = tokio::spawn(async move {
            serve_connection(stream, connection, gateway, &drain).await;
            drop((permit, alive));
        });
        self.roll.enter(watched, task.abort_handle());
    }
}

async fn serve_connection(stream: TcpStream, connection: Arc<Connection>, gateway: Arc<Gateway>, drain: &Drain) {
    let edge = Arc::clone(&connection.edge);
    let client = Client { stream, connection: Arc::clone(&connection), stalled: None };
    let service = service_fn(move |request| {
        let (gateway, connection) = (Arc::clone(&gateway), Arc::clone(&connection));
        async move { Ok::<_, std::convert::Infallible>(gateway.serve(request, &connection).await) }
    });
    let served = http1::Builder::new()
        // Not pipeline_flush: with it hyper takes blocks without end from a guest whose client takes none.
        .max_headers(edge.request_headers as usize)
        .max_buf_size(usize::try_from(edge.request_head_bytes).expect("config bounds the head"))
        .serve_connection(TokioIo::new(client), service);
    let mut served = std::pin::pin!(served);
    let mut told = std::pin::pin!(drain.told.notified());
    let mut listening = false;
    let result = std::future::poll_fn(|context| {
        // This runs for every request: asking once to be woken is enough, the task's waker does not change.
        if !listening {
            listening = true;
            let _ = told.as_mut().poll(context);
        }
        if drain.begun.load(Ordering::SeqCst) {
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(context)
    })
    .await;
    if let Err(error) = result {
        tracing::debug!(target: "wasgi::connection", "connection ended: {error}");
    }
}

/// All connections, for the one task that looks for clients that are too slow with a request's head. A timer for each request
/// would cost more than all that this does.
#[derive(Default)]
struct Roll(Mutex<Vec<(Arc<Connection>, AbortHandle)>>);

/// How often the roll is called.
const ROLL_CALL: Duration = Duration::from_millis(250);

impl Roll {
    fn connections(&self) -> MutexGuard<'_, Vec<(Arc<Connection>, AbortHandle)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, connection: Arc<Connection>, task: AbortHandle) {
        self.connections().push((connection, task));
    }

    /// Cuts off who is overdue and forgets who has left, again and again.
    async fn call(self: Arc<Self>) {
        loop {
            tokio::time::sleep(ROLL_CALL).await;
            let now = Instant::now();
            self.connections().retain(|(connection, task)| {
                if connection.is_overdue(now) {
                    task.abort();
                }
                !task.is_finished()
            });
        }
    }
}

/// A client's socket. One that takes nothing for `client_idle_time`, or not all of a response by its deadline, is cut off.
struct Client {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// Runs while the client does not take what is there for it.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Client {
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

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watched(written, context)
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
