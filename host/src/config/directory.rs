//! Directories of the host that apps may see, beyond their files and their data.

use std::path::PathBuf;

use toml::Value;

use super::file::Given;
use super::{AppNames, ConfigError, route};

/// A directory that a tenant may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryGrant {
    pub path: PathBuf,
    pub access: Access,
    pub apps: AppNames,
}

/// What a guest may do in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// A directory that an app has: asked for, and granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectorySpec {
    /// Where guests see it: `/media`.
    pub place: String,
    pub path: PathBuf,
    pub access: Access,
}

/// Where guests have their data.
const DATA_PLACE: &str = "/data";

impl DirectoryGrant {
    /// `"/media" = { path = "/srv/acme/media" }`, with `write = true` and `apps = [...]`.
    pub(super) fn parse(place: &str, given: &Given<'_>) -> Result<Self, ConfigError> {
        let is_taken = || place == DATA_PLACE || place.starts_with("/data/");
        match route::path_below(place) {
            Ok(path) if path == place && !is_taken() => {}
            Ok(_) => return Err(given.refuse("guests see a directory at a path of its own, such as \"/media\"")),
            Err(_) => return Err(given.refuse("an absolute path is wanted, where guests see it: \"/media\"")),
        }
        let wanted = "a place is wanted, { path = \"PATH\" }, and perhaps write = true and apps = [\"NAME\"]";
        let Value::Table(table) = given.value.as_ref() else { return Err(given.refuse(wanted)) };
        if table.keys().any(|key| !["path", "write", "apps"].contains(&key.as_str())) {
            return Err(given.refuse(wanted));
        }
        let path = table.get("path").and_then(Value::as_str).filter(|path| !path.is_empty());
        let access = match table.get("write") {
            None | Some(Value::Boolean(false)) => Access::Read,
            Some(Value::Boolean(true)) => Access::Write,
            Some(_) => return Err(given.refuse(wanted)),
        };
        Ok(Self {
            path: given.folder.join(path.ok_or_else(|| given.refuse(wanted))?),
            access,
            apps: match table.get("apps") {
                Some(apps) => AppNames::parse(&given.part("apps", apps))?,
                None => AppNames::all(),
            },
        })
    }

    /// As it is written.
    pub(super) fn toml(&self) -> Value {
        let mut table = toml::Table::new();
        table.insert("path".to_owned(), self.path.to_string_lossy().into_owned().into());
        if self.access == Access::Write {
            table.insert("write".to_owned(), true.into());
        }
        if self.apps != AppNames::all() {
            table.insert("apps".to_owned(), self.apps.toml());
        }
        Value::Table(table)
    }
}
