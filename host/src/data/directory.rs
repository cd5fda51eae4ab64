//! Directories of the host that apps were granted beside their data. Who else is at one the host does not mind: apps, tenants and the
//! operator's own programs may share it.
//!
//! What guests may write to is counted, too ([`Volume`]), once for all who write to it: so what one has taken another does not find
//! free. Others than guests may come and go meanwhile; so it is counted anew now and then, beside what is being written.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{RECOUNT_TIME, Volume, count, path_of};
use crate::account::Account;
use crate::config::{Access, DirectorySpec};
use crate::unlinked::open_directory;

/// After this a count is old, whatever is known of changes.
const OLD_TIME: Duration = Duration::from_secs(600);

/// A directory that an app sees.
pub struct Directory {
    pub spec: DirectorySpec,
    handle: Arc<OwnedFd>,
    /// What is counted of it, where the app may write.
    shared: Option<Arc<Shared>>,
}

/// Those that guests write to, of all apps.
#[derive(Default)]
pub struct Volumes(Mutex<HashMap<Key, Weak<Shared>>>);

/// What tells directories apart: device and number.
type Key = (u64, u64);

/// One that guests write to.
struct Shared {
    path: PathBuf,
    handle: OwnedFd,
    volume: Arc<Volume>,
    /// When it was counted last; none before the first time.
    counted: Mutex<Option<Instant>>,
    is_being_counted: AtomicBool,
}

impl Directory {
    /// Opens a directory, which has to be there. It blocks: where nobody writes to it yet, it is counted.
    ///
    /// No link is followed: a part of its path may lie where guests write, who would lead to elsewhere with it.
    ///
    /// # Errors
    /// If it is not, is no directory, or cannot be counted; if a link is on the way; or is a part of another that
    /// guests write to.
    pub fn open(spec: &DirectorySpec, volumes: &Volumes, account: &Arc<Account>) -> io::Result<Self> {
        let handle = open_directory(&spec.path).map_err(explained)?;
        let shared = match spec.access {
            Access::Read => None,
            Access::Write => Some(volumes.of(&handle, account)?),
        };
        Ok(Self { spec: spec.clone(), handle: Arc::new(handle), shared })
    }

    /// The very same, with what may be in it from now on, and whatever has become of its name. None if it is another that is granted.
    pub(crate) fn within(&self, spec: &DirectorySpec) -> Option<Self> {
        let now = (&spec.place, &spec.path, spec.access);
        let is_same = now == (&self.spec.place, &self.spec.path, self.spec.access);
        is_same.then(|| Self { spec: spec.clone(), handle: Arc::clone(&self.handle), shared: self.shared.clone() })
    }

    /// A path to the very directory that was opened.
    pub fn root(&self) -> PathBuf {
        path_of(&self.handle)
    }

    /// What is counted of it, where the app may write.
    pub(crate) fn volume(&self) -> Option<&Arc<Volume>> {
        self.shared.as_ref().map(|shared| &shared.volume)
    }

    /// Has it counted anew, if that is due. Nobody waits for it.
    pub(crate) fn refresh(&self) {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_stale()) else { return };
        if !shared.is_being_counted.swap(true, Relaxed) {
            let shared = Arc::clone(shared);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = shared.count() {
                    tracing::error!("what {} holds cannot be counted: {error}", shared.path.display());
                }
                shared.is_being_counted.store(false, Relaxed);
            });
        }
    }
}

fn explained(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => io::Error::other(
            "a symbolic link is on the way to it, and none is followed, since guests could have made it: grant the path that it is to \
             lead to",
        ),
        _ => error,
    }
}

/// The very directory that is open, once more.
fn again(handle: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(handle, ".", flags, Mode::empty())?)
}

