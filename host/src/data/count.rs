//! Counts what lies in a directory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Usage;

/// Folders in folders that can be counted. What lies deeper counts as more than anybody may have.
pub(super) const DEPTH_MAX: usize = 256;
/// More than anybody may have, and little enough to be added to others and taken away again.
pub(super) const TOO_DEEP: Usage = Usage { blocks: 1 << 40, names: 1 << 40 };

/// Counts all that lies in a directory. No link is followed. Others may be at it meanwhile: what is gone by the time that it is looked at
/// counts nothing.
pub(super) fn count(root: &OwnedFd) -> io::Result<Usage> {
    let mut usage = Usage::default();
    // The folders on the way to where it is, each with the rest of its entries.
    let mut way = vec![entries(root.as_fd())?];
    while let Some((folder, rest)) = way.last_mut() {
        let Some(entry) = rest.read() else {
            way.pop();
            continue;
        };
        let Some(entry) = unless_gone(entry)? else {
            way.pop();
            continue;
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(&*folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let Some(stat) = unless_gone(stat)? else { continue };
        let one = Usage::of_name(&stat);
        usage.blocks = usage.blocks.saturating_add(one.blocks);
        usage.names += 1;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let inner = rustix::fs::openat(&*folder, name, flags, Mode::empty());
            let Some(inner) = unless_gone(inner)? else { continue };
            if way.len() == DEPTH_MAX {
                return Ok(TOO_DEEP);
            }
            if let Some(inner) = unless_gone(entries(inner.as_fd()))? {
                way.push(inner);
            }
        }
    }
    Ok(usage)
}

/// None for what is not there any more, or is not a folder any more.
fn unless_gone<T>(found: Result<T, Errno>) -> io::Result<Option<T>> {
    match found {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// A folder of its own, with what is in it.
fn entries(folder: BorrowedFd<'_>) -> Result<(OwnedFd, Dir), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = rustix::fs::openat(folder, ".", flags, Mode::empty())?;
    let entries = Dir::read_from(&own)?;
    Ok((own, entries))
}
