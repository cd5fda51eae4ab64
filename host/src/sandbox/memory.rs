//! Linear memories of our own, for instances that are rewound: all that the guest wrote can be taken back while the instance
//! stays, since what it began with is an image in a sealed file, mapped copy-on-write.
//!
//! Which pages were written the kernel says (`PAGEMAP_SCAN`, Linux 6.7): they are copied back, or zeroed, in place, so that the
//! next call finds them mapped. Where it can't say, all pages are given back to it instead, which is as exact and slower.
//!
//! This is the only module of the sandbox with `unsafe` code. What it rests on:
//!
//! 1. *The mappings are ours.* A [`Region`] is one reservation of address space, made by `mmap` at a place that the kernel chose
//!    and unmapped when its last owner is dropped: wasmtime's instance ([`Owned`]) and [`Memories`] own it together. Every later
//!    `mmap` with `MAP_FIXED`, `mprotect` and `madvise` names a range inside of it.
//! 2. *wasmtime's rules for [`MemoryCreator`]* are kept: what is accessible is zero in the beginning; all of the reservation
//!    that code compiled without bounds checks can reach, and the guards around it, can't be read or written; the base
//!    never moves; accessible is `[0, size)` at all times, and `byte_size` tells `size`.
//! 3. *Nobody else looks.* Contents are read and changed only with `&mut Store` of the very store that owns the memory (its
//!    address is compared): then no guest of it runs, and no slice of its memory is borrowed.
//! 4. *Images never change.* They are sealed against writing and resizing before they are mapped.
//! 5. *Shrinking.* The instance learns that its memory is shorter when it next asks (`memory.grow` by nothing, which the pass
//!    `deploy/passes/rewind` puts into it). In between a stale length could make the host touch protected pages, a
//!    crash and no more; `rewind.rs` lets nothing run in between.

#![expect(unsafe_code, reason = "mapping memory; the argument is above")]

mod scan;

use std::cell::RefCell;
use std::ffi::c_void;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use wasmtime::component::{Instance, InstancePre};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType, Store};

use scan::Dirty;
pub(crate) use scan::Scanner;

/// A page of WebAssembly. Every size here is a multiple of it, and so of the kernel's pages.
const PAGE_BYTES: usize = 64 << 10;

/// What is put back in place; with more than this dirty, all pages are given back to the kernel.
const KEPT_BYTES: usize = 1 << 20;

/// A memory's pages, once written, count as dirty for good. So all of them are given back after so many calls.
const CALLS_PER_RELEASE: u32 = 256;

thread_local! {
    /// The memories that the instance gets which this thread is just making.
    static BEING_MADE: RefCell<Option<Vec<Arc<Region>>>> = const { RefCell::new(None) };
}

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
        let region = Region::new(minimum, reserved.unwrap_or(0).max(minimum), guard);
        let region = Arc::new(region.map_err(|error| format!("cannot map a memory of {minimum} bytes: {error}"))?);
        BEING_MADE.with_borrow_mut(|made| made.iter_mut().for_each(|made| made.push(Arc::clone(&region))));
        Ok(Box::new(Owned(region)))
    }
}

/// A memory as its instance has it.
struct Owned(Arc<Region>);

// SAFETY: points 1 and 2 of the module's argument.
unsafe impl LinearMemory for Owned {
    fn byte_size(&self) -> usize {
        self.0.size()
    }

    fn byte_capacity(&self) -> usize {
        self.0.capacity
    }

    fn grow_to(&mut self, size: usize) -> wasmtime::Result<()> {
        self.0.grow_to(size).map_err(wasmtime::Error::from)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base.as_ptr()
    }
}

/// Address space for one memory: guard, reservation, guard.
struct Region {
    base: NonNull<u8>,
    guard: usize,
    capacity: usize,
    /// What the memory begins with.
    minimum: usize,
    /// What is accessible.
    size: AtomicUsize,
}

// SAFETY: it is an address and numbers; what is at the address is touched by point 3 of the module's argument only.
unsafe impl Send for Region {}
// SAFETY: as above; `size` changes atomically.
unsafe impl Sync for Region {}

impl Region {
    fn new(minimum: usize, capacity: usize, guard: usize) -> io::Result<Self> {
        let whole = [capacity, guard, guard].into_iter().try_fold(0_usize, usize::checked_add);
        let whole = whole.filter(|_| [minimum, capacity, guard].iter().all(|bytes| bytes.is_multiple_of(PAGE_BYTES)));
        let whole = whole.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                whole,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let base = NonNull::new(start.cast::<u8>().wrapping_add(guard)).ok_or(io::ErrorKind::OutOfMemory)?;
        let region = Self { base, guard, capacity, minimum, size: AtomicUsize::new(0) };
        region.small_pages(capacity);
        region.grow_to(minimum)?;
        Ok(region)
    }

    fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    fn at(&self, offset: usize) -> *mut c_void {
        debug_assert!(offset <= self.capacity);
        self.base.as_ptr().wrapping_add(offset).cast()
    }

