//! `wasi:random` for guests of every kind: `wasmtime-wasi`'s, where the app may have randomness.
//!
//! Where it may not, nothing that has to be unpredictable is made up: a call that asks for it is stopped. What is called insecure, seeds
//! of hash tables above all, is the same for every call of a release for as long as that is loaded, from a number that nobody outside
//! knows: so programs run that ask for nothing else, and nobody can choose keys that meet in their tables.

use std::hash::{BuildHasher, Hasher, RandomState};

use wasmtime::component::Linker;
use wasmtime::{StoreContextMut, bail};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::random::WasiRandomView;

use crate::error::Error;
use crate::sandbox::State;
use crate::sandbox::fault::Stopped;

/// A version that `wasmtime-wasi` offers.
struct Version {
    number: &'static str,
    /// What the function is called that gives a seed.
    seed: &'static str,
    /// How much is made where somebody asks for so much.
    length: fn(u64) -> u64,
}

const P2: Version = Version { number: "0.2.12", seed: "insecure-seed", length: |wanted| wanted };
/// This one may give less than it is asked for.
const P3: Version = Version { number: "0.3.0", seed: "get-insecure-seed", length: |wanted| wanted.min(BYTES_MAX) };

/// A guest may ask for this much at once; the host makes it in memory.
pub(crate) const BYTES_MAX: u64 = 64 << 10;

type Store<'a> = StoreContextMut<'a, State>;

/// Numbers that look like chance, from where they begin (splitmix64, which is in the public domain).
#[derive(Clone, Copy)]
pub(crate) struct Chance(u64);

impl Chance {
    /// From what nobody knows.
    pub(crate) fn unknown() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl State {
    /// Stops a guest that may have no randomness.
    fn may_be_random(&self) -> wasmtime::Result<()> {
        match self.app.grip.has_randomness() {
            true => Ok(()),
            false => Err(wasmtime::Error::from(Stopped(Error::Grant("randomness")))),
        }
    }

    /// The next number of what is not random.
    fn chance(&mut self) -> u64 {
        self.chance.get_or_insert(self.app.chance).next()
    }

    /// As `wasmtime-wasi` makes them, whose own function takes four times as much of the generator, byte for byte, and makes a context.
    fn random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.was_asked();
        if length > BYTES_MAX {
            bail!("requested len {length} exceeds limit {BYTES_MAX}");
        }
        let mut bytes = vec![0; length as usize];
        wasmtime_wasi::thread_rng().fill_bytes(&mut bytes);
        Ok(bytes)
    }

    fn insecure_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        if self.app.grip.has_randomness() {
            return insecure::Host::get_insecure_random_bytes(self.random(), length);
        }
        if length > BYTES_MAX {
            bail!("requested len {length} exceeds limit {BYTES_MAX}");
        }
        let mut bytes = Vec::with_capacity(length as usize + size_of::<u64>());
        while (bytes.len() as u64) < length {
            bytes.extend_from_slice(&self.chance().to_le_bytes());
        }
        bytes.truncate(length as usize);
        Ok(bytes)
    }

    fn insecure_number(&mut self) -> wasmtime::Result<u64> {
        match self.app.grip.has_randomness() {
            true => insecure::Host::get_insecure_random_u64(self.random()),
            false => Ok(self.chance()),
        }
    }

    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        if self.app.grip.has_randomness() {
            return insecure_seed::Host::insecure_seed(self.random());
        }
        // Not of those that are handed out one after the other: a seed is what it is.
        let mut chance = self.app.chance;
        Ok((chance.next().rotate_left(1), chance.next().rotate_left(1)))
    }
}

/// Offers what is different from `wasmtime-wasi`'s, which has been linked before.
pub(crate) fn link_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    link(linker, P2)
}

pub(crate) fn link_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    link(linker, P3)
}

/// The functions of both versions are the same.
fn link(linker: &mut Linker<State>, version: Version) -> wasmtime::Result<()> {
    let Version { number, seed, length } = version;
    linker.allow_shadowing(true);
    let mut secure = linker.instance(&format!("wasi:random/random@{number}"))?;
    secure.func_wrap("get-random-bytes", move |mut store: Store<'_>, (wanted,): (u64,)| {
        store.data().may_be_random()?;
        Ok((store.data_mut().random_bytes(length(wanted))?,))
    })?;
    secure.func_wrap("get-random-u64", |mut store: Store<'_>, ()| {
        store.data().may_be_random()?;
        Ok((random::Host::get_random_u64(store.data_mut().random())?,))
    })?;
    let mut insecure = linker.instance(&format!("wasi:random/insecure@{number}"))?;
    insecure.func_wrap("get-insecure-random-bytes", move |mut store: Store<'_>, (wanted,): (u64,)| {
        Ok((store.data_mut().insecure_bytes(length(wanted))?,))
    })?;
    insecure
        .func_wrap("get-insecure-random-u64", |mut store: Store<'_>, ()| Ok((store.data_mut().insecure_number()?,)))?;
    linker
        .instance(&format!("wasi:random/insecure-seed@{number}"))?
        .func_wrap(seed, |mut store: Store<'_>, ()| Ok((store.data_mut().insecure_seed()?,)))?;
    linker.allow_shadowing(false);
    Ok(())
}
