//! Compiled code of large components, such as Python's: compiled once, and lent to every host of the tests that serves one.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{COMPILE_PATIENCE, PATIENCE};

/// What is smaller compiles in no time.
const LARGE: u64 = 4 << 20;
/// Code of components that are built no more goes after this time.
const UNUSED_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Held while a host starts, if what it serves is large: two hosts would compile the same twice.
static STARTING: Mutex<()> = Mutex::new(());

/// The code that is kept, while a host starts with it.
pub(crate) struct Compiled {
    /// None for apps that compile in no time.
    starting: Option<MutexGuard<'static, ()>>,
}

impl Compiled {
    /// Puts what is kept into the cache of a host that does not run yet, if it has a use for it.
    pub(crate) fn lend(folder: &Path, apps: &[String]) -> Self {
        let is_large = |app: &String| {
            let file = folder.join("apps").join(format!("{app}.wasm"));
            fs::metadata(file).is_ok_and(|metadata| metadata.len() >= LARGE)
        };
        if !apps.iter().any(is_large) {
            return Self { starting: None };
        }
        let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = folder.join("state/cache");
        // As the host makes it: others may not write there.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&cache).expect("the directory is ours");
        copy(&store(), &cache);
        Self { starting: Some(starting) }
    }

    /// What the host is started with beside what the test wants: machines that test are busy.
    pub(crate) fn flags(&self) -> Vec<(String, String)> {
        let flag = ("--limit".to_owned(), format!("compile_time={}s", COMPILE_PATIENCE.as_secs()));
        self.starting.iter().map(|_| flag.clone()).collect()
    }

    /// How long to wait until the apps are live.
    pub(crate) fn patience(&self) -> Duration {
        if self.starting.is_some() { COMPILE_PATIENCE } else { PATIENCE }
    }

    /// Keeps what the host has compiled by now.
    pub(crate) fn keep(self, state: &Path) {
        if self.starting.is_none() {
            return;
        }
        let store = store();
        fs::create_dir_all(&store).expect("the target directory is ours");
        for path in files(&store) {
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > UNUSED_TIME)) {
                let _ = fs::remove_file(&path);
            }
        }
        copy(&state.join("cache"), &store);
    }
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
