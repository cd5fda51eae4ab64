//! Directories of the host that apps may see, beyond their files and their data.

use std::path::PathBuf;

use toml::Value;

use super::field::{LIMITS, size_text};
use super::file::Given;
use super::{AppNames, ConfigError, places, route};
use crate::unlinked::led_elsewhere;

/// A directory that a tenant may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryGrant {
    pub path: PathBuf,
    pub access: Access,
    /// What it may hold for guests to write to it, where something else is said than the limits of data.
    pub bytes_max: Option<u64>,
    pub names_max: Option<u64>,
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
    /// What it may hold for the app to write to it, with all that others have put there.
    pub bytes_max: u64,
    pub names_max: u64,
}

impl DirectorySpec {
    /// Why it will not be opened, where a link is on the way to it.
    pub fn linked(&self) -> Option<String> {
        led_elsewhere(&self.path).map(|real| places::linked_text(&self.path, &real))
    }
}

/// Where guests have their data.
const DATA_PLACE: &str = "/data";

impl DirectoryGrant {
    /// `"/media" = { path = "/srv/acme/media" }`, with `write = true`, `size = "10GiB"`, `files = 1000` and `apps = [...]`.
    pub(super) fn parse(place: &str, given: &Given<'_>) -> Result<Self, ConfigError> {
        let is_taken = || place == DATA_PLACE || place.starts_with("/data/");
        match route::path_below(place) {
            Ok(path) if path == place && !is_taken() => {}
            Ok(_) => return Err(given.refuse("guests see a directory at a path of its own, such as \"/media\"")),
            Err(_) => return Err(given.refuse("an absolute path is wanted, where guests see it: \"/media\"")),
        }
        let wanted = "a place is wanted, { path = \"PATH\" }, and perhaps write = true, size = \"1GiB\", files = 1000 \
                      and apps = [\"NAME\"]";
        let Value::Table(table) = given.value.as_ref() else { return Err(given.refuse(wanted)) };
        if table.keys().any(|key| !["path", "write", "size", "files", "apps"].contains(&key.as_str())) {
            return Err(given.refuse(wanted));
        }
        let path = table.get("path").and_then(Value::as_str).filter(|path| !path.is_empty());
        let access = match table.get("write") {
            None | Some(Value::Boolean(false)) => Access::Read,
            Some(Value::Boolean(true)) => Access::Write,
            Some(_) => return Err(given.refuse(wanted)),
        };
        // The same units and ranges as those of data.
        let number = |key: &str, limit: &str| match table.get(key) {
            None => Ok(None),
            Some(_) if access == Access::Read => {
                Err(given.refuse(format!("{key} bounds what guests write: it says nothing without write = true")))
            }
            Some(value) => {
                let field = LIMITS.iter().find(|field| field.key == limit).expect("it is a literal of the table");
                field.amount(value).map(Some).map_err(|reason| given.part(key, value).refuse(reason))
            }
        };
        Ok(Self {
            bytes_max: number("size", "data_size")?,
            names_max: number("files", "data_files")?,
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
        if let Some(bytes) = self.bytes_max {
            table.insert("size".to_owned(), size_text(bytes).into());
        }
        if let Some(names) = self.names_max {
            table.insert("files".to_owned(), i64::try_from(names).unwrap_or(i64::MAX).into());
        }
        if self.apps != AppNames::all() {
            table.insert("apps".to_owned(), self.apps.toml());
        }
        Value::Table(table)
    }
}
