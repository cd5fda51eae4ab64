//! `[grant]`: what the operator allows apps beyond their sandboxes, those of the top level or, as
//! `[tenant.NAME.grant]`, those of a tenant. Apps ask for it in their sidecars; asking without a grant refuses the app.
//!
//! Another grant is a field of [`Grants`], a key of `GrantTable`, and a line each in [`Grants::parse`] and
//! [`Grants::lines`].

mod outbound;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Value;

pub use outbound::{Destination, Destinations, OutboundGrants, Protocol, host_name};

use super::file::{Given, GrantTable, Section};
use super::{ConfigError, DirectoryGrant, SecretGrant, StoreGrant, sidecar};

/// What the apps of one tenant may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// A directory for data.
    pub data: AppNames,
    /// To know what time it is.
    pub wall_clock: AppNames,
    /// Random numbers that nobody can foresee.
    pub randomness: AppNames,
    /// Requests and connections to elsewhere.
    pub outbound: OutboundGrants,
    /// Variables that all of its apps have.
    pub env: BTreeMap<String, String>,
    /// Variables whose values nobody else sees: an app has those that it asks for.
    pub secrets: BTreeMap<String, SecretGrant>,
    /// Directories of the host, by where guests see them: an app has those that it asks for.
    pub directories: BTreeMap<String, DirectoryGrant>,
    /// Key-value stores, by name: an app has those that it asks for.
    pub keyvalue: BTreeMap<String, StoreGrant>,
    /// What was to be among secrets and directories, and where it is: a host that has confined itself gets there by a restart alone.
    pub out_of_reach: BTreeMap<String, PathBuf>,
}

impl Default for Grants {
    /// Nothing but what hardly any program goes without.
    fn default() -> Self {
        Self {
            data: AppNames::default(),
            wall_clock: AppNames::all(),
            randomness: AppNames::all(),
            outbound: OutboundGrants::default(),
            env: BTreeMap::default(),
            secrets: BTreeMap::default(),
            directories: BTreeMap::default(),
            keyvalue: BTreeMap::default(),
            out_of_reach: BTreeMap::default(),
        }
    }
}

impl Grants {
    /// Where `default` says what holds of which nothing is said.
    pub(super) fn parse(table: &GrantTable, section: &Section<'_>, default: &Self) -> Result<Self, ConfigError> {
        let (time, chance) = (default.wall_clock.clone(), default.randomness.clone());
        Ok(Self {
            data: section.item("grant.data", &table.data, AppNames::parse)?.unwrap_or_default(),
            wall_clock: section.item("grant.wall_clock", &table.wall_clock, AppNames::parse_any)?.unwrap_or(time),
            randomness: section.item("grant.randomness", &table.randomness, AppNames::parse_any)?.unwrap_or(chance),
            env: sidecar::env(section, "grant.env", &table.env)?.into_iter().collect(),
            secrets: section.items("grant.secrets", &table.secrets, |name, given| {
                sidecar::env_name(name).map_err(|reason| given.refuse_key(reason))?;
                SecretGrant::parse(given)
            })?,
            directories: section.items("grant.directories", &table.directories, DirectoryGrant::parse)?,
            outbound: OutboundGrants::parse(section, &table.outbound)?,
            keyvalue: section.items("grant.keyvalue", &table.keyvalue, StoreGrant::parse)?,
            out_of_reach: BTreeMap::default(),
        })
    }

    /// What apps in folders have of which nothing is said, where this is what those in none have. A list names apps that lie in none:
    /// nobody else is meant by it.
    pub(super) fn of_others(&self) -> Self {
        let inherited =
            |names: &AppNames| if *names == AppNames::all() { AppNames::all() } else { AppNames::default() };
        Self { wall_clock: inherited(&self.wall_clock), randomness: inherited(&self.randomness), ..Self::default() }
    }

