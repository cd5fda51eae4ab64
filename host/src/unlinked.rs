//! Opens directories on whose way no symbolic link is followed: a path leads where it says, whoever may put links
//! there.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory.
///
/// # Errors
/// `ELOOP`, if any part of the path is a symbolic link; or as opening fails.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::openat2(CWD, path, DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Linux before 5.6 does not have it, and a filter that does not know it says no.
        Err(Errno::NOSYS | Errno::PERM) => Ok(step_by_step(path)?),
        opened => Ok(opened?),
    }
}

/// Where a path leads on which there is a link, so that it is not opened.
pub(crate) fn led_elsewhere(path: &Path) -> Option<PathBuf> {
    let error = open_directory(path).err()?;
    (Errno::from_io_error(&error) == Some(Errno::LOOP)).then(|| path.canonicalize().ok())?
}

/// The same from each part of the path to the next, as every kernel can.
fn step_by_step(path: &Path) -> Result<OwnedFd, Errno> {
    let open = |at: &OwnedFd, name: &Path, flags| rustix::fs::openat(at, name, flags | OFlags::CLOEXEC, Mode::empty());
    let start = if path.has_root() { "/" } else { "." };
    let mut at = rustix::fs::open(start, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for part in path.components() {
        let (Component::Normal(_) | Component::ParentDir) = part else { continue };
        at = open(&at, part.as_ref(), OFlags::PATH | OFlags::NOFOLLOW)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&at)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
    }
    open(&at, Path::new("."), DIRECTORY)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn where_links_lead_is_told_to_be_written_down() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let folder = folder.path().canonicalize().expect("it is there");
        fs::create_dir_all(folder.join("a/inner")).expect("folders can be made");
        symlink("a", folder.join("link")).expect("links can be made");
        assert_eq!(led_elsewhere(&folder.join("link/inner")), Some(folder.join("a/inner")));
        for path in ["a/inner", "missing", "link/missing"] {
            assert_eq!(led_elsewhere(&folder.join(path)), None, "{path}");
        }
    }

    #[test]
    fn no_link_is_followed_by_either_way() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let folder = folder.path().canonicalize().expect("it is there");
        fs::create_dir_all(folder.join("a/inner")).expect("folders can be made");
        fs::write(folder.join("file"), "").expect("files can be made");
        symlink("a", folder.join("link")).expect("links can be made");
        symlink(folder.join("a/inner"), folder.join("a/away")).expect("links can be made");
        let inner = fs::metadata(folder.join("a/inner")).expect("it is there").ino();
        for (path, expected) in [
            ("a/inner", Ok(inner)),
            ("a/../a/./inner", Ok(inner)),
            ("link", Err(Errno::LOOP)),
            ("link/inner", Err(Errno::LOOP)),
            ("link/../a/inner", Err(Errno::LOOP)),
            ("a/away", Err(Errno::LOOP)),
            ("a/none", Err(Errno::NOENT)),
            ("file", Err(Errno::NOTDIR)),
            ("file/x", Err(Errno::NOTDIR)),
        ] {
            let path = folder.join(path);
            let number = |handle| rustix::fs::fstat(&handle).expect("it is open").st_ino;
            let quickly = open_directory(&path).map(number).map_err(|error| error.raw_os_error());
            assert_eq!(quickly, expected.map_err(|error: Errno| Some(error.raw_os_error())), "{}", path.display());
            assert_eq!(step_by_step(&path).map(number), expected, "{}", path.display());
        }
        assert!(open_directory(Path::new("src")).is_ok() && step_by_step(Path::new("src")).is_ok());
    }
}
