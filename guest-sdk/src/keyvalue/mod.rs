//! Key-value stores: those that the operator grants the app, and the app's sidecar asks for (`keyvalue`). With the feature `keyvalue`.
//!
//! ```
//! use wasgi::{Body, Environ, StartResponse, keyvalue};
//!
//! fn app(_environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
//!     let visits = keyvalue::open("default")?.increment("visits", 1)?;
//!     start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
//!     Ok(Body::from(format!("You are number {visits}.")))
//! }
//! # wasgi::testing::grant_store("default");
//! # let response = wasgi::testing::call(app, Environ::from_iter([("PATH_INFO", "/")]), b"").unwrap();
//! # assert_eq!(response.body, b"You are number 1.");
//! ```
//!
//! Keys are texts, values bytes. What a function has written outlives the host, and every later call finds it. What is not granted,
//! or meets a limit, is an [`Error`], whose [`kind`](Error::kind) tells which. Natively a test has the stores that it grants:
//! [`testing::grant_store`](crate::testing::grant_store).

use std::fmt;
use std::string::String;
use std::vec::Vec;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native;
#[cfg(target_arch = "wasm32")]
mod wasm;

#[cfg(not(target_arch = "wasm32"))]
use native as host;
#[cfg(target_arch = "wasm32")]
use wasm as host;

/// Opens a store by its name. Tools call the one store of a program "default".
///
/// # Errors
/// See [`Kind`].
pub fn open(name: &str) -> Result<Store, Error> {
    host::Bucket::open(name).map(Store)
}

/// An open store.
pub struct Store(host::Bucket);

impl Store {
    /// The value of a key, if it has one.
    ///
    /// # Errors
    /// See [`Kind`].
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.0.get(key)
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// See [`Kind`].
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.0.set(key, value.as_ref())
    }

    /// Takes a key away, if it is there.
    ///
    /// # Errors
    /// See [`Kind`].
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.delete(key)
    }

    /// Whether the key has a value.
    ///
    /// # Errors
    /// See [`Kind`].
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        self.0.exists(key)
    }

    /// All keys, in the order of their bytes, fetched as they are needed. One that comes or goes meanwhile may be among them or not.
    pub fn keys(&self) -> Keys<'_> {
        Keys { store: self, page: Vec::new().into_iter(), next: Next::First }
    }

    /// Adds to a number and returns the sum. A key that is not there counts as zero; the number is kept as text.
    ///
    /// # Errors
    /// See [`Kind`]; also where the value is no number.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        self.0.increment(key, delta)
    }

    /// Gives a key the value that `change` makes of its present one. Where another call was faster, `change` is asked again with what
    /// that has left.
    ///
    /// # Errors
    /// See [`Kind`].
    pub fn update(&self, key: &str, mut change: impl FnMut(Option<Vec<u8>>) -> Vec<u8>) -> Result<(), Error> {
        let mut seen = self.0.observe(key)?;
        loop {
            let value = change(seen.current()?);
            match seen.swap(&value)? {
                None => return Ok(()),
                Some(newer) => seen = newer,
            }
        }
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// See [`Kind`].
    pub fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.0.get_many(keys)
    }

    /// Gives several keys their values: all of them or none.
    ///
    /// # Errors
    /// See [`Kind`].
    pub fn set_many(&self, pairs: &[(&str, &[u8])]) -> Result<(), Error> {
        self.0.set_many(pairs)
    }

    /// Takes several keys away: all of them or none.
    ///
    /// # Errors
    /// See [`Kind`].
    pub fn delete_many(&self, keys: &[&str]) -> Result<(), Error> {
        self.0.delete_many(keys)
    }
}

/// The keys of a store, as [`Store::keys`] returns them.
pub struct Keys<'a> {
    store: &'a Store,
    page: std::vec::IntoIter<String>,
    next: Next,
}

enum Next {
    First,
    From(String),
    Nothing,
}

impl Iterator for Keys<'_> {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(key) = self.page.next() {
                return Some(Ok(key));
            }
            let cursor = match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::First => None,
                Next::From(cursor) => Some(cursor),
                Next::Nothing => return None,
            };
            match self.store.0.list_keys(cursor) {
                Ok((keys, cursor)) => {
                    self.page = keys.into_iter();
                    self.next = cursor.map_or(Next::Nothing, Next::From);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The app's sidecar does not ask for a store of this name.
    NoSuchStore,
    /// The operator does not grant it any more.
    Denied,
    /// A limit, a key or a value that is none, or the store's own trouble: the message says which.
    Other,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::NoSuchStore => f.write_str("the app has not asked for this key-value store"),
            Kind::Denied => f.write_str("the host denies the key-value store"),
            Kind::Other => write!(f, "the key-value store: {}", self.message),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_has_the_stores_that_it_grants() {
        assert_eq!(open("own").err().map(|error| error.kind()), Some(Kind::NoSuchStore));
        crate::testing::grant_store("own");
        let store = open("own").expect("it is granted");
        assert_eq!(store.get("a"), Ok(None));
        store.set("a", "1").expect("there is room");
        assert_eq!(store.increment("a", 41), Ok(42));
        store.set_many(&[("b", b"x"), ("c", b"y")]).expect("there is room");
        store.update("b", |old| [old.unwrap_or_default(), b"!".to_vec()].concat()).expect("there is room");
        assert_eq!(store.get_many(&["b", "d"]), Ok(std::vec![Some(b"x!".to_vec()), None]));
        assert_eq!(store.keys().collect::<Result<Vec<_>, _>>(), Ok(std::vec!["a".into(), "b".into(), "c".into()]));
        store.delete_many(&["a", "b"]).expect("they go");
        assert_eq!((store.exists("a"), store.exists("c")), (Ok(false), Ok(true)));
        assert_eq!(store.increment("c", 1).expect_err("it is no number").kind(), Kind::Other);
    }
}
