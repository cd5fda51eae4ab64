//! What a directory that guests write to holds, counted as it changes, so that it never holds more than it may.
//!
//! Counted is what names lead to: a file by its length, holes too, in whole blocks, once for each of its names; everything else as
//! one block. So nothing is gained by sparse files, by many small ones, or by links. A file that has no name any more counts while
//! somebody has it open. What a file will have is counted before it is written; what it has is looked at when nobody has it open any more,
//! so that a write that failed is not counted for ever.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, Stat};

use super::left::Payer;
use crate::account::Account;

/// What a file takes at least, and what its length is rounded up to: as file systems do it.
pub const BLOCK_BYTES: u64 = 4 << 10;
/// Open files that are remembered before it is looked which of them are open still.
const OPEN_MIN: usize = 64;

/// Names, and the blocks that they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub blocks: u64,
    pub names: u64,
}

impl Usage {
    /// One name of something that takes so many blocks.
    pub(crate) fn one(blocks: u64) -> Self {
        Self { blocks, names: 1 }
    }

    pub(super) fn of_name(stat: &Stat) -> Self {
        Self::one(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => blocks(length(stat)),
            _ => 1,
        })
    }
}

fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// The blocks of a file with so many bytes.
pub(crate) fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).max(1)
}

/// What it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub bytes_max: u64,
    pub names_max: u64,
}

/// Why it takes no more: so many bytes, so many names, or what the tenant may keep of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Bytes(u64),
    Names(u64),
    Budget,
}

/// The count of one directory.
pub struct Volume {
    ledger: Mutex<Ledger>,
    /// Held while names change: what a name led to before and what becomes of it belong together.
    pub(crate) names: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Ledger {
    usage: Usage,
    /// Files that are open, by what tells them apart.
    open: HashMap<u64, Open>,
    open_max: usize,
    /// Somebody was refused, or cut short, since it was last counted.
    is_doubtful: bool,
    has_changed: bool,
    /// Who is charged with it; nobody where several tenants write to it.
    payer: Option<Payer>,
    /// What has come since somebody began to count it anew.
    come: Option<Usage>,
    /// What was begun and nobody waits for any more, as the host has it open.
    strays: Vec<Arc<File>>,
}

/// Something that is done to what is counted: it ends, or nobody waits for its end any more, since its call is gone. The kernel goes on
/// with it then.
pub(crate) struct UnderWay<'v> {
    volume: &'v Volume,
    handle: Option<Arc<File>>,
}

impl UnderWay<'_> {
    /// It is over.
    pub(crate) fn ends(mut self) {
        self.handle = None;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.volume.ledger().strays.push(handle);
        }
    }
}

/// A file that somebody has open.
struct Open {
    /// As it was opened each time: alive while a guest, or a write that is under way, has it.
    handles: Vec<Arc<File>>,
    /// How long it is, or will be when all that was begun is done.
    length: u64,
    /// Names that lead to it.
    names: u64,
}

impl Open {
    /// What it takes with all its names; without any, as long as it is open.
    fn blocks(&self) -> u64 {
        blocks(self.length) * self.names.max(1)
    }

    fn is_closed(&self) -> bool {
        self.handles.iter().all(|handle| Arc::strong_count(handle) == 1)
    }

    /// Nothing is under way: beside this one, each is had by one descriptor and no stream.
    fn is_quiet(&self) -> bool {
        self.handles.iter().all(|handle| Arc::strong_count(handle) <= 2)
    }
}

impl Volume {
    pub fn new(account: &Arc<Account>) -> Self {
        Self::of(Payer::new(account), Usage::default())
    }

    /// That of a directory of data, by its name.
    pub(super) fn of_data(account: &Arc<Account>, name: &str) -> Self {
        let (payer, usage) = Payer::of_data(account, name);
        Self::of(payer, usage)
    }

    fn of(payer: Payer, usage: Usage) -> Self {
        let ledger = Ledger { payer: Some(payer), usage, ..Ledger::default() };
        Self { ledger: Mutex::new(ledger), names: tokio::sync::Mutex::default() }
    }

    /// Apps of this tenant write to it, too. Where that is another than before, nobody is charged any more: neither tenant would know
    /// what for.
    pub(super) fn is_written_by(&self, account: &Arc<Account>) {
        let mut ledger = self.ledger();
        let usage = ledger.usage;
        if let Some(before) = ledger.payer.take_if(|payer| !payer.is(account)) {
            before.close(usage);
        }
    }

