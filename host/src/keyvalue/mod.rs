//! Key-value stores: what the operator grants and the app asks for, by name.
//!
//! [`Stores`] is the host's side: what is granted at this moment, and where entries are kept. [`Keyvalue`] is one app's: it opens
//! [`Store`]s, whose right is looked up anew at each use, so that a store which is taken away is gone for calls that run, too. What
//! guests call is `guest`'s part; where entries are is a [`Backend`]'s.

mod embedded;
mod entries;
mod redis;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use self::embedded::Embedded;
use self::redis::Shared;
use crate::account::Account;
use crate::config::{Config, Secret, Sharing, StoreBackend, tenant_name};
use crate::limits::Limits;

/// The key-value stores of this host.
pub struct Stores {
    granted: ArcSwap<Config>,
    embedded: Arc<Embedded>,
    redis: ArcSwapOption<Linked>,
}

/// The Redis that hosts share, and by which URL it was found.
struct Linked {
    url: Secret,
    shared: Arc<Shared>,
}

/// Where the files are, in the directory for data: no app's name begins with a dot.
const FOLDER: &str = ".keyvalue";

impl Stores {
    /// To be called within a tokio runtime.
    pub fn new(config: Arc<Config>) -> Arc<Self> {
        let embedded = Embedded::new(&config.data_dir.join(FOLDER));
        let redis = ArcSwapOption::new(linked(&config, None));
        Arc::new(Self { granted: ArcSwap::new(config), embedded, redis })
    }

    /// Charges a tenant with what its stores of this machine hold, whether or not an app has them now. It blocks.
    pub(crate) fn measure(&self, account: &Account) {
        self.embedded.measure(account);
    }

    /// From now on this is granted.
    pub fn change(&self, config: Arc<Config>) {
        self.redis.store(linked(&config, self.redis.load_full()));
        self.granted.store(config);
    }
}

/// The way to the Redis of a configuration: the same one, where that says the same. Nobody is connected to yet. Without one its
/// stores cannot be used.
fn linked(config: &Config, before: Option<Arc<Linked>>) -> Option<Arc<Linked>> {
    let refused = |reason: &dyn std::fmt::Display| tracing::error!("keyvalue_redis cannot be used: {reason}");
    let url = config.keyvalue_redis.as_ref()?.read().map_err(|reason| refused(&reason)).ok()?;
    if let Some(before) = before.filter(|before| before.url == url) {
        return Some(before);
    }
    let shared = Shared::new(url.expose()).map_err(|error| refused(&error)).ok()?;
    Some(Arc::new(Linked { url, shared }))
}

/// The way of one app to its stores.
pub struct Keyvalue {
    app: String,
    asked: Vec<String>,
    stores: Arc<Stores>,
    account: Arc<Account>,
    bounds: Bounds,
}

/// What a store may hold of what its writers put into it, and what may be said at once.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes_max: u64,
    keys_max: u64,
    key_bytes_max: u64,
    value_bytes_max: u64,
    /// All values of one answer together.
    answer_bytes_max: u64,
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        Self {
            bytes_max: limits.keyvalue_bytes,
            keys_max: limits.keyvalue_keys,
            key_bytes_max: limits.keyvalue_key_bytes,
            value_bytes_max: limits.keyvalue_value_bytes,
            answer_bytes_max: limits.host_call_bytes,
        }
    }
}

/// The name that tools give to the store of a program that wants only one.
const DEFAULT: &str = "default";

impl Keyvalue {
    /// `asked` are the names in the app's sidecar.
    pub fn new(
        stores: &Arc<Stores>,
        app: &str,
        asked: &[String],
        limits: &Limits,
        account: &Arc<Account>,
    ) -> Arc<Self> {
        Arc::new(Self {
            app: app.to_owned(),
            asked: asked.to_vec(),
            stores: Arc::clone(stores),
            account: Arc::clone(account),
            bounds: Bounds::of(limits),
        })
    }

    /// Opens the store of that name.
    pub(crate) fn open(self: &Arc<Self>, name: &str) -> Result<Store, Failure> {
        let name = if name.is_empty() { DEFAULT } else { name };
        if !self.asked.iter().any(|asked| asked == name) {
            return Err(Failure::NoSuchStore);
        }
        let store = Store { keyvalue: Arc::clone(self), name: name.to_owned() };
        store.place()?;
        Ok(store)
    }
}

