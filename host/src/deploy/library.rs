//! The archives of apps, unpacked: a folder each in `state_dir/files`, named by the SHA-256 of the archive. It is made when the
//! first app with that archive is loaded, and goes when nothing uses it any more.
//!
//! Each user, in this process or another (`wasgi manage`), holds a shared lock on the folder; who removes it needs an exclusive one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::Context;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::compile::Failure;
use super::turns::Turn;
use super::unpack::{self, INDEX, Unpacker};
use crate::bundle::{Tree, TreeEntry};
use crate::limits::Limits;

/// What is not finished, or about to go.
const TEMP_PREFIX: &str = "tmp-";
/// An index has a line for each file; this is more than the largest archive's.
const INDEX_BYTES_MAX: u64 = 4 << 30;

/// Where unpacked archives are.
pub struct Library {
    directory: PathBuf,
    /// Those in use, by the archive's hash.
    trees: Mutex<HashMap<String, Weak<Tree>>>,
    /// Something may be there that nothing uses.
    unused: Arc<AtomicBool>,
    unpacker: Unpacker,
    /// This run of the machine: files are not synced to disk, and a crash of the machine may leave them empty.
    boot: String,
}

/// What is kept beside the files.
#[derive(Deserialize, Serialize)]
pub(super) struct Index {
    #[serde(default)]
    pub(super) boot: String,
    pub(super) files: Vec<TreeEntry>,
    pub(super) folders: u64,
}

impl Library {
    /// Opens `state_dir/files`, making it where it is missing. Whether others can write to `state_dir` has been checked.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(state_dir: &Path, unpacker: Unpacker) -> anyhow::Result<Self> {
        let directory = state_dir.join("files");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.with_context(|| format!("cannot make the directory {} for apps' files", directory.display()))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self {
            directory,
            trees: Mutex::default(),
            // What an earlier host has left.
            unused: Arc::new(AtomicBool::new(true)),
            unpacker,
            boot: boot.trim().to_owned(),
        })
    }

    /// The files of an archive by its hash, if they are unpacked.
    ///
    /// # Errors
    /// If they are more than these limits allow.
    pub fn find(&self, hash: &str, limits: &Limits) -> Result<Option<Arc<Tree>>, Failure> {
        let known = self.trees().get(hash).and_then(Weak::upgrade);
        let found = known.or_else(|| Some(self.keep(hash, self.on_disk(hash)?)));
        if let Some(tree) = &found {
            // It may have been unpacked for an app that may have more.
            unpack::check(tree, limits)?;
        }
        Ok(found)
    }

    /// Unpacks an archive. `hash` is its SHA-256.
    ///
    /// # Errors
    /// If it is refused, or the disk is full.
    pub async fn unpack(&self, turn: &Turn, hash: &str, archive: &[u8], limits: &Limits) -> Result<Arc<Tree>, Failure> {
        // Whoever had the turn before may have had the same archive.
        if let Some(tree) = self.find(hash, limits)? {
            return Ok(tree);
        }
        let failed = |error: anyhow::Error| Failure::Passing(format!("its files cannot be unpacked: {error:#}"));
        let folder = self.temp().map_err(|error| failed(error.into()))?;
        let handle = lock_shared(folder.path()).map_err(|error| failed(error.into()))?;
        self.unpacker.unpack(turn, archive, folder.path(), &self.boot, limits).await?;
        let index = self.index(folder.path()).map_err(failed)?;
        let place = self.directory.join(hash);
        match fs::rename(folder.path(), &place) {
            Ok(()) => _ = folder.keep(),
            // Another process may have been quicker.
            Err(error) => {
                let found = self.find(hash, limits)?;
                return found.ok_or_else(|| failed(anyhow::anyhow!("{}: {error}", place.display())));
            }
        }
        Ok(self.keep(hash, Tree::new(handle, index.files, index.folders, Arc::clone(&self.unused))))
    }

    /// Whether something may be there that nothing uses.
    pub fn is_untidy(&self) -> bool {
        self.unused.load(Ordering::Relaxed)
    }

    /// Removes what nothing uses.
    pub fn tidy(&self) {
        self.unused.store(false, Ordering::Relaxed);
        self.trees().retain(|_, tree| tree.strong_count() > 0);
        if let Err(error) = self.remove_unused() {
            tracing::warn!("{} cannot be tidied: {error}", self.directory.display());
        }
    }

    fn remove_unused(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            self.remove(&entry?.path())?;
        }
        Ok(())
    }

    /// Removes a tree, unless somebody uses it.
    fn remove(&self, path: &Path) -> io::Result<()> {
        let Ok(handle) = open(path) else { return Ok(()) };
        if rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        // Out of sight first: who looks for it meanwhile makes another.
        let doomed = self.temp()?;
        fs::rename(path, doomed.path().join("tree"))?;
        doomed.close()
    }

    fn temp(&self) -> io::Result<TempDir> {
        let owners = fs::Permissions::from_mode(0o700);
        tempfile::Builder::new().prefix(TEMP_PREFIX).permissions(owners).tempdir_in(&self.directory)
    }

    fn keep(&self, hash: &str, tree: Tree) -> Arc<Tree> {
        let tree = Arc::new(tree);
        self.trees().insert(hash.to_owned(), Arc::downgrade(&tree));
        tree
    }

    fn trees(&self) -> MutexGuard<'_, HashMap<String, Weak<Tree>>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tree on disk. One that may be damaged counts as none, and goes.
    fn on_disk(&self, hash: &str) -> Option<Tree> {
        let path = self.directory.join(hash);
        let handle = lock_shared(&path).ok()?;
        // Locked, but perhaps no longer what has the name.
        let (locked, there) = (rustix::fs::fstat(&handle).ok()?, rustix::fs::stat(&path).ok()?);
        if locked.st_ino != there.st_ino {
            return None;
        }
        match self.index(&path) {
            Ok(index) => Some(Tree::new(handle, index.files, index.folders, Arc::clone(&self.unused))),
            Err(error) => {
                tracing::debug!("{} is not used: {error:#}; unpacking again", path.display());
                drop(handle);
                if let Err(error) = self.remove(&path) {
                    tracing::warn!("{} cannot be removed: {error}", path.display());
                }
                None
            }
        }
    }

    fn index(&self, folder: &Path) -> anyhow::Result<Index> {
        let mut text = Vec::new();
        File::open(folder.join(INDEX))?.take(INDEX_BYTES_MAX).read_to_end(&mut text)?;
        let index: Index = serde_json::from_slice(&text)?;
        anyhow::ensure!(index.boot == self.boot, "the machine was started anew since it was unpacked");
        Ok(index)
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Fails where it is being removed.
fn lock_shared(path: &Path) -> io::Result<OwnedFd> {
    let handle = open(path)?;
    rustix::fs::flock(&handle, FlockOperation::NonBlockingLockShared)?;
    Ok(handle)
}
