//! What apps reach beyond the host: requests and connections to destinations that the operator grants and the app asks for.
//!
//! [`Network`] is the host's side: what is granted at this moment, how names are looked up, which servers are believed.
//! [`Outbound`] is one app's: it opens [`Connection`]s, each to the very address that was judged ([`policy`], [`address`]), and
//! each with a [`Lease`] that ends it when its time is over or its grant is gone. A [`Counter`] counts what goes over
//! them. What is spoken is `guest`'s part.

pub mod address;
mod counter;
mod lease;
pub mod policy;
mod resolve;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) use self::counter::{Counter, TooMuch, Traffic};
pub(crate) use self::lease::{Bounds, Ended, Lease};
use self::policy::{Denied, Host, Rights, Target};
use self::resolve::{Resolve, System};
use crate::account::{Account, Held, Tallied, Tally};
use crate::config::{Config, Destinations, Protocol};
use crate::limits::Limits;

/// The way out, of all apps.
pub struct Network {
    granted: watch::Sender<Arc<Config>>,
    resolver: Arc<dyn Resolve>,
    tls: RwLock<Option<Arc<ClientConfig>>>,
}

/// A configuration as far as it is about the way out, with its files read.
pub struct Plan {
    granted: Arc<Config>,
    tls: Option<Arc<ClientConfig>>,
}

impl Plan {
    /// Reads the certificates of authorities, where anybody may speak TLS.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        let granted = Arc::new(config.clone());
        let all = config.tenants.values().map(|tenant| &tenant.grants).chain([&config.grants]);
        let wants_tls = config.outbound_cafile.is_some() || all.into_iter().any(|grants| grants.outbound.need_tls());
        let tls = wants_tls.then(|| tls::client(config.outbound_cafile.as_deref())).transpose()?;
        Ok(Self { granted, tls })
    }
}

impl Network {
    pub fn new(plan: Plan) -> Arc<Self> {
        Self::with(plan, Arc::new(System::default()))
    }

    fn with(plan: Plan, resolver: Arc<dyn Resolve>) -> Arc<Self> {
        Arc::new(Self { granted: watch::Sender::new(plan.granted), resolver, tls: RwLock::new(plan.tls) })
    }

    /// From now on this is granted. What is under way and no longer granted ends.
    pub fn change(&self, plan: Plan) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = plan.tls;
        self.granted.send_replace(plan.granted);
    }

    fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The way out of one app.
pub struct Outbound {
    app: String,
    asked: Destinations,
    network: Arc<Network>,
    /// Its connections, of all its releases. A name that is being looked up counts as one.
    open: Arc<Tally>,
    /// Its tenant's, which counts them as well.
    account: Arc<Account>,
    connections_max: u32,
    connect_time: Duration,
    time: Duration,
    pub(crate) sent_bytes_max: u64,
    pub(crate) received_bytes_max: u64,
}

impl Outbound {
    /// Connections of the app's former releases count with those of this one.
    pub fn new(
        network: &Arc<Network>,
        app: &str,
        asked: &Destinations,
        limits: &Limits,
        account: &Arc<Account>,
    ) -> Arc<Self> {
        Arc::new(Self {
            app: app.to_owned(),
            asked: asked.clone(),
            network: Arc::clone(network),
            open: account.connections_of(app),
            account: Arc::clone(account),
            connections_max: limits.outbound_connections,
            connect_time: limits.outbound_connect_time,
            time: limits.outbound_time,
            sent_bytes_max: limits.outbound_sent_bytes,
            received_bytes_max: limits.outbound_received_bytes,
        })
    }

