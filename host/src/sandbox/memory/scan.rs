//! Which pages of a memory were written: `PAGEMAP_SCAN`.
//!
//! Asked for are the pages that belong to this process alone: present or *swapped*, and not the file's. The kernel says
//! "swapped" of a page in swap as well as of one that it is just moving (compaction, NUMA balancing); whoever asks for present pages only
//! overlooks both (wasmtime PR #14357).

use std::ffi::c_void;
use std::fs::File;
use std::mem::MaybeUninit;
use std::{io, ptr};

use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::sandbox::step::Step;

/// Finds written pages, if the kernel can.
pub(crate) struct Scanner {
    /// This process's; none where the kernel has no `PAGEMAP_SCAN`.
    pagemap: Option<File>,
    /// Memories from this size on are worth asking for faults first.
    large: usize,
}

/// Page faults of this process since it began, of all its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) struct Faults(u64);

/// The kernel walks through all pages of a memory, and sums up all threads: from here on the second is quicker.
const LARGE_BYTES: usize = 2 << 20;

/// A range of written pages, as offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dirty {
    pub(super) start: usize,
    pub(super) end: usize,
    /// It was only read: the kernel shows its page of zeros.
    pub(super) is_zero: bool,
}

/// `struct page_region` (linux/fs.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` (linux/fs.h).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    inverted: u64,
    required: u64,
    any_of: u64,
    returned: u64,
}

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// The question: what is asked for, with the kernel's words.
const WRITTEN: ScanArgument = ScanArgument {
    size: size_of::<ScanArgument>() as u64,
    flags: 0,
    start: 0,
    end: 0,
    walk_end: 0,
    regions: 0,
    regions_len: 0,
    max_pages: 0,
    inverted: PAGE_IS_FILE,
    required: PAGE_IS_FILE,
    any_of: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
    returned: PAGE_IS_PFNZERO,
};

/// Ranges that the kernel reports at once; if there are more, it is asked again.
const RANGES: usize = 256;

struct Scan<'a> {
    argument: ScanArgument,
    regions: &'a mut [MaybeUninit<PageRegion>; RANGES],
}

// SAFETY: the argument is the kernel's `pm_scan_arg`, with pointer and length of `regions`, which lives as long as the call; the
// kernel writes to both and to nothing else.
unsafe impl Ioctl for Scan<'_> {
    /// How many regions there are, and where the walk ended.
    type Output = (usize, u64);

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        const { ioctl::opcode::read_write::<ScanArgument>(b'f', 16) }
    }

    fn as_ptr(&mut self) -> *mut c_void {
        // The kernel writes there.
        self.argument.regions = self.regions.as_mut_ptr().expose_provenance() as u64;
        self.argument.regions_len = RANGES as u64;
        ptr::from_mut(&mut self.argument).cast()
    }

    unsafe fn output_from_ptr(count: IoctlOutput, argument: *mut c_void) -> rustix::io::Result<Self::Output> {
        // SAFETY: it is what `as_ptr` has returned.
        let walk_end = unsafe { (*argument.cast::<ScanArgument>()).walk_end };
        Ok((usize::try_from(count).unwrap_or(0), walk_end))
    }
}

impl Scanner {
    /// Tries whether the kernel can.
    pub(crate) fn new() -> Self {
        let scanner = Self { pagemap: File::open("/proc/self/pagemap").ok(), large: LARGE_BYTES };
        if scanner.is_right() { scanner } else { Self::without() }
    }

    /// One that finds nothing: all is given back to the kernel.
    pub(super) fn without() -> Self {
        Self { pagemap: None, large: usize::MAX }
    }

    /// Whether the kernel says which pages were written.
    pub(crate) fn is_available(&self) -> bool {
        self.pagemap.is_some()
    }

    /// One that asks for faults first whatever a memory's size is.
    #[cfg(test)]
    pub(super) fn large(self) -> Self {
        Self { large: 0, ..self }
    }

    /// How many page faults there were, if a memory of this size is worth asking. While the number stays the same nobody has written to
    /// a page for the first time: then the kernel gives one, or a copy, in a fault, on whatever thread, and counts it
    /// (`mm_account_fault` in mm/memory.c).
    pub(super) fn faults(&self, memory_bytes: usize) -> Option<Faults> {
        (self.pagemap.is_some() && memory_bytes >= self.large).then(count_faults)?
    }

