//! `[grant]`: what the operator allows which apps beyond their sandboxes. Apps ask for it in their sidecars; asking without a grant
//! refuses the app.

mod outbound;

use std::path::{Path, PathBuf};

use super::ConfigError;
use super::file::Given;

pub use outbound::{Destination, Destinations, OutboundGrants, Protocol, host_name};

/// Who may have what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// A directory for data.
    pub data: AppNames,
    /// Requests and connections to elsewhere.
    pub outbound: OutboundGrants,
}

/// Names of apps: `shop`, all apps of a folder as `blog/*`, all apps as `*`.
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

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contain(&self, app: &str) -> bool {
        self.0.iter().any(|pattern| pattern.fits(app))
    }

    /// As they are written.
    pub(super) fn texts(&self) -> Vec<String> {
        self.0.iter().map(Pattern::text).collect()
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
            let wanted = "names of apps are wanted, as `wasgi apps` lists them: \"shop\", \"blog/*\" or \"*\"";
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

    fn text(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Below(folder) => format!("{folder}*"),
        }
    }
}

/// As the names of files in the apps directory may be.
fn is_name(path: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use toml::Value;

    use super::*;

    fn names(texts: &[&str]) -> Result<AppNames, ConfigError> {
        let list = texts.iter().map(|text| Value::String((*text).to_owned())).collect();
        let value = std::borrow::Cow::Owned(Value::Array(list));
        AppNames::parse(&Given { place: "test".to_owned(), key: "grant.data".to_owned(), value })
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
        assert_eq!(some.texts(), ["shop", "blog/*", "a/b"]);
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
        for app in ["..", "a/..", "/etc", "", "shop+cart", "a\0b", &"x".repeat(256)] {
            assert!(path(app).is_err(), "{app}");
        }
    }
}
