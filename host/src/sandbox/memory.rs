//! Linear memories of our own: all that a guest wrote can be taken back, since what a memory began with is an image in a file that
//! never changes, mapped copy-on-write. So memories are used again: by the same instance where it is rewound, by the next one
//! where each call has a fresh one.
//!
//! Which pages were written the kernel says (`PAGEMAP_SCAN`, Linux 6.7): they are copied back, or zeroed, in place, so that the
//! next call finds them mapped. Where it can't say, all pages are given back to it instead, which is as exact and slower.
//!
//! This and what it is made of ([`image`], [`region`], [`pool`], [`scan`], [`beginning`], [`stack`]) is all the `unsafe` code of the sandbox. What it
//! rests on:
//!
//! 1. *The mappings are ours.* A slot ([`region::Region`]) is part of a reservation of address space, made by `mmap` at a place that
//!    the kernel chose and unmapped when the last slot of it is dropped. Every later `mmap` with `MAP_FIXED`, `mprotect` and
//!    `madvise` names a range inside of one slot. A slot has one owner at a time: the pool, or the instance whose memory is in it
//!    ([`Owned`]) together with whoever rewinds that ([`Memories`]); it goes back to the pool when both are gone.
//! 2. *wasmtime's rules for [`MemoryCreator`]* are kept: what is accessible holds what the instance is to begin with, which is
//!    zeros unless the app was compiled without its data, to begin with an image; all of the reservation that code compiled
//!    without bounds checks can reach, and the guards around it, can't be read or written; the base never moves; accessible is
//!    `[0, size)` at all times, and `byte_size` tells `size`.
//! 3. *Nobody else looks.* Contents are read and changed only where no guest can run: with `&mut Store` of the very store that owns
//!    the memory (its address is compared), so that no slice of its memory is borrowed either; or when the instance is gone, and the
//!    slot is the pool's.
//! 4. *Images never change.* They are in files that are sealed against writing and resizing before they are mapped; or in files of
//!    compiled code, for which `deploy/cache.rs` has the argument: who could change those could change the code.
//! 5. *Shrinking.* A rewound instance learns that its memory is shorter when it next asks (`memory.grow` by nothing, which the pass
//!    `deploy/passes/rewind` puts into it). In between a stale length could make the host touch protected pages, a
//!    crash and no more; `rewind.rs` lets nothing run in between.
//! 6. *Stacks* are mappings of their own with a guard below, of pages, owned by one store at a time.

#![expect(unsafe_code, reason = "mapping memory; the argument is above")]

mod beginning;
mod image;
mod pool;
mod region;
mod scan;
mod stack;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::ptr;
use std::sync::{Arc, OnceLock};

use wasmtime::component::{Instance, InstancePre};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType, Store};

use beginning::{begins_with, begun_with};
pub use image::{Image, MemoryImages};
use pool::Lease;
pub(crate) use pool::{Pool, Shelves};
pub(crate) use region::PAGE_BYTES;
pub(crate) use scan::Scanner;
pub(super) use stack::Stacks;

thread_local! {
    /// The instance that this thread is just making.
    static BEING_MADE: RefCell<Option<BeingMade>> = const { RefCell::new(None) };
}

/// An instance that is being made.
struct BeingMade {
    shelves: Arc<Shelves>,
    /// The memories that it has so far.
    leases: Vec<Arc<Lease>>,
    /// There was no slot for one.
    is_refused: bool,
}

/// An instance was not made since other sandboxes have all slots.
#[derive(Debug, thiserror::Error)]
#[error("all slots for memories are in use")]
pub(super) struct Full;

/// Makes memories for an engine.
pub(super) struct Creator;

// SAFETY: points 1 and 2 of the module's argument.
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let capacity = reserved.unwrap_or(0).max(minimum);
        BEING_MADE.with_borrow_mut(|made| {
            // An app may have been compiled without its data: only its release knows what it begins with.
            let made = made.as_mut().ok_or("a memory was asked for outside of `memory::instantiate`")?;
            let number = made.leases.len();
            match made.shelves.take(number, minimum, capacity, guard) {
                Ok(region) => {
                    let lease = Arc::new(Lease::new(&made.shelves, number, region));
                    made.leases.push(Arc::clone(&lease));
                    Ok(Box::new(Owned(lease)) as Box<dyn LinearMemory>)
                }
                Err(error) => {
                    made.is_refused |= error.kind() == io::ErrorKind::QuotaExceeded;
                    Err(format!("cannot map a memory of {minimum} bytes: {error}"))
                }
            }
        })
    }
}

