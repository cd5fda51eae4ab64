//! What a tenant's apps keep: data and key-value stores, which have one budget. `data` and `keyvalue` ask before they write.
//!
//! Directories of data are known by their names: what one holds is charged also while no app has it open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Account;

/// Room on the disk, and how many files, folders and links there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    pub names: u64,
}

/// What its apps keep.
#[derive(Default)]
pub(super) struct Disk {
    /// In directories for data, in bytes.
    bytes: AtomicU64,
    /// Files, folders and links in them.
    names: AtomicU64,
    /// In key-value stores of this machine, in bytes.
    stores: AtomicU64,
    /// Of data, by name.
    directories: Mutex<HashMap<String, Directory>>,
    /// Whether what was there before is charged. Locked by who is counting it.
    measured: Arc<tokio::sync::Mutex<bool>>,
    /// Somebody was refused since what is left behind was counted, and when that was.
    is_doubtful: AtomicBool,
    counted: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, Default)]
struct Directory {
    /// Who has it open: mostly one. The release before may have it as well for as long as its last call.
    holders: u32,
    /// What is charged for it while nobody has.
    left: Room,
}

/// Who has no room, and has left something behind, has that counted again after so long: the operator may have removed
/// it.
const RECOUNT_TIME: Duration = Duration::from_secs(60);

impl Account {
    /// What its apps keep, in bytes, those too that are gone.
    pub fn disk_bytes(&self) -> u64 {
        self.disk.bytes.load(Relaxed).saturating_add(self.disk.stores.load(Relaxed))
    }

    /// Files, folders and links that its apps keep.
    pub fn disk_names(&self) -> u64 {
        self.disk.names.load(Relaxed)
    }

    /// Takes room on the disk. False, and nothing taken, if that would be too much.
    pub(crate) fn take_disk(&self, more: Room) -> bool {
        let terms = self.terms();
        let bytes_max = terms.budget.disk_bytes.saturating_sub(self.disk.stores.load(Relaxed));
        let take = |of: &AtomicU64, more: u64, max: u64| {
            let taken = |used: u64| used.checked_add(more).filter(|used| more == 0 || *used <= max);
            of.fetch_update(Relaxed, Relaxed, taken).is_ok()
        };
        let mut fits = take(&self.disk.bytes, more.bytes, bytes_max);
        if fits && !take(&self.disk.names, more.names, terms.budget.disk_names) {
            self.disk.bytes.fetch_sub(more.bytes, Relaxed);
            fits = false;
        }
        if !fits {
            self.disk.is_doubtful.store(true, Relaxed);
        }
        fits
    }

    /// Something takes another room than it did: so it is, whether it may or not.
    pub(crate) fn change_disk(&self, before: Room, after: Room) {
        let change = |of: &AtomicU64, before: u64, after: u64| {
            let changed = |used: u64| Some(used.saturating_sub(before).saturating_add(after));
            let _ = of.fetch_update(Relaxed, Relaxed, changed);
        };
        change(&self.disk.bytes, before.bytes, after.bytes);
        change(&self.disk.names, before.names, after.names);
    }

    /// Whether its key-value stores may hold so many bytes together.
    pub(crate) fn may_store(&self, bytes: u64) -> bool {
        let may = self.disk.bytes.load(Relaxed).saturating_add(bytes) <= self.terms().budget.disk_bytes;
        if !may {
            self.disk.is_doubtful.store(true, Relaxed);
        }
        may
    }

    /// Its key-value stores hold so many bytes together.
    pub(crate) fn set_stored(&self, bytes: u64) {
        self.disk.stores.store(bytes, Relaxed);
    }

    /// Whether what its apps keep was looked at: to be done once, before the first of them can write.
    pub(crate) fn measured(&self) -> &Arc<tokio::sync::Mutex<bool>> {
        &self.disk.measured
    }

    /// Somebody opens a directory of data: what was charged for it while nobody had it is theirs to answer for.
    pub(crate) fn hold_directory(&self, name: &str) -> Room {
        let mut directories = self.directories();
        let directory = directories.entry(name.to_owned()).or_default();
        directory.holders += 1;
        std::mem::take(&mut directory.left)
    }

