//! Stores in files of this machine: one for each tenant, so that none waits for another's disk writes, with a table for each store.
//!
//! A tenant's changes are written one batch after the other: what comes while one is on its way to the disk goes together with the
//! next. Reads see the last batch and wait for none. Both run on threads for it, of which a tenant has a few and all together
//! have some; whoever wants one waits in turn.

use std::collections::{HashMap, VecDeque};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    Answer, Backend, Change, Entry, Failure, PAGE_BYTES_MAX, PAGE_KEYS_MAX, Page, Place, Store, Usage, number,
};

/// Threads that read and write, of all tenants.
const THREADS_MAX: usize = 16;
/// Of one tenant's, those that read.
const READERS_MAX: usize = 4;
/// Changes of one tenant that wait for the disk: their keys and values, and something for each. More wait before they are taken in.
const WAITING_BYTES_MAX: usize = 16 << 20;
const CHANGE_BYTES: usize = 1 << 10;
/// What goes to the disk together.
const BATCH_CHANGES_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Files that are open at the same time; the longest unused one is closed first. Each keeps some of its pages in memory.
const OPEN_MAX: usize = 64;
const CACHE_BYTES: usize = 1 << 20;

/// What every store holds. No store's name begins so.
const USAGE: TableDefinition<&str, (u64, u64)> = TableDefinition::new("+usage");
/// The number of the last change of a tenant's, under an empty key.
const REVISION: TableDefinition<&str, u64> = TableDefinition::new("+revision");
/// A value has its revision before it.
const REVISION_BYTES: usize = 8;

type Entries<'a> = TableDefinition<'a, &'static str, &'static [u8]>;

pub(super) struct Embedded {
    folder: PathBuf,
    shelves: Mutex<HashMap<String, Arc<Shelf>>>,
    threads: Arc<Semaphore>,
    /// Counts uses: whose file was used longest ago is closed first.
    uses: AtomicU64,
}

/// The file of one tenant.
struct Shelf {
    path: PathBuf,
    database: Mutex<Option<Arc<Database>>>,
    used: AtomicU64,
    queue: Mutex<Queue>,
    /// Of the queue, in bytes.
    room: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    /// It was said that the file cannot be used.
    has_complained: AtomicBool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Somebody takes from it.
    is_served: bool,
}