/// A store that a guest has opened.
#[derive(Clone)]
pub(crate) struct Store {
    keyvalue: Arc<Keyvalue>,
    name: String,
}

/// Where a store's entries are among all others. No two stores have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    tenant: String,
    /// `blog/one/default`, or `/sessions` where it is shared: an app's name begins with no slash, a store's has none.
    name: String,
}

/// A value, and the number of the change that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) revision: u64,
    pub(crate) value: Vec<u8>,
}

/// Some keys of a store, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) keys: Vec<String>,
    /// There are more behind the last one.
    pub(crate) goes_on: bool,
}

/// What one page has at most.
const PAGE_KEYS_MAX: usize = 1000;
const PAGE_BYTES_MAX: usize = 256 << 10;

/// What is done to a store: all of it, or nothing.
#[derive(Debug)]
enum Change {
    /// In this and the next, each key stands once.
    Set(Vec<(String, Vec<u8>)>),
    Delete(Vec<String>),
    Increment {
        key: String,
        delta: i64,
    },
    /// If the key's revision is still this one; zero is that of no entry.
    Swap {
        key: String,
        revision: u64,
        value: Vec<u8>,
    },
}

impl Change {
    /// About what it takes in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Set(pairs) => pairs.iter().map(|(key, value)| key.len() + value.len()).sum(),
            Self::Delete(keys) => keys.iter().map(String::len).sum(),
            Self::Increment { key, .. } => key.len(),
            Self::Swap { key, value, .. } => key.len() + value.len(),
        }
    }
}

/// Why something did not work. What it says is for the guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the app has not asked for a store of this name: put it into `keyvalue` of its sidecar")]
    NoSuchStore,
    #[error("the operator does not grant it any more")]
    Denied,
    #[error("a key has 1 to limits.keyvalue_key_size = {0} bytes")]
    Key(u64),
    #[error("a value has at most limits.keyvalue_value_size = {0} bytes")]
    Value(u64),
    #[error("the store has no room: limits.keyvalue_size = {0} bytes")]
    Bytes(u64),
    #[error("the store has no room: limits.keyvalue_keys = {0}")]
    Keys(u64),
    #[error("the tenant has no room: budget.disk")]
    Budget,
    #[error("the values together have more than limits.host_call_size = {0} bytes: ask for fewer at once")]
    Answer(u64),
    #[error("the sandbox has limits.handles = {0} already")]
    Handles(u32),
    #[error("the value is not a number")]
    NotANumber,
    #[error("the number would be too large")]
    Overflow,
    #[error("the value is another by now")]
    Stale,
    /// What happened is in the host's log.
    #[error("the store cannot be used at the moment")]
    Storage,
}

/// What a backend answers.
type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// Where entries are kept. What comes to it has been judged and measured.
trait Backend: Send + Sync {
    /// In the order of the keys.
    fn get(&self, store: &Store, place: Place, keys: Vec<String>) -> Answer<Vec<Option<Entry>>>;

    fn exists(&self, store: &Store, place: Place, key: String) -> Answer<bool>;

    /// The keys behind this one.
    fn keys(&self, store: &Store, place: Place, after: Option<String>) -> Answer<Page>;

    /// Done when it will outlive the host. A number that was incremented is what it is now.
    fn change(&self, store: &Store, place: Place, change: Change) -> Answer<Option<i64>>;
}

impl Store {
    pub(crate) async fn get(&self, keys: Vec<String>) -> Result<Vec<Option<Entry>>, Failure> {
        keys.iter().try_for_each(|key| self.check_key(key))?;
        let (backend, place) = self.place()?;
        let entries = backend.get(self, place, keys).await?;
        // What was taken away meanwhile is not handed over.
        self.place().map(|_| entries)
    }

    pub(crate) async fn get_one(&self, key: &str) -> Result<Option<Entry>, Failure> {
        Ok(self.get(vec![key.to_owned()]).await?.pop().flatten())
    }

    pub(crate) async fn exists(&self, key: String) -> Result<bool, Failure> {
        self.check_key(&key)?;
        let (backend, place) = self.place()?;
        let exists = backend.exists(self, place, key).await?;
        self.place().map(|_| exists)
    }

    pub(crate) async fn keys(&self, after: Option<String>) -> Result<Page, Failure> {
        after.iter().try_for_each(|key| self.check_key(key))?;
        let (backend, place) = self.place()?;
        let page = backend.keys(self, place, after).await?;
        self.place().map(|_| page)
    }