    /// And closes it, having been charged with so much, which stays so if nobody else has it.
    pub(crate) fn leave_directory(&self, name: &str, charged: Room) {
        let mut directories = self.directories();
        let directory = directories.entry(name.to_owned()).or_default();
        directory.holders = directory.holders.saturating_sub(1);
        match directory.holders {
            0 => directory.left = charged,
            // It has counted for itself.
            _ => self.change_disk(charged, Room::default()),
        }
    }

    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.directories().get(name).is_some_and(|directory| directory.holders > 0)
    }

    /// Directories of data that nobody has open, and what is charged for each.
    pub(crate) fn left_directories(&self) -> HashMap<String, Room> {
        let directories = self.directories();
        let left = directories.iter().filter(|(_, directory)| directory.holders == 0);
        left.map(|(name, directory)| (name.clone(), directory.left)).collect()
    }

    /// They were counted: `found` is what is there, of what was `before`. What somebody has had open meanwhile stays as
    /// that one has said.
    pub(crate) fn settle_directories(&self, before: &HashMap<String, Room>, mut found: HashMap<String, Room>) {
        let mut directories = self.directories();
        for (name, was) in before {
            let Some(directory) = directories.get_mut(name) else { continue };
            let now = found.remove(name);
            if directory.holders > 0 || directory.left != *was {
                continue;
            }
            self.change_disk(*was, now.unwrap_or_default());
            match now {
                Some(now) => directory.left = now,
                None => _ = directories.remove(name),
            }
        }
        for (name, left) in found {
            directories.entry(name).or_insert_with(|| {
                self.change_disk(Room::default(), left);
                Directory { holders: 0, left }
            });
        }
        *self.counted() = Some(Instant::now());
    }

    /// Whether what is left behind is to be counted again, which is so once.
    pub(super) fn wants_recount(&self) -> bool {
        let is_due = self.disk.is_doubtful.load(Relaxed)
            && self.counted().is_some_and(|counted| counted.elapsed() >= RECOUNT_TIME);
        if is_due {
            self.disk.is_doubtful.store(false, Relaxed);
            *self.counted() = Some(Instant::now());
        }
        is_due
    }

    /// Whether anything is there that has to stay charged while it has no apps.
    pub(super) fn keeps_something(&self) -> bool {
        self.disk.stores.load(Relaxed) > 0 || !self.directories().is_empty()
    }

    fn directories(&self) -> MutexGuard<'_, HashMap<String, Directory>> {
        // Nothing that holds these locks can panic halfway through a change.
        self.disk.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counted(&self) -> MutexGuard<'_, Option<Instant>> {
        self.disk.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::account;
    use super::*;

    fn room(bytes: u64, names: u64) -> Room {
        Room { bytes, names }
    }

    #[test]
    fn room_on_the_disk_is_one_for_data_and_stores() {
        let account = account(|budget| {
            budget.disk_bytes = 100;
            budget.disk_names = 2;
        });
        let take = |bytes, names| account.take_disk(room(bytes, names));
        assert!(take(60, 1) && !take(60, 1) && take(0, 1));
        assert!(!take(1, 1), "no name is left");
        assert!(account.may_store(40) && !account.may_store(41));
        account.set_stored(40);
        assert_eq!((account.disk_bytes(), account.disk_names()), (100, 2));
        assert!(!take(1, 0));
        account.change_disk(room(60, 2), room(50, 1));
        assert!(take(10, 1) && take(0, 0));
    }

    #[test]
    fn a_directory_that_nobody_has_open_counts_as_it_was_or_as_it_is_found() {
        let account = account(|_| {});
        let kept = || (account.disk_bytes(), account.disk_names());
        assert_eq!(account.hold_directory("a"), room(0, 0));
        assert!(account.take_disk(room(10, 1)));
        account.leave_directory("a", room(10, 1));
        assert!(kept() == (10, 1) && account.keeps_something());
        let before = account.left_directories();
        // Somebody has had it meanwhile, and another has come.
        assert_eq!(account.hold_directory("a"), room(10, 1));
        account.change_disk(room(10, 1), room(20, 2));
        account.leave_directory("a", room(20, 2));
        let found = HashMap::from([("a".to_owned(), room(99, 9)), ("b".to_owned(), room(1, 1))]);
        account.settle_directories(&before, found);
        assert_eq!(kept(), (21, 3));
        account.settle_directories(&account.left_directories(), HashMap::from([("a".to_owned(), room(5, 1))]));
        assert_eq!(kept(), (5, 1));
        assert!(!account.wants_recount(), "nobody was refused");
        account.settle_directories(&account.left_directories(), HashMap::new());
        assert!(kept() == (0, 0) && !account.keeps_something());
    }
}
