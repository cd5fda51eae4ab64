//! File events → "look again". It only wakes the deployer: what has changed is found out by looking at the disk, since events
//! get lost.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::scan;

/// Renames that are remembered between two looks. More than that, and the rest waits until it has come to rest.
const RENAMES_MAX: usize = 10_000;

/// Watches the apps directory, also when it is removed and made again.
pub struct Watch {
    apps_dir: PathBuf,
    shared: Arc<Shared>,
    /// Dropping it ends the watch.
    watcher: Option<RecommendedWatcher>,
    /// The directory that `watcher` watches: it follows that one when it is renamed, not the path.
    watched: Option<(u64, u64)>,
    complained: bool,
}

#[derive(Default)]
struct Shared {
    changed: Notify,
    /// Paths that something was renamed to since they were last taken, relative to the apps directory.
    renamed: Mutex<HashSet<PathBuf>>,
}

impl Watch {
    /// A watch of a directory that need not exist yet.
    pub fn new(apps_dir: &Path) -> Self {
        Self { apps_dir: apps_dir.to_owned(), shared: Arc::default(), watcher: None, watched: None, complained: false }
    }

    /// Watches the directory that is there now. Cheap if that is the one watched already. Blocks for as long as it takes to
    /// list the folders.
    ///
    /// A machine without file events (or out of them) still serves: the periodic look finds everything, later.
    pub fn arm(&mut self) {
        let present = scan::identity(&self.apps_dir);
        if present == self.watched {
            return;
        }
        self.watcher = None;
        self.watched = None;
        if present.is_none() {
            return;
        }
        match self.watcher() {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.watched = present;
                self.complained = false;
            }
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(
                    "no file events for {}: {error}; changes are found by looking every rescan_time",
                    self.apps_dir.display()
                );
            }
            Err(_) => {}
        }
    }

    /// Resolves when something has changed since the last time. Cancel-safe.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// The files that were renamed into place since the last time, by path in the apps directory: they are whole.
    pub fn take_renamed(&self) -> HashSet<PathBuf> {
        std::mem::take(&mut *self.shared.renamed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn watcher(&self) -> notify::Result<RecommendedWatcher> {
        let shared = Arc::clone(&self.shared);
        let apps_dir = self.apps_dir.clone();
        // Following links would watch whatever a tenant links to.
        let config = notify::Config::default().with_follow_symlinks(false);
        let handler = move |event| shared.take(&apps_dir, event);
        let mut watcher = RecommendedWatcher::new(handler, config)?;
        watcher.watch(&self.apps_dir, RecursiveMode::Recursive)?;
        Ok(watcher)
    }
}

impl Shared {
    /// Called on the watcher's thread.
    fn take(&self, apps_dir: &Path, event: notify::Result<Event>) {
        // An error, an overflow say, means that something may have been missed.
        if let Ok(event) = event {
            if !concerns(apps_dir, &event) {
                return;
            }
            if let EventKind::Modify(ModifyKind::Name(RenameMode::To)) = event.kind {
                let mut renamed = self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
                if renamed.len() < RENAMES_MAX {
                    renamed.extend(
                        event.paths.iter().filter_map(|path| path.strip_prefix(apps_dir).ok().map(PathBuf::from)),
                    );
                }
            }
        }
        self.changed.notify_one();
    }
}

/// Whether an event can mean that an app has changed. Without this filter the deployer's own reading (an `open` is an event too)
/// would wake it for ever.
fn concerns(apps_dir: &Path, event: &Event) -> bool {
    if let EventKind::Access(access) = event.kind
        && access != AccessKind::Close(AccessMode::Write)
    {
        return false;
    }
    let hidden = |path: &PathBuf| {
        let inner = path.strip_prefix(apps_dir).unwrap_or(path);
        inner
            .components()
            .any(|part| matches!(part, Component::Normal(name) if name.as_encoded_bytes().starts_with(b".")))
    };
    event.paths.is_empty() || !event.paths.iter().all(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange};

    #[test]
    fn only_changes_to_visible_files_wake_the_deployer() {
        let create = EventKind::Create(CreateKind::File);
        let modify = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        for (kind, path, expected) in [
            (create, "/apps/hello.wasm", true),
            (modify, "/apps/shop/cart.toml", true),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), "/apps/hello.wasm", true),
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), "/apps/hello.wasm", false),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)), "/apps/hello.wasm", false),
            (modify, "/apps/.cache/x", false),
            (modify, "/apps/shop/.hello.wasm.swp", false),
        ] {
            let event = Event::new(kind).add_path(PathBuf::from(path));
            assert_eq!(concerns(Path::new("/apps"), &event), expected, "{kind:?} {path}");
        }
    }
}
