//! An archive's files where they are unpacked, and what is known of each without looking at it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

/// The files of one archive, on disk as long as this is held.
pub struct Tree {
    /// The folder that holds the files' root, locked: whoever cleans up leaves it alone.
    handle: OwnedFd,
    files: Vec<TreeEntry>,
    folders: u64,
    /// Told when the tree may go.
    unused: Arc<AtomicBool>,
}

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TreeEntry {
    /// From the root of the archive, without a slash in front: `static/site.css`.
    pub path: String,
    pub bytes: u64,
    /// Seconds since 1970, as the archive says.
    pub modified: u64,
    /// Of its content, in hex.
    pub sha256: String,
}

/// The name of the root in the folder of a tree.
pub const ROOT: &str = "root";

impl Tree {
    /// `handle` is open on the folder of the tree, and locked.
    pub fn new(handle: OwnedFd, files: Vec<TreeEntry>, folders: u64, unused: Arc<AtomicBool>) -> Self {
        Self { handle, files, folders, unused }
    }

    /// The root of the files, by a path that leads to the very folder that was opened, whatever its name is now.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{ROOT}", self.handle.as_raw_fd()))
    }

    pub fn files(&self) -> &[TreeEntry] {
        &self.files
    }

    pub fn folders(&self) -> u64 {
        self.folders
    }

    /// All files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Opens one of [`Tree::files`] for reading. Blocks.
    ///
    /// # Errors
    /// If somebody has touched the host's own directory.
    pub fn open(&self, path: &str) -> io::Result<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(rustix::fs::openat(&self.handle, format!("{ROOT}/{path}"), flags, Mode::empty())?.into())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.unused.store(true, Ordering::Relaxed);
    }
}