    /// Something begins, by what the host has open. To be kept until it has ended.
    pub(crate) fn begin(&self, handle: Arc<File>) -> UnderWay<'_> {
        UnderWay { volume: self, handle: Some(handle) }
    }

    /// Whether something may be under way for a call that is gone, and its sandbox with it.
    pub(super) fn is_busy(&self) -> bool {
        let mut ledger = self.ledger();
        let Ledger { strays, open, is_doubtful, .. } = &mut *ledger;
        *is_doubtful |= !strays.is_empty();
        strays.retain(|stray| {
            let is_known = open.values().any(|open| open.handles.iter().any(|handle| Arc::ptr_eq(handle, stray)));
            // Beside this one, and what is remembered of open files, whoever is at it has one.
            Arc::strong_count(stray) > 1 + usize::from(is_known)
        });
        !strays.is_empty()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nothing that holds the lock can panic halfway through a change.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it holds now.
    pub fn usage(&self) -> Usage {
        self.ledger().usage
    }

    /// Somebody begins to count it anew. What comes meanwhile counts on top: it may have been seen or not.
    pub(super) fn will_be_counted(&self) {
        let mut ledger = self.ledger();
        ledger.come = Some(Usage::default());
        ledger.is_doubtful = false;
    }

    /// What was counted is true again.
    pub(super) fn recount(&self, counted: Usage) {
        let mut ledger = self.ledger();
        let before = ledger.usage;
        let come = ledger.come.take().unwrap_or_default();
        let mut blocks = counted.blocks.saturating_add(come.blocks);
        for open in ledger.open.values_mut() {
            let Ok(stat) = rustix::fs::fstat(open.handles[0].as_fd()) else { continue };
            let is_quiet = open.is_quiet();
            open.names = names(&stat);
            let seen = self::blocks(length(&stat)) * open.names;
            // What is under way will have come.
            open.length = if is_quiet { length(&stat) } else { open.length.max(length(&stat)) };
            blocks = blocks.saturating_add(open.blocks().saturating_sub(seen));
        }
        ledger.usage = Usage { blocks, names: counted.names.saturating_add(come.names) };
        ledger.tell(before);
    }

    /// Whether it should be counted again: somebody was refused (perhaps others have made room), or was cut short, so that something counts
    /// which never came.
    pub(super) fn is_doubtful(&self) -> bool {
        self.ledger().is_doubtful
    }

    /// Whether anything has changed since this was asked.
    pub(super) fn take_changed(&self) -> bool {
        std::mem::take(&mut self.ledger().has_changed)
    }

    /// Counts what is about to come, if there is room.
    pub(crate) fn take(&self, more: Usage, quota: Quota) -> Result<(), Full> {
        self.change(&mut self.ledger(), more, quota)
    }

    fn change(&self, ledger: &mut Ledger, more: Usage, quota: Quota) -> Result<(), Full> {
        if more == Usage::default() {
            return Ok(());
        }
        let wanted = Usage {
            blocks: ledger.usage.blocks.saturating_add(more.blocks),
            names: ledger.usage.names.saturating_add(more.names),
        };
        let full = if more.blocks > 0 && wanted.blocks > quota.bytes_max / BLOCK_BYTES {
            Some(Full::Bytes(quota.bytes_max))
        } else if more.names > 0 && wanted.names > quota.names_max {
            Some(Full::Names(quota.names_max))
        } else if !ledger.may_pay(more) {
            Some(Full::Budget)
        } else {
            None
        };
        if let Some(full) = full {
            ledger.is_doubtful = true;
            return Err(full);
        }
        ledger.usage = wanted;
        ledger.has_changed = true;
        if let Some(come) = &mut ledger.come {
            come.blocks = come.blocks.saturating_add(more.blocks);
            come.names = come.names.saturating_add(more.names);
        }
        Ok(())
    }

    /// Counts what is gone.
    pub(crate) fn give(&self, less: Usage) {
        self.give_back(&mut self.ledger(), less);
    }

    fn give_back(&self, ledger: &mut Ledger, less: Usage) {
        let before = ledger.usage;
        ledger.usage.blocks = before.blocks.saturating_sub(less.blocks);
        ledger.usage.names = before.names.saturating_sub(less.names);
        ledger.has_changed = true;
        ledger.tell(before);
    }

    /// A file was opened that was counted with this length. From now on it is known.
    pub(crate) fn opened(&self, key: u64, file: Arc<File>, counted: u64) {
        let mut ledger = self.ledger();
        if ledger.open.len() >= ledger.open_max.max(OPEN_MIN) {
            self.close(&mut ledger);
            ledger.open_max = 2 * ledger.open.len();
        }
        let names = rustix::fs::fstat(file.as_fd()).map_or(1, |stat| names(&stat));
        let new = Open { handles: Vec::new(), length: counted, names };
        let found = ledger.open.entry(key).or_insert(new);
        // Those that nobody has any more are descriptors of the host's.
        found.handles.retain(|handle| Arc::strong_count(handle) > 1);
        found.handles.push(file);
        self.settle_one(&mut ledger, key);
    }

    /// The length of an open file as it is counted.
    pub(crate) fn counted(&self, key: u64) -> Option<u64> {
        self.ledger().open.get(&key).map(|open| open.length)
    }

    /// Counts a file as long as it is to become, if there is room.
    pub(crate) fn reach(&self, key: u64, end: u64, quota: Quota) -> Result<(), Full> {
        let mut ledger = self.ledger();
        let Some(open) = ledger.open.get(&key) else { return Err(Full::Bytes(quota.bytes_max)) };
        if end <= open.length {
            return Ok(());
        }
        let more = (blocks(end) - blocks(open.length)).saturating_mul(open.names.max(1));
        self.change(&mut ledger, Usage { blocks: more, names: 0 }, quota)?;
        if let Some(open) = ledger.open.get_mut(&key) {
            open.length = end;
        }
        Ok(())
    }

    /// Whether one byte at this place, or at the file's end, would find room.
    pub(crate) fn probe(&self, key: u64, place: Option<u64>, quota: Quota) -> Result<(), Full> {
        let mut ledger = self.ledger();
        let Some(open) = ledger.open.get(&key) else { return Ok(()) };
        let end = place.unwrap_or(open.length).saturating_add(1);
        if end <= open.length {
            return Ok(());
        }
        let blocks = (blocks(end) - blocks(open.length)).saturating_mul(open.names.max(1));
        let more = Usage { blocks, names: 0 };
        self.change(&mut ledger, more, quota)?;
        self.give_back(&mut ledger, more);
        Ok(())
    }

    /// Counts a file with so many bytes more at its end, if there is room.
    pub(crate) fn append(&self, key: u64, bytes: u64, quota: Quota) -> Result<(), Full> {
        let end = self.counted(key).unwrap_or(0).saturating_add(bytes);
        self.reach(key, end, quota)
    }

    /// A file may be shorter than it was counted: it is looked at, if nothing is under way to it.
    pub(crate) fn settle(&self, key: u64) {
        self.settle_one(&mut self.ledger(), key);
    }

    fn settle_one(&self, ledger: &mut Ledger, key: u64) {
        let Some(open) = ledger.open.get_mut(&key).filter(|open| open.is_quiet()) else { return };
        let before = open.blocks();
        if let Ok(stat) = rustix::fs::fstat(open.handles[0].as_fd()) {
            open.length = length(&stat);
        }
        let after = open.blocks();
        self.adjust(ledger, before, after);
    }

    /// What is there is there, whatever it may be.
    fn adjust(&self, ledger: &mut Ledger, before: u64, after: u64) {
        let was = ledger.usage;
        ledger.usage.blocks = was.blocks.saturating_sub(before).saturating_add(after);
        if before != after {
            ledger.has_changed = true;
            ledger.tell(was);
        }
    }

    /// A file has one name more.
    pub(crate) fn linked(&self, key: u64) {
        if let Some(open) = self.ledger().open.get_mut(&key) {
            open.names += 1;
        }
    }

    /// A name of something is gone, that took so much by itself.
    pub(crate) fn unlinked(&self, key: u64, alone: Usage) {
        let mut ledger = self.ledger();
        let mut less = alone;
        if let Some(open) = ledger.open.get_mut(&key) {
            let before = open.blocks();
            open.names = open.names.saturating_sub(1);
            // Without a name it takes what it took, until it is closed.
            less.blocks = before - open.blocks();
        }
        self.give_back(&mut ledger, less);
        self.close(&mut ledger);
    }

    /// A guest has closed a file.
    pub(crate) fn closed(&self, key: u64) {
        let mut ledger = self.ledger();
        if ledger.open.get(&key).is_some_and(Open::is_closed) {
            self.close_one(&mut ledger, key);
        }
    }

    /// Looks which files are closed: what they take is known now.
    pub(crate) fn tidy(&self) {
        self.close(&mut self.ledger());
    }

    fn close(&self, ledger: &mut Ledger) {
        let closed: Vec<u64> = ledger.open.iter().filter(|(_, open)| open.is_closed()).map(|(key, _)| *key).collect();
        for key in closed {
            self.close_one(ledger, key);
        }
    }

    fn close_one(&self, ledger: &mut Ledger, key: u64) {
        let Some(open) = ledger.open.remove(&key) else { return };
        let now = match rustix::fs::fstat(open.handles[0].as_fd()) {
            // With it goes what nobody can name.
            Ok(stat) if open.names > 0 => blocks(length(&stat)) * open.names,
            _ => 0,
        };
        self.adjust(ledger, open.blocks(), now);
    }
}

impl Ledger {
    /// Whoever pays learns that it takes something else than before.
    fn tell(&self, before: Usage) {
        if let Some(payer) = &self.payer {
            payer.tell(before, self.usage);
        }
    }

    /// Charges whoever pays.
    fn may_pay(&self, more: Usage) -> bool {
        self.payer.as_ref().is_none_or(|payer| payer.take(more))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let ledger = self.ledger();
        if let Some(payer) = &ledger.payer {
            payer.close(ledger.usage);
        }
    }
}

fn names(stat: &Stat) -> u64 {
    #[allow(clippy::useless_conversion, reason = "its width depends on the machine")]
    u64::from(stat.st_nlink)
}

#[cfg(test)]
mod tests;