    /// Where a key stands twice, the last one counts.
    pub(crate) async fn set(&self, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
        for (key, value) in &pairs {
            self.check_key(key)?;
            self.check_value(value)?;
        }
        let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
        self.change(Change::Set(pairs.into_iter().collect())).await.map(|_| ())
    }

    pub(crate) async fn delete(&self, keys: Vec<String>) -> Result<(), Failure> {
        keys.iter().try_for_each(|key| self.check_key(key))?;
        let keys: BTreeSet<_> = keys.into_iter().collect();
        self.change(Change::Delete(keys.into_iter().collect())).await.map(|_| ())
    }

    pub(crate) async fn increment(&self, key: String, delta: i64) -> Result<i64, Failure> {
        self.check_key(&key)?;
        self.change(Change::Increment { key, delta }).await?.ok_or(Failure::Storage)
    }

    /// Sets the value if that of the key is still of this revision; zero is that of no entry.
    pub(crate) async fn swap(&self, key: String, revision: u64, value: Vec<u8>) -> Result<(), Failure> {
        self.check_key(&key)?;
        self.check_value(&value)?;
        self.change(Change::Swap { key, revision, value }).await.map(|_| ())
    }

    async fn change(&self, change: Change) -> Result<Option<i64>, Failure> {
        let (backend, place) = self.place()?;
        backend.change(self, place, change).await
    }

    /// Where its entries are, if the operator grants it at this moment.
    fn place(&self) -> Result<(Box<dyn Backend>, Place), Failure> {
        let Keyvalue { app, stores, .. } = &*self.keyvalue;
        let granted = stores.granted.load();
        let grant = granted.store_of(app, &self.name).ok_or(Failure::Denied)?;
        let name = match grant.sharing {
            Sharing::Own => format!("{app}/{}", self.name),
            Sharing::Shared => format!("/{}", self.name),
        };
        let place = Place { tenant: tenant_name(app).to_owned(), name };
        let backend: Box<dyn Backend> = match grant.backend {
            StoreBackend::Embedded => Box::new(Arc::clone(&stores.embedded)),
            StoreBackend::Redis => match &*stores.redis.load() {
                Some(linked) => Box::new(Arc::clone(&linked.shared)),
                None => return Err(Failure::Storage),
            },
        };
        Ok((backend, place))
    }

    /// Whether it is still the same: looked at when a change that had to wait is made.
    fn is_at(&self, place: &Place) -> bool {
        self.place().is_ok_and(|(_, own)| own == *place)
    }

    fn bounds(&self) -> Bounds {
        self.keyvalue.bounds
    }

    fn account(&self) -> &Account {
        &self.keyvalue.account
    }

    fn check_key(&self, key: &str) -> Result<(), Failure> {
        let bytes_max = self.bounds().key_bytes_max;
        let fits = !key.is_empty() && key.len() as u64 <= bytes_max;
        fits.then_some(()).ok_or(Failure::Key(bytes_max))
    }

    fn check_value(&self, value: &[u8]) -> Result<(), Failure> {
        let bytes_max = self.bounds().value_bytes_max;
        (value.len() as u64 <= bytes_max).then_some(()).ok_or(Failure::Value(bytes_max))
    }
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    bytes: u64,
    keys: u64,
}

/// What an entry costs beside its key and its value.
const ENTRY_BYTES: u64 = 64;

impl Usage {
    /// An entry changes; lengths of values, none where there is no entry.
    fn replace(&mut self, key: &str, old: Option<u64>, new: Option<u64>) {
        let cost = |value: u64| ENTRY_BYTES + key.len() as u64 + value;
        if let Some(old) = old {
            self.keys = self.keys.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(cost(old));
        }
        if let Some(new) = new {
            self.keys += 1;
            self.bytes += cost(new);
        }
    }

    /// Whether this may follow on `before`: what does not grow always may.
    fn check(&self, before: Self, bounds: Bounds) -> Result<(), Failure> {
        if self.keys > before.keys && self.keys > bounds.keys_max {
            return Err(Failure::Keys(bounds.keys_max));
        }
        if self.bytes > before.bytes && self.bytes > bounds.bytes_max {
            return Err(Failure::Bytes(bounds.bytes_max));
        }
        Ok(())
    }
}

/// The number that a value is: text, as everybody can read it.
fn number(value: &[u8]) -> Result<i64, Failure> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(Failure::NotANumber)
}

#[cfg(test)]
mod tests;
