//! TCP sockets of guests: from the socket over a connection that comes about to an open one.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
use wasmtime::component::{Resource, ResourceTableError};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::{Host, HostTcpSocket, ShutdownType, TcpSocket};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, Pollable, SocketError, SocketResult, subscribe};
use wasmtime_wasi::sockets::WasiSocketsView;

use super::connection::Connection;
use super::log;
use crate::account::Held;
use crate::config::Protocol;
use crate::guest::descriptors::TooMany;
use crate::outbound::policy::{Host as Place, Target};
use crate::outbound::{Counter, Failure, Lease, Outbound};
use crate::sandbox::State;

/// A socket of a guest's.
pub(super) struct Socket {
    pub(super) family: IpAddressFamily,
    pub(super) phase: Phase,
}

pub(super) enum Phase {
    New(New),
    /// Told to connect, and not yet asked what has come of it.
    Connecting(Arc<Connection>),
    Connected(Arc<Connection>),
    Closed(ErrorCode),
}

/// A socket that was told nothing yet but where it begins.
pub(super) struct New {
    pub(super) socket: OwnedFd,
    held: Held,
    is_binding: bool,
}

impl Socket {
    fn new(family: IpAddressFamily, held: Held) -> SocketResult<Self> {
        let domain = match family {
            IpAddressFamily::Ipv4 => AddressFamily::INET,
            IpAddressFamily::Ipv6 => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(domain, SocketType::STREAM, flags, None)?;
        if family == IpAddressFamily::Ipv6 {
            // What looks like IPv6 is no way to an address of IPv4.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        Ok(Self { family, phase: Phase::New(New { socket, held, is_binding: false }) })
    }

    /// Whether it could be told to connect there at all.
    fn may_connect(&self, remote: SocketAddr) -> Result<(), ErrorCode> {
        match &self.phase {
            Phase::New(New { is_binding: false, .. }) => {}
            Phase::New(_) | Phase::Connecting(_) => return Err(ErrorCode::ConcurrencyConflict),
            Phase::Connected(_) => return Err(ErrorCode::InvalidState),
            Phase::Closed(code) => return Err(*code),
        }
        let is_of_family = match (self.family, remote.ip()) {
            (IpAddressFamily::Ipv4, IpAddr::V4(ip)) => !ip.is_broadcast(),
            (IpAddressFamily::Ipv6, IpAddr::V6(ip)) => ip.to_ipv4_mapped().is_none(),
            _ => false,
        };
        let is_somewhere = !remote.ip().is_multicast() && !remote.ip().is_unspecified() && remote.port() != 0;
        if is_of_family && is_somewhere { Ok(()) } else { Err(ErrorCode::InvalidArgument) }
    }

    /// From now on it has no other way than to end.
    fn take_new(&mut self) -> Option<New> {
        match std::mem::replace(&mut self.phase, Phase::Closed(ErrorCode::InvalidState)) {
            Phase::New(new) => Some(new),
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    fn connection(&self) -> Result<&Arc<Connection>, ErrorCode> {
        match &self.phase {
            Phase::Connected(connection) => Ok(connection),
            Phase::Closed(code) => Err(*code),
            Phase::New(_) | Phase::Connecting(_) => Err(ErrorCode::InvalidState),
        }
    }
}

#[async_trait]
impl Pollable for Socket {
    async fn ready(&mut self) {
        if let Phase::Connecting(connection) = &self.phase {
            connection.settled().await;
        }
    }
}

/// The same in the table, where `wasmtime-wasi`'s bindings speak of a type of its own.
pub(super) fn ours(this: &Resource<TcpSocket>) -> Resource<Socket> {
    Resource::new_borrow(this.rep())
}

/// The right to connect: by the address itself, or by one of the names that led to it.
fn lease(outbound: &Arc<Outbound>, names: &[(IpAddr, String)], remote: SocketAddr) -> Result<Lease, Failure> {
    let (ip, port) = (remote.ip().to_canonical(), remote.port());
    let target = |host| Target { protocol: Protocol::Tcp, host, port };
    let by_name = names.iter().filter(|(known, _)| *known == ip).map(|(_, name)| Place::Name(name.clone()));
    let mut failure = None;
    for host in by_name.chain([Place::Address(ip)]) {
        match outbound.lease(target(host), ip) {
            Ok(lease) => return Ok(lease),
            Err(why) => failure = failure.or(Some(why)),
        }
    }
    Err(failure.expect("the address itself was tried"))
}

impl State {
    pub(super) fn socket(&mut self, this: &Resource<TcpSocket>) -> Result<&mut Socket, ResourceTableError> {
        self.table.get_mut(&ours(this))
    }
}

impl tcp_create_socket::Host for State {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        if !self.app.sockets().is_some_and(|outbound| outbound.asks_for(Protocol::Tcp)) {
            return Err(ErrorCode::AccessDenied.into());
        }
        let held = self.descriptor().map_err(|_: TooMany| ErrorCode::NewSocketLimit)?;
        let socket = self.table.push(Socket::new(family, held)?)?;
        Ok(Resource::new_own(socket.rep()))
    }
}

impl Host for State {}

/// Networks and what went wrong in them are `wasmtime-wasi`'s; here is what turns our errors into a guest's.
impl network::Host for State {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.sockets(), error)
    }
}

impl network::HostNetwork for State {
    fn drop(&mut self, this: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets(), this)
    }
}

