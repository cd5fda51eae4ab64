//! Of rustix, what the memories call, with a kernel behind it that has pages and no processor: what was written to one it finds out by
//! comparing it with what it was, when somebody asks. It does not know of access rights.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PAGE: usize = 4096;

/// A mapping. What a fixed one replaces stays a part of it.
struct Mapping {
    start: *mut u8,
    len: usize,
    pages: Vec<Page>,
}

// SAFETY: it is an address.
unsafe impl Send for Mapping {}

#[derive(Clone, Default)]
struct Page {
    /// What it is as long as nobody has written; zeros if none.
    original: Option<Box<[u8; PAGE]>>,
    /// Somebody has.
    is_private: bool,
}

struct Kernel {
    mappings: Vec<Mapping>,
    faults: u64,
}

static KERNEL: Mutex<Kernel> = Mutex::new(Kernel { mappings: Vec::new(), faults: 0 });

fn kernel() -> MutexGuard<'static, Kernel> {
    KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mapping {
    fn new(len: usize) -> Self {
        // SAFETY: nobody asks for no bytes.
        let start = unsafe { alloc_zeroed(Layout::from_size_align(len, PAGE).expect("it is no more than there is")) };
        Self { start, len, pages: vec![Page::default(); len / PAGE] }
    }

    fn place(&self, page: usize) -> *mut u8 {
        self.start.wrapping_add(page * PAGE)
    }

    /// A page's content becomes what it is without writes.
    fn reset(&mut self, page: usize) {
        self.pages[page].is_private = false;
        let place = self.place(page);
        // SAFETY: a page of the mapping.
        unsafe {
            match &self.pages[page].original {
                Some(original) => place.copy_from_nonoverlapping(original.as_ptr(), PAGE),
                None => place.write_bytes(0, PAGE),
            }
        }
    }

    /// Notes who was written to; returns how many for the first time.
    fn look(&mut self, pages: std::ops::Range<usize>) -> u64 {
        let mut new = 0;
        for page in pages {
            // SAFETY: a page of the mapping, which nobody writes to meanwhile.
            let now = unsafe { &*self.place(page).cast::<[u8; PAGE]>() };
            let page = &mut self.pages[page];
            if !page.is_private && now != page.original.as_deref().unwrap_or(&[0; PAGE]) {
                page.is_private = true;
                new += 1;
            }
        }
        new
    }
}

impl Kernel {
    fn find(&mut self, at: usize, len: usize) -> (&mut Mapping, std::ops::Range<usize>) {
        let mapping = self.mappings.iter_mut().find(|mapping| {
            let start = mapping.start.addr();
            start <= at && at + len <= start + mapping.len
        });
        let mapping = mapping.expect("only what is mapped is named");
        let first = (at - mapping.start.addr()) / PAGE;
        (mapping, first..first + len.div_ceil(PAGE))
    }

    fn look(&mut self) {
        for mapping in &mut self.mappings {
            self.faults += mapping.look(0..mapping.pages.len());
        }
    }

    fn map(&mut self, at: *mut c_void, len: usize, original: impl Fn(usize) -> Option<Box<[u8; PAGE]>>) -> *mut c_void {
        self.look();
        if at.is_null() {
            self.mappings.push(Mapping::new(len));
        }
        let start = if at.is_null() { self.mappings.last().expect("it was pushed").start } else { at.cast() };
        let (mapping, pages) = self.find(start.addr(), len);
        for (number, page) in pages.enumerate() {
            mapping.pages[page].original = original(number);
            mapping.reset(page);
        }
        start.cast()
    }
}

/// How often somebody has written to a page for the first time.
pub fn faults() -> u64 {
    let mut kernel = kernel();
    kernel.look();
    kernel.faults
}

macro_rules! flags {
    ($($name:ident { $($flag:ident),* })*) => {$(
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        #[allow(non_upper_case_globals)]
        impl $name {
            $(pub const $flag: Self = Self;)*
            pub const fn empty() -> Self {
                Self
            }
        }
        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, _: Self) -> Self {
                self
            }
        }
    )*};
}

pub mod io {
    pub type Result<T> = std::result::Result<T, Errno>;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Errno(pub i32);

    impl Errno {
        pub const INVAL: Self = Self(22);
    }

    impl From<Errno> for std::io::Error {
        fn from(error: Errno) -> Self {
            Self::from_raw_os_error(error.0)
        }
    }
}

pub mod param {
    pub fn page_size() -> usize {
        super::PAGE
    }
}

pub mod fs {
    use super::*;

    flags! {
        MemfdFlags { CLOEXEC, ALLOW_SEALING, NOEXEC_SEAL }
        SealFlags { WRITE, SHRINK, GROW, SEAL }
    }

    /// A file without a name, in a folder for such.
    pub fn memfd_create(_: &str, _: MemfdFlags) -> io::Result<std::os::fd::OwnedFd> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("wasgi-miri-{}-{number}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|_| io::Errno::INVAL)?;
        let _ = std::fs::remove_file(path);
        Ok(file.into())
    }

    pub fn fcntl_add_seals(_: impl AsFd, _: SealFlags) -> io::Result<()> {
        Ok(())
    }
}

