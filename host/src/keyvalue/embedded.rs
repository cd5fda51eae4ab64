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

use redb::{Database, ReadableDatabase, ReadableTable, TableError};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::entries::{self, Table, USAGE, content, revision_of, table};
use super::{Answer, Backend, Change, Entry, Failure, PAGE_BYTES_MAX, PAGE_KEYS_MAX, Page, Place, Store};
use crate::account::Account;

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
    /// Held while it is opened, by whoever has a thread for it.
    database: Mutex<Option<Arc<Database>>>,
    /// Held by whoever has it opened, and waits.
    opening: tokio::sync::Mutex<()>,
    used: AtomicU64,
    /// What all its stores hold together, in bytes: known once it was open.
    stored: AtomicU64,
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
            opening: tokio::sync::Mutex::default(),
            used: AtomicU64::new(0),
            stored: AtomicU64::new(0),
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
                    let (opened, stored) = open(&shelf.path).map_err(|error| shelf.complain(&error))?;
                    let opened = Arc::new(opened);
                    shelf.stored.store(stored, Relaxed);
                    shelf.has_complained.store(false, Relaxed);
                    *database = Some(Arc::clone(&opened));
                    opened
                }
            }
        };
        self.close_some();
        Ok(opened)
    }

    /// Has the file of a shelf opened, before anybody takes a thread to work with it: one that was not closed in order is repaired then,
    /// which takes as long as it is large, and nobody else's threads.
    async fn opened(self: &Arc<Self>, shelf: &Arc<Shelf>) {
        let is_open = || shelf.database.try_lock().is_ok_and(|database| database.is_some());
        if is_open() {
            return;
        }
        let _opening = shelf.opening.lock().await;
        if !is_open() {
            let (all, own) = (Arc::clone(self), Arc::clone(shelf));
            // Where it cannot be, whoever works with it says so.
            let _ = tokio::task::spawn_blocking(move || all.database(&own).map(|_| ())).await;
        }
    }

    /// Charges a tenant with what its stores hold, if there are any; where that cannot be told, with all of their file.
    /// It blocks.
    pub(super) fn measure(&self, account: &Account) {
        let shelf = self.shelf(account.tenant());
        let metadata = match shelf.path.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                // The operator has removed it, if nobody has it open.
                if error.kind() == std::io::ErrorKind::NotFound && lock(&shelf.database).is_none() {
                    account.set_stored(0);
                }
                return;
            }
        };
        let was_open = lock(&shelf.database).is_some();
        account.set_stored(match self.database(&shelf) {
            Ok(_) => shelf.stored.load(Relaxed),
            Err(_) => metadata.len(),
        });
        // While it is open no other process can use it, and perhaps no app of this one wants to.
        if !was_open {
            lock(&shelf.database).take_if(|database| Arc::strong_count(database) == 1);
        }
    }

    /// Closes the files that were used longest ago, and by nobody now, as far as there are too many.
    fn close_some(&self) {
        let mut shelves: Vec<_> = lock(&self.shelves).values().cloned().collect();
        // One that is being opened, or looked at, is in use.
        shelves.retain(|shelf| shelf.database.try_lock().is_ok_and(|database| database.is_some()));
        shelves.sort_by_key(|shelf| shelf.used.load(Relaxed));
        for shelf in &shelves[..shelves.len().saturating_sub(OPEN_MAX)] {
            // While nobody else has it nobody else can come to it, and the next one opens it when it is closed.
            if let Ok(mut database) = shelf.database.try_lock() {
                database.take_if(|database| Arc::strong_count(database) == 1);
            }
        }
    }

    /// Reads on a thread for it.
    fn read<T: Default + Send + 'static>(
        self: &Arc<Self>,
        store: &Store,
        place: Place,
        work: impl FnOnce(&Store, &Table) -> Result<T, Unread> + Send + 'static,
    ) -> Answer<T> {
        let (all, store) = (Arc::clone(self), store.clone());
        Box::pin(async move {
            let shelf = all.shelf(&place.tenant);
            all.opened(&shelf).await;
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
            self.opened(&shelf).await;
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

/// Opens a file, or makes it: for the host's user alone. With what its stores hold together.
fn open(path: &Path) -> anyhow::Result<(Database, u64)> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    let mut stored = 0_u64;
    match database.begin_read()?.open_table(USAGE) {
        Ok(usages) => {
            for usage in usages.iter()? {
                stored = stored.saturating_add(usage?.1.value().0);
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok((database, stored))
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
        let mut stored = 0;
        let written = all.database(self).and_then(|database| {
            let written = (|| -> Result<(), redb::Error> {
                let transaction = database.begin_write()?;
                stored = self.stored.load(Relaxed);
                for job in &batch {
                    let Job { store, place, change, .. } = job;
                    outcomes.push(entries::apply(&transaction, store, place, change, &mut stored)?);
                }
                Ok(transaction.commit()?)
            })();
            written.map_err(|error| {
                // It may be whole again when it is opened anew.
                *lock(&self.database) = None;
                self.complain(&error)
            })
        });
        if written.is_ok() {
            self.stored.store(stored, Relaxed);
            first.account().set_stored(stored);
        }
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
    /// Keeps a tenant's file from being opened, as a repair does.
    pub(super) fn repair(&self, tenant: &str, meanwhile: impl FnOnce()) {
        let shelf = self.shelf(tenant);
        let _repair = lock(&shelf.database);
        meanwhile();
    }

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
