//! Key-value stores that apps may have.

use std::fmt;

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
#[derive(Clone, PartialEq, Eq)]
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
            // A password may be in whatever it says: it is in no message.
            Value::String(url) => match check_url(url).and_then(|()| check_public(url)) {
                Ok(()) => Ok(Self::Said(url.clone())),
                Err(reason) => Err(given.refuse_key(reason)),
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

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(where Redis is)")
    }
}

/// What the query of a URL may say that anybody may know.
const PUBLIC_KEYS: [&str; 2] = ["db=", "protocol="];

/// Whether everybody may see it: there is no user, no password, and nothing in which one could be.
fn check_public(url: &str) -> Result<(), String> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let is_public = |pair: &str| pair.is_empty() || PUBLIC_KEYS.iter().any(|key| pair.starts_with(key));
    if url.contains(['@', '#']) || !query.split('&').all(is_public) {
        return Err(
            "a URL with a user, a password or anything unknown in it is a secret: write it into a file, and { file = \"PATH\" } here"
                .to_owned(),
        );
    }
    Ok(())
}

fn check_url(url: &str) -> Result<(), String> {
    let is_known = REDIS_SCHEMES.iter().any(|scheme| url.starts_with(scheme));
    is_known.then_some(()).ok_or_else(|| format!("a URL with one of {} is wanted", REDIS_SCHEMES.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_in_which_a_password_could_be_is_refused_and_not_shown() {
        let parse = |url: &str| RedisUrl::parse(&Given::flag("keyvalue_redis", url));
        for url in
            ["redis://127.0.0.1:6379/3", "redis+unix:///run/redis.sock?db=2&protocol=resp3", "unix:///run/redis.sock"]
        {
            let parsed = parse(url).expect(url);
            assert_eq!(parsed.toml(), Value::from(url));
            assert_eq!(format!("{parsed:?}"), "(where Redis is)");
        }
        for url in [
            "redis://:HUSH@127.0.0.1/",
            "redis://HUSH@127.0.0.1/",
            "redis+unix:///run/redis.sock?pass=HUSH",
            "redis+unix:///run/redis.sock?db=1&user=HUSH",
            "unix:///run/redis.sock?p%61ss=HUSH",
            "unix:///run/redis.sock?password=HUSH",
            "unix:///run/redis.sock?db=1#HUSH",
            "redis+unx:///run/redis.sock?pass=HUSH",
            "HUSH",
        ] {
            let refused = parse(url).expect_err(url).to_string();
            assert!(refused.starts_with("keyvalue_redis: ") && !refused.contains("HUSH"), "{refused}");
        }
    }
}
