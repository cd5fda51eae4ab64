//! Static files: parts of an app's URL space that are files of its bundle. The host serves them by itself, and wakes no guest.
//!
//! Every path that is served is known when the release is loaded: a request's path is looked up among them, and never becomes a
//! path on disk. What is not among them is the guest's. [`negotiation`] knows HTTP's grammar, [`response`] makes the answer.

mod negotiation;
mod response;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use headers::ETag;
use http::HeaderValue;

use self::negotiation::Coding;
use crate::account::Account;
use crate::admission::Gate;
use crate::bundle::{Tree, TreeEntry};
use crate::config::AssetSpec;
use crate::limits::Limits;

/// All static files of an app.
pub struct Assets {
    tree: Arc<Tree>,
    /// By the decoded path below the app's own.
    by_path: HashMap<Vec<u8>, Asset>,
    gate: Gate,
    /// Its tenant's: what is sent is open.
    account: Arc<Account>,
}

/// What is served at one path.
struct Asset {
    media_type: HeaderValue,
    modified: SystemTime,
    plain: Variant,
    /// The same, compressed beforehand.
    coded: Vec<(Coding, Variant)>,
}

/// One of its representations.
#[derive(Clone)]
struct Variant {
    /// In the bundle.
    path: Arc<str>,
    bytes: u64,
    etag: ETag,
}

/// A path that is served, ready to be answered.
pub struct Found<'a> {
    assets: &'a Assets,
    asset: &'a Asset,
}

/// Files of these are not for everybody, whoever put them there.
fn is_hidden(path: &str) -> bool {
    path.split('/').any(|segment| segment.starts_with('.') && segment != ".well-known")
}

impl Assets {
    /// What an app serves from its bundle.
    ///
    /// # Errors
    /// If something is named that is not in it.
    pub fn new(tree: Arc<Tree>, specs: &[AssetSpec], limits: &Limits, account: &Arc<Account>) -> Result<Self, String> {
        let files: HashMap<&str, &TreeEntry> = tree.files().iter().map(|file| (file.path.as_str(), file)).collect();
        let mut by_path = HashMap::new();
        // A longer prefix comes later in their order, and counts more.
        for AssetSpec { prefix, target } in specs {
            if let Some(file) = files.get(target.as_str()) {
                by_path.insert(prefix.clone().into_bytes(), Asset::new(file, &files));
                continue;
            }
            let inside =
                |file: &&TreeEntry| file.path.strip_prefix(target.as_str())?.strip_prefix('/').map(str::to_owned);
            let mut is_there = false;
            for (file, rest) in tree.files().iter().filter_map(|file| Some((file, inside(&file)?))) {
                is_there = true;
                if !is_hidden(&rest) {
                    by_path.insert(format!("{prefix}/{rest}").into_bytes(), Asset::new(file, &files));
                }
            }
            if !is_there {
                let (prefix, target) = (prefix.escape_debug(), target.escape_debug());
                return Err(format!("static \"{prefix}/\": there is nothing at \"{target}\" in its bundle"));
            }
        }
        let gate = Gate::new(limits.concurrent_assets, limits);
        Ok(Self { tree, by_path, gate, account: Arc::clone(account) })
    }

    /// What is served at a path below the app's own.
    pub fn find(&self, path_info: &[u8]) -> Option<Found<'_>> {
        Some(Found { assets: self, asset: self.by_path.get(path_info)? })
    }

    /// How many paths are served.
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }
}

impl Asset {
    fn new(file: &TreeEntry, files: &HashMap<&str, &TreeEntry>) -> Self {
        let coded = Coding::ALL.iter().filter_map(|coding| {
            let found = files.get(format!("{}.{}", file.path, coding.extension()).as_str())?;
            Some((*coding, Variant::new(found)))
        });
        Self {
            media_type: media_type(&file.path),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(file.modified),
            plain: Variant::new(file),
            coded: coded.collect(),
        }
    }
}

impl Variant {
    fn new(file: &TreeEntry) -> Self {
        // Half of the hash is more than enough to tell versions apart.
        let etag = format!("\"{}\"", file.sha256.get(..32).unwrap_or(&file.sha256));
        Self {
            path: file.path.as_str().into(),
            bytes: file.bytes,
            etag: etag.parse().expect("hex digits in quotes are an entity tag"),
        }
    }
}

fn media_type(path: &str) -> HeaderValue {
    let guessed = mime_guess::from_path(Path::new(path)).first_raw().unwrap_or("application/octet-stream");
    // Text without its encoding is guessed at by browsers; what is in a bundle is UTF-8 today.
    if guessed.starts_with("text/") {
        return HeaderValue::try_from(format!("{guessed}; charset=utf-8")).expect("media types are ASCII");
    }
    HeaderValue::from_static(guessed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_files_are_hidden_but_what_is_well_known() {
        for (path, expected) in
            [("a/b.css", false), (".env", true), ("a/.git/config", true), (".well-known/x", false), ("a..b", false)]
        {
            assert_eq!(is_hidden(path), expected, "{path}");
        }
    }

    #[test]
    fn types_follow_from_names() {
        for (path, expected) in [
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.png", "image/png"),
            ("A.SVG", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.unheard-of", "application/octet-stream"),
            ("LICENSE", "application/octet-stream"),
        ] {
            assert_eq!(media_type(path), expected, "{path}");
        }
    }
}
