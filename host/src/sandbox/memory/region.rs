//! A slot: address space for one memory, with what lies in it.

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use super::image::Image;
use super::scan::{Dirty, Faults, Scanner};
use crate::sandbox::step::Step;

/// A page of WebAssembly. Every size here is a multiple of it, and so of the kernel's pages.
pub(crate) const PAGE_BYTES: usize = 64 << 10;

/// What is put back in place; with more than this dirty, all pages are given back to the kernel.
pub(super) const KEPT_BYTES: usize = 4 << 20;

/// A memory's pages, once written, count as dirty for good. So all of them are given back after so many uses.
const USES_PER_RELEASE: u32 = 256;

/// What is given back to the kernel in one call: some hundred microseconds where all of it was written.
const FORGOTTEN_TOGETHER: usize = 4 << 20;

/// Address space, unmapped when the last slot of it is dropped: guard, then slots, a guard behind each.
struct Reservation {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is an address and a number.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: all of the mapping that `Region::reserve` has made; nobody has a part of it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "the whole mapping is unmapped");
    }
}

/// The pages of a memory that were written since it was laid out or all of them were given back, as the kernel has told at one time.
///
/// They are the same as long as no page has come to the process ([`Scanner::faults`]): a page that was never written is the image's or
/// nobody's, and who writes to it for the first time needs one of the kernel's.
struct Written {
    ranges: Vec<Dirty>,
    faults: Faults,
}

/// A slot.
pub(super) struct Region {
    base: NonNull<u8>,
    guard: usize,
    capacity: usize,
    /// What the memory begins with.
    minimum: usize,
    /// What is accessible.
    size: AtomicUsize,
    /// What is mapped, with zeros around it.
    image: Mutex<Option<Arc<Image>>>,
    /// What of that was written, if that is known of a large memory.
    written: Mutex<Option<Written>>,
    /// How often it was put back.
    uses: AtomicU32,
    _reservation: Arc<Reservation>,
}

// SAFETY: it is an address and numbers; what is at the address is touched by point 3 of the module's argument only.
unsafe impl Send for Region {}
// SAFETY: as above; what changes changes atomically or under a lock.
unsafe impl Sync for Region {}