/// A change that waits.
struct Job {
    store: Store,
    place: Place,
    change: Change,
    answer: oneshot::Sender<Result<Option<i64>, Failure>>,
    _room: OwnedSemaphorePermit,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these locks can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Embedded {
    /// Makes nothing yet: files are made when something is kept in them.
    pub(super) fn new(folder: &Path) -> Arc<Self> {
        Arc::new(Self {
            folder: folder.to_owned(),
            shelves: Mutex::default(),
            threads: Arc::new(Semaphore::new(THREADS_MAX)),
            uses: AtomicU64::new(0),
        })
    }

    fn shelf(&self, tenant: &str) -> Arc<Shelf> {
        let mut shelves = lock(&self.shelves);
        if let Some(shelf) = shelves.get(tenant) {
            return Arc::clone(shelf);
        }
        let path = match tenant {
            "" => self.folder.join("own.redb"),
            tenant => self.folder.join("tenants").join(format!("{tenant}.redb")),
        };
        let shelf = Arc::new(Shelf {
            path,
            database: Mutex::default(),
            used: AtomicU64::new(0),
            queue: Mutex::default(),
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            has_complained: AtomicBool::new(false),
        });
        shelves.insert(tenant.to_owned(), Arc::clone(&shelf));
        shelf
    }

    /// The file of a shelf, opened if it is not. It blocks.
    fn database(&self, shelf: &Shelf) -> Result<Arc<Database>, Failure> {
        let opened = {
            let mut database = lock(&shelf.database);
            shelf.used.store(self.uses.fetch_add(1, Relaxed), Relaxed);
            match &*database {
                Some(database) => return Ok(Arc::clone(database)),
                None => {
                    let opened = Arc::new(open(&shelf.path).map_err(|error| shelf.complain(&error))?);
                    shelf.has_complained.store(false, Relaxed);
                    *database = Some(Arc::clone(&opened));
                    opened
                }
            }
        };
        self.close_some();
        Ok(opened)
    }

    /// Closes the files that were used longest ago, and by nobody now, as far as there are too many.
    fn close_some(&self) {
        let mut shelves: Vec<_> = lock(&self.shelves).values().cloned().collect();
        shelves.retain(|shelf| lock(&shelf.database).is_some());
        shelves.sort_by_key(|shelf| shelf.used.load(Relaxed));
        for shelf in &shelves[..shelves.len().saturating_sub(OPEN_MAX)] {
            // While nobody else has it nobody else can come to it, and the next one opens it when it is closed.
            lock(&shelf.database).take_if(|database| Arc::strong_count(database) == 1);
        }
    }

    /// Reads on a thread for it.
    fn read<T: Send + 'static>(
        self: &Arc<Self>,
        store: &Store,
        place: Place,
        work: impl FnOnce(&Store, &Table) -> Result<T, Unread> + Send + 'static,
    ) -> Answer<T>
    where
        T: Default,
    {
        let (all, store) = (Arc::clone(self), store.clone());
        Box::pin(async move {
            let shelf = all.shelf(&place.tenant);
            let turn = (permit(&shelf.readers).await?, permit(&all.threads).await?);
            let read = move || {
                // Kept also where nobody waits for the answer any more.
                let _turn = turn;
                let _charge = Charge::new(&store);
                let transaction = all.database(&shelf)?.begin_read().map_err(|error| shelf.complain(&error))?;
                match table(&transaction, &place).map_err(|error| shelf.complain(&error))? {
                    Some(table) => work(&store, &table).map_err(|unread| match unread {
                        Unread::Failure(failure) => failure,
                        Unread::Storage(error) => shelf.complain(&error),
                    }),
                    // Nothing was ever kept in it.
                    None => Ok(T::default()),
                }
            };
            tokio::task::spawn_blocking(read).await.unwrap_or(Err(Failure::Storage))
        })
    }

    /// Writes what waits, batch after batch.
    async fn serve(self: Arc<Self>, shelf: Arc<Shelf>) {
        loop {
            // Another tenant may come between two batches.
            let Ok(turn) = permit(&self.threads).await else { return };
            let (all, own) = (Arc::clone(&self), Arc::clone(&shelf));
            let write = move || {
                let _turn = turn;
                own.write_batch(&all)
            };
            match tokio::task::spawn_blocking(write).await {
                Ok(Left::Nothing) => return,
                // A batch in which something panicked is gone, and its changes know.
                Ok(Left::Perhaps) | Err(_) => {}
            }
        }
    }
}

/// Waits for its turn.
async fn permit(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
    permits(of, 1).await
}

/// Waits for so many at once, or for all that there are.
async fn permits(of: &Arc<Semaphore>, count: usize) -> Result<OwnedSemaphorePermit, Failure> {
    let count = u32::try_from(count.min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
    // None of them is ever closed.
    Arc::clone(of).acquire_many_owned(count).await.map_err(|_| Failure::Storage)
}

/// Opens a file, or makes it: for the host's user alone.
fn open(path: &Path) -> anyhow::Result<Database> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create(path)?)
}

type Table = redb::ReadOnlyTable<&'static str, &'static [u8]>;

/// A store's entries, if there ever were any.
fn table(transaction: &ReadTransaction, place: &Place) -> Result<Option<Table>, TableError> {
    match transaction.open_table(Entries::new(&place.name)) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why something was not read.
enum Unread {
    Failure(Failure),
    Storage(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for Unread {
    fn from(error: E) -> Self {
        Self::Storage(error.into())
    }
}

/// Charges a tenant with the processor time that a thread spends for it.
struct Charge<'a> {
    store: &'a Store,
    began: Duration,
}

impl<'a> Charge<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, began: processor_time() }
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.store.account().charge_cpu(processor_time().saturating_sub(self.began));
    }
}

/// Of this thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Whether there may be more to write.
enum Left {
    Nothing,
    Perhaps,
}