impl HostTcpSocket for State {
    async fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let local = SocketAddr::from(local);
        let socket = self.socket(&this)?;
        let Phase::New(new) = &mut socket.phase else { return Err(ErrorCode::InvalidState.into()) };
        if new.is_binding {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        // Nowhere in particular, as it is without.
        if !local.ip().is_unspecified() || local.port() != 0 {
            return Err(ErrorCode::AccessDenied.into());
        }
        bind(&new.socket, &local)?;
        new.is_binding = true;
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        match &mut self.socket(&this)?.phase {
            Phase::New(new) if new.is_binding => {
                new.is_binding = false;
                Ok(())
            }
            _ => Err(ErrorCode::NotInProgress.into()),
        }
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let remote = SocketAddr::from(remote);
        self.socket(&this)?.may_connect(remote)?;
        let outbound = self.app.sockets().cloned().ok_or(ErrorCode::AccessDenied)?;
        let lease = lease(&outbound, &self.connections().names, remote).map_err(|failure| {
            log(self, "refused", &remote.to_string(), &failure);
            ErrorCode::AccessDenied
        })?;
        let (app, call) = (Arc::clone(&self.app), self.call.id);
        let socket = self.socket(&this)?;
        let New { socket: descriptor, held, .. } = socket.take_new().ok_or(ErrorCode::InvalidState)?;
        let connection = Connection::begin(descriptor, remote, (lease, held), outbound.connect_time(), (app, call));
        let connection = connection.map_err(|error| {
            let code = ErrorCode::from(error);
            socket.phase = Phase::Closed(code);
            code
        })?;
        socket.phase = Phase::Connecting(Arc::new(connection));
        Ok(())
    }

    fn finish_connect(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let outbound = self.app.sockets().cloned().ok_or(ErrorCode::NotInProgress)?;
        let socket = self.socket(&this)?;
        let Phase::Connecting(connection) = &socket.phase else { return Err(ErrorCode::NotInProgress.into()) };
        let connection = Arc::clone(connection);
        match connection.poll_established() {
            Poll::Pending => return Err(ErrorCode::WouldBlock.into()),
            Poll::Ready(Err(code)) => {
                socket.phase = Phase::Closed(code);
                return Err(code.into());
            }
            Poll::Ready(Ok(())) => socket.phase = Phase::Connected(Arc::clone(&connection)),
        }
        let traffic = self.http.traffic();
        let (input, output) = connection.streams(|| Counter::new(&outbound, &traffic));
        let (input, output): (DynInputStream, DynOutputStream) = (Box::new(input), Box::new(output));
        Ok((self.table.push_child(input, &ours(&this))?, self.table.push_child(output, &ours(&this))?))
    }

    async fn start_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        self.socket(&this)?;
        Err(ErrorCode::AccessDenied.into())
    }

    fn finish_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        self.socket(&this)?;
        Err(ErrorCode::NotInProgress.into())
    }

    fn accept(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.socket(&this)?;
        Err(ErrorCode::InvalidState.into())
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let socket = self.socket(&this)?;
        let address = match &socket.phase {
            Phase::New(new) => SocketAddr::try_from(getsockname(&new.socket)?)?,
            _ => socket.connection()?.with(|stream| stream.local_addr())??,
        };
        // It is bound once it has a port.
        if address.port() == 0 { Err(ErrorCode::InvalidState.into()) } else { Ok(address.into()) }
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let address = self.socket(&this)?.connection()?.with(|stream| stream.peer_addr())??;
        Ok(address.into())
    }

    fn is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        self.socket(&this)?;
        Ok(false)
    }

    fn address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.socket(&this)?.family)
    }

    fn set_listen_backlog_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        match (value, &self.socket(&this)?.phase) {
            (0, _) => Err(ErrorCode::InvalidArgument.into()),
            // It will never listen.
            (_, Phase::New(_)) => Ok(()),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(self.socket(&this)?.keep_alive_enabled()?)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        Ok(self.socket(&this)?.set_keep_alive_enabled(value)?)
    }

    fn keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&this)?.keep_alive_idle_time()?)
    }

    fn set_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(self.socket(&this)?.set_keep_alive_idle_time(value)?)
    }

    fn keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&this)?.keep_alive_interval()?)
    }

    fn set_keep_alive_interval(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(self.socket(&this)?.set_keep_alive_interval(value)?)
    }

    fn keep_alive_count(&mut self, this: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(self.socket(&this)?.keep_alive_count()?)
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        Ok(self.socket(&this)?.set_keep_alive_count(value)?)
    }

    fn hop_limit(&mut self, this: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(self.socket(&this)?.hop_limit()?)
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        Ok(self.socket(&this)?.set_hop_limit(value)?)
    }

    fn receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&this)?.receive_buffer_size()?)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(self.socket(&this)?.set_receive_buffer_size(value)?)
    }

    fn send_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&this)?.send_buffer_size()?)
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(self.socket(&this)?.set_send_buffer_size(value)?)
    }

    fn subscribe(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(&mut self.table, ours(&this))
    }

    fn shutdown(&mut self, this: Resource<TcpSocket>, how: ShutdownType) -> SocketResult<()> {
        self.socket(&this)?.connection()?.shut(how);
        Ok(())
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Socket>::new_own(this.rep()))?;
        Ok(())
    }
}
