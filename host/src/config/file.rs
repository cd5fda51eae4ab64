//! `wasgi.toml` as it is written: which keys there are, and where in the file each value stands. It checks no value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};

use super::ConfigError;

pub(super) type Item = Option<Spanned<Value>>;
pub(super) type Items = BTreeMap<Spanned<String>, Spanned<Value>>;

/// The keys of `wasgi.toml`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) apps_dir: Item,
    pub(super) state_dir: Item,
    pub(super) bind: Item,
    pub(super) certfile: Item,
    pub(super) keyfile: Item,
    pub(super) forwarded_allow_ips: Item,
    pub(super) dev: Item,
    pub(super) confine: Item,
    pub(super) confine_paths: Item,
    pub(super) user: Item,
    pub(super) group: Item,
    pub(super) workers: Item,
    pub(super) sandboxes: Item,
    pub(super) sandbox_memory: Item,
    pub(super) stack: Item,
    pub(super) app_idle_time: Item,
    pub(super) rescan_time: Item,
    pub(super) settle_time: Item,
    pub(super) instances: Item,
    pub(super) chunked_bodies: Item,
    pub(super) passes: Item,
    pub(super) reuse_requests: Item,
    pub(super) reuse_idle_time: Item,
    pub(super) reuse_memory: Item,
    pub(super) capsules: Item,
    pub(super) capsules_count: Item,
    pub(super) capsules_size: Item,
    pub(super) capsules_body_size: Item,
    pub(super) capsules_module_size: Item,
    pub(super) data_dir: Item,
    pub(super) outbound_cafile: Item,
    pub(super) keyvalue_redis: Item,
    pub(super) tenants_dir: Item,
    pub(super) grant: GrantTable,
    pub(super) tenant: BTreeMap<Spanned<String>, TenantTable>,
    pub(super) limits: Items,
    pub(super) budget: Items,
    pub(super) edge: Items,
    pub(super) log: LogTable,
    pub(super) access_log: AccessLogTable,
}

/// `[tenant.NAME]`, or the whole of `NAME.toml` among the files of tenants.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TenantTable {
    pub(super) routes: Item,
    pub(super) grant: GrantTable,
    pub(super) limits: Items,
    pub(super) budget: Items,
}

/// What apps may have beyond a sandbox.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GrantTable {
    pub(super) data: Item,
    pub(super) wall_clock: Item,
    pub(super) randomness: Item,
    pub(super) outbound: Items,
    pub(super) env: Items,
    pub(super) secrets: Items,
    pub(super) directories: Items,
    pub(super) keyvalue: Items,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogTable {
    pub(super) filter: Item,
    pub(super) format: Item,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AccessLogTable {
    pub(super) file: Item,
    pub(super) format: Item,
}

/// A TOML text that was read, for finding the line of a value in it.
pub(super) struct Source {
    /// None for a sidecar: its reader knows the path and says it.
    path: Option<PathBuf>,
    text: String,
}

/// Settings files are small; something large is not one, and its author shall not fill the host's memory.
pub(super) const FILE_BYTES_MAX: u64 = 256 << 10;

impl Source {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let place = || path.display().to_string();
        let refused = |error: std::io::Error| ConfigError::new(place(), format!("it cannot be read: {error}"));
        let bytes = std::fs::metadata(path).map_err(refused)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(ConfigError::new(
                place(),
                format!("{bytes} bytes: a settings file has at most {FILE_BYTES_MAX}"),
            ));
        }
        let text = std::fs::read_to_string(path).map_err(refused)?;
        Ok(Self { path: Some(path.to_owned()), text })
    }

    pub(super) fn sidecar(text: &str) -> Self {
        Self { path: None, text: text.to_owned() }
    }

    pub(super) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            // The parser's own display shows the line in a drawing of several lines; a log line has room for one.
            ConfigError::new(self.place(offset), error.message().lines().collect::<Vec<_>>().join("; "))
        })
    }

    /// "wasgi.toml line 3", or "line 3" in a sidecar.
    pub(super) fn place(&self, offset: usize) -> String {
        let line = self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
        match &self.path {
            Some(path) => format!("{} line {line}", path.display()),
            None => format!("line {line}"),
        }
    }

    /// A value together with where it stands and what it is called.
    pub(super) fn given<'v>(&'v self, key: &str, item: &'v Spanned<Value>) -> Given<'v> {
        Given {
            place: self.place(item.span().start),
            key: key.to_owned(),
            value: std::borrow::Cow::Borrowed(item.as_ref()),
            folder: self.folder(),
        }
    }

    pub(super) fn if_given<'v>(&'v self, key: &str, item: &'v Item) -> Option<Given<'v>> {
        item.as_ref().map(|item| self.given(key, item))
    }

    /// The tables of one tenant in it: `prefix` is what its keys begin with.
    pub(super) fn section(&self, prefix: String) -> Section<'_> {
        Section { source: self, prefix }
    }

    /// The folder that relative paths in the file start from.
    pub(super) fn folder(&self) -> &Path {
        self.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""))
    }
}