    /// The top level's grants are for no app in a folder, which belongs to the tenant of that name.
    pub(super) fn refuse_folders(&self, table: &GrantTable, section: &Section<'_>) -> Result<(), ConfigError> {
        section.item("grant.data", &table.data, |given| refuse_folder(given, self.data.folder()))?;
        section.item("grant.wall_clock", &table.wall_clock, |given| refuse_folder(given, self.wall_clock.folder()))?;
        section.item("grant.randomness", &table.randomness, |given| refuse_folder(given, self.randomness.folder()))?;
        section.items("grant.outbound", &table.outbound, |apps, given| {
            refuse_folder(given, Pattern::parse(given, apps)?.folder())
        })?;
        let refuse_apps = |given: &Given<'_>, apps: &AppNames| match given.value.get("apps") {
            Some(value) => refuse_folder(&given.part("apps", value), apps.folder()),
            None => Ok(()),
        };
        section.items("grant.secrets", &table.secrets, |name, given| refuse_apps(given, &self.secrets[name].apps))?;
        section.items("grant.directories", &table.directories, |place, given| {
            refuse_apps(given, &self.directories[place].apps)
        })?;
        section
            .items("grant.keyvalue", &table.keyvalue, |name, given| refuse_apps(given, &self.keyvalue[name].apps))?;
        Ok(())
    }

    /// As they are written: tables with their keys and values, `table` being that of the grants.
    pub(super) fn lines(&self, table: &str) -> Vec<(String, Vec<(String, Value)>)> {
        let quoted = |name: &String| Value::String(name.clone()).to_string();
        vec![
            (
                table.to_owned(),
                vec![
                    ("data".to_owned(), self.data.toml()),
                    ("wall_clock".to_owned(), self.wall_clock.toml_any()),
                    ("randomness".to_owned(), self.randomness.toml_any()),
                ],
            ),
            (
                format!("{table}.env"),
                self.env.iter().map(|(name, value)| (quoted(name), Value::String(value.clone()))).collect(),
            ),
            (
                format!("{table}.secrets"),
                self.secrets.iter().map(|(name, secret)| (quoted(name), secret.toml())).collect(),
            ),
            (
                format!("{table}.directories"),
                self.directories.iter().map(|(place, directory)| (quoted(place), directory.toml())).collect(),
            ),
            (format!("{table}.outbound"), self.outbound.lines().collect()),
            (
                format!("{table}.keyvalue"),
                self.keyvalue.iter().map(|(name, store)| (quoted(name), store.toml())).collect(),
            ),
        ]
    }
}

/// Names of a tenant's apps, without its folder: `shop`, all apps of a folder in it as `blog/*`, all apps as `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppNames(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Name(String),
    /// `blog/`, or nothing for all.
    Below(String),
}

impl AppNames {
    pub(super) fn parse(given: &Given<'_>) -> Result<Self, ConfigError> {
        let patterns = given.texts()?.into_iter().map(|text| Pattern::parse(given, text));
        patterns.collect::<Result<_, _>>().map(Self)
    }

    /// `true` for all apps, `false` for none, or their names.
    fn parse_any(given: &Given<'_>) -> Result<Self, ConfigError> {
        match given.value.as_ref() {
            Value::Boolean(true) => Ok(Self::all()),
            Value::Boolean(false) => Ok(Self::default()),
            Value::String(_) | Value::Array(_) => Self::parse(given),
            _ => Err(given.refuse("true, false or names of the tenant's apps are wanted: [\"shop\", \"blog/*\"]")),
        }
    }

    /// All apps.
    pub fn all() -> Self {
        Self(vec![Pattern::Below(String::new())])
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contain(&self, app: &str) -> bool {
        self.0.iter().any(|pattern| pattern.fits(app))
    }

    /// The first that lies in a folder, if any does.
    fn folder(&self) -> Option<&str> {
        self.0.iter().find_map(Pattern::folder)
    }

    /// As they are written where `true` and `false` are understood.
    fn toml_any(&self) -> Value {
        match self.is_empty() || *self == Self::all() {
            true => Value::Boolean(!self.is_empty()),
            false => self.toml(),
        }
    }

    /// As they are written.
    pub(super) fn toml(&self) -> Value {
        Value::Array(self.0.iter().map(|pattern| Value::String(pattern.text())).collect())
    }
}

impl Pattern {
    fn parse(given: &Given<'_>, text: &str) -> Result<Self, ConfigError> {
        let (path, is_below) = match text.strip_suffix('*') {
            Some(folder) => (folder.strip_suffix('/').unwrap_or(folder), true),
            None => (text, false),
        };
        let is_whole = !is_below || path.is_empty() || text.ends_with("/*");
        if !is_whole || !(is_name(path) || (is_below && path.is_empty())) {
            let wanted = "names of the tenant's apps are wanted: \"shop\", \"blog/*\" or \"*\"";
            return Err(given.refuse(wanted));
        }
        Ok(match is_below {
            true if path.is_empty() => Self::Below(String::new()),
            true => Self::Below(format!("{path}/")),
            false => Self::Name(path.to_owned()),
        })
    }

