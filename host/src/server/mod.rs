//! Listeners and connections: how many, how long a head may take, how slow a client may be, and the drain at the end.

mod client;
mod connection;
mod roll;
mod serve;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::gateway::Gateway;
use crate::limits::EdgeLimits;
use crate::origin::Origin;
use client::Client;
pub use connection::Connection;
use roll::Roll;

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
        let origin = Origin::of_connection(Some(remote), Some(local), false);
        let connection = Arc::new(Connection::new(origin, self.edge.load_full()));
        let (gateway, drain, alive) = (Arc::clone(&self.gateway), Arc::clone(&self.drain), self.alive.clone());
        let watched = Arc::clone(&connection);
        let task = tokio::spawn(async move {
            let client = Client::new(stream, Arc::clone(&connection));
            serve::serve_connection(client, connection, gateway, &drain).await;
            drop((permit, alive));
        });
        self.roll.enter(watched, task.abort_handle());
    }
}