    fn grow_to(&self, size: usize) -> io::Result<()> {
        let old = self.size();
        if size > self.capacity || size < old || !size.is_multiple_of(PAGE_BYTES) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if size > old {
            // SAFETY: inside of the region, which is ours (point 1); what was out of reach becomes accessible and is zero: new, or
            // released by `shrink`.
            unsafe { rustix::mm::mprotect(self.at(old), size - old, MprotectFlags::READ | MprotectFlags::WRITE)? };
            self.size.store(size, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes back what the memory has grown by.
    ///
    /// # Safety
    /// Nobody else may use the memory's contents meanwhile (point 3).
    unsafe fn shrink(&self) -> io::Result<()> {
        let grown = self.size() - self.minimum;
        if grown > 0 {
            // SAFETY: inside of the region, which is ours; nobody uses what is thrown away.
            unsafe {
                rustix::mm::madvise(self.at(self.minimum), grown, Advice::LinuxDontNeed)?;
                rustix::mm::mprotect(self.at(self.minimum), grown, MprotectFlags::empty())?;
            }
            self.size.store(self.minimum, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives all pages back to the kernel: the next look finds the image, and zeros behind it.
    ///
    /// # Safety
    /// As [`Region::shrink`].
    unsafe fn release(&self) -> io::Result<()> {
        // SAFETY: inside of the region; nobody uses what is thrown away.
        unsafe { rustix::mm::madvise(self.at(0), self.minimum, Advice::LinuxDontNeed)? };
        Ok(())
    }

    /// What the memory holds.
    ///
    /// # Safety
    /// Nobody else may change it as long as the slice is there (point 3).
    unsafe fn bytes(&self, start: usize, end: usize) -> &[u8] {
        assert!(start <= end && end <= self.size(), "only accessible memory is read");
        // SAFETY: accessible (point 2), and as the caller promises.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().wrapping_add(start), end - start) }
    }

    /// Makes the image what the memory begins with, and everything behind it zero.
    ///
    /// # Safety
    /// As [`Region::shrink`].
    unsafe fn overlay(&self, image: &Image) -> io::Result<()> {
        assert!(image.len <= self.minimum, "an image is no larger than the memory that it was made of");
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: inside of the region, so nothing else is mapped there; nobody uses what is replaced. The file is sealed
        // (point 4), and writes to a private mapping do not reach it.
        unsafe {
            if let Some(file) = &image.file {
                let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
                rustix::mm::mmap(self.at(0), image.len, access, flags, file, 0)?;
            }
            if image.len < self.minimum {
                let rest = self.minimum - image.len;
                let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
                rustix::mm::mmap_anonymous(self.at(image.len), rest, access, flags)?;
            }
        }
        self.small_pages(self.minimum);
        Ok(())
    }

    /// A huge page would be one page of two megabytes to put back. A kernel without huge pages does not know the advice.
    fn small_pages(&self, bytes: usize) {
        // SAFETY: inside of the region; it changes no content.
        let _ = unsafe { rustix::mm::madvise(self.at(0), bytes, Advice::LinuxNoHugepage) };
    }

    /// Puts back what is dirty. False if that is too much to do in place.
    ///
    /// # Safety
    /// As [`Region::shrink`].
    unsafe fn put_back(&self, image: &Image, scanner: &Scanner) -> io::Result<bool> {
        let mut bytes = 0;
        scanner.scan(self.at(0), self.minimum, |Dirty { start, end, is_zero }| {
            bytes += end - start;
            if bytes > KEPT_BYTES {
                return false;
            }
            let edge = image.len.clamp(start, end);
            // SAFETY: `scan` reports ranges within the one that it was given, which is accessible; the image is as long as
            // `edge` (if it is longer than `start` at all) and does not overlap with the memory.
            unsafe {
                if start < edge {
                    let original = image.bytes()[start..edge].as_ptr();
                    ptr::copy_nonoverlapping(original, self.at(start).cast(), edge - start);
                }
                if edge < end && !is_zero {
                    ptr::write_bytes(self.at(edge).cast::<u8>(), 0, end - edge);
                }
            }
            true
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let whole = self.guard + self.capacity + self.guard;
        // SAFETY: all of the mapping that `new` has made; nobody has it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().wrapping_sub(self.guard).cast(), whole) };
        debug_assert!(unmapped.is_ok(), "the whole mapping is unmapped");
    }
}

/// What a memory begins with, up to the last page that is not all zeros. All instances of a release share it.
pub(crate) struct Image {
    /// None where it is empty.
    file: Option<File>,
    bytes: *const u8,
    len: usize,
}

// SAFETY: the bytes are mapped for reading and never change (point 4).
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    fn new(content: &[u8]) -> io::Result<Self> {
        use std::io::Write;
        if content.is_empty() {
            return Ok(Self { file: None, bytes: NonNull::dangling().as_ptr(), len: 0 });
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Linux before 6.3 does not know the seal against executing, which nobody does.
        let made = rustix::fs::memfd_create("wasgi-image", flags | MemfdFlags::NOEXEC_SEAL);
        let made = made.or_else(|_| rustix::fs::memfd_create("wasgi-image", flags));
        let mut file = File::from(made?);
        file.write_all(content)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: a new mapping at a place that the kernel chooses, of a file that cannot change any more.
        let bytes = unsafe {
            rustix::mm::mmap(ptr::null_mut(), content.len(), ProtFlags::READ, MapFlags::SHARED, file.as_fd(), 0)?
        };
        Ok(Self { file: Some(file), bytes: bytes.cast(), len: content.len() })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as this lives, and never written (point 4).
        unsafe { std::slice::from_raw_parts(self.bytes, self.len) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: all of the mapping that `new` has made; nobody has it any more.
            let unmapped = unsafe { rustix::mm::munmap(self.bytes.cast_mut().cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "the whole mapping is unmapped");
        }
    }
}

/// All memories of one instance.
pub(crate) struct Memories {
    regions: Vec<Arc<Region>>,
    /// What each of them begins with.
    images: Arc<[Image]>,
    scanner: Arc<Scanner>,
    calls: u32,
    /// The address of the store's data, which is the store's alone as long as it lives.
    owner: usize,
}

/// The images of a release, made with its first instance.
pub(crate) type Images = OnceLock<Arc<[Image]>>;

fn owner<T>(store: &Store<T>) -> usize {
    ptr::from_ref(store.data()).addr()
}

/// An instance in a store of its own, whose engine has a [`Creator`], and the memories that were made for it.
pub(crate) struct Made {
    pub(crate) instance: Instance,
    regions: Vec<Arc<Region>>,
    owner: usize,
}

/// Makes an instance.
///
/// # Errors
/// As wasmtime's.
pub(crate) async fn instantiate<T: Send>(linked: &InstancePre<T>, store: &mut Store<T>) -> wasmtime::Result<Made> {
    let owner = owner(store);
    let mut regions = Vec::new();
    let instance = {
        let mut making = pin!(linked.instantiate_async(store));
        // An instance may be made in several steps, and others on this thread in between.
        poll_fn(|context| {
            BEING_MADE.set(Some(std::mem::take(&mut regions)));
            let polled = making.as_mut().poll(context);
            regions = BEING_MADE.take().unwrap_or_default();
            polled
        })
        .await?
    };
    Ok(Made { instance, regions, owner })
}

impl Memories {
    /// Takes what the memories hold now as what they are put back to. False if that is not what the release's first instance
    /// had.
    ///
    /// # Errors
    /// If the kernel refuses a file or a mapping.
    pub(crate) fn keep<T>(
        made: Made,
        store: &mut Store<T>,
        images: &Images,
        scanner: &Arc<Scanner>,
    ) -> io::Result<Option<Self>> {
        let Made { regions, owner: made_for, .. } = made;
        assert_eq!(made_for, owner(store), "memories are kept with their own store");
        let images = match images.get() {
            Some(images) => images,
            None => {
                let made = regions.iter().map(|region| {
                    // SAFETY: this is the store that owns the memories (point 3).
                    let content = unsafe { region.bytes(0, region.size()) };
                    Image::new(&content[..filled(content, region, scanner)?])
                });
                let made = made.collect::<io::Result<Arc<[Image]>>>()?;
                images.get_or_init(|| made)
            }
        };
        let fits = |(region, image): (&Arc<Region>, &Image)| {
            region.size() == region.minimum
                && image.len <= region.minimum
                // SAFETY: as above.
                && unsafe { region.bytes(0, image.len) } == image.bytes()
        };
        if regions.len() != images.len() || !regions.iter().zip(images.iter()).all(fits) {
            return Ok(None);
        }
        for (region, image) in regions.iter().zip(images.iter()) {
            // SAFETY: as above.
            unsafe { region.overlay(image)? };
        }
        let (images, scanner) = (Arc::clone(images), Arc::clone(scanner));
        Ok(Some(Self { regions, images, scanner, calls: 0, owner: made_for }))
    }

    /// Puts back all that was written since, and what was grown.
    ///
    /// # Errors
    /// If the kernel refuses: then the memories must not be used any more.
    pub(crate) fn put_back<T>(&mut self, store: &mut Store<T>) -> io::Result<()> {
        assert_eq!(self.owner, owner(store), "memories are put back with their own store");
        self.calls += 1;
        for (region, image) in self.regions.iter().zip(self.images.iter()) {
            // SAFETY: this is the store that owns the memories (point 3).
            unsafe {
                region.shrink()?;
                if self.calls.is_multiple_of(CALLS_PER_RELEASE) || !region.put_back(image, &self.scanner)? {
                    region.release()?;
                }
            }
        }
        Ok(())
    }
}

/// How much of a memory's content is to be in its image.
fn filled(content: &[u8], region: &Region, scanner: &Scanner) -> io::Result<usize> {
    let mut filled = 0;
    let all = scanner.scan(region.at(0), content.len(), |Dirty { start, end, is_zero }| {
        if !is_zero && let Some(last) = content[start..end].iter().rposition(|byte| *byte != 0) {
            filled = start + last + 1;
        }
        true
    })?;
    if !all {
        filled = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    }
    Ok(filled.next_multiple_of(PAGE_BYTES))
}

#[cfg(test)]
mod tests;
