//! Stores in a Redis that several hosts share. Each has keys of its own there, whose names the host makes: nothing that a guest says
//! becomes part of one, and nothing but these is asked for.
//!
//! A store is a hash of values, with three others beside it: its keys in order, the numbers of the changes that made the values, and what it
//! holds. Scripts change them together, so that they agree, and so that limits hold for all hosts at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, RedisError, Script, ScriptInvocation, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Answer, Backend, Change, ENTRY_BYTES, Entry, Failure, PAGE_BYTES_MAX, PAGE_KEYS_MAX, Page, Place, Store};

const CONNECT_TIME: Duration = Duration::from_secs(2);
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Operations of one tenant that are under way at the same time; more wait in turn.
const LANES_MAX: usize = 16;

/// A connection, made when it is first needed, and again when it broke.
pub(super) struct Shared {
    connection: ConnectionManager,
    change: Script,
    get: Script,
    lanes: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// It was said that the server does not answer.
    has_complained: AtomicBool,
}

impl Shared {
    /// To be called within a tokio runtime.
    ///
    /// # Errors
    /// If the URL is none.
    pub(super) fn new(url: &str) -> Result<Arc<Self>, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(CONNECT_TIME))
            .set_response_timeout(Some(ANSWER_TIME));
        Ok(Arc::new(Self {
            connection: ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?,
            change: Script::new(include_str!("change.lua")),
            get: Script::new(include_str!("get.lua")),
            lanes: Mutex::default(),
            has_complained: AtomicBool::new(false),
        }))
    }

    /// Waits until fewer of the tenant's operations are under way.
    async fn lane(&self, place: &Place) -> Result<OwnedSemaphorePermit, Failure> {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            match lanes.get(&place.tenant) {
                Some(lane) => Arc::clone(lane),
                None => {
                    let lane = Arc::new(Semaphore::new(LANES_MAX));
                    lanes.insert(place.tenant.clone(), Arc::clone(&lane));
                    lane
                }
            }
        };
        lane.acquire_owned().await.map_err(|_| Failure::Storage)
    }

    /// What went wrong is for the host's log, once; the guest learns that it did.
    fn heard<T>(&self, answer: Result<T, RedisError>) -> Result<T, Failure> {
        match answer {
            Ok(answer) => {
                self.has_complained.store(false, Relaxed);
                Ok(answer)
            }
            Err(error) => {
                if !self.has_complained.swap(true, Relaxed) {
                    tracing::error!("the key-value stores in Redis cannot be used: {error}");
                }
                Err(Failure::Storage)
            }
        }
    }

    async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Failure> {
        self.heard(script.invoke_async(&mut self.connection.clone()).await)
    }
}

/// The names of one store's keys. The braces keep them on one server of a cluster.
fn key(place: &Place, of: &str) -> String {
    format!("wasgi:keyvalue:{{{}:{}}}:{of}", place.tenant, place.name)
}

impl Backend for Arc<Shared> {
    fn get(&self, store: &Store, place: Place, keys: Vec<String>) -> Answer<Vec<Option<Entry>>> {
        let (shared, bytes_max) = (Self::clone(self), store.bounds().answer_bytes_max);
        Box::pin(async move {
            let _lane = shared.lane(&place).await?;
            let mut script = shared.get.prepare_invoke();
            script.key(key(&place, "values")).key(key(&place, "revisions")).arg(bytes_max);
            keys.iter().for_each(|key| _ = script.arg(key));
            let found: Vec<Value> = shared.run(&script).await?;
            if word(&found) != Some(b"done".as_slice()) {
                return Err(Failure::Answer(bytes_max));
            }
            Ok(found[1..].chunks_exact(2).map(entry).collect())
        })
    }

    fn exists(&self, _: &Store, place: Place, key: String) -> Answer<bool> {
        let shared = Self::clone(self);
        Box::pin(async move {
            let _lane = shared.lane(&place).await?;
            let mut command = redis::cmd("HEXISTS");
            command.arg(self::key(&place, "values")).arg(key);
            shared.heard(command.query_async(&mut shared.connection.clone()).await)
        })
    }

    fn keys(&self, _: &Store, place: Place, after: Option<String>) -> Answer<Page> {
        let shared = Self::clone(self);
        Box::pin(async move {
            let _lane = shared.lane(&place).await?;
            let begin = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
            let mut command = redis::cmd("ZRANGEBYLEX");
            command.arg(key(&place, "order")).arg(begin).arg("+").arg("LIMIT").arg(0).arg(PAGE_KEYS_MAX + 1);
            let found: Vec<String> = shared.heard(command.query_async(&mut shared.connection.clone()).await)?;
            let mut page = Page::default();
            let mut bytes = 0;
            for key in found {
                if page.keys.len() == PAGE_KEYS_MAX || bytes >= PAGE_BYTES_MAX {
                    page.goes_on = true;
                    break;
                }
                bytes += key.len();
                page.keys.push(key);
            }
            Ok(page)
        })
    }

    fn change(&self, store: &Store, place: Place, change: Change) -> Answer<Option<i64>> {
        let (shared, store) = (Self::clone(self), store.clone());
        Box::pin(async move {
            let _lane = shared.lane(&place).await?;
            // It may have waited.
            if !store.is_at(&place) {
                return Err(Failure::Denied);
            }
            let bounds = store.bounds();
            let mut script = shared.change.prepare_invoke();
            ["values", "order", "revisions", "usage"].iter().for_each(|of| _ = script.key(key(&place, of)));
            script.arg(bounds.bytes_max).arg(bounds.keys_max).arg(ENTRY_BYTES);
            match &change {
                Change::Set(pairs) => {
                    script.arg("set");
                    pairs.iter().for_each(|(key, value)| _ = script.arg(key).arg(value.as_slice()));
                }
                Change::Delete(keys) => {
                    script.arg("delete");
                    keys.iter().for_each(|key| _ = script.arg(key));
                }
                Change::Increment { key, delta } => _ = script.arg("increment").arg(key).arg(*delta),
                Change::Swap { key, revision, value } => {
                    script.arg("swap").arg(key).arg(*revision).arg(value.as_slice());
                }
            }
            let said: Vec<Value> = shared.run(&script).await?;
            match word(&said) {
                Some(b"done") => Ok(said.get(1).and_then(bytes).and_then(|text| super::number(text).ok())),
                Some(b"stale") => Err(Failure::Stale),
                Some(b"keys") => Err(Failure::Keys(bounds.keys_max)),
                Some(b"bytes") => Err(Failure::Bytes(bounds.bytes_max)),
                Some(b"number") => Err(Failure::NotANumber),
                Some(b"overflow") => Err(Failure::Overflow),
                _ => Err(Failure::Storage),
            }
        })
    }
}

/// What a script says first.
fn word(said: &[Value]) -> Option<&[u8]> {
    said.first().and_then(bytes)
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn entry(pair: &[Value]) -> Option<Entry> {
    let value = bytes(&pair[0])?.to_vec();
    let revision = bytes(&pair[1]).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0);
    Some(Entry { revision, value })
}
