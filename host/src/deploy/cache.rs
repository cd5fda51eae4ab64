//! Compiled code on disk, so that a restart compiles nothing. Only the host can write the directory; what is in it is
//! checked before it is loaded all the same, since loading compiled code is trusting it.
//!
//! An entry is one file, `<wasm>-<engine>-<code>.cwasm`: the SHA-256 of the component, the fingerprint of the engine and of what was
//! done to the component, and the SHA-256 of the file itself. One rename puts all three in place. Its end is what the app's
//! memories begin with ([`images`]).

use std::collections::{HashMap, HashSet};
use std::fs::{File, FileTimes};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rustix::fs::{Mode, OFlags, Stat};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::{images, passes};
use crate::config::Passes;
use crate::sandbox::{MemoryImages, Variant};

/// What the directory may hold before entries that were not used for long go.
const BYTES_MAX: u64 = 8 << 30;
/// An entry used more recently than this stays in any case: removing what apps still need would only compile it again.
const UNUSED_TIME_MIN: Duration = Duration::from_secs(24 * 60 * 60);
/// A file that a compiler left behind when the host died.
const TEMP_PREFIX: &str = "tmp-";
const SUFFIX: &str = ".cwasm";

/// Code that can be linked.
#[derive(Clone)]
pub struct Code {
    pub component: Component,
    /// What the memories of its instances begin with.
    pub images: MemoryImages,
}

/// Which engine code is for.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub engine: &'a Engine,
    pub variant: Variant,
    /// Code has to be loadable by this one, too: it says what is too large for a sandbox.
    pub judge: Option<&'a Engine>,
}

/// The cache directory.
pub struct Cache {
    directory: PathBuf,
    /// The directory that was checked, whatever is at its path later: code is loaded from this one.
    handle: OwnedFd,
    /// What is done to components before they are compiled.
    passes: Passes,
    /// File names by component and engine: `<wasm>-<engine>`.
    entries: Mutex<HashMap<String, String>>,
}

/// A file in the directory.
struct OnDisk {
    /// Since it was last used.
    age: Duration,
    bytes: u64,
    name: String,
}

impl OnDisk {
    fn is_code(&self) -> bool {
        self.name.ends_with(SUFFIX)
    }

    /// What it is known by.
    fn key(&self) -> Option<&str> {
        self.name.rsplit_once('-').map(|(key, _)| key)
    }

    /// The SHA-256 of the component.
    fn component(&self) -> Option<&str> {
        self.name.split_once('-').map(|(hash, _)| hash)
    }
}

