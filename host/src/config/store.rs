//! Key-value stores that apps may have.

use toml::Value;

use super::file::Given;
use super::{AppNames, ConfigError, Secret, SecretGrant};

/// A store that a tenant may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreGrant {
    pub apps: AppNames,
    pub sharing: Sharing,
    pub backend: StoreBackend,
}

/// Where a store's entries are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreBackend {
    /// In a file of this machine.
    Embedded,
    /// In the Redis that `keyvalue_redis` names.
    Redis,
}

const BACKENDS: &[(&str, StoreBackend)] = &[("embedded", StoreBackend::Embedded), ("redis", StoreBackend::Redis)];

/// Whose keys are in a store of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Each app has its own.
    Own,
    /// Those of all apps of the tenant that may have it.
    Shared,
}

const STORE_NAME_BYTES_MAX: usize = 64;

impl StoreGrant {
    /// `default = { apps = ["shop"] }`, with `shared = true` where apps are to see each other's keys.
    pub(super) fn parse(name: &str, given: &Given<'_>) -> Result<Self, ConfigError> {
        if !is_store_name(name) {
            let wanted = "the name of a store has 1 to 64 letters, digits, \"-\", \"_\" and \".\"";
            return Err(given.refuse_key(wanted));
        }
        let wanted =
            "a table is wanted, {} or { apps = [\"NAME\"] }, and perhaps shared = true and backend = \"redis\"";
        let Value::Table(table) = given.value.as_ref() else { return Err(given.refuse(wanted)) };
        if table.keys().any(|key| !["apps", "shared", "backend"].contains(&key.as_str())) {
            return Err(given.refuse(wanted));
        }
        Ok(Self {
            apps: match table.get("apps") {
                Some(apps) => AppNames::parse(&given.part("apps", apps))?,
                None => AppNames::all(),
            },
            sharing: match table.get("shared") {
                None | Some(Value::Boolean(false)) => Sharing::Own,
                Some(Value::Boolean(true)) => Sharing::Shared,
                Some(_) => return Err(given.refuse(wanted)),
            },
            backend: match table.get("backend") {
                Some(backend) => given.part("backend", backend).word(BACKENDS)?,
                None => StoreBackend::Embedded,
            },
        })
    }

    /// As it is written.
    pub(super) fn toml(&self) -> Value {
        let mut table = toml::Table::new();
        if self.apps != AppNames::all() {
            table.insert("apps".to_owned(), self.apps.toml());
        }
        if self.sharing == Sharing::Shared {
            table.insert("shared".to_owned(), true.into());
        }
        if self.backend == StoreBackend::Redis {
            table.insert("backend".to_owned(), "redis".into());
        }
        Value::Table(table)
    }
}

fn is_store_name(name: &str) -> bool {
    (1..=STORE_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Where the shared Redis is: `keyvalue_redis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisUrl {
    Said(String),
    /// With a password in it.
    Secret(SecretGrant),
}

const REDIS_SCHEMES: [&str; 3] = ["redis://", "redis+unix://", "unix://"];

impl RedisUrl {
    /// `"redis://127.0.0.1:6379/0"`, or where it is written: `{ file = "…" }`, `{ env = "…" }`.
    pub(super) fn parse(given: &Given<'_>) -> Result<Self, ConfigError> {
        match given.value.as_ref() {
            Value::String(url) if url.contains('@') => Err(given.refuse_key(
                "a URL with a password in it is a secret: write it into a file, and { file = \"PATH\" } here",
            )),
            Value::String(url) => match check_url(url) {
                Ok(()) => Ok(Self::Said(url.clone())),
                Err(reason) => Err(given.refuse(reason)),
            },
            Value::Table(table) if !table.contains_key("apps") => SecretGrant::parse(given).map(Self::Secret),
            _ => Err(given.refuse_key("a URL is wanted, or { file = \"PATH\" } or { env = \"NAME\" }")),
        }
    }

    /// As it is written.
    pub(super) fn toml(&self) -> Value {
        match self {
            Self::Said(url) => url.clone().into(),
            Self::Secret(grant) => grant.toml(),
        }
    }

    /// The URL itself.
    ///
    /// # Errors
    /// Says where it should be and why it is not there, and nothing of what is.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Said(url) => Ok(Secret::new(url.clone())),
            Self::Secret(grant) => {
                let url = grant.source.read()?;
                check_url(url.expose()).map(|()| url)
            }
        }
    }
}

fn check_url(url: &str) -> Result<(), String> {
    let is_known = REDIS_SCHEMES.iter().any(|scheme| url.starts_with(scheme));
    is_known.then_some(()).ok_or_else(|| format!("a URL with one of {} is wanted", REDIS_SCHEMES.join(", ")))
}
