//! `wasi:sockets` of WASI 0.2 for apps that may connect: TCP connections to what is granted, and look-ups of the names in it.
//!
//! Sockets are the host's own ([`tcp`], [`options`]), so that each connection is closed when its time is over or its
//! grant is gone, whatever the guest still has of it ([`connection`]). UDP and listening stay refused, and for WASI 0.3
//! all of it.

mod connection;
mod look_up;
mod options;
mod tcp;

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::p2::bindings::sockets::{tcp as bindings, tcp_create_socket};
use wasmtime_wasi::sockets::WasiSockets;

use crate::sandbox::State;

/// What a sandbox knows of its connections.
#[derive(Default)]
pub(crate) struct Sockets {
    /// Which names led to which addresses: they are granted by name.
    names: Vec<(IpAddr, String)>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that holds the lock can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Offers what is different from `wasmtime-wasi`'s.
pub(crate) fn link_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    tcp_create_socket::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    bindings::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    look_up::link(linker)?;
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

fn log(state: &State, verb: &str, place: &str, why: &dyn std::fmt::Display) {
    state.app.note(Some(state.call.id), format!("{verb} an outgoing connection ({place}): {why}"));
}