pub mod mm {
    use super::*;

    flags! {
        MapFlags { PRIVATE, SHARED, FIXED, NORESERVE }
        ProtFlags { READ, WRITE }
        MprotectFlags { READ, WRITE }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Advice {
        LinuxDontNeed,
        LinuxNoHugepage,
        LinuxPageOut,
    }

    /// # Safety
    /// As mmap(2).
    pub unsafe fn mmap_anonymous(at: *mut c_void, len: usize, _: ProtFlags, _: MapFlags) -> io::Result<*mut c_void> {
        Ok(kernel().map(at, len, |_| None))
    }

    /// # Safety
    /// As mmap(2).
    pub unsafe fn mmap(
        at: *mut c_void,
        len: usize,
        _: ProtFlags,
        _: MapFlags,
        file: impl AsFd,
        offset: u64,
    ) -> io::Result<*mut c_void> {
        let file = File::from(file.as_fd().try_clone_to_owned().map_err(|_| io::Errno::INVAL)?);
        let original = |number: usize| {
            let mut page = Box::new([0; PAGE]);
            file.read_exact_at(&mut page[..], offset + (number * PAGE) as u64).expect("the file is as long as said");
            Some(page)
        };
        Ok(kernel().map(at, len, original))
    }

    /// # Safety
    /// As munmap(2): of all of a mapping.
    pub unsafe fn munmap(at: *mut c_void, len: usize) -> io::Result<()> {
        let mut kernel = kernel();
        kernel.look();
        let place = kernel.mappings.iter().position(|mapping| mapping.start.addr() == at.addr() && mapping.len == len);
        let mapping = kernel.mappings.swap_remove(place.ok_or(io::Errno::INVAL)?);
        // SAFETY: made by `Mapping::new`; the caller says that nobody has any of it.
        unsafe { dealloc(mapping.start, Layout::from_size_align(len, PAGE).expect("as it was made")) };
        Ok(())
    }

    /// # Safety
    /// As mprotect(2).
    pub unsafe fn mprotect(at: *mut c_void, len: usize, _: MprotectFlags) -> io::Result<()> {
        kernel().find(at.addr(), len);
        Ok(())
    }

    /// # Safety
    /// As madvise(2).
    pub unsafe fn madvise(at: *mut c_void, len: usize, advice: Advice) -> io::Result<()> {
        let mut kernel = kernel();
        kernel.look();
        let (mapping, pages) = kernel.find(at.addr(), len);
        if advice == Advice::LinuxDontNeed {
            pages.for_each(|page| mapping.reset(page));
        }
        Ok(())
    }
}

pub mod ioctl {
    use super::*;

    pub type IoctlOutput = i32;
    pub type Opcode = u32;

    pub mod opcode {
        pub const fn read_write<T>(_: u8, _: u8) -> super::Opcode {
            0
        }
    }

    /// # Safety
    /// As rustix has it.
    pub unsafe trait Ioctl {
        type Output;
        const IS_MUTATING: bool;
        fn opcode(&self) -> Opcode;
        fn as_ptr(&mut self) -> *mut c_void;
        /// # Safety
        /// As rustix has it.
        unsafe fn output_from_ptr(output: IoctlOutput, argument: *mut c_void) -> io::Result<Self::Output>;
    }

    /// `struct pm_scan_arg`, as far as it is looked at here: where from, where to, where it ended, room for how many ranges.
    #[repr(C)]
    struct Argument {
        size_and_flags: [u64; 2],
        start: u64,
        end: u64,
        walk_end: u64,
        regions: u64,
        regions_len: u64,
    }

    /// `PAGEMAP_SCAN`, whatever is asked.
    ///
    /// # Safety
    /// As rustix has it.
    pub unsafe fn ioctl<I: Ioctl>(_: impl AsFd, mut question: I) -> io::Result<I::Output> {
        let pointer = question.as_ptr();
        // SAFETY: who asks says that it is the argument of this question, with room for so many ranges.
        let argument = unsafe { &mut *pointer.cast::<Argument>() };
        let room = std::ptr::with_exposed_provenance_mut::<[u64; 3]>(argument.regions as usize);
        let mut kernel = kernel();
        kernel.look();
        let (mapping, pages) = kernel.find(argument.start as usize, (argument.end - argument.start) as usize);
        argument.walk_end = argument.end;
        let mut ranges: Vec<[u64; 3]> = Vec::new();
        for page in pages {
            let at = mapping.place(page).addr() as u64;
            let is_full = ranges.len() as u64 == argument.regions_len;
            match ranges.last_mut() {
                _ if !mapping.pages[page].is_private => {}
                Some([_, end, _]) if *end == at => *end += PAGE as u64,
                _ if is_full => {
                    argument.walk_end = at;
                    break;
                }
                _ => ranges.push([at, at + PAGE as u64, 0]),
            }
        }
        // SAFETY: no more than there is room for.
        ranges.iter().enumerate().for_each(|(place, range)| unsafe { room.add(place).write(*range) });
        // SAFETY: the pointer is what `as_ptr` has returned.
        unsafe { I::output_from_ptr(ranges.len() as i32, pointer) }
    }
}
