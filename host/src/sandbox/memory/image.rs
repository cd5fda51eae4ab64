//! What a memory begins with, without the zeros around it: bytes that never change, which all instances of a release map.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::region::PAGE_BYTES;

/// What the memories of a release's instances begin with, in the order in which they are made; zeros where there is none.
#[derive(Clone, Default)]
pub struct MemoryImages(Arc<[Option<Arc<Image>>]>);

impl From<Vec<Option<Arc<Image>>>> for MemoryImages {
    fn from(images: Vec<Option<Arc<Image>>>) -> Self {
        Self(images.into())
    }
}

impl MemoryImages {
    /// Of the memory of this number.
    pub(crate) fn get(&self, memory: usize) -> Option<&Arc<Image>> {
        self.0.get(memory)?.as_ref()
    }
}

/// What a memory begins with; before and behind it are zeros.
pub struct Image {
    /// None where it is empty.
    file: Option<Arc<File>>,
    /// Where in the file it begins.
    at: u64,
    /// Where in the memory it begins.
    start: usize,
    bytes: *const u8,
    len: usize,
}

// SAFETY: the bytes are mapped for reading and never change (point 4).
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    /// Of what a memory holds.
    pub(super) fn new(content: &[u8]) -> io::Result<Self> {
        use std::io::Write;
        let Some(first) = content.iter().position(|byte| *byte != 0) else { return Ok(Self::empty()) };
        let start = first / PAGE_BYTES * PAGE_BYTES;
        let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).next_multiple_of(PAGE_BYTES);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Linux before 6.3 does not know the seal against executing, which nobody does.
        let made = rustix::fs::memfd_create("wasgi-image", flags | MemfdFlags::NOEXEC_SEAL);
        let made = made.or_else(|_| rustix::fs::memfd_create("wasgi-image", flags));
        let mut file = File::from(made?);
        file.write_all(&content[start..end.min(content.len())])?;
        file.set_len((end - start) as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(&Arc::new(file), 0, start, end - start)
    }

    fn empty() -> Self {
        Self { file: None, at: 0, start: 0, bytes: NonNull::dangling().as_ptr(), len: 0 }
    }

    /// `len` bytes of a file from `at` on, which a memory has from `start` on. All three are pages. Nobody may change the file.
    ///
    /// # Errors
    /// If it cannot be mapped, or numbers don't fit.
    pub(crate) fn map(file: &Arc<File>, at: u64, start: usize, len: usize) -> io::Result<Self> {
        let is_page = |bytes: usize| bytes.is_multiple_of(PAGE_BYTES);
        let ends = start.checked_add(len).is_some() && at.checked_add(len as u64) <= Some(file.metadata()?.len());
        if !ends || !is_page(start) || !is_page(len) || !at.is_multiple_of(PAGE_BYTES as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if len == 0 {
            return Ok(Self::empty());
        }
        // SAFETY: a new mapping at a place that the kernel chooses, of a file that does not change (point 4).
        let bytes =
            unsafe { rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file.as_fd(), at)? };
        Ok(Self { file: Some(Arc::clone(file)), at, start, bytes: bytes.cast(), len })
    }

    /// Its file, and where in that it begins.
    pub(super) fn file(&self) -> Option<(&File, u64)> {
        self.file.as_deref().map(|file| (file, self.at))
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    pub(super) fn end(&self) -> usize {
        self.start + self.len
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as this lives, and never written (point 4).
        unsafe { std::slice::from_raw_parts(self.bytes, self.len) }
    }

    /// Whether a memory that holds this begins with the image.
    pub(super) fn is(&self, content: &[u8]) -> bool {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        content.len() >= self.end()
            && is_zero(&content[..self.start])
            && content[self.start..self.end()] == *self.bytes()
            && is_zero(&content[self.end()..])
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: all of the mapping that `map` has made; nobody has it any more.
            let unmapped = unsafe { rustix::mm::munmap(self.bytes.cast_mut().cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "the whole mapping is unmapped");
        }
    }
}
