//! Sockets on their way to a connection, and the time for that. Guests wait for it in `wasi:io/poll`, which asks the socket and knows
//! no time: so it is asked here for how long a guest may still wait, and says after that that the socket is ready. What it is
//! ready for is an error.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::sockets::tcp::{HostTcpSocket, TcpSocket};
use wasmtime_wasi::sockets::WasiSocketsView;
use wasmtime_wasi_io::bindings::wasi::io::poll::{Host, HostPollable};

use super::{Gate, Sockets, TCP, lock};
use crate::sandbox::State;

/// In the version that `wasmtime-wasi` offers.
const POLL: &str = "wasi:io/poll@0.2.12";

/// A socket that was told to connect.
pub(super) struct Dial {
    /// Its index in the table.
    socket: u32,
    remote: SocketAddr,
    gate: Arc<Gate>,
    deadline: Instant,
    /// What guests wait for it with, by their indices in the table.
    pollables: Vec<u32>,
}

impl Sockets {
    pub(super) fn dial(&mut self, socket: u32, remote: SocketAddr, gate: Arc<Gate>, time: Duration) {
        // Of a socket that has gone without an end.
        self.forget(socket);
        lock(&self.allowed).push(remote);
        self.connecting.push(Dial { socket, remote, gate, deadline: Instant::now() + time, pollables: Vec::new() });
    }

    /// Forgets that a socket connects; what it needs for that.
    pub(super) fn forget(&mut self, socket: u32) -> Option<Arc<Gate>> {
        let found = self.connecting.iter().position(|dial| dial.socket == socket)?;
        let Dial { remote, gate, .. } = self.connecting.swap_remove(found);
        let mut allowed = lock(&self.allowed);
        if let Some(found) = allowed.iter().position(|known| *known == remote) {
            allowed.swap_remove(found);
        }
        Some(gate)
    }

    /// Whether a socket that connects has had its time.
    pub(super) fn is_late(&self, socket: u32) -> bool {
        self.connecting.iter().any(|dial| dial.socket == socket && dial.deadline <= Instant::now())
    }

    fn watch(&mut self, socket: u32, pollable: u32) {
        if let Some(dial) = self.connecting.iter_mut().find(|dial| dial.socket == socket) {
            dial.pollables.push(pollable);
        }
    }

    /// The first of these that has to be over, and when.
    fn first_late(&self, pollables: &[Resource<DynPollable>]) -> Option<(Instant, u32)> {
        let deadline = |pollable: &Resource<DynPollable>| {
            let dials = self.connecting.iter().filter(|dial| dial.pollables.contains(&pollable.rep()));
            dials.map(|dial| dial.deadline).min()
        };
        let deadlines = pollables.iter().zip(0..).filter_map(|(pollable, index)| Some((deadline(pollable)?, index)));
        deadlines.min()
    }
}

/// Offers what is different from `wasmtime-wasi`'s. Shadowing is allowed.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut tcp = linker.instance(TCP)?;
    tcp.func_wrap(
        "[method]tcp-socket.subscribe",
        |mut store: StoreContextMut<'_, State>, (this,): (Resource<TcpSocket>,)| {
            let (state, socket) = (store.data_mut(), this.rep());
            let pollable = HostTcpSocket::subscribe(&mut state.sockets(), this)?;
            if let Some(sockets) = state.dialling() {
                sockets.watch(socket, pollable.rep());
            }
            Ok((pollable,))
        },
    )?;
    let mut poll = linker.instance(POLL)?;
    poll.func_wrap_async(
        "poll",
        |mut store: StoreContextMut<'_, State>, (pollables,): (Vec<Resource<DynPollable>>,)| {
            Box::new(async move {
                let state = store.data_mut();
                let late = state.dialling().and_then(|sockets| sockets.first_late(&pollables));
                let ready = Host::poll(&mut state.table, pollables);
                let Some((deadline, index)) = late else { return Ok((ready.await?,)) };
                match tokio::time::timeout_at(deadline.into(), ready).await {
                    Ok(ready) => Ok((ready?,)),
                    Err(_) => Ok((vec![index],)),
                }
            })
        },
    )?;
    poll.func_wrap_async(
        "[method]pollable.block",
        |mut store: StoreContextMut<'_, State>, (pollable,): (Resource<DynPollable>,)| {
            Box::new(async move {
                let state = store.data_mut();
                let late = state.dialling().and_then(|sockets| sockets.first_late(std::slice::from_ref(&pollable)));
                let ready = HostPollable::block(&mut state.table, pollable);
                let Some((deadline, _)) = late else { return ready.await };
                tokio::time::timeout_at(deadline.into(), ready).await.unwrap_or(Ok(()))
            })
        },
    )
}