    fn fits(&self, app: &str) -> bool {
        match self {
            Self::Name(name) => name == app,
            Self::Below(folder) => app.starts_with(folder),
        }
    }

    /// Where the apps lie, if that is not the tenant's own folder.
    fn folder(&self) -> Option<&str> {
        let (Self::Name(path) | Self::Below(path)) = self;
        path.split_once('/').map(|(folder, _)| folder)
    }

    fn text(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Below(folder) => format!("{folder}*"),
        }
    }
}

fn refuse_folder(given: &Given<'_>, folder: Option<&str>) -> Result<(), ConfigError> {
    match folder {
        Some(folder) => Err(given.refuse(format!(
            "apps in the folder {folder} belong to the tenant {folder}: write [tenant.{folder}.grant]"
        ))),
        None => Ok(()),
    }
}

/// As the names of files in the apps directory may be.
pub(super) fn is_name(path: &str) -> bool {
    path.split('/').all(|segment| {
        let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(is_unreserved)
    })
}

/// What a slash in an app's name becomes in the name of its directory: no app's name has it.
const SLASH: &str = "+";
/// What file systems take.
const NAME_BYTES_MAX: usize = 255;

/// The directory of an app's data. Different names have different directories, none of them in another.
pub(super) fn data_path(data_dir: &Path, app: &str) -> Result<PathBuf, String> {
    if !is_name(app) {
        return Err("its name is none that an app in the apps directory can have: rename it".to_owned());
    }
    let name = app.replace('/', SLASH);
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("its name has more than {NAME_BYTES_MAX} bytes: rename it"));
    }
    Ok(data_dir.join(name))
}

/// Whose data lies in a directory of this name. Names with a dot before them are the host's.
pub(crate) fn tenant_of_data(name: &str) -> Option<&str> {
    (!name.starts_with('.')).then(|| name.split_once(SLASH).map_or("", |(tenant, _)| tenant))
}

#[cfg(test)]
mod tests {
    use toml::Value;

    use super::*;

    fn names(texts: &[&str]) -> Result<AppNames, ConfigError> {
        let list = texts.iter().map(|text| Value::String((*text).to_owned())).collect();
        let value = std::borrow::Cow::Owned(Value::Array(list));
        AppNames::parse(&Given { value, ..Given::flag("test", "") })
    }

    #[test]
    fn names_folders_and_all_are_told_apart() {
        let some = names(&["shop", "blog/*", "a/b"]).expect("they are names");
        for (app, expected) in [
            ("shop", true),
            ("shop/cart", false),
            ("shopping", false),
            ("blog", false),
            ("blog/x", true),
            ("blog/x/y", true),
            ("blogs/x", false),
            ("a/b", true),
            ("a", false),
        ] {
            assert_eq!(some.contain(app), expected, "{app}");
        }
        assert!(names(&["*"]).expect("all").contain("any/thing"));
        assert!(!AppNames::default().contain("shop"));
        assert_eq!(some.toml().to_string(), r#"["shop", "blog/*", "a/b"]"#);
        assert_eq!((some.folder(), names(&["shop", "*"]).expect("they are names").folder()), (Some("blog"), None));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "/shop", "shop/", "blog*", "*/x", "a//b", "../x", "a/../b", ".hidden", "a b", "blog/**", "**"]
        {
            assert!(names(&[text]).is_err(), "{text}");
        }
    }

    #[test]
    fn no_two_apps_share_a_directory_and_none_leaves_it() {
        let path = |app: &str| data_path(Path::new("/d"), app);
        assert_eq!(path("shop"), Ok(PathBuf::from("/d/shop")));
        assert_eq!(path("shop/cart"), Ok(PathBuf::from("/d/shop+cart")));
        for app in ["shop", "shop/cart", "shop/cart/x"] {
            let name = app.replace('/', SLASH);
            assert_eq!(tenant_of_data(&name), Some(super::super::tenant_name(app)));
        }
        assert_eq!(tenant_of_data(".turns"), None);
        for app in ["..", "a/..", "/etc", "", "shop+cart", "a\0b", &"x".repeat(256)] {
            assert!(path(app).is_err(), "{app}");
        }
    }
}
