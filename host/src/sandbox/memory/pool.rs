//! Slots that are kept for the next instance. Each release has shelves, one for each of its memories, with slots that hold what
//! the memory begins with. What comes back from a call is put back at once, while the processor's caches have it.
//!
//! A slot of another release, or of none, is wiped before it is laid out anew: nothing of one app is ever in a slot of another.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::image::{Image, MemoryImages};
use super::region::Region;
use super::scan::Scanner;

/// Memories that one component may have.
pub(super) const MEMORIES_MAX: usize = 8;

/// Slots whose address space is reserved together: they are beside each other.
const RESERVED_TOGETHER: usize = 32;

/// Slots of a release that is not called are given back after this time; those that it needs no more while it is, little by
/// little.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// The slots of all releases.
pub(crate) struct Pool {
    scanner: Scanner,
    /// Slots that may exist.
    slots_max: usize,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    /// Nothing is in them.
    blank: Vec<Region>,
    made: usize,
    /// Where more may be taken from.
    shelves: Vec<Weak<Shelves>>,
}

impl Pool {
    /// For so many sandboxes. Most have one memory; what one with more takes, others go without.
    pub(crate) fn new(sandboxes: usize, scanner: Scanner) -> Arc<Self> {
        let slots_max = sandboxes.saturating_add(sandboxes / 4).max(MEMORIES_MAX);
        Arc::new(Self { scanner, slots_max, slots: Mutex::default() })
    }

    /// Whether the kernel says which pages were written.
    pub(crate) fn scans(&self) -> bool {
        self.scanner.is_available()
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot with nothing in it: one that was given back, a new one, or one that another release does not need just now.
    fn blank(&self, capacity: usize, guard: usize) -> io::Result<Region> {
        let fits = |region: &Region| region.capacity() == capacity && region.guard() == guard;
        let shelves = {
            let mut slots = self.slots();
            if let Some(place) = slots.blank.iter().rposition(fits) {
                return Ok(slots.blank.swap_remove(place));
            }
            if slots.made < self.slots_max {
                let more = RESERVED_TOGETHER.min(self.slots_max - slots.made);
                let mut reserved = Region::reserve(more, capacity, guard)?;
                slots.made += more;
                // The first one is on top.
                reserved.reverse();
                let region = reserved.pop().ok_or(io::ErrorKind::OutOfMemory)?;
                slots.blank.append(&mut reserved);
                return Ok(region);
            }
            slots.shelves.clone()
        };
        for shelves in shelves.iter().filter_map(Weak::upgrade) {
            if let Some(mut region) = shelves.give_up_one()
                && region.wipe().is_ok()
            {
                if fits(&region) {
                    return Ok(region);
                }
                self.slots().blank.push(region);
            }
        }
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, "all slots for memories are in use"))
    }

    /// Takes back slots that a release does not need any more. One that cannot be wiped is never used again.
    fn take_back(&self, regions: impl IntoIterator<Item = Region>) {
        for mut region in regions {
            match region.wipe() {
                Ok(()) => self.slots().blank.push(region),
                Err(_) => std::mem::forget(region),
            }
        }
    }
}

/// The memories of a release: what they begin with, and slots that do.
pub(crate) struct Shelves {
    pool: Arc<Pool>,
    shelves: [Shelf; MEMORIES_MAX],
}

#[derive(Default)]
struct Shelf {
    image: Option<Arc<Image>>,
    slots: Mutex<Shelved>,
}

#[derive(Default)]
struct Shelved {
    /// They are what the memory begins with. The last used one is on top.
    clean: Vec<Region>,
    /// The fewest clean ones since that was last asked.
    spare: usize,
    /// One was taken since that was last asked.
    was_taken: bool,
    /// When it was last asked and one had been taken.
    taken: Option<Instant>,
}

