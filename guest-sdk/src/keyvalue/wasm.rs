//! `wasi:keyvalue` as the component imports it: only programs that open a store do.

use std::string::String;
use std::vec::Vec;

use super::{Error, Kind};

#[allow(unsafe_code, unreachable_pub, reason = "generated: the component ABI passes raw pointers")]
#[rustfmt::skip]
mod bindings {
    wit_bindgen::generate!({
        path: "wit/deps/keyvalue-draft2",
        world: "imports",
        std_feature,
        disable_run_ctors_once_workaround: true,
        // A program may have bindings of its own to the same interfaces.
        type_section_suffix: "-wasgi",
    });
}

use bindings::wasi::keyvalue::atomics::{self, Cas, CasError};
use bindings::wasi::keyvalue::{batch, store};

pub(super) struct Bucket(store::Bucket);

/// A value as it was at one moment.
pub(super) struct Seen(Cas);

fn said(error: store::Error) -> Error {
    match error {
        store::Error::NoSuchStore => Error::new(Kind::NoSuchStore, ""),
        store::Error::AccessDenied => Error::new(Kind::Denied, ""),
        store::Error::Other(why) => Error::new(Kind::Other, why),
    }
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| String::from(*key)).collect()
}

impl Bucket {
    pub(super) fn open(name: &str) -> Result<Self, Error> {
        store::open(name).map(Self).map_err(said)
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.0.get(key).map_err(said)
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.0.set(key, value).map_err(said)
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.delete(key).map_err(said)
    }

    pub(super) fn exists(&self, key: &str) -> Result<bool, Error> {
        self.0.exists(key).map_err(said)
    }

    pub(super) fn list_keys(&self, cursor: Option<String>) -> Result<(Vec<String>, Option<String>), Error> {
        self.0.list_keys(cursor.as_deref()).map(|page| (page.keys, page.cursor)).map_err(said)
    }

    pub(super) fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        atomics::increment(&self.0, key, delta).map_err(said)
    }

    pub(super) fn observe(&self, key: &str) -> Result<Seen, Error> {
        Cas::new(&self.0, key).map(Seen).map_err(said)
    }

    pub(super) fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let found = batch::get_many(&self.0, &owned(keys)).map_err(said)?;
        Ok(found.into_iter().map(|pair| pair.map(|(_, value)| value)).collect())
    }

    pub(super) fn set_many(&self, pairs: &[(&str, &[u8])]) -> Result<(), Error> {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (String::from(*key), value.to_vec())).collect();
        batch::set_many(&self.0, &pairs).map_err(said)
    }

    pub(super) fn delete_many(&self, keys: &[&str]) -> Result<(), Error> {
        batch::delete_many(&self.0, &owned(keys)).map_err(said)
    }
}

impl Seen {
    pub(super) fn current(&self) -> Result<Option<Vec<u8>>, Error> {
        self.0.current().map_err(said)
    }

    /// None if it was done; the value as it is now, if another was faster.
    pub(super) fn swap(self, value: &[u8]) -> Result<Option<Self>, Error> {
        match atomics::swap(self.0, value) {
            Ok(()) => Ok(None),
            Err(CasError::CasFailed(cas)) => Ok(Some(Self(cas))),
            Err(CasError::StoreError(error)) => Err(said(error)),
        }
    }
}