impl Shelf {
    /// What went wrong is for the host's log, once; the guest learns that it did.
    fn complain(&self, error: &dyn std::fmt::Display) -> Failure {
        if !self.has_complained.swap(true, Relaxed) {
            tracing::error!("the key-value stores in {} cannot be used: {error}", self.path.display());
        }
        Failure::Storage
    }

    /// Some of what waits. A call that is gone wants nothing any more.
    fn take_batch(&self) -> Vec<Job> {
        let mut queue = lock(&self.queue);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_CHANGES_MAX && bytes < BATCH_BYTES_MAX {
            let Some(job) = queue.jobs.pop_front() else { break };
            if !job.answer.is_closed() {
                bytes += job.change.bytes();
                batch.push(job);
            }
        }
        queue.is_served = !batch.is_empty();
        batch
    }

    /// Writes a batch: when it is on the disk, its calls learn what came of it.
    fn write_batch(&self, all: &Embedded) -> Left {
        let batch = self.take_batch();
        let Some(first) = batch.first().map(|job| job.store.clone()) else { return Left::Nothing };
        let _charge = Charge::new(&first);
        let mut outcomes = Vec::with_capacity(batch.len());
        let written = all.database(self).and_then(|database| {
            let written = (|| -> Result<(), redb::Error> {
                let transaction = database.begin_write()?;
                for job in &batch {
                    outcomes.push(job.apply(&transaction)?);
                }
                Ok(transaction.commit()?)
            })();
            written.map_err(|error| {
                // It may be whole again when it is opened anew.
                *lock(&self.database) = None;
                self.complain(&error)
            })
        });
        for (place, job) in batch.into_iter().enumerate() {
            let outcome = match &written {
                Ok(()) => outcomes[place].clone(),
                Err(failure) => Err(failure.clone()),
            };
            // A call that is gone does not want to know.
            let _ = job.answer.send(outcome);
        }
        Left::Perhaps
    }
}

impl Change {
    /// About what it takes in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Set(pairs) => pairs.iter().map(|(key, value)| key.len() + value.len()).sum(),
            Self::Delete(keys) => keys.iter().map(String::len).sum(),
            Self::Increment { key, .. } => key.len(),
            Self::Swap { key, value, .. } => key.len() + value.len(),
        }
    }
}

impl Job {
    /// Makes the change in a transaction, all of it or nothing: the transaction goes on where a limit stops one.
    fn apply(&self, transaction: &WriteTransaction) -> Result<Result<Option<i64>, Failure>, redb::Error> {
        if !self.store.is_at(&self.place) {
            return Ok(Err(Failure::Denied));
        }
        let mut entries = transaction.open_table(Entries::new(&self.place.name))?;
        let mut number_now = None;
        let single;
        // Keys with what they are to have.
        let wanted: Vec<(&str, Option<&[u8]>)> = match &self.change {
            Change::Set(pairs) => pairs.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice()))).collect(),
            Change::Delete(keys) => keys.iter().map(|key| (key.as_str(), None)).collect(),
            Change::Increment { key, delta } => {
                let old = entries.get(key.as_str())?;
                let old = old.map_or(Ok(0), |old| number(content(old.value())));
                match old.and_then(|old| old.checked_add(*delta).ok_or(Failure::Overflow)) {
                    Ok(new) => {
                        number_now = Some(new);
                        single = new.to_string();
                        vec![(key, Some(single.as_bytes()))]
                    }
                    Err(failure) => return Ok(Err(failure)),
                }
            }
            Change::Swap { key, revision, value } => {
                let found = entries.get(key.as_str())?.map_or(0, |old| revision_of(old.value()));
                if found != *revision {
                    return Ok(Err(Failure::Stale));
                }
                vec![(key, Some(value))]
            }
        };
        let mut usages = transaction.open_table(USAGE)?;
        let before = usages.get(self.place.name.as_str())?.map_or((0, 0), |usage| usage.value());
        let before = Usage { bytes: before.0, keys: before.1 };
        let mut after = before;
        for (key, new) in &wanted {
            let old = entries.get(*key)?.map(|old| content(old.value()).len() as u64);
            after.replace(key, old, new.map(|new| new.len() as u64));
        }
        if let Err(failure) = after.check(before, self.store.bounds()) {
            return Ok(Err(failure));
        }
        let mut revisions = transaction.open_table(REVISION)?;
        let revision = revisions.get("")?.map_or(0, |revision| revision.value()) + 1;
        revisions.insert("", revision)?;
        for (key, new) in &wanted {
            match new {
                Some(value) => {
                    entries.insert(*key, [&revision.to_le_bytes(), *value].concat().as_slice())?;
                }
                None => {
                    entries.remove(*key)?;
                }
            }
        }
        usages.insert(self.place.name.as_str(), (after.bytes, after.keys))?;
        Ok(Ok(number_now))
    }
}

