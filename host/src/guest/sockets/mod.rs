//! `wasi:sockets` of WASI 0.2 for apps that may connect: TCP connections to what is granted, and look-ups of the names in it.
//!
//! Sockets are `wasmtime-wasi`'s. Here it is judged where they go; what goes over them is counted, and ends with its time or its
//! grant. UDP and listening stay refused, and for WASI 0.3 all of it.

mod dial;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::{HostTcpSocket, TcpSocket};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, InputStream, OutputStream, Pollable, SocketResult, StreamError,
    StreamResult, subscribe,
};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSockets, WasiSocketsView};
use wasmtime_wasi::{WasiCtxBuilder, async_trait};

use self::dial::Dial;
use super::descriptors::TooMany;
use crate::account::Held;
use crate::config::{Protocol, host_name};
use crate::guest::streams::{around_input, around_output};
use crate::outbound::policy::{Host, Target};
use crate::outbound::{Brake, Ended, Failure, Lease, Outbound, Traffic};
use crate::sandbox::State;
use crate::telemetry::{LogStream, printable};

/// In the version that `wasmtime-wasi` offers: what is linked under another would hide the rest of it.
const TCP: &str = "wasi:sockets/tcp@0.2.12";
const TCP_CREATE: &str = "wasi:sockets/tcp-create-socket@0.2.12";
const LOOK_UP: &str = "wasi:sockets/ip-name-lookup@0.2.12";

/// Names that a sandbox may know the addresses of. Whoever looks up more has forgotten the first.
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 253;

/// What a sandbox knows of its connections.
#[derive(Default)]
pub(crate) struct Sockets {
    /// Which names led to which addresses: they are granted by name.
    names: Vec<(IpAddr, String)>,
    /// Sockets that were told to connect, and may.
    connecting: Vec<Dial>,
    /// The same by address, for `wasmtime-wasi` to ask before it connects.
    allowed: Allowed,
    /// The right to each socket, by its index in the table. Streams of a connection share it.
    held: HashMap<u32, Arc<Held>>,
}

/// Addresses that were judged.
type Allowed = Arc<Mutex<Vec<SocketAddr>>>;

/// Lets a sandbox connect to what is judged before, and to nothing else.
pub(crate) fn allow(builder: &mut WasiCtxBuilder, sockets: &Sockets) {
    let allowed = Arc::clone(&sockets.allowed);
    builder.allow_tcp(true).socket_addr_check(move |address, usage| {
        let is_allowed = match usage {
            SocketAddrUse::TcpConnect => lock(&allowed).contains(&address),
            // Before it connects, a socket is bound to no address in particular.
            SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
            _ => false,
        };
        Box::pin(std::future::ready(is_allowed))
    });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that holds the lock can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Offers what is different from `wasmtime-wasi`'s.
pub(crate) fn link_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(TCP_CREATE)?.func_wrap(
        "create-tcp-socket",
        |mut store: StoreContextMut<'_, State>, (family,): (IpAddressFamily,)| {
            Ok((settled(create_socket(store.data_mut(), family))?,))
        },
    )?;
    let mut tcp = linker.instance(TCP)?;
    tcp.resource("tcp-socket", ResourceType::host::<TcpSocket>(), |mut store, index| {
        let state: &mut State = store.data_mut();
        HostTcpSocket::drop(&mut state.sockets(), Resource::new_own(index))?;
        if let Some(sockets) = state.dialling() {
            sockets.held.remove(&index);
        }
        Ok(())
    })?;
    tcp.func_wrap(
        "[method]tcp-socket.start-connect",
        |mut store: StoreContextMut<'_, State>,
         (this, network, address): (Resource<TcpSocket>, Resource<Network>, IpSocketAddress)| {
            Ok((settled(start_connect(store.data_mut(), this, network, address))?,))
        },
    )?;
    tcp.func_wrap(
        "[method]tcp-socket.finish-connect",
        |mut store: StoreContextMut<'_, State>, (this,): (Resource<TcpSocket>,)| {
            Ok((settled(finish_connect(store.data_mut(), this))?,))
        },
    )?;
    let mut look_up = linker.instance(LOOK_UP)?;
    look_up.resource("resolve-address-stream", ResourceType::host::<LookUp>(), |mut store, index| {
        store.data_mut().table.delete::<LookUp>(Resource::new_own(index))?;
        Ok(())
    })?;
    look_up.func_wrap(
        "resolve-addresses",
        |mut store: StoreContextMut<'_, State>, (_, name): (Resource<Network>, String)| {
            Ok((settled(begin_look_up(store.data_mut(), &name))?,))
        },
    )?;
    look_up.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, State>, (this,): (Resource<LookUp>,)| {
            Ok((settled(next_address(store.data_mut(), &this))?,))
        },
    )?;
    look_up.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, State>,
         (this,): (Resource<LookUp>,)|
         -> wasmtime::Result<(Resource<DynPollable>,)> { Ok((subscribe(&mut store.data_mut().table, this)?,)) },
    )?;
    dial::link(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Takes WASI 0.3's sockets away: nothing counts what goes over them yet.
pub(crate) fn link_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p3::bindings::sockets::{ip_name_lookup, types};

    linker.allow_shadowing(true);
    types::add_to_linker::<State, WasiSockets>(linker, State::no_sockets)?;
    ip_name_lookup::add_to_linker::<State, WasiSockets>(linker, State::no_sockets)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// An error for the guest, or one that ends it.
fn settled<T>(result: SocketResult<T>) -> wasmtime::Result<Result<T, ErrorCode>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => error.downcast().map(Err),
    }
}