impl Shelf {
    fn slots(&self) -> MutexGuard<'_, Shelved> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    /// For a release whose memories begin with these images, in the order in which they are made.
    pub(crate) fn new(pool: &Arc<Pool>, images: &MemoryImages) -> Arc<Self> {
        let shelves =
            std::array::from_fn(|number| Shelf { image: images.get(number).cloned(), slots: Mutex::default() });
        let shelves = Arc::new(Self { pool: Arc::clone(pool), shelves });
        let mut slots = pool.slots();
        slots.shelves.retain(|shelves| shelves.strong_count() > 0);
        slots.shelves.push(Arc::downgrade(&shelves));
        drop(slots);
        shelves
    }

    /// What finds out which pages were written.
    pub(super) fn scanner(&self) -> &Scanner {
        &self.pool.scanner
    }

    /// A slot for the instance's memory of this number, which is what that begins with.
    pub(super) fn take(&self, number: usize, minimum: usize, capacity: usize, guard: usize) -> io::Result<Region> {
        let shelf = self.shelves.get(number).ok_or_else(|| io::Error::other("it has too many memories"))?;
        let fits =
            |region: &Region| region.minimum() == minimum && region.capacity() == capacity && region.guard() == guard;
        {
            let mut slots = shelf.slots();
            // When, is found out later: a look at the clock is not for each call.
            slots.was_taken = true;
            if let Some(region) = slots.clean.pop_if(|region| fits(region)) {
                slots.spare = slots.spare.min(slots.clean.len());
                return Ok(region);
            }
        }
        let mut region = self.pool.blank(capacity, guard)?;
        region.lay_out(minimum, shelf.image.as_ref())?;
        Ok(region)
    }

    /// A memory's instance is gone: it is made what the shelf's memory begins with. A slot in which something else is mapped
    /// becomes a blank one, as does one that cannot be put back.
    fn give_back(&self, number: usize, region: Region) {
        let shelf = &self.shelves[number];
        // SAFETY: point 3 of the module's argument: the instance that had it is gone, and it is ours alone.
        if region.has(shelf.image.as_ref()) && unsafe { region.put_back(&self.pool.scanner) }.is_ok() {
            shelf.slots().clean.push(region);
        } else {
            self.pool.take_back([region]);
        }
    }

    /// Gives one up for another release, if there is one that nobody uses.
    fn give_up_one(&self) -> Option<Region> {
        self.shelves.iter().find_map(|shelf| {
            let mut slots = shelf.slots();
            (!slots.clean.is_empty()).then(|| slots.clean.remove(0))
        })
    }

    /// Gives back what was not needed lately. Called about once a second.
    pub(crate) fn sweep(&self) {
        for shelf in &self.shelves {
            let surplus: Vec<_> = {
                let mut slots = shelf.slots();
                if std::mem::take(&mut slots.was_taken) {
                    slots.taken = Some(Instant::now());
                }
                let is_idle = slots.taken.is_none_or(|taken| taken.elapsed() > IDLE_TIME);
                let spare = if is_idle { slots.clean.len() } else { slots.spare.saturating_sub(1).div_ceil(16) };
                let spare = spare.min(slots.clean.len());
                slots.spare = slots.clean.len() - spare;
                slots.clean.drain(..spare).collect()
            };
            self.pool.take_back(surplus);
        }
    }
}

impl Drop for Shelves {
    fn drop(&mut self) {
        for shelf in &mut self.shelves {
            let Shelved { clean, .. } = std::mem::take(shelf.slots.get_mut().unwrap_or_else(PoisonError::into_inner));
            self.pool.take_back(clean);
        }
    }
}

/// A slot that an instance's memory is in. It goes back when its last owner is dropped.
pub(super) struct Lease {
    /// None when it is dropped.
    region: Option<Region>,
    number: usize,
    shelves: Arc<Shelves>,
}

impl Lease {
    pub(super) fn new(shelves: &Arc<Shelves>, number: usize, region: Region) -> Self {
        Self { region: Some(region), number, shelves: Arc::clone(shelves) }
    }

    pub(super) fn region(&self) -> &Region {
        self.region.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(region) = self.region.take() {
            self.shelves.give_back(self.number, region);
        }
    }
}