/// A memory as its instance has it.
struct Owned(Arc<Lease>);

// SAFETY: points 1 and 2 of the module's argument.
unsafe impl LinearMemory for Owned {
    fn byte_size(&self) -> usize {
        self.0.region().size()
    }

    fn byte_capacity(&self) -> usize {
        self.0.region().capacity()
    }

    fn grow_to(&mut self, size: usize) -> wasmtime::Result<()> {
        self.0.region().grow_to(size).map_err(wasmtime::Error::from)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.region().at(0).cast()
    }
}

/// An instance in a store of its own, and the memories that were made for it.
pub(crate) struct Made {
    pub(crate) instance: Instance,
    leases: Vec<Arc<Lease>>,
    shelves: Arc<Shelves>,
    owner: usize,
}

fn owner<T>(store: &Store<T>) -> usize {
    ptr::from_ref(store.data()).addr()
}

/// Makes an instance whose engine has a [`Creator`], with memories from these shelves.
///
/// # Errors
/// [`Full`], or wasmtime's.
pub(crate) async fn instantiate<T: Send>(
    shelves: &Arc<Shelves>,
    linked: &InstancePre<T>,
    store: &mut Store<T>,
) -> wasmtime::Result<Made> {
    let owner = owner(store);
    let mut so_far = Some(BeingMade { shelves: Arc::clone(shelves), leases: Vec::new(), is_refused: false });
    let made = {
        let mut making = pin!(linked.instantiate_async(store));
        // An instance may be made in several steps, and others on this thread in between.
        poll_fn(|context| {
            BEING_MADE.set(so_far.take());
            let polled = making.as_mut().poll(context);
            so_far = BEING_MADE.take();
            polled
        })
        .await
    };
    let (leases, is_refused) = so_far.map_or((Vec::new(), false), |made| (made.leases, made.is_refused));
    match made {
        Ok(instance) => Ok(Made { instance, leases, shelves: Arc::clone(shelves), owner }),
        Err(_) if is_refused => Err(wasmtime::Error::new(Full)),
        Err(error) => Err(error),
    }
}

/// All memories of one instance that is rewound.
pub(crate) struct Memories {
    /// The instance has them, too.
    leases: Vec<Arc<Lease>>,
    shelves: Arc<Shelves>,
    /// The address of the store's data, which is the store's alone as long as it lives.
    owner: usize,
}

/// What the memories of a release's instances hold when they are there, made with the first.
pub(crate) type Images = OnceLock<Arc<[Arc<Image>]>>;

impl Memories {
    /// Takes what the memories hold now as what they are put back to. False if that is not what the release's first instance
    /// had.
    ///
    /// # Errors
    /// If the kernel refuses a file or a mapping.
    pub(crate) fn keep<T>(made: Made, store: &mut Store<T>, images: &Images) -> io::Result<Option<Self>> {
        let Made { leases, shelves, owner: made_for, .. } = made;
        assert_eq!(made_for, owner(store), "memories are kept with their own store");
        let scanner = shelves.scanner();
        let images = match images.get() {
            Some(images) => images,
            None => {
                // SAFETY: this is the store that owns the memories (point 3).
                let begun = leases.iter().map(|lease| unsafe { begun_with(lease.region(), scanner) });
                let begun = begun.collect::<io::Result<Arc<[Arc<Image>]>>>()?;
                images.get_or_init(|| begun)
            }
        };
        if leases.len() != images.len() {
            return Ok(None);
        }
        for (lease, image) in leases.iter().zip(images.iter()) {
            let region = lease.region();
            // SAFETY: as above.
            if unsafe { !begins_with(region, image, scanner)? } {
                return Ok(None);
            }
            if !region.has(Some(image)) {
                // SAFETY: as above.
                unsafe { region.overlay(image)? };
            }
        }
        Ok(Some(Self { leases, shelves, owner: made_for }))
    }

    /// Puts back all that was written since, and what was grown.
    ///
    /// # Errors
    /// If the kernel refuses: then the memories must not be used any more.
    pub(crate) fn put_back<T>(&mut self, store: &mut Store<T>) -> io::Result<()> {
        assert_eq!(self.owner, owner(store), "memories are put back with their own store");
        let scanner = self.shelves.scanner();
        for lease in &self.leases {
            // SAFETY: this is the store that owns the memories (point 3).
            unsafe { lease.region().put_back(scanner)? };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
