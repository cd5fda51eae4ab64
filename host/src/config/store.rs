//! Key-value stores that apps may have.

use toml::Value;

use super::file::Given;
use super::{AppNames, ConfigError};

/// A store that a tenant may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreGrant {
    pub apps: AppNames,
    pub sharing: Sharing,
}

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
        let wanted = "a table is wanted, {} or { apps = [\"NAME\"] }, and perhaps shared = true";
        let Value::Table(table) = given.value.as_ref() else { return Err(given.refuse(wanted)) };
        if table.keys().any(|key| !["apps", "shared"].contains(&key.as_str())) {
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
        Value::Table(table)
    }
}

fn is_store_name(name: &str) -> bool {
    (1..=STORE_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