fn create_socket(state: &mut State, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
    // An app without connections is refused in any case.
    let connects = state.app.sockets().is_some_and(|outbound| outbound.asks_for(Protocol::Tcp));
    let held = match connects {
        true => Some(state.descriptor().map_err(|_: TooMany| ErrorCode::NewSocketLimit)?),
        false => None,
    };
    let socket = tcp_create_socket::Host::create_tcp_socket(&mut state.sockets(), family)?;
    if let Some(held) = held {
        state.connections().held.insert(socket.rep(), Arc::new(held));
    }
    Ok(socket)
}

fn start_connect(
    state: &mut State,
    this: Resource<TcpSocket>,
    network: Resource<Network>,
    address: IpSocketAddress,
) -> SocketResult<()> {
    let remote = SocketAddr::from(address);
    if let Some(outbound) = state.app.sockets().cloned() {
        match lease(&outbound, &state.connections().names, remote) {
            Ok(lease) => {
                let held = state.connections().held.get(&this.rep()).cloned();
                let gate = Gate::new(lease, held, state, remote);
                state.connections().dial(this.rep(), remote, gate, outbound.connect_time());
            }
            Err(failure) => {
                log(state, "refused", &remote.to_string(), &failure);
                return Err(ErrorCode::AccessDenied.into());
            }
        }
    }
    state.sockets().start_connect(this, network, address)
}

/// The right to connect: by the address itself, or by one of the names that led to it.
fn lease(outbound: &Arc<Outbound>, names: &[(IpAddr, String)], remote: SocketAddr) -> Result<Lease, Failure> {
    let (ip, port) = (remote.ip().to_canonical(), remote.port());
    let target = |host| Target { protocol: Protocol::Tcp, host, port };
    let by_name = names.iter().filter(|(known, _)| *known == ip).map(|(_, name)| Host::Name(name.clone()));
    let mut failure = None;
    for host in by_name.chain([Host::Address(ip)]) {
        match outbound.lease(target(host), ip) {
            Ok(lease) => return Ok(lease),
            Err(why) => failure = failure.or(Some(why)),
        }
    }
    Err(failure.expect("the address itself was tried"))
}

fn log(state: &State, verb: &str, place: &str, why: &dyn std::fmt::Display) {
    let line = format!("{verb} an outgoing connection ({}): {why}", printable(place, NAME_BYTES_MAX));
    state.app.log.line(LogStream::Errors, Some(state.call.id), line.as_bytes());
}

type Streams = (Resource<DynInputStream>, Resource<DynOutputStream>);

fn finish_connect(state: &mut State, this: Resource<TcpSocket>) -> SocketResult<Streams> {
    let index = this.rep();
    let connected = state.sockets().finish_connect(this);
    let (input, output) = match connected {
        Ok(streams) => streams,
        Err(error) => {
            let is_under_way = matches!(error.downcast_ref(), Some(ErrorCode::WouldBlock));
            if is_under_way && !state.connections().is_late(index) {
                return Err(error);
            }
            state.connections().forget(index);
            return Err(if is_under_way { ErrorCode::Timeout.into() } else { error });
        }
    };
    // Without a gate nothing was allowed to connect.
    let gate = state.connections().forget(index).ok_or(ErrorCode::InvalidState)?;
    let traffic = state.http.traffic();
    let Some(outbound) = state.app.sockets().cloned() else { return Err(ErrorCode::InvalidState.into()) };
    let wrap = || Wrap {
        gate: Arc::clone(&gate),
        traffic: Arc::clone(&traffic),
        outbound: Arc::clone(&outbound),
        brake: Brake::default(),
    };
    around_input(state.table.get_mut(&input)?, |stream| Metered { stream, wrap: wrap() });
    around_output(state.table.get_mut(&output)?, |stream| Metered { stream, wrap: wrap() });
    Ok((input, output))
}

/// Closed once the connection's time or grant is over.
struct Gate {
    shared: Arc<Shut>,
    watch: JoinHandle<()>,
    _held: Option<Arc<Held>>,
}

#[derive(Default)]
struct Shut {
    ended: OnceLock<Ended>,
    changed: Notify,
}

impl Gate {
    fn new(lease: Lease, held: Option<Arc<Held>>, state: &State, remote: SocketAddr) -> Arc<Self> {
        let shared = Arc::new(Shut::default());
        let (shut, app, call) = (Arc::clone(&shared), Arc::clone(&state.app), state.call.id);
        let watch = tokio::spawn(async move {
            let ended = lease.ended().await;
            let _ = shut.ended.set(ended);
            shut.changed.notify_waiters();
            let line = format!("ended an outgoing connection ({remote}): {ended}");
            app.log.line(LogStream::Errors, Some(call), line.as_bytes());
        });
        Arc::new(Self { shared, watch, _held: held })
    }