    /// Says of three pages, one read and one written, which is which, and counts the fault.
    fn is_right(&self) -> bool {
        let page = rustix::param::page_size();
        let flags = MapFlags::PRIVATE;
        // SAFETY: a new mapping at a place that the kernel chooses, unmapped below, and used in between only.
        unsafe {
            let Ok(start) =
                rustix::mm::mmap_anonymous(ptr::null_mut(), 3 * page, ProtFlags::READ | ProtFlags::WRITE, flags)
            else {
                return false;
            };
            let _ = rustix::mm::madvise(start, 3 * page, Advice::LinuxNoHugepage);
            let bytes = start.cast::<u8>();
            let _ = bytes.read_volatile();
            let before = count_faults();
            bytes.wrapping_add(page).write_volatile(1);
            let counts = before.is_some() && before != count_faults();
            let mut found = Vec::new();
            let scanned = self.scan(start, 3 * page, |dirty| {
                found.push(dirty);
                true
            });
            let unmapped = rustix::mm::munmap(start, 3 * page);
            let written: Vec<_> = found.iter().filter(|dirty| !dirty.is_zero).collect();
            unmapped.is_ok()
                && counts
                && matches!(scanned, Ok(true))
                && written == [&Dirty { start: page, end: 2 * page, is_zero: false }]
        }
    }

    /// Reports what of a range of this process's memory was written, until `report` is false. Returns whether all was reported:
    /// false where the kernel cannot say, too.
    pub(super) fn scan(
        &self,
        start: *mut c_void,
        len: usize,
        mut report: impl FnMut(Dirty) -> bool,
    ) -> io::Result<bool> {
        let Some(pagemap) = &self.pagemap else { return Ok(false) };
        let base = start.addr() as u64;
        let end = base + len as u64;
        let mut from = base;
        // Zeros would be three times as much as the kernel usually writes.
        let mut regions = [MaybeUninit::uninit(); RANGES];
        while from < end {
            let any_of = if Step::Absent.is_taken() { WRITTEN.any_of } else { PAGE_IS_PRESENT };
            let argument = ScanArgument { start: from, end, any_of, ..WRITTEN };
            // SAFETY: as said of `Scan`; the kernel reads no memory but its own tables.
            let (count, walk_end) = unsafe { ioctl::ioctl(pagemap, Scan { argument, regions: &mut regions })? };
            for region in regions.iter().take(count) {
                // SAFETY: the kernel has written so many.
                let region = unsafe { region.assume_init_ref() };
                let inside = base <= region.start && region.start <= region.end && region.end <= end;
                if !inside || walk_end <= from {
                    return Err(io::Error::other("PAGEMAP_SCAN reports what it was not asked for"));
                }
                let dirty = Dirty {
                    start: usize::try_from(region.start - base).unwrap_or(0),
                    end: usize::try_from(region.end - base).unwrap_or(0),
                    is_zero: region.categories & PAGE_IS_PFNZERO != 0,
                };
                if !report(dirty) {
                    return Ok(false);
                }
            }
            if walk_end <= from {
                return Err(io::Error::other("PAGEMAP_SCAN does not come to an end"));
            }
            from = walk_end;
        }
        Ok(true)
    }
}

/// None if the kernel does not say.
pub(super) fn count_faults() -> Option<Faults> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel writes all of it, and nothing else, if it returns 0.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    Some(Faults(usage.ru_minflt.cast_unsigned().wrapping_add(usage.ru_majflt.cast_unsigned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with the question (Documentation/admin-guide/mm/pagemap.rst).
    fn is_asked_for(question: &ScanArgument, categories: u64) -> bool {
        let categories = categories ^ question.inverted;
        categories & question.required == question.required
            && (question.any_of == 0 || categories & question.any_of != 0)
    }

    #[test]
    fn pages_that_are_not_present_are_asked_for() {
        // In swap, or under migration: neither present nor the file's.
        assert!(is_asked_for(&WRITTEN, PAGE_IS_SWAPPED));
        assert!(is_asked_for(&WRITTEN, PAGE_IS_PRESENT));
        assert!(!is_asked_for(&WRITTEN, 0), "never touched");
        assert!(!is_asked_for(&WRITTEN, PAGE_IS_PRESENT | PAGE_IS_FILE), "the image's own page");
        assert!(!is_asked_for(&WRITTEN, PAGE_IS_SWAPPED | PAGE_IS_FILE), "the image's own page, under migration");
    }
}