/// A value without its revision.
fn content(kept: &[u8]) -> &[u8] {
    kept.get(REVISION_BYTES..).unwrap_or_default()
}

fn revision_of(kept: &[u8]) -> u64 {
    kept.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Backend for Arc<Embedded> {
    fn get(&self, store: &Store, place: Place, keys: Vec<String>) -> Answer<Vec<Option<Entry>>> {
        let count = keys.len();
        let read = self.read(store, place, move |store, table| {
            let bytes_max = store.bounds().answer_bytes_max;
            let mut bytes = 0;
            let mut entries = Vec::with_capacity(keys.len());
            for key in &keys {
                let kept = table.get(key.as_str())?;
                entries.push(kept.map(|kept| {
                    bytes += kept.value().len() as u64;
                    Entry { revision: revision_of(kept.value()), value: content(kept.value()).to_vec() }
                }));
                if bytes > bytes_max {
                    return Err(Unread::Failure(Failure::Answer(bytes_max)));
                }
            }
            Ok(entries)
        });
        Box::pin(async move {
            let mut entries = read.await?;
            // Of a store that was never written to.
            entries.resize(count, None);
            Ok(entries)
        })
    }

    fn exists(&self, store: &Store, place: Place, key: String) -> Answer<bool> {
        self.read(store, place, move |_, table| Ok(table.get(key.as_str())?.is_some()))
    }

    fn keys(&self, store: &Store, place: Place, after: Option<String>) -> Answer<Page> {
        use std::ops::Bound::{Excluded, Unbounded};

        self.read(store, place, move |_, table| {
            let begin = after.as_deref().map_or(Unbounded, Excluded);
            let mut page = Page::default();
            let mut bytes = 0;
            for entry in table.range::<&str>((begin, Unbounded))? {
                if page.keys.len() == PAGE_KEYS_MAX || bytes >= PAGE_BYTES_MAX {
                    page.goes_on = true;
                    break;
                }
                let (key, _) = entry?;
                bytes += key.value().len();
                page.keys.push(key.value().to_owned());
            }
            Ok(page)
        })
    }

    fn change(&self, store: &Store, place: Place, change: Change) -> Answer<Option<i64>> {
        let (all, store) = (Self::clone(self), store.clone());
        Box::pin(async move {
            let shelf = all.shelf(&place.tenant);
            let room = permits(&shelf.room, change.bytes().saturating_add(CHANGE_BYTES)).await?;
            let (answer, answered) = oneshot::channel();
            let is_first = {
                let mut queue = lock(&shelf.queue);
                queue.jobs.push_back(Job { store, place, change, answer, _room: room });
                !std::mem::replace(&mut queue.is_served, true)
            };
            if is_first {
                tokio::spawn(Arc::clone(&all).serve(shelf));
            }
            answered.await.unwrap_or(Err(Failure::Storage))
        })
    }
}

#[cfg(test)]
impl Embedded {
    /// Files that are open.
    pub(super) fn open_files(&self) -> usize {
        lock(&self.shelves).values().filter(|shelf| lock(&shelf.database).is_some()).count()
    }

    /// Takes all threads.
    pub(super) async fn occupy(&self) -> OwnedSemaphorePermit {
        permits(&self.threads, THREADS_MAX).await.expect("it is never closed")
    }

    /// Changes of a tenant that wait.
    pub(super) fn waiting(&self, tenant: &str) -> usize {
        lock(&self.shelf(tenant).queue).jobs.len()
    }
}
