//! Who is charged with what a directory holds; and what apps that are gone have left behind, which their tenant is
//! charged with as well: or it would have the whole budget again under each new name.
//!
//! Directories of data are known to their tenant's account by name, from the first look at what is there on: charged is
//! what was counted last, whether or not an app has it open.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

use super::Usage;
use super::count::count;
use super::volume::BLOCK_BYTES;
use crate::account::{Account, Room};
use crate::config::tenant_of_data;

/// Whose account a directory is charged to.
pub(super) struct Payer {
    account: Arc<Account>,
    /// The name of one of data, which stays charged when it is closed.
    name: Option<String>,
}

/// What the directory of data itself takes of the budget while no app has it open: or empty ones would be free, and
/// without end.
const ITSELF: Usage = Usage { blocks: 1, names: 1 };

impl Usage {
    fn room(self) -> Room {
        Room { bytes: self.blocks.saturating_mul(BLOCK_BYTES), names: self.names }
    }

    fn and(self, other: Self) -> Self {
        Self { blocks: self.blocks.saturating_add(other.blocks), names: self.names.saturating_add(other.names) }
    }
}

impl Payer {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self { account: Arc::clone(account), name: None }
    }

    /// That of a directory of data which is about to be opened, and what it was charged with until now.
    pub(super) fn of_data(account: &Arc<Account>, name: &str) -> (Self, Usage) {
        let Room { bytes, names } = account.hold_directory(name);
        let left = Usage { blocks: bytes / BLOCK_BYTES, names };
        let payer = Self { account: Arc::clone(account), name: Some(name.to_owned()) };
        let usage =
            Usage { blocks: left.blocks.saturating_sub(ITSELF.blocks), names: left.names.saturating_sub(ITSELF.names) };
        payer.tell(left, usage);
        (payer, usage)
    }

    pub(super) fn is(&self, account: &Arc<Account>) -> bool {
        Arc::ptr_eq(&self.account, account)
    }

    /// Takes room, if there is some.
    pub(super) fn take(&self, more: Usage) -> bool {
        self.account.take_disk(more.room())
    }

    /// It takes something else than before.
    pub(super) fn tell(&self, before: Usage, after: Usage) {
        self.account.change_disk(before.room(), after.room());
    }

    /// Nobody has it open any more.
    pub(super) fn close(&self, usage: Usage) {
        match &self.name {
            Some(name) => {
                let left = usage.and(ITSELF);
                self.tell(usage, left);
                self.account.leave_directory(name, left.room());
            }
            None => self.tell(usage, Usage::default()),
        }
    }
}

/// Whether a directory of data may be made that is not there.
pub(super) fn may_be_made(account: &Account) -> bool {
    let room = ITSELF.room();
    let is_there = account.take_disk(room);
    if is_there {
        account.change_disk(room, Room::default());
    }
    is_there
}

/// For so long a look at all that is there serves for further tenants: at the start there are many.
const LIST_TIME: Duration = Duration::from_secs(60);

/// What is in the directory for data, of apps that are live and of others.
pub struct Left {
    data_dir: PathBuf,
    list: Mutex<Option<List>>,
}

struct List {
    made: Instant,
    names: HashMap<String, Vec<String>>,
}