    async fn shut(&self) {
        let changed = self.shared.changed.notified();
        if self.shared.ended.get().is_none() {
            changed.await;
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // With it goes the lease.
        self.watch.abort();
    }
}

struct Wrap {
    gate: Arc<Gate>,
    traffic: Arc<Traffic>,
    outbound: Arc<Outbound>,
    brake: Brake,
}

impl Wrap {
    fn check(&self) -> StreamResult<()> {
        match self.gate.shared.ended.get() {
            None => Ok(()),
            Some(ended) => Err(failed(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, *ended))),
        }
    }
}

fn failed(error: std::io::Error) -> StreamError {
    StreamError::LastOperationFailed(error.into())
}

fn too_much(bytes_max: u64) -> StreamError {
    failed(std::io::Error::other(format!("more than {bytes_max} bytes in one call")))
}

/// One direction of a connection.
struct Metered<S> {
    stream: S,
    wrap: Wrap,
}

#[async_trait]
impl<S: Pollable> Pollable for Metered<S> {
    async fn ready(&mut self) {
        let Self { stream, wrap } = self;
        tokio::select! {
            () = wrap.gate.shut() => {}
            () = async {
                stream.ready().await;
                std::future::poll_fn(|context| wrap.brake.poll(&wrap.outbound, context)).await;
            } => {}
        }
    }
}

#[async_trait]
impl InputStream for Metered<DynInputStream> {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.wrap.check()?;
        if self.wrap.outbound.pause().is_some() {
            // Nothing yet: it is to wait until there is something.
            return Ok(Bytes::new());
        }
        let bytes = self.stream.read(size)?;
        match self.wrap.traffic.receives(bytes.len(), &self.wrap.outbound) {
            true => Ok(bytes),
            false => Err(too_much(self.wrap.outbound.received_bytes_max)),
        }
    }
}

#[async_trait]
impl OutputStream for Metered<DynOutputStream> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.wrap.check()?;
        match self.wrap.traffic.sends(bytes.len(), &self.wrap.outbound) {
            true => self.stream.write(bytes),
            false => Err(too_much(self.wrap.outbound.sent_bytes_max)),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.wrap.check()?;
        if self.wrap.outbound.pause().is_some() {
            return Ok(0);
        }
        self.stream.check_write()
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}

/// A look-up: under way, or its addresses, with the name for which they stand.
struct LookUp {
    name: String,
    looking: Option<AbortOnDropJoinHandle<Result<Vec<IpAddr>, Failure>>>,
    found: Result<Vec<IpAddr>, ErrorCode>,
}

#[async_trait]
impl Pollable for LookUp {
    async fn ready(&mut self) {
        if let Some(looking) = &mut self.looking {
            self.found = looking.await.map_err(|failure| match failure {
                Failure::ConnectTime(_) | Failure::Busy(_) | Failure::TenantBusy(_) | Failure::Descriptors => {
                    ErrorCode::TemporaryResolverFailure
                }
                _ => ErrorCode::NameUnresolvable,
            });
            self.looking = None;
        }
    }
}

fn begin_look_up(state: &mut State, name: &str) -> SocketResult<Resource<LookUp>> {
    let Some(outbound) = state.app.outbound.clone() else { return Err(ErrorCode::PermanentResolverFailure.into()) };
    if let Ok(address) = name.parse::<IpAddr>() {
        let look_up = LookUp { name: String::new(), looking: None, found: Ok(vec![address]) };
        return Ok(state.table.push(look_up)?);
    }
    let known = host_name(name).ok_or(ErrorCode::InvalidArgument)?;
    if let Err(denied) = outbound.rights().may_look_up(&known) {
        log(state, "refused", &known, &denied);
        return Err(ErrorCode::PermanentResolverFailure.into());
    }
    let wanted = known.clone();
    let looking = spawn(async move { outbound.look_up(wanted).await });
    Ok(state.table.push(LookUp { name: known, looking: Some(looking), found: Ok(Vec::new()) })?)
}

fn next_address(state: &mut State, this: &Resource<LookUp>) -> SocketResult<Option<IpAddress>> {
    let look_up = state.table.get_mut(this)?;
    let is_ready = std::pin::pin!(look_up.ready()).poll(&mut Context::from_waker(Waker::noop()));
    if is_ready == Poll::Pending {
        return Err(ErrorCode::WouldBlock.into());
    }
    let addresses = look_up.found.as_mut().map_err(|code| *code)?;
    if addresses.is_empty() {
        return Ok(None);
    }
    let address = addresses.remove(0).to_canonical();
    if !look_up.name.is_empty() {
        let name = look_up.name.clone();
        let names = &mut state.connections().names;
        names.retain(|known| *known != (address, name.clone()));
        if names.len() == NAMES_MAX {
            names.remove(0);
        }
        names.push((address, name));
    }
    Ok(Some(address.into()))
}
