//! Stores in native tests: maps, each test's own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;

use super::{Error, Kind};

type Entries = Rc<RefCell<BTreeMap<String, Vec<u8>>>>;

std::thread_local! {
    static GRANTED: RefCell<BTreeMap<String, Entries>> = const { RefCell::new(BTreeMap::new()) };
}

pub(crate) fn grant(name: &str) {
    GRANTED.with_borrow_mut(|granted| granted.entry(name.into()).or_default().borrow_mut().clear());
}

pub(super) struct Bucket(Entries);

/// A value as it was at one moment.
pub(super) struct Seen {
    entries: Entries,
    key: String,
    value: Option<Vec<u8>>,
}

impl Bucket {
    pub(super) fn open(name: &str) -> Result<Self, Error> {
        let found = GRANTED.with_borrow(|granted| granted.get(name).cloned());
        found.map(Self).ok_or_else(|| Error::new(Kind::NoSuchStore, "see wasgi::testing::grant_store"))
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.borrow().get(key).cloned())
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.0.borrow_mut().insert(key.into(), value.into());
        Ok(())
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.borrow_mut().remove(key);
        Ok(())
    }

    pub(super) fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.0.borrow().contains_key(key))
    }

    pub(super) fn list_keys(&self, _: Option<String>) -> Result<(Vec<String>, Option<String>), Error> {
        Ok((self.0.borrow().keys().cloned().collect(), None))
    }

    pub(super) fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        let mut entries = self.0.borrow_mut();
        let old = match entries.get(key) {
            None => Some(0),
            Some(value) => std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok()),
        };
        let old = old.ok_or_else(|| Error::new(Kind::Other, "the value is not a number"))?;
        let new = old.checked_add(delta).ok_or_else(|| Error::new(Kind::Other, "the number would be too large"))?;
        entries.insert(key.into(), new.to_string().into_bytes());
        Ok(new)
    }

    pub(super) fn observe(&self, key: &str) -> Result<Seen, Error> {
        Ok(Seen { entries: self.0.clone(), key: key.into(), value: self.get(key)? })
    }

    pub(super) fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    pub(super) fn set_many(&self, pairs: &[(&str, &[u8])]) -> Result<(), Error> {
        pairs.iter().try_for_each(|(key, value)| self.set(key, value))
    }

    pub(super) fn delete_many(&self, keys: &[&str]) -> Result<(), Error> {
        keys.iter().try_for_each(|key| self.delete(key))
    }
}

impl Seen {
    pub(super) fn current(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.value.clone())
    }

    pub(super) fn swap(self, value: &[u8]) -> Result<Option<Self>, Error> {
        let now = self.entries.borrow().get(&self.key).cloned();
        if now != self.value {
            return Ok(Some(Self { value: now, ..self }));
        }
        self.entries.borrow_mut().insert(self.key, value.into());
        Ok(None)
    }
}
