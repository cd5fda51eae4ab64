//! Compiled code of what the tests serve: compiled once, and lent to every host that starts with it but those of tests
//! that are about compiling.

use std::collections::BTreeMap;
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
    /// The components' SHA-256: what names of compiled code begin with.
    hashes: Vec<String>,
    /// Those of the large ones, in the order in which they are locked.
    large: Vec<String>,
}

impl Compiled {
    pub(crate) fn of(folder: &Path, apps: &[String]) -> Self {
        let files = apps.iter().map(|app| folder.join("apps").join(format!("{app}.wasm")));
        let contents: Vec<_> = files.filter_map(|file| fs::read(file).ok()).collect();
        let of = |wasm: &Vec<u8>| sha256(wasm);
        let mut large: Vec<_> = contents.iter().filter(|wasm| wasm.len() >= LARGE).map(of).collect();
        large.sort_unstable();
        large.dedup();
        Self { hashes: contents.iter().map(of).collect(), large }
    }

    /// With nothing that was compiled before.
    pub(crate) fn cold(mut self) -> Self {
        self.hashes.clear();
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
        let cache = state.join("cache");
        self.copy(&store(), &cache);
        let host = start();
        self.copy(&cache, &store());
        host
    }

    /// Copies the code of these components from one folder to another, where it is missing there.
    fn copy(&self, from: &Path, to: &Path) {
        let _one = STORE.lock().unwrap_or_else(PoisonError::into_inner);
        let is_missing = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            self.hashes.iter().any(|hash| name.starts_with(hash)) && !to.join(name).exists()
        };
        let missing: Vec<_> = files(from).into_iter().filter(is_missing).collect();
        if missing.is_empty() {
            return;
        }
        // As the host makes it: others may not write there.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(to).expect("the directory is ours");
        for path in missing {
            let target = to.join(path.file_name().expect("it is a file"));
            let is_large = fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= LARGE as u64);
            // Nothing changes compiled code but tests, which do not with large components: a second name for it will do.
            if is_large && fs::hard_link(&path, &target).is_ok() {
                continue;
            }
            let beside = target.with_extension("new");
            fs::copy(&path, &beside)
                .and_then(|_| fs::rename(&beside, &target))
                .expect("there is room for compiled code");
        }
        remove_unused();
    }
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
    for path in files(&store()) {
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > UNUSED_TIME)) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// The files of compiled code in a folder, if it is there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "cwasm")).collect()
}
