//! Listeners and connections: how many, how long a head may take, how slow a client may be, and the drain at the end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;

use crate::gateway::Gateway;
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
    began: Instant,
    /// When the response under way has to be through, however slowly it is taken: in nanoseconds since `began`, 0 for none.
    end_by: AtomicU64,
}

impl Connection {
    /// A response that is still being made is on its way. It is cut off at `deadline`.
    pub fn expect_end_by(&self, deadline: Instant) {
        let nanos = deadline.saturating_duration_since(self.began).as_nanos();
        self.end_by.store(u64::try_from(nanos).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// A new request has arrived: the last response is through.
    pub fn expect_nothing(&self) {
        self.end_by.store(0, Ordering::Relaxed);
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
        for listener in self.listeners {
            let acceptor = Acceptor {
                gateway: Arc::clone(&self.gateway),
                edge: Arc::clone(&self.edge),
                connections: Arc::clone(&self.connections),
                drain: Arc::clone(&self.drain),
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
        tokio::time::timeout(drain_time, all_done.recv()).await.is_ok()
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
            began: Instant::now(),
            end_by: AtomicU64::new(0),
        });
        let (gateway, drain, alive) = (Arc::clone(&self.gateway), Arc::clone(&self.drain), self.alive.clone());
        tokio::spawn(async move {
            serve_connection(stream, connection, gateway, &drain).await;
            drop((permit, alive));
        });
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
        .timer(TokioTimer::new())
        .header_read_timeout(edge.header_time)
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
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let connection = &self.connection;
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
