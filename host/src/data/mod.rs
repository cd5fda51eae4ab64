//! Directories that apps were granted: that of an app's data, and who may be at it (one sandbox at a time), and others.
//!
//! WASI has no locks on files, so that nothing in a guest can keep two of them from writing to the same database at once. The host
//! does: a sandbox that sees the directory holds a [`Turn`] while it runs, among the app's calls in this process first come, first
//! served, and beside `wasgi manage` by a lock on the directory, which guests can neither see nor take.
//!
//! What it holds is counted ([`volume`]): once when it is opened, from then on as guests change it, and again where somebody else has had
//! a turn, which a number in a file beside it tells.

mod count;
mod directory;
mod left;
mod volume;

use std::borrow::Cow;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use self::directory::{Directory, Volumes};
pub use self::left::Left;
pub(crate) use self::volume::{Full, blocks};
pub use self::volume::{Quota, Usage, Volume};
use crate::account::Account;

/// How often a directory that another process has is asked for.
const RETRY_TIME: Duration = Duration::from_millis(10);
/// Where there is no room, it is counted again after this: others than guests may have made some.
const RECOUNT_TIME: Duration = Duration::from_secs(10);
/// The folder beside the directories with a file for each: no app's name begins with a dot.
const TURNS: &str = ".turns";

fn path_of(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// An app's directory for data.
pub struct DataDir {
    path: PathBuf,
    handle: OwnedFd,
    turns: Arc<Mutex<()>>,
    volume: Arc<Volume>,
    /// The number of the last turn in which something changed, as whoever had it has written it.
    last: File,
    /// The same, as it was when what is there was counted.
    seen: AtomicU64,
    counted: std::sync::Mutex<Instant>,
}

/// The right to be at the data. Given back when it is dropped, or when what was begun by a call that is gone has ended.
pub struct Turn(Option<Held>);

/// A turn, and its lock.
struct Held {
    _turn: OwnedMutexGuard<()>,
    data: Arc<DataDir>,
}

impl DataDir {
    /// Opens the directory, making it where it is missing: for the host's user alone. What it holds is counted, and the account
    /// charged.
    ///
    /// # Errors
    /// If it cannot be made or read, is a link, or is not a directory.
    pub fn open(path: &Path, account: &Arc<Account>) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        if path.symlink_metadata().is_err() && !left::may_be_made(account) {
            return Err(io::Error::other(
                "it is not there yet, and its tenant keeps as much as it may, with what apps that are gone have left behind: raise \
                 budget.disk or budget.disk_files, or remove some of it from data_dir",
            ));
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let handle = rustix::fs::open(path, flags, Mode::empty())?;
        let last = last_turn(path)?;
        let data = Self {
            path: path.to_owned(),
            handle,
            turns: Arc::default(),
            volume: Arc::new(Volume::of_data(account, &name_of(path)?)),
            seen: AtomicU64::new(number_in(&last)?),
            last,
            counted: std::sync::Mutex::new(Instant::now()),
        };
        data.count()?;
        Ok(data)
    }

    /// What it holds, and may.
    pub(crate) fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    fn count(&self) -> io::Result<()> {
        self.volume.will_be_counted();
        self.volume.recount(count::count(&self.handle)?);
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(())
    }

    /// Whether what was counted may be something else by now.
    fn is_stale(&self) -> io::Result<bool> {
        let number = number_in(&self.last)?;
        let by_others = self.seen.swap(number, Relaxed) != number;
        let is_old = || self.counted.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= RECOUNT_TIME;
        Ok(by_others || (self.volume.is_doubtful() && is_old()))
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
    /// Where the kernel has no locks, on some network file systems, or what is there cannot be counted.
    pub async fn turn(self: &Arc<Self>) -> io::Result<Turn> {
        let turn = Arc::clone(&self.turns).lock_owned().await;
        loop {
            match rustix::fs::flock(&self.handle, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK | Errno::INTR) => tokio::time::sleep(RETRY_TIME).await,
                Err(error) => return Err(error.into()),
            }
        }
        let turn = Turn(Some(Held { _turn: turn, data: Arc::clone(self) }));
        if self.is_stale()? {
            let data = Arc::clone(self);
            tokio::task::spawn_blocking(move || data.count()).await.map_err(io::Error::other)??;
        }
        Ok(turn)
    }
}

fn name_of(path: &Path) -> io::Result<Cow<'_, str>> {
    Ok(path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy())
}

/// The file with the number of the last turn.
fn last_turn(path: &Path) -> io::Result<File> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = path.with_file_name(TURNS);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(folder.join(name))
}

fn number_in(file: &File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    match file.read_at(&mut bytes, 0)? {
        8 => Ok(u64::from_le_bytes(bytes)),
        _ => Ok(0),
    }
}

/// How long the next one waits for what a call that is gone has begun, and how often it is looked at.
const LINGER_TIME: Duration = Duration::from_secs(10);
const LINGER_STEP: Duration = Duration::from_millis(5);

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(held) = self.0.take() else { return };
        if !held.data.volume.is_busy() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let began = Instant::now();
            while held.data.volume.is_busy() {
                if began.elapsed() > LINGER_TIME {
                    let path = held.data.path.display();
                    tracing::error!(
                        "what a call has begun in {path} goes on though the call is gone: the next one begins"
                    );
                    break;
                }
                tokio::time::sleep(LINGER_STEP).await;
            }
            drop(held);
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let data = &self.data;
        data.volume.tidy();
        if data.volume.take_changed() {
            let number = RandomState::new().build_hasher().finish();
            data.seen.store(number, Relaxed);
            if let Err(error) = data.last.write_all_at(&number.to_le_bytes(), 0) {
                tracing::error!("what {} holds may be counted wrong in other processes: {error}", data.path.display());
            }
        }
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
        let account = Account::of_nobody();
        let data = Arc::new(DataDir::open(&path, &account).expect("it can be made"));
        // What another process has: its own description of the directory.
        let other = Arc::new(DataDir::open(&path, &account).expect("it is there"));
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

    #[tokio::test]
    async fn what_a_call_that_is_gone_has_begun_ends_before_the_next_turn() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let data = Arc::new(DataDir::open(&folder.path().join("shop"), &Account::of_nobody()).expect("it can be made"));
        let is_free =
            async |data: &Arc<DataDir>| tokio::time::timeout(Duration::from_millis(50), data.turn()).await.is_ok();
        let turn = data.turn().await.expect("there are locks here");
        let handle = Arc::new(File::open(folder.path()).expect("it is there"));
        let at_work = Arc::clone(&handle);
        // Its call is gone before it has ended.
        drop(data.volume().begin(handle));
        drop(turn);
        assert!(!is_free(&data).await);
        drop(at_work);
        let turn = tokio::time::timeout(LINGER_TIME, data.turn()).await.expect("it is free").expect("there are locks");
        data.volume().begin(Arc::new(File::open(folder.path()).expect("it is there"))).ends();
        drop(turn);
        assert!(is_free(&data).await, "what has ended is waited for by nobody");
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let path = folder.path().join("shop");
        symlink(folder.path(), &path).expect("links can be made");
        assert!(DataDir::open(&path, &Account::of_nobody()).is_err());
    }
}
