//! Names → addresses, for the names that an app may connect to. A sandbox remembers which led where: they are granted
//! by name.

use std::net::IpAddr;
use std::task::{Context, Poll, Waker};

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketResult, subscribe};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::log;
use crate::config::host_name;
use crate::outbound::Failure;
use crate::sandbox::State;

/// In the version that `wasmtime-wasi` offers: what is linked under another would hide the rest of it.
const LOOK_UP: &str = "wasi:sockets/ip-name-lookup@0.2.12";

/// Names that a sandbox may know the addresses of. Whoever looks up more has forgotten the first.
const NAMES_MAX: usize = 64;

/// Offers what is different from `wasmtime-wasi`'s. Shadowing is allowed.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
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
    Ok(())
}

/// An error for the guest, or one that ends it.
fn settled<T>(result: SocketResult<T>) -> wasmtime::Result<Result<T, ErrorCode>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => error.downcast().map(Err),
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
