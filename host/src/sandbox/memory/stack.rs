//! Stacks for guests, kept for the next sandbox. What a guest has left on one no other can see: WebAssembly has no way to read
//! what it has not written there.

use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use wasmtime::{StackCreator, StackMemory};

/// Stacks that wait for a sandbox; with more of them the next goes.
const IDLE_MAX: usize = 64;

/// A page of any machine, which nobody may touch.
const GUARD_BYTES: usize = 64 << 10;

/// Makes stacks for an engine.
#[derive(Default)]
pub(crate) struct Stacks {
    idle: Arc<Mutex<Vec<Mapping>>>,
}

// SAFETY: point 6 of the module's argument.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let size = size.next_multiple_of(GUARD_BYTES);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mapping = match idle.filter(|mapping| mapping.size == size && !zeroed) {
            Some(mapping) => mapping,
            None => Mapping::new(size)?,
        };
        Ok(Box::new(Stack { mapping: Some(mapping), idle: Arc::clone(&self.idle) }))
    }
}

/// A guard, and the stack above it.
struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: it is an address and a number; what is there is touched by who runs on it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(size: usize) -> std::io::Result<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses, of which a part becomes accessible.
        unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            let start = rustix::mm::mmap_anonymous(ptr::null_mut(), GUARD_BYTES + size, ProtFlags::empty(), flags)?;
            let start = NonNull::new(start.cast::<u8>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
            let mapping = Self { start, size };
            let access = MprotectFlags::READ | MprotectFlags::WRITE;
            rustix::mm::mprotect(mapping.bottom().cast(), size, access)?;
            Ok(mapping)
        }
    }

    fn bottom(&self) -> *mut u8 {
        self.start.as_ptr().wrapping_add(GUARD_BYTES)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: all of the mapping that `new` has made; nobody runs on it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), GUARD_BYTES + self.size) };
        debug_assert!(unmapped.is_ok(), "the whole mapping is unmapped");
    }
}

/// A stack in use.
struct Stack {
    /// None when it is dropped.
    mapping: Option<Mapping>,
    idle: Arc<Mutex<Vec<Mapping>>>,
}

impl Stack {
    fn mapping(&self) -> &Mapping {
        self.mapping.as_ref().expect("it is there until it is dropped")
    }
}

// SAFETY: point 6 of the module's argument.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.mapping().bottom().wrapping_add(self.mapping().size)
    }

    fn range(&self) -> Range<usize> {
        self.mapping().bottom().addr()..self.top().addr()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        self.mapping().start.as_ptr()..self.mapping().bottom()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let Some(mapping) = self.mapping.take() else { return };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(mapping);
        }
    }
}
