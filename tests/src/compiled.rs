//! Compiled code of large components, such as Python's: compiled once, and lent to every host of the tests that serves one.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::{COMPILE_PATIENCE, PATIENCE};

/// What is smaller compiles in no time.
const LARGE: u64 = 4 << 20;
/// Code of components that are built no more goes after this time.
const UNUSED_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// For each large component that was started in this run: whether it is compiled. Its lock is held while a host starts that is the
/// first to serve it: two hosts would compile the same twice.
static STARTED: Mutex<BTreeMap<u64, Arc<Mutex<bool>>>> = Mutex::new(BTreeMap::new());
/// Held while what is kept is read or written.
static STORE: Mutex<()> = Mutex::new(());

/// What a host needs to start that serves these apps.
pub(crate) struct Compiled {
    /// The contents of the large ones, in the order in which they are locked.
    large: Vec<u64>,
}

impl Compiled {
    pub(crate) fn of(folder: &Path, apps: &[String]) -> Self {
        let mut large: Vec<_> = apps
            .iter()
            .map(|app| folder.join("apps").join(format!("{app}.wasm")))
            .filter(|file| fs::metadata(file).is_ok_and(|metadata| metadata.len() >= LARGE))
            .map(|file| {
                let mut hasher = DefaultHasher::new();
                fs::read(file).expect("a test has put it there").hash(&mut hasher);
                hasher.finish()
            })
            .collect();
        large.sort_unstable();
        large.dedup();
        Self { large }
    }

    /// What the host is started with beside what the test wants: machines that test are busy.
    pub(crate) fn flags(&self) -> Vec<(String, String)> {
        let flag = ("--limit".to_owned(), format!("compile_time={}s", COMPILE_PATIENCE.as_secs()));
        if self.large.is_empty() { Vec::new() } else { vec![flag] }
    }

    /// How long to wait until the apps are live.
    pub(crate) fn patience(&self) -> Duration {
        if self.large.is_empty() { PATIENCE } else { COMPILE_PATIENCE }
    }

    /// Starts a host whose state has this folder: with what is compiled already in its cache; and what it compiles is kept.
    pub(crate) fn around<T>(&self, state: &Path, start: impl FnOnce() -> T) -> T {
        if self.large.is_empty() {
            return start();
        }
        let locks: Vec<_> = {
            let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
            self.large.iter().map(|hash| Arc::clone(started.entry(*hash).or_default())).collect()
        };
        // Those that are compiled already nobody needs to wait for.
        let mut firsts = Vec::new();
        for lock in &locks {
            let is_compiled = lock.lock().unwrap_or_else(PoisonError::into_inner);
            if !*is_compiled {
                firsts.push(is_compiled);
            }
        }
        let cache = state.join("cache");
        // As the host makes it: others may not write there.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&cache).expect("the directory is ours");
        lend(&cache);
        let host = start();
        if !firsts.is_empty() {
            keep(&cache);
            firsts.iter_mut().for_each(|is_compiled| **is_compiled = true);
        }
        host
    }
}

/// Gives a host what is kept.
fn lend(cache: &Path) {
    let _one = STORE.lock().unwrap_or_else(PoisonError::into_inner);
    copy(&store(), cache);
}

/// Keeps what a host has compiled by now.
fn keep(cache: &Path) {
    let _one = STORE.lock().unwrap_or_else(PoisonError::into_inner);
    let store = store();
    fs::create_dir_all(&store).expect("the target directory is ours");
    for path in files(&store) {
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > UNUSED_TIME)) {
            let _ = fs::remove_file(&path);
        }
    }
    copy(cache, &store);
}

fn store() -> PathBuf {
    let deps = std::env::current_exe().expect("a test knows its own file");
    deps.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").join("compiled")
}

/// The files of a folder, if it is there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "cwasm")).collect()
}

/// Compiled code is never changed, so a second name for it will do; on another file system a copy.
fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.file_name().expect("it is a file"));
        if target.exists() {
            continue;
        }
        if fs::hard_link(&path, &target).is_err() {
            let beside = target.with_extension("new");
            fs::copy(&path, &beside)
                .and_then(|_| fs::rename(&beside, &target))
                .expect("there is room for compiled code");
        }
    }
}
