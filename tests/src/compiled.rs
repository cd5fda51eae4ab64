//! Compiled code of what the tests serve: compiled once, and lent to every host that starts with it but those of tests
//! that are about compiling.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::{COMPILE_PATIENCE, PATIENCE};

/// What is smaller compiles in no time.
const LARGE: usize = 4 << 20;
/// Code of components that are built no more goes after this time.
const UNUSED_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// For each large component, by its SHA-256 in hex: held while a host starts that serves it. Two hosts would compile the same twice.
static STARTING: Mutex<BTreeMap<String, Arc<Mutex<()>>>> = Mutex::new(BTreeMap::new());
/// Held while what is kept is read or written.
static STORE: Mutex<()> = Mutex::new(());

/// What a host needs to start that serves these apps.
pub(crate) struct Compiled {
    /// Where code of these apps is kept; none for tests that want to start without. Which of it is whose the host alone knows: code
    /// is called by its component without the files that it carries.
    store: Option<PathBuf>,
    /// Those of the large ones, in the order in which they are locked.
    large: Vec<String>,
}

impl Compiled {
    pub(crate) fn of(folder: &Path, apps: &[String]) -> Self {
        let files = apps.iter().map(|app| folder.join("apps").join(format!("{app}.wasm")));
        let contents: Vec<_> = files.filter_map(|file| fs::read(file).ok()).collect();
        let mut hashes: Vec<_> = contents.iter().map(|wasm| sha256(wasm)).collect();
        hashes.sort_unstable();
        let store = store().join(sha256(hashes.concat().as_bytes()));
        let mut large: Vec<_> = contents.iter().filter(|wasm| wasm.len() >= LARGE).map(|wasm| sha256(wasm)).collect();
        large.sort_unstable();
        large.dedup();
        Self { store: Some(store), large }
    }

    /// With nothing that was compiled before.
    pub(crate) fn cold(mut self) -> Self {
        self.store = None;
        self
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
        let locks: Vec<_> = {
            let mut starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
            self.large.iter().map(|hash| Arc::clone(starting.entry(hash.clone()).or_default())).collect()
        };
        let _alone: Vec<_> = locks.iter().map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        let Some(store) = &self.store else { return start() };
        let cache = state.join("cache");
        copy(store, &cache);
        let host = start();
        copy(&cache, store);
        host
    }
}

/// Copies compiled code from one folder to another, where it is missing there.
fn copy(from: &Path, to: &Path) {
    let _one = STORE.lock().unwrap_or_else(PoisonError::into_inner);
    let missing: Vec<_> = files(from).into_iter().filter(|(name, _)| !to.join(name).exists()).collect();
    if missing.is_empty() {
        return;
    }
    // As the host makes it: others may not write there.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).expect("the directory is ours");
    for (name, path) in missing {
        let target = to.join(name);
        let is_large = fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= LARGE as u64);
        // Nothing changes compiled code but tests, which do not with large components: a second name for it will do.
        if is_large && fs::hard_link(&path, &target).is_ok() {
            continue;
        }
        let beside = target.with_extension("new");
        fs::copy(&path, &beside).and_then(|_| fs::rename(&beside, &target)).expect("there is room for compiled code");
    }
    remove_unused();
}

/// In hex.
fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn store() -> PathBuf {
    let deps = std::env::current_exe().expect("a test knows its own file");
    deps.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").join("compiled")
}

fn remove_unused() {
    for folder in fs::read_dir(store()).into_iter().flatten().flatten() {
        for (_, path) in files(&folder.path()) {
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > UNUSED_TIME)) {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// The files of compiled code in a folder, if it is there, and their names.
fn files(folder: &Path) -> Vec<(OsString, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_code = |path: &PathBuf| path.extension().is_some_and(|end| end == "cwasm");
    entries.map(|entry| (entry.file_name(), entry.path())).filter(|(_, path)| is_code(path)).collect()
}