/// A part of a file that has the same keys as others.
pub(super) struct Section<'s> {
    pub(super) source: &'s Source,
    /// "" or `tenant.acme.`.
    pub(super) prefix: String,
}

impl Section<'_> {
    pub(super) fn given<'v>(&'v self, key: &str, item: &'v Spanned<Value>) -> Given<'v> {
        self.source.given(&format!("{}{key}", self.prefix), item)
    }

    /// A value, where there is one.
    pub(super) fn item<T>(
        &self,
        key: &str,
        item: &Item,
        parse: impl Fn(&Given<'_>) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        item.as_ref().map(|item| parse(&self.given(key, item))).transpose()
    }

    /// The values of a table whose keys are names.
    pub(super) fn items<T>(
        &self,
        table: &str,
        items: &Items,
        parse: impl Fn(&str, &Given<'_>) -> Result<T, ConfigError>,
    ) -> Result<BTreeMap<String, T>, ConfigError> {
        let entry = |(name, item): (&Spanned<String>, &Spanned<Value>)| {
            let name = name.as_ref();
            let parsed = parse(name, &self.given(&format!("{table}.\"{}\"", name.escape_debug()), item));
            parsed.map(|parsed| (name.to_owned(), parsed))
        };
        items.iter().map(entry).collect()
    }
}

/// A value as it was given: in a file, by a flag or by an environment variable.
pub(super) struct Given<'v> {
    pub(super) place: String,
    /// As the user wrote it: `limits.memory`; empty where the place says it all (`--workers`).
    pub(super) key: String,
    pub(super) value: std::borrow::Cow<'v, Value>,
    /// The folder that a relative path in it starts from.
    pub(super) folder: &'v Path,
}

impl Given<'static> {
    /// From a flag or its environment variable: `place` names both.
    pub(super) fn flag(place: &str, text: &str) -> Self {
        Given {
            place: place.to_owned(),
            key: String::new(),
            value: std::borrow::Cow::Owned(Value::String(text.to_owned())),
            folder: Path::new(""),
        }
    }
}

impl Given<'_> {
    pub(super) fn refuse(&self, reason: impl std::fmt::Display) -> ConfigError {
        let key = if self.key.is_empty() { String::new() } else { format!("{} = ", self.key) };
        ConfigError::new(self.place.clone(), format!("{key}{}: {reason}", self.value))
    }

    /// Where the value may be a secret, or says nothing.
    pub(super) fn refuse_key(&self, reason: impl std::fmt::Display) -> ConfigError {
        ConfigError::new(self.place.clone(), format!("{}: {reason}", self.key))
    }

    /// A value that is part of this one.
    pub(super) fn part<'p>(&'p self, key: &str, value: &'p Value) -> Given<'p> {
        Given {
            place: self.place.clone(),
            key: format!("{}.{key}", self.key),
            value: std::borrow::Cow::Borrowed(value),
            folder: self.folder,
        }
    }

    pub(super) fn text(&self) -> Result<&str, ConfigError> {
        self.value.as_str().ok_or_else(|| self.refuse("a text in quotes is wanted"))
    }

    pub(super) fn truth(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.refuse("true or false is wanted"))
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>();
            self.refuse(format!("it is one of {}", words.join(", ")))
        })
    }

    /// One text, or a list of texts.
    pub(super) fn texts(&self) -> Result<Vec<&str>, ConfigError> {
        let refused = || self.refuse("a list of texts is wanted, such as [\"…\", \"…\"]");
        match self.value.as_ref() {
            Value::String(text) => Ok(vec![text]),
            Value::Array(items) => items.iter().map(|item| item.as_str().ok_or_else(refused)).collect(),
            _ => Err(refused()),
        }
    }
}
