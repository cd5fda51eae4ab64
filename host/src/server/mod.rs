//! Listeners and connections: how many, how long a head may take, how slow a client may be, and the drain at the end.

mod addresses;
mod client;
mod connection;
pub(crate) mod framing;
mod gate;
mod http2;
mod listener;
mod proxy_protocol;
mod roll;
mod serve;
mod tls;

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::config::{Bind, TrustedPeers};
use crate::descriptors::Shares;
use crate::gateway::Gateway;
use crate::limits::EdgeLimits;
use crate::origin::Origin;
use addresses::Addresses;
use client::Client;
pub use connection::Connection;
pub use listener::Inherited;
use listener::{Accepted, Door, Listener};
use roll::Roll;
use serve::Way;
pub use tls::Tls;

/// After a failed accept (out of file descriptors, say), the wait before the next.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The places to listen at, taken: whoever comes waits in the kernel until there is a [`Server`].
pub struct Doors(Vec<Door>);

impl Doors {
    /// Takes them. `certified` says whether there is a certificate.
    ///
    /// # Errors
    /// Names the address that cannot be had.
    pub fn bind(binds: &[Bind], mut inherited: Inherited, certified: bool) -> anyhow::Result<Self> {
        let bind = |bind| Door::bind(bind, binds, &mut inherited, certified);
        binds.iter().map(bind).collect::<anyhow::Result<_>>().map(Self)
    }

    /// The files of Unix sockets that were made.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(Door::path)
    }
}

/// The host's front: sockets that are bound, and the gateway behind them.
pub struct Server {
    listeners: Vec<Listener>,
    gateway: Arc<Gateway>,
    policy: Arc<ArcSwap<Policy>>,
    connections: Arc<Semaphore>,
    /// So many there may be.
    connections_max: usize,
    drain: Arc<Drain>,
}

/// What counts for new connections. A reload replaces it.
pub struct Policy {
    pub limits: Arc<EdgeLimits>,
    pub trusted: Arc<TrustedPeers>,
    /// None where no listener speaks TLS.
    pub tls: Option<Tls>,
}

/// Told to all connections at the end: finish what you have, take nothing new.
#[derive(Default)]
struct Drain {
    begun: AtomicBool,
    told: Notify,
}

impl Drain {
    fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
        self.told.notify_waiters();
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits for the drain to begin.
    async fn begins(&self) {
        let told = self.told.notified();
        if !self.has_begun() {
            told.await;
        }
    }
}

impl Server {
    /// To be called within a tokio runtime.
    ///
    /// # Errors
    /// If the kernel has no room for what waits for the sockets.
    pub fn new(doors: Doors, policy: Arc<ArcSwap<Policy>>, gateway: Arc<Gateway>) -> io::Result<Self> {
        let listeners = doors.0.into_iter().map(Listener::open).collect::<io::Result<Vec<_>>>()?;
        // Never so many that there is no descriptor left for the next: whoever comes then waits in the kernel.
        let connections_max = Shares::of_process(policy.load().limits.connections).clients as usize;
        let connections = Arc::new(Semaphore::new(connections_max));
        Ok(Self { listeners, gateway, policy, connections, connections_max, drain: Arc::default() })
    }

    /// The addresses in use, as a client would write them: with port 0, the one that the kernel chose.
    ///
    /// # Errors
    /// Where the kernel does not know its own socket.
    pub fn addresses(&self) -> io::Result<Vec<String>> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Serves until `shutdown` resolves, then lets calls that run end, at most for `drain_time`. True if all did.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> bool {
        // Every connection holds a sender: when the last is dropped, all are done.
        let (alive, mut all_done) = mpsc::channel::<()>(1);
        let roll = Arc::new(Roll::default());
        let roll_calls = tokio::spawn(Arc::clone(&roll).call());
        let acceptor = Acceptor {
            listeners: self.listeners,
            gateway: self.gateway,
            policy: Arc::clone(&self.policy),
            connections: self.connections,
            connections_max: self.connections_max,
            addresses: Arc::default(),
            drain: Arc::clone(&self.drain),
            roll,
            alive,
        };
        let accepting = tokio::spawn(acceptor.accept());
        shutdown.await;

        accepting.abort();
        // With it the listeners are closed.
        let _ = accepting.await;
        self.drain.begin();
        let drain_time = self.policy.load().limits.drain_time;
        let drained = tokio::time::timeout(drain_time, all_done.recv()).await.is_ok();
        roll_calls.abort();
        drained
    }
}

/// Accepts what comes to any of the listeners. One task for all: a place among the connections is had before one is accepted,
/// and listeners to which nobody comes must not keep places from the others.
struct Acceptor {
    listeners: Vec<Listener>,
    gateway: Arc<Gateway>,
    policy: Arc<ArcSwap<Policy>>,
    connections: Arc<Semaphore>,
    connections_max: usize,
    addresses: Arc<Addresses>,
    drain: Arc<Drain>,
    roll: Arc<Roll>,
    alive: mpsc::Sender<()>,
}

impl Acceptor {
    async fn accept(self) {
        // The listener that is asked first, in turn, so that a busy one does not keep the others waiting.
        let mut first = 0;
        loop {
            let permit = Arc::clone(&self.connections).acquire_owned().await.expect("the semaphore is never closed");
            let (at, accepted) = std::future::poll_fn(|context| self.poll_accept(first, context)).await;
            first = at + 1;
            match accepted {
                Ok(accepted) => self.serve(&self.listeners[at], accepted, permit),
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// The number of the listener to which somebody came.
    fn poll_accept(&self, first: usize, context: &mut Context<'_>) -> Poll<(usize, io::Result<Accepted>)> {
        for turn in 0..self.listeners.len() {
            let at = (first + turn) % self.listeners.len();
            if let Poll::Ready(accepted) = self.listeners[at].poll_accept(context) {
                return Poll::Ready((at, accepted));
            }
        }
        Poll::Pending
    }

    fn serve(&self, listener: &Listener, (stream, remote, local): Accepted, permit: OwnedSemaphorePermit) {
        let policy = self.policy.load();
        // A proxy has its clients' connections.
        let client = remote.map(|remote| remote.ip()).filter(|peer| !policy.trusted.trusts_peer(Some(*peer)));
        let of_one = policy.limits.connections_per_address;
        let counted = client.map(|client| self.addresses.enter(client, of_one, self.connections_max));
        if let Some(None) = counted {
            return;
        }
        let way = Way { tls: policy.tls.clone().filter(|_| listener.tls), proxied: listener.proxied };
        let origin = Origin::of_connection(remote, local, way.tls.is_some());
        let connection = Arc::new(Connection::new(origin, &policy));
        let (gateway, drain, alive) = (Arc::clone(&self.gateway), Arc::clone(&self.drain), self.alive.clone());
        let watched = Arc::clone(&connection);
        let task = tokio::spawn(async move {
            let client = Client::new(stream, Arc::clone(&connection));
            serve::serve(client, connection, way, gateway, &drain).await;
            drop((permit, counted, alive));
        });
        self.roll.enter(watched, task.abort_handle());
    }
}