impl Region {
    /// So many slots beside each other, with nothing in them.
    pub(super) fn reserve(slots: usize, capacity: usize, guard: usize) -> io::Result<Vec<Self>> {
        let is_page = |bytes: usize| bytes.is_multiple_of(PAGE_BYTES);
        let stride = capacity.checked_add(guard).filter(|_| is_page(capacity) && is_page(guard));
        let len = stride.and_then(|stride| stride.checked_mul(slots)?.checked_add(guard));
        let (Some(stride), Some(len)) = (stride, len) else { return Err(io::ErrorKind::InvalidInput.into()) };
        // SAFETY: a new mapping at a place that the kernel chooses.
        let start = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags)?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let reservation = Arc::new(Reservation { start, len });
        let slot = |slot: usize| {
            let base =
                NonNull::new(start.as_ptr().wrapping_add(guard + slot * stride)).ok_or(io::ErrorKind::OutOfMemory)?;
            Ok(Self {
                base,
                guard,
                capacity,
                minimum: 0,
                size: AtomicUsize::new(0),
                image: Mutex::default(),
                written: Mutex::default(),
                uses: AtomicU32::new(0),
                _reservation: Arc::clone(&reservation),
            })
        };
        (0..slots).map(slot).collect()
    }

    /// Makes it a memory of this size that begins with this image, whatever it was before.
    pub(super) fn lay_out(&mut self, minimum: usize, image: Option<&Arc<Image>>) -> io::Result<()> {
        let fits = image.is_none_or(|image| image.end() <= minimum);
        if !fits || minimum > self.capacity || !minimum.is_multiple_of(PAGE_BYTES) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.wipe()?;
        self.minimum = minimum;
        self.grow_to(minimum)?;
        if let Some(image) = image {
            // SAFETY: `&mut self`: nobody else uses what is in it.
            unsafe { self.overlay(image)? };
        }
        self.small_pages()
    }

    /// Takes everything out of it: what was in it is gone, and out of reach.
    pub(super) fn wipe(&mut self) -> io::Result<()> {
        let size = std::mem::take(self.size.get_mut());
        if size > 0 && Step::Wipe.is_taken() {
            let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
            // SAFETY: inside of the slot, which is ours alone (`&mut self`): nobody uses what is replaced.
            unsafe { rustix::mm::mmap_anonymous(self.at(0), size, ProtFlags::empty(), flags)? };
        }
        *self.image() = None;
        *self.written() = None;
        self.minimum = 0;
        *self.uses.get_mut() = 0;
        Ok(())
    }

    pub(super) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn guard(&self) -> usize {
        self.guard
    }

    pub(super) fn minimum(&self) -> usize {
        self.minimum
    }

    /// The image that is mapped.
    pub(super) fn mapped(&self) -> Option<Arc<Image>> {
        self.image().clone()
    }

    fn image(&self) -> MutexGuard<'_, Option<Arc<Image>>> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> MutexGuard<'_, Option<Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this image is mapped, or none if none is meant.
    pub(super) fn has(&self, image: Option<&Arc<Image>>) -> bool {
        match (&*self.image(), image) {
            (Some(mapped), Some(image)) => Arc::ptr_eq(mapped, image),
            (None, None) => true,
            _ => false,
        }
    }

    pub(super) fn at(&self, offset: usize) -> *mut c_void {
        debug_assert!(offset <= self.capacity);
        self.base.as_ptr().wrapping_add(offset).cast()
    }

    pub(super) fn grow_to(&self, size: usize) -> io::Result<()> {
        let old = self.size();
        if size > self.capacity || size < old || !size.is_multiple_of(PAGE_BYTES) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if size > old {
            // SAFETY: inside of the slot, which is ours (point 1); what was out of reach becomes accessible and is zero: new,
            // or thrown away by `wipe` or `shrink`.
            unsafe { rustix::mm::mprotect(self.at(old), size - old, MprotectFlags::READ | MprotectFlags::WRITE)? };
            self.size.store(size, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes back what the memory has grown by.
    ///
    /// # Safety
    /// Nobody else may use the memory's contents meanwhile (point 3).
    pub(super) unsafe fn shrink(&self) -> io::Result<()> {
        let grown = self.size() - self.minimum;
        if grown > 0 {
            // SAFETY: inside of the slot, which is ours; nobody uses what is thrown away.
            unsafe {
                if Step::Growth.is_taken() {
                    self.forget(self.minimum, self.minimum + grown)?;
                }
                if Step::Protection.is_taken() {
                    rustix::mm::mprotect(self.at(self.minimum), grown, MprotectFlags::empty())?;
                    self.size.store(self.minimum, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// Gives all pages back to the kernel: the next look finds the image, and zeros around it.
    ///
    /// # Safety
    /// As [`Region::shrink`].
    unsafe fn release(&self) -> io::Result<()> {
        *self.written() = None;
        if Step::Release.is_taken() {
            // SAFETY: as the caller promises.
            unsafe { self.forget(0, self.minimum)? };
        }
        Ok(())
    }

    /// Gives pages back, little by little: as long as the kernel is at it, other threads may wait that map something, or that have just
    /// become ready to run.
    ///
    /// # Safety
    /// As [`Region::shrink`]; the range has to be within the slot.
    unsafe fn forget(&self, start: usize, end: usize) -> io::Result<()> {
        for at in (start..end).step_by(FORGOTTEN_TOGETHER) {
            let len = FORGOTTEN_TOGETHER.min(end - at);
            // SAFETY: inside of the slot; nobody uses what is thrown away.
            unsafe { rustix::mm::madvise(self.at(at), len, Advice::LinuxDontNeed)? };
        }
        Ok(())
    }

    /// What the memory holds.
    ///
    /// # Safety
    /// Nobody else may change it as long as the slice is there (point 3).
    pub(super) unsafe fn bytes(&self, start: usize, end: usize) -> &[u8] {
        assert!(start <= end && end <= self.size(), "only accessible memory is read");
        // SAFETY: accessible (point 2), and as the caller promises.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().wrapping_add(start), end - start) }
    }

    /// Makes the image what the memory begins with, and everything around it zero.
    ///
    /// # Safety
    /// As [`Region::shrink`].
    pub(super) unsafe fn overlay(&self, image: &Arc<Image>) -> io::Result<()> {
        assert!(image.end() <= self.minimum, "an image is no larger than the memory that it was made of");
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: inside of the slot, so nothing else is mapped there; nobody uses what is replaced. The file does not change
        // (point 4), and writes to a private mapping do not reach it.
        unsafe {
            // A memory may begin with no page at all.
            if self.minimum > 0 {
                rustix::mm::mmap_anonymous(self.at(0), self.minimum, access, flags)?;
            }
            if let Some((file, at)) = image.file() {
                rustix::mm::mmap(self.at(image.start()), image.end() - image.start(), access, flags, file, at)?;
            }
        }
        *self.image() = Some(Arc::clone(image));
        *self.written() = None;
        self.small_pages()
    }

    /// A huge page would be one page of two megabytes to put back; and the kernel makes some by itself, of pages to which nobody has
    /// written, and without a fault: what is known of [`Written`] pages would be wrong. So the advice has to be taken.
    fn small_pages(&self) -> io::Result<()> {
        // SAFETY: inside of the slot; it changes no content.
        match unsafe { rustix::mm::madvise(self.at(0), self.minimum, Advice::LinuxNoHugepage) } {
            // A kernel that has no huge pages does not know the advice.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a range what the memory begins with there.
    ///
    /// # Safety
    /// As [`Region::shrink`]; the range has to be within the memory's first size.
    unsafe fn restore(&self, image: Option<&Image>, Dirty { start, end, is_zero }: Dirty) {
        let (first, last) =
            image.map_or((end, end), |image| (image.start().clamp(start, end), image.end().clamp(start, end)));
        // SAFETY: the ranges are parts of the one that the caller promises to be accessible; the image is as long as
        // `first..last` (if that is not empty) and does not overlap with the memory.
        unsafe {
            if let Some(image) = image.filter(|_| first < last && Step::Image.is_taken()) {
                let original = image.bytes()[first - image.start()..last - image.start()].as_ptr();
                ptr::copy_nonoverlapping(original, self.at(first).cast(), last - first);
            }
            // A page of zeros that was only read is left alone.
            if !is_zero && Step::Zeros.is_taken() {
                ptr::write_bytes(self.at(start).cast::<u8>(), 0, first - start);
                ptr::write_bytes(self.at(last).cast::<u8>(), 0, end - last.max(first));
            }
        }
    }

    /// Puts the memory back to what it began with: what it has grown by, and every page that was written.
    ///
    /// # Safety
    /// As [`Region::shrink`].
    ///
    /// # Errors
    /// If the kernel refuses: then the memory must not be used any more.
    pub(super) unsafe fn put_back(&self, scanner: &Scanner) -> io::Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.shrink()? };
        let uses = self.uses.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // SAFETY: as the caller promises.
        if uses.is_multiple_of(USES_PER_RELEASE) || unsafe { !self.put_back_in_place(scanner)? } {
            // SAFETY: as the caller promises.
            unsafe { self.release()? };
        }
        Ok(())
    }

    /// Puts back what was written, page by page. False if that would be too much, or it is not known what was.
    ///
    /// # Safety
    /// As [`Region::shrink`].
    unsafe fn put_back_in_place(&self, scanner: &Scanner) -> io::Result<bool> {
        let image = self.mapped();
        let mut written = self.written();
        // Asked before the pages are: who writes to one for the first time in between is counted the next time.
        let faults = scanner.faults(self.minimum);
        let is_known = |known: &&Written| faults == Some(known.faults) || !Step::News.is_taken();
        if let Some(known) = written.as_ref().filter(is_known) {
            // SAFETY: as the caller promises; they are of this memory's first size, which has not changed since.
            known.ranges.iter().for_each(|dirty| unsafe { self.restore(image.as_deref(), *dirty) });
            return Ok(true);
        }
        let mut ranges = written.take().map_or_else(Vec::new, |known| known.ranges);
        ranges.clear();
        let mut dirty_bytes = 0;
        let is_complete = scanner.scan(self.at(0), self.minimum, |dirty| {
            dirty_bytes += dirty.end - dirty.start;
            if dirty_bytes > KEPT_BYTES {
                return false;
            }
            // SAFETY: as the caller promises; `scan` reports ranges within the one that it was given.
            unsafe { self.restore(image.as_deref(), dirty) };
            if faults.is_some() {
                ranges.push(dirty);
            }
            true
        })?;
        *written = faults.filter(|_| is_complete).map(|faults| Written { ranges, faults });
        Ok(is_complete)
    }
}