impl Cache {
    /// Opens `state_dir/cache`, making it where it is missing.
    ///
    /// # Errors
    /// If the directory cannot be made or read, or if anybody else may write in it.
    pub fn open(state_dir: &Path, passes: Passes) -> anyhow::Result<Self> {
        let directory = state_dir.join("cache");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).with_context(|| {
            format!("cannot make the directory {} for compiled code: choose another state_dir", directory.display())
        })?;
        // Whoever can write the parent can replace the cache by a directory of their own.
        check_private(
            state_dir,
            &rustix::fs::stat(state_dir).with_context(|| format!("cannot read {}", state_dir.display()))?,
        )?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let handle = rustix::fs::open(&directory, flags, Mode::empty())
            .with_context(|| format!("cannot open {}: it should be a directory", directory.display()))?;
        check_private(&directory, &rustix::fs::fstat(&handle)?)?;
        let cache = Self { directory, handle, passes, entries: Mutex::default() };
        cache.index().with_context(|| format!("cannot read {}", cache.directory.display()))?;
        Ok(cache)
    }

    /// Loads the code that was compiled for a component, if it is there and sound. `wasm_hash` is the component's SHA-256 in hex.
    pub fn load(&self, target: Target<'_>, wasm_hash: &str) -> Option<Code> {
        let key = self.key(target, wasm_hash);
        let name = self.entries().get(&key).cloned()?;
        let path = self.directory.join(&name);
        match self.load_entry(target, &name) {
            Ok(code) => Some(code),
            Err(error) => {
                tracing::warn!("compiled code {} is not used: {error:#}; compiling again", path.display());
                self.entries().remove(&key);
                // It may be gone already, which is what was wanted.
                let _ = std::fs::remove_file(&path);
                None
            }
        }
    }

    /// Loads code that was compiled just now. Code that does not fit this host's pool will not do so later either.
    ///
    /// # Errors
    /// Says why it cannot be loaded.
    pub fn load_new(&self, target: Target<'_>, wasm_hash: &str) -> anyhow::Result<Code> {
        let key = self.key(target, wasm_hash);
        let name = self.entries().get(&key).cloned();
        let name = name.ok_or_else(|| anyhow::anyhow!("its compiled code is gone"))?;
        self.load_entry(target, &name).inspect_err(|_| {
            self.entries().remove(&key);
            let _ = std::fs::remove_file(self.directory.join(&name));
        })
    }

    /// A file for the compiler to write to, in the same directory, so that a rename is enough to keep it.
    ///
    /// # Errors
    /// If the disk is full, say.
    pub fn temp(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(&self.directory)
    }

    /// Keeps what the compiler has written as the code of a component, for engines such as this one.
    ///
    /// # Errors
    /// If it cannot be read again, written to disk or renamed.
    pub fn keep(&self, target: Target<'_>, wasm_hash: &str, compiled: NamedTempFile) -> anyhow::Result<()> {
        let code_hash = hash(&mut compiled.reopen()?)?;
        compiled.as_file().sync_all()?;
        let key = self.key(target, wasm_hash);
        let name = format!("{key}-{code_hash}{SUFFIX}");
        compiled.persist(self.directory.join(&name))?;
        self.entries().insert(key, name);
        Ok(())
    }

    /// What an entry is known by: the component, what was done to it, and which engine can load the code (version, settings and
    /// processor).
    fn key(&self, Target { engine, variant, .. }: Target<'_>, wasm_hash: &str) -> String {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        variant.hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        passes::VERSION.hash(&mut hasher);
        self.passes.hash(&mut hasher);
        format!("{wasm_hash}-{:016x}", hasher.finish())
    }

    fn load_entry(&self, target: Target<'_>, name: &str) -> anyhow::Result<Code> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = File::from(rustix::fs::openat(&self.handle, name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        anyhow::ensure!(metadata.is_file(), "it is not a regular file");
        anyhow::ensure!(metadata.uid() == own_uid(), "it belongs to user {}", metadata.uid());
        anyhow::ensure!(metadata.mode() & 0o022 == 0, "others may write it (mode {:o})", metadata.mode() & 0o7777);
        let expected = name.strip_suffix(SUFFIX).and_then(|name| name.rsplit('-').next()).unwrap_or_default();
        anyhow::ensure!(hash(&mut file)? == expected, "it is damaged");
        // The time of use, for eviction. A file system that refuses costs no more than an early compile some day.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        if let Some(judge) = target.judge {
            drop(deserialize(judge, &file)?);
        }
        Ok(Code { component: deserialize(target.engine, &file)?, images: images::read(&file)? })
    }

    /// Lists what is there.
    fn index(&self) -> io::Result<()> {
        let mut found = self.on_disk()?;
        // Of two with one key the younger counts.
        found.sort_by_key(|entry| std::cmp::Reverse(entry.age));
        let mut known = self.entries();
        for entry in found.into_iter().filter(OnDisk::is_code) {
            if let Some(key) = entry.key() {
                known.insert(key.to_owned(), entry.name);
            }
        }
        Ok(())
    }

    fn on_disk(&self) -> io::Result<Vec<OnDisk>> {
        let found = std::fs::read_dir(&self.directory)?.map(|entry| {
            let entry = entry?;
            let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else { return Ok(None) };
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Ok(Some(OnDisk { age: modified.elapsed().unwrap_or_default(), bytes: metadata.len(), name }))
        });
        found.filter_map(Result::transpose).collect()
    }

    /// Removes what compilers left behind, and code that no app has, the longest unused first, where all of it is too much. `used`
    /// are the components of all apps, also of those that sleep. Only the host that serves may do this: it alone knows them. It blocks.
    pub fn tidy(&self, used: &HashSet<String>) {
        if let Err(error) = self.evict(used, BYTES_MAX) {
            tracing::warn!("compiled code in {} is not tidied: {error}", self.directory.display());
        }
    }

    fn evict(&self, used: &HashSet<String>, bytes_max: u64) -> io::Result<()> {
        let mut found = self.on_disk()?;
        found.sort_by_key(|entry| entry.age);
        let mut bytes = 0;
        for entry in found {
            let is_needed = entry.age <= UNUSED_TIME_MIN || entry.component().is_some_and(|hash| used.contains(hash));
            let goes = match entry.is_code() {
                true if !is_needed && bytes + entry.bytes > bytes_max => true,
                true => {
                    bytes += entry.bytes;
                    false
                }
                false => entry.name.starts_with(TEMP_PREFIX) && entry.age > UNUSED_TIME_MIN,
            };
            if goes {
                // Whoever looks for it now compiles it again.
                self.entries().retain(|_, name| *name != entry.name);
                let _ = std::fs::remove_file(self.directory.join(&entry.name));
            }
        }
        Ok(())
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maps compiled code into memory: pages that no call touches are never read, and idle apps share them with the page cache.
#[expect(unsafe_code, reason = "loading compiled code is trusting it; see the argument inside")]
fn deserialize(engine: &Engine, file: &File) -> anyhow::Result<Component> {
    // The path leads to the very file that is open here, whatever its name in the directory has become since.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the file must hold what `Engine::precompile_component` made, and must not change while it is mapped.
    // - It lies in a directory that only this user may write (`check_private`, on the very directory that is open since),
    //   belongs to this user, and nobody else may write it (`load_entry`); only `keep` puts files there, and only ones that our own compiler wrote.
    // - Its SHA-256 was computed through this open file and is the one that `keep` put into its name, so that damage by
    //   disks or crashes is found. Nobody but this user (or root), who could as well change this very process, could write
    //   it between that check and the mapping, or afterwards: `keep` renames new files and never writes to one in place.
    // - wasmtime checks that version, settings and processor features fit the engine.
    unsafe { Component::deserialize_file(engine, path) }.map_err(|error| anyhow::anyhow!("{error:#}"))
}

/// Refuses a directory that somebody else could put code into.
fn check_private(path: &Path, stat: &Stat) -> anyhow::Result<()> {
    let (path, owner, uid) = (path.display(), stat.st_uid, own_uid());
    anyhow::ensure!(
        owner == uid,
        "{path} belongs to user {owner}, but wasgi runs as user {uid}: whoever owns it could put code there; \
         chown it, or choose another state_dir",
    );
    let mode = stat.st_mode & 0o7777;
    anyhow::ensure!(
        mode & 0o022 == 0,
        "others may write {path} (mode {mode:o}), and so put code there: chmod 700 it, or choose another state_dir",
    );
    Ok(())
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The SHA-256 of all that is read, in hex.
///
/// # Errors
/// As the reader's.
pub fn hash(reader: &mut impl Read) -> io::Result<String> {
    let mut sha256 = Sha256::new();
    let mut block = vec![0; 1 << 18];
    loop {
        match reader.read(&mut block)? {
            0 => return Ok(hex(&sha256.finalize())),
            read => sha256.update(&block[..read]),
        }
    }
}

/// The SHA-256 of bytes, in hex.
pub fn hash_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Duration = Duration::from_secs(48 * 60 * 60);

    fn put(cache: &Cache, name: &str, age: Duration) {
        let file = File::create(cache.directory.join(name)).expect("the folder is ours");
        file.set_len(100).expect("there is room");
        file.set_times(FileTimes::new().set_modified(SystemTime::now() - age)).expect("the file is ours");
    }

    fn names(cache: &Cache) -> Vec<String> {
        let mut names: Vec<_> = cache.on_disk().expect("it can be read").into_iter().map(|entry| entry.name).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_no_app_has_and_nobody_used_lately_goes_and_only_where_it_is_too_much() {
        let folder = tempfile::tempdir().expect("there is a temporary directory");
        let open = || Cache::open(folder.path(), Passes::All).expect("the folder is ours");
        let cache = open();
        for (name, age) in [
            ("live-1-x.cwasm", 3 * OLD),
            ("gone-1-x.cwasm", 2 * OLD),
            ("young-1-x.cwasm", Duration::ZERO),
            ("tmp-old", OLD),
            ("tmp-young", Duration::ZERO),
            ("something-else", OLD),
        ] {
            put(&cache, name, age);
        }
        let all = names(&cache);
        // Whoever only opens it, as a command of the operator's does, removes nothing.
        let cache = open();
        assert_eq!(names(&cache), all);
        let used = HashSet::from(["live".to_owned()]);
        cache.evict(&used, 300).expect("the folder is ours");
        assert_eq!(
            names(&cache),
            ["gone-1-x.cwasm", "live-1-x.cwasm", "something-else", "tmp-young", "young-1-x.cwasm"]
        );
        assert_eq!(cache.entries().len(), 3);
        cache.evict(&used, 10).expect("the folder is ours");
        assert_eq!(names(&cache), ["live-1-x.cwasm", "something-else", "tmp-young", "young-1-x.cwasm"]);
        assert_eq!(cache.entries().len(), 2, "what is gone is not known any more");
    }
}
