//! Directories that apps were granted: that of an app's data, and who may be at it (one sandbox at a time), and others.
//!
//! WASI has no locks on files, so that nothing in a guest can keep two of them from writing to the same database at once. The host
//! does: a sandbox that sees the directory holds a [`Turn`] while it runs, among the app's calls in this process first come, first
//! served, and beside `wasgi manage` by a lock on the directory, which guests can neither see nor take.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::config::DirectorySpec;

/// How often a directory that another process has is asked for.
const RETRY_TIME: Duration = Duration::from_millis(10);

/// A directory of the host that an app sees. Who is at it the host does not mind.
pub struct Directory {
    pub spec: DirectorySpec,
    handle: OwnedFd,
}

impl Directory {
    /// Opens a directory, which has to be there.
    ///
    /// # Errors
    /// If it is not, or is no directory.
    pub fn open(spec: &DirectorySpec) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(&spec.path, flags, Mode::empty())?;
        Ok(Self { spec: spec.clone(), handle })
    }

    /// A path to the very directory that was opened.
    pub fn root(&self) -> PathBuf {
        path_of(&self.handle)
    }
}

fn path_of(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// An app's directory for data.
pub struct DataDir {
    path: PathBuf,
    handle: OwnedFd,
    turns: Arc<Mutex<()>>,
}

/// The right to be at the data. Given back when it is dropped.
pub struct Turn {
    _turn: OwnedMutexGuard<()>,
    data: Arc<DataDir>,
}

impl DataDir {
    /// Opens the directory, making it where it is missing: for the host's user alone.
    ///
    /// # Errors
    /// If it cannot be made, is a link, or is not a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let handle = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { path: path.to_owned(), handle, turns: Arc::default() })
    }

    /// As it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to the very directory that was opened, whatever has become of its name.
    pub fn root(&self) -> PathBuf {
        path_of(&self.handle)
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// Where the kernel has no locks, on some network file systems.
    pub async fn turn(self: &Arc<Self>) -> io::Result<Turn> {
        let turn = Arc::clone(&self.turns).lock_owned().await;
        loop {
            match rustix::fs::flock(&self.handle, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Turn { _turn: turn, data: Arc::clone(self) }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => tokio::time::sleep(RETRY_TIME).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // It fails only for a descriptor that is none.
        let _ = rustix::fs::flock(&self.data.handle, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[tokio::test]
    async fn there_is_one_turn_at_a_time_also_beside_another_process() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let path = folder.path().join("data/shop");
        let data = Arc::new(DataDir::open(&path).expect("it can be made"));
        // What another process has: its own description of the directory.
        let other = Arc::new(DataDir::open(&path).expect("it is there"));
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let is_free =
            async |data: &Arc<DataDir>| tokio::time::timeout(Duration::from_millis(50), data.turn()).await.is_ok();
        let turn = data.turn().await.expect("there are locks here");
        assert!(!is_free(&data).await);
        assert!(!is_free(&other).await);
        drop(turn);
        assert!(is_free(&other).await);
        assert!(is_free(&data).await);
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let path = folder.path().join("shop");
        symlink(folder.path(), &path).expect("links can be made");
        assert!(DataDir::open(&path).is_err());
    }
}