impl Volumes {
    /// The count of a directory, of which there is one.
    fn of(&self, handle: &OwnedFd, account: &Arc<Account>) -> io::Result<Arc<Shared>> {
        let root = path_of(handle);
        let stat = rustix::fs::fstat(handle)?;
        let key = (stat.st_dev, stat.st_ino);
        let shared = {
            let mut volumes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            volumes.retain(|_, shared| shared.strong_count() > 0);
            match volumes.get(&key).and_then(Weak::upgrade) {
                Some(shared) => shared,
                None => {
                    let path = std::fs::read_link(&root)?;
                    let others = volumes.values().filter_map(Weak::upgrade);
                    if let Some(other) = others.into_iter().find(|other| is_within(&path, &other.path)) {
                        // Whose the other is, is nobody else's to know.
                        tracing::error!(
                            "{} and {} are both granted to be written to",
                            path.display(),
                            other.path.display()
                        );
                        return Err(io::Error::other(
                            "a part of it, or what it is a part of, is granted to be written to as well: what is there would be \
                             counted twice, and bounded not at all; grant directories that do not lie in each other",
                        ));
                    }
                    let volume = Arc::new(Volume::new(account));
                    let (counted, is_being_counted) = (Mutex::default(), AtomicBool::new(false));
                    let shared = Arc::new(Shared { path, handle: again(handle)?, volume, counted, is_being_counted });
                    volumes.insert(key, Arc::downgrade(&shared));
                    shared
                }
            }
        };
        shared.volume.is_written_by(account);
        shared.count_first()?;
        Ok(shared)
    }
}

/// Whether one lies in the other.
fn is_within(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

impl Shared {
    fn count_first(&self) -> io::Result<()> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.is_none() {
            self.volume.will_be_counted();
            self.volume.recount(count::count(&self.handle)?);
            *counted = Some(Instant::now());
        }
        Ok(())
    }

    fn count(&self) -> io::Result<()> {
        self.volume.will_be_counted();
        let found = count::count(&self.handle);
        // Where it fails, it is old news when it is tried again.
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.volume.recount(found?);
        Ok(())
    }

    fn is_stale(&self) -> bool {
        // Beside calls, strays end by themselves.
        self.volume.is_busy();
        let Some(counted) = *self.counted.lock().unwrap_or_else(PoisonError::into_inner) else { return false };
        let age = counted.elapsed();
        age >= if self.volume.is_doubtful() { RECOUNT_TIME } else { OLD_TIME }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Usage;

    fn spec(path: &Path, access: Access) -> DirectorySpec {
        DirectorySpec { place: "/out".to_owned(), path: path.to_owned(), access, bytes_max: 1 << 20, names_max: 10 }
    }

    #[test]
    fn who_shares_a_directory_shares_its_count_and_two_tenants_pay_nothing() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(folder.path().join("a"), vec![0; 5000]).expect("files can be made");
        let (volumes, one, two) = (Volumes::default(), Account::of_nobody(), Account::of_nobody());
        let open =
            |account| Directory::open(&spec(folder.path(), Access::Write), &volumes, account).expect("it is there");
        let (first, again) = (open(&one), open(&one));
        let volume = Arc::clone(first.volume().expect("it is counted"));
        assert!(Arc::ptr_eq(&volume, again.volume().expect("it is counted")));
        assert_eq!((volume.usage(), one.disk_bytes()), (Usage { blocks: 2, names: 1 }, 8192));
        let other = open(&two);
        assert!(Arc::ptr_eq(&volume, other.volume().expect("it is counted")));
        assert_eq!((one.disk_bytes(), two.disk_bytes()), (0, 0));
        let quota = super::super::Quota { bytes_max: 12288, names_max: 10 };
        volume.take(Usage { blocks: 1, names: 1 }, quota).expect("there is room");
        assert!(other.volume().expect("it is counted").take(Usage { blocks: 1, names: 1 }, quota).is_err());
    }

    #[test]
    fn what_lies_in_another_is_refused_where_both_are_written_to() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).expect("folders can be made");
        let (volumes, account) = (Volumes::default(), Account::of_nobody());
        let open = |path, access| Directory::open(&spec(path, access), &volumes, &account);
        let outer = open(folder.path(), Access::Write).expect("it is there");
        assert!(open(&inner, Access::Write).is_err_and(|error| error.to_string().contains("lie in each other")));
        assert!(open(&inner, Access::Read).is_ok());
        drop(outer);
        let _inner = open(&inner, Access::Write).expect("the other is gone");
        assert!(open(folder.path(), Access::Write).is_err());
    }
}