impl Left {
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), list: Mutex::default() }
    }

    /// Charges an account that was just opened with what the tenant's apps have kept. It blocks.
    ///
    /// # Errors
    /// If it cannot be told what is there.
    pub fn charge(&self, account: &Account) -> io::Result<()> {
        let names = {
            let mut list = self.list();
            if list.as_ref().is_none_or(|list| list.made.elapsed() > LIST_TIME) {
                // What is old tells nothing.
                *list = None;
                *list = Some(List { made: Instant::now(), names: self.names()? });
            }
            list.as_ref().and_then(|list| list.names.get(account.tenant()).cloned()).unwrap_or_default()
        };
        self.count(account, names);
        if let Some(list) = &mut *self.list() {
            list.names.remove(account.tenant());
        }
        Ok(())
    }

    /// The same for one that was charged before: others may have made room, or put something there. It blocks.
    pub fn charge_again(&self, account: &Account) {
        if let Ok(mut names) = self.names() {
            self.count(account, names.remove(account.tenant()).unwrap_or_default());
        }
    }

    fn list(&self) -> MutexGuard<'_, Option<List>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, account: &Account, names: Vec<String>) {
        let before = account.left_directories();
        let mut found = HashMap::new();
        for name in names {
            let known = before.get(&name).copied();
            // Who has it open counts it.
            if account.is_held(&name) {
                found.extend(known.map(|known| (name, known)));
                continue;
            }
            let path = self.data_dir.join(&name);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let opened = rustix::fs::open(&path, flags, Mode::empty()).map_err(io::Error::from);
            match opened.and_then(|folder: OwnedFd| count(&folder)) {
                Ok(usage) => _ = found.insert(name, usage.and(ITSELF).room()),
                Err(error) => match Errno::from_io_error(&error) {
                    // It is gone, or was never an app's.
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    _ => {
                        tracing::error!("what {} holds cannot be counted: {error}", path.display());
                        found.insert(name, known.unwrap_or(ITSELF.room()));
                    }
                },
            }
        }
        account.settle_directories(&before, found);
    }

    /// The names of all directories of data, by tenants.
    fn names(&self) -> io::Result<HashMap<String, Vec<String>>> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        let listed = (|| -> io::Result<()> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::open(&self.data_dir, flags, Mode::empty())?;
            for entry in Dir::read_from(folder.as_fd())? {
                if let Ok(name) = entry?.file_name().to_str()
                    && let Some(tenant) = tenant_of_data(name)
                {
                    names.entry(tenant.to_owned()).or_default().push(name.to_owned());
                }
            }
            Ok(())
        })();
        match listed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!("what is in {} cannot be listed: {error}", self.data_dir.display());
                Err(error)
            }
            _ => Ok(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{DataDir, Quota};
    use super::*;

    const BLOCK: u64 = BLOCK_BYTES;

    fn kept(account: &Account) -> (u64, u64) {
        (account.disk_bytes(), account.disk_names())
    }

    #[test]
    fn what_is_left_behind_counts_from_the_start_and_once() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        for (name, bytes) in
            [("acme+one/a", 5000), ("acme+one/b/c", 1), ("acme+two/a", 1), ("hive+x/a", 1), ("own/a", 1)]
        {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("folders can be made");
            fs::write(path, vec![0; bytes]).expect("files can be made");
        }
        fs::write(folder.path().join("acme+file"), "x").expect("files can be made");
        fs::create_dir(folder.path().join(".turns")).expect("folders can be made");
        std::os::unix::fs::symlink("/", folder.path().join("acme+link")).expect("links can be made");
        let (left, acme, own) = (Left::new(folder.path()), Account::of("acme"), Account::of(""));
        left.charge(&acme).expect("it can be listed");
        left.charge(&own).expect("it can be listed");
        // One: a folder and two files in it, one of them of two blocks, and itself; two: a file and itself.
        assert_eq!((kept(&acme), kept(&own)), ((7 * BLOCK, 6), (2 * BLOCK, 2)));
        let one = DataDir::open(&folder.path().join("acme+one"), &acme).expect("it is there");
        assert_eq!(kept(&acme), (6 * BLOCK, 5), "what is live is counted by its quota");
        let quota = Quota { bytes_max: 1 << 20, names_max: 10 };
        one.volume().take(Usage { blocks: 3, names: 1 }, quota).expect("there is room");
        // Another while the first is open, as calls of a release that is gone have it.
        let again = DataDir::open(&folder.path().join("acme+one"), &acme).expect("it is there");
        drop(one);
        drop(again);
        assert_eq!(kept(&acme), (7 * BLOCK, 6), "it was counted as it is");
        // It is held meanwhile, made anew, or removed by the operator.
        let two = DataDir::open(&folder.path().join("acme+two"), &acme).expect("it is there");
        fs::remove_dir_all(folder.path().join("acme+one")).expect("it is ours");
        left.charge_again(&acme);
        assert_eq!(kept(&acme), (BLOCK, 1));
        drop(two);
        fs::remove_dir_all(folder.path().join("acme+two")).expect("it is ours");
        left.charge_again(&acme);
        assert_eq!(kept(&acme), (0, 0));
    }

    #[test]
    fn nobody_is_charged_with_nothing_where_it_cannot_be_told_what_is_there() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let data_dir = folder.path().join("data");
        let (left, acme) = (Left::new(&data_dir), Account::of("acme"));
        // Not there yet, and nothing is in it.
        left.charge(&acme).expect("it is empty");
        let left = Left::new(&data_dir);
        fs::write(&data_dir, "").expect("files can be made");
        assert!(left.charge(&acme).is_err());
        fs::remove_file(&data_dir).expect("it is ours");
        fs::create_dir_all(data_dir.join("acme+one")).expect("folders can be made");
        left.charge(&acme).expect("it can be listed");
        assert_eq!(kept(&acme), (BLOCK, 1));
    }

    #[test]
    fn a_directory_is_made_while_the_tenant_has_room_for_it() {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let account = Account::of_nobody();
        let open = |name: &str| DataDir::open(&folder.path().join(name), &account);
        drop(open("one").expect("there is room"));
        let all = Room { bytes: u64::MAX / 2, names: 0 };
        account.change_disk(Room::default(), all);
        assert!(open("two").is_err_and(|error| error.to_string().contains("budget.disk")));
        assert!(!folder.path().join("two").exists());
        assert!(open("one").is_ok(), "what is there can be opened");
    }
}