    /// What the app may reach at this moment.
    pub(crate) fn rights(&self) -> Rights<'_> {
        let granted = self.network.granted.borrow().outbound_of(&self.app);
        Rights { asked: &self.asked, granted }
    }

    /// Opens a connection within `time`, if that is less than the app's.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        target: Target,
        time: Option<Duration>,
    ) -> Result<Connection, Failure> {
        self.rights().may_ask(&target)?;
        let slot = self.open_slot()?;
        let time = time.map_or(self.connect_time, |time| time.min(self.connect_time));
        let deadline = Instant::now() + self.time;
        let connecting = self.open(&target, time, slot);
        let opened = tokio::time::timeout(time, connecting).await.map_err(|_| Failure::ConnectTime(time))?;
        let (stream, address, slot) = opened?;
        Ok(Connection { stream, lease: Lease::new(self, target, address, deadline, slot) })
    }

    /// The right to a connection over a socket that somebody else has opened, to this very address.
    pub(crate) fn lease(self: &Arc<Self>, target: Target, address: IpAddr) -> Result<Lease, Failure> {
        let rights = self.rights();
        rights.may_ask(&target)?;
        rights.may_reach(&target, address, is_own(address))?;
        let slot = Arc::new(self.slot(None)?);
        let deadline = Instant::now() + self.time;
        Ok(Lease::new(self, target, address, deadline, slot))
    }

    /// The addresses of a name that the app may connect to by TCP.
    pub(crate) async fn look_up(&self, name: String) -> Result<Vec<IpAddr>, Failure> {
        self.rights().may_look_up(&name)?;
        let slot = self.open_slot()?;
        let looking = self.network.resolver.resolve(name, slot);
        let found = tokio::time::timeout(self.connect_time, looking).await;
        found.map_err(|_| Failure::ConnectTime(self.connect_time))?.map_err(Failure::LookUp)
    }

    /// One of the places, with the right to a socket.
    fn open_slot(&self) -> Result<Arc<Slot>, Failure> {
        let held = self.account.take_descriptors(1).ok_or(Failure::Descriptors)?;
        self.slot(Some(held)).map(Arc::new)
    }

    fn slot(&self, held: Option<Held>) -> Result<Slot, Failure> {
        let own = self.open.take(self.connections_max).ok_or(Failure::Busy(self.connections_max))?;
        let tenants_max = self.account.terms().budget.outbound_connections;
        let tenants = self.account.connections().take(tenants_max).ok_or(Failure::TenantBusy(tenants_max))?;
        Ok(Slot { _own: own, _tenants: tenants, _held: held })
    }

    /// How long nothing may move, since the tenant has had more than its rate.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.account.outbound_pause(Instant::now())
    }

    async fn addresses(&self, target: &Target, slot: Arc<Slot>) -> Result<Vec<IpAddr>, Failure> {
        match &target.host {
            Host::Address(address) => Ok(vec![*address]),
            Host::Name(name) => self.network.resolver.resolve(name.clone(), slot).await.map_err(Failure::LookUp),
        }
    }

    /// Looks up, judges, connects. The address that is judged is the one that is connected to: nobody is asked a second time.
    async fn open(
        &self,
        target: &Target,
        time: Duration,
        slot: Arc<Slot>,
    ) -> Result<(TcpStream, IpAddr, Arc<Slot>), Failure> {
        let began = Instant::now();
        let addresses = self.addresses(target, Arc::clone(&slot)).await?;
        let rights = self.rights();
        let mut failure = Failure::LookUp(io::Error::other("the name has no addresses"));
        let mut reachable = Vec::new();
        for address in addresses.into_iter().map(|address| address.to_canonical()) {
            match rights.may_reach(target, address, is_own(address)) {
                Ok(()) if reachable.len() < ADDRESSES_MAX => reachable.push(address),
                Ok(()) => {}
                Err(denied) => failure = denied.into(),
            }
        }
        let count = reachable.len();
        for (tried, address) in reachable.into_iter().enumerate() {
            // An address that does not answer leaves time for those after it.
            let left = time.saturating_sub(began.elapsed()) / u32::try_from(count - tried).unwrap_or(1);
            match tokio::time::timeout(left, TcpStream::connect(SocketAddr::new(address, target.port))).await {
                Ok(Ok(stream)) => {
                    // What is written is meant to go out.
                    stream.set_nodelay(true).map_err(Failure::Connect)?;
                    return Ok((stream, address, slot));
                }
                Ok(Err(error)) => failure = Failure::Connect(error),
                Err(_) => failure = Failure::ConnectTime(time),
            }
        }
        Err(failure)
    }

    /// Speaks TLS on a connection, with the server that the target names.
    pub(crate) async fn encrypt<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        target: &Target,
        time: Duration,
    ) -> Result<TlsStream<S>, Failure> {
        let name = match &target.host {
            Host::Address(address) => ServerName::from(*address),
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|error| Failure::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?,
        };
        let tls = self.network.tls().ok_or_else(|| Failure::Tls(io::Error::other("no authorities are known")))?;
        let shaking = TlsConnector::from(tls).connect(name, stream);
        tokio::time::timeout(time, shaking).await.map_err(|_| Failure::ConnectTime(time))?.map_err(Failure::Tls)
    }

    /// Whether it may ask for anything of this kind at all.
    pub(crate) fn asks_for(&self, protocol: Protocol) -> bool {
        self.asked.speak(protocol)
    }

    pub(crate) fn connect_time(&self) -> Duration {
        self.connect_time
    }
}

/// A connection of an app's, and of its tenant's.
pub(crate) struct Slot {
    _own: Tallied,
    _tenants: Tallied,
    _held: Option<Held>,
}

/// Of a name's addresses so many are tried.
const ADDRESSES_MAX: usize = 8;

/// Whether it is an address of this machine: what listens here may be closed to others by a firewall that connections from here
/// do not pass.
fn is_own(address: IpAddr) -> bool {
    is_owned(&UdpSocket::bind((address, 0)))
}

/// What the kernel's answer means. These two say that it is not; whatever else there is (no descriptors, somebody who
/// lets nobody bind) says nothing: then it is.
fn is_owned(bound: &io::Result<UdpSocket>) -> bool {
    let errno = bound.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw_os_error);
    !matches!(errno, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// An open connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) lease: Lease,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("the app has limits.outbound_connections = {0} already")]
    Busy(u32),
    #[error("its tenant has budget.outbound_connections = {0} already")]
    TenantBusy(u32),
    #[error(
        "its tenant has as many files and connections open as it may: budget.descriptors, or its part of LimitNOFILE"
    )]
    Descriptors,
    #[error("the name cannot be looked up: {0}")]
    LookUp(io::Error),
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("no connection within {0:?} (limits.outbound_connect_time, or less where the guest says so)")]
    ConnectTime(Duration),
    #[error("no TLS: {0}")]
    Tls(io::Error),
}

#[cfg(test)]
mod tests;
