//! What a `no_std` app needs of its own on wasm32: an allocator, `cabi_realloc`, and a panic handler.
//!
//! The allocator starts in the memory that the linker laid out behind the program's data, up to the end of the initial
//! memory: growing memory at run time costs a fresh instance several microseconds. Only when that is used up it grows.

#![allow(unsafe_code, reason = "an allocator hands out raw memory, and symbols are exported by name")]

use alloc::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32;

use talc::base::{Talc, binning::Binning};
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

#[global_allocator]
static ALLOCATOR: TalcSyncCell<LinearMemory, WasmBinning> =
    TalcSyncCell::new_wasm(LinearMemory { claimed_rest: false });

const PAGE_BYTES: usize = 64 * 1024;

/// Gives the allocator first the rest of the initial memory, then what `memory.grow` yields.
#[derive(Debug)]
struct LinearMemory {
    claimed_rest: bool,
}

// SAFETY: `acquire` hands over memory that nothing else uses: what lies between the linker's `__heap_base` and the end of
// memory, once, and pages that did not exist before. Nothing else in a `no_std` app grows memory.
unsafe impl Source for LinearMemory {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        if !talc.source.claimed_rest {
            talc.source.claimed_rest = true;
            unsafe extern "C" {
                static __heap_base: u8;
            }
            let start = (&raw const __heap_base).cast_mut();
            let bytes = wasm32::memory_size(0) * PAGE_BYTES - start as usize;
            // SAFETY: see above. Where too little is left for a heap, the allocator declines and asks again.
            unsafe { talc.claim(start, bytes) };
            return Ok(());
        }
        // The allocator's own records and the alignment come on top.
        let bytes = layout.size() + layout.align() + 1024;
        let pages = bytes.div_ceil(PAGE_BYTES);
        match wasm32::memory_grow(0, pages) {
            usize::MAX => Err(()),
            // SAFETY: see above; the multiplication cannot overflow, since these pages exist.
            before => unsafe { talc.claim((before * PAGE_BYTES) as *mut u8, pages * PAGE_BYTES) }.map(drop).ok_or(()),
        }
    }
}

/// How the host places what it passes into this memory (Canonical ABI, `realloc`). It has to come from the allocator
/// above, since it is freed there.
#[unsafe(no_mangle)]
unsafe extern "C" fn cabi_realloc(old: *mut u8, old_bytes: usize, align: usize, bytes: usize) -> *mut u8 {
    if bytes == 0 {
        return align as *mut u8;
    }
    // SAFETY: the Canonical ABI passes what an earlier call returned, with its size, or no memory at all; alignments
    // are powers of two.
    let memory = unsafe {
        if old_bytes == 0 {
            ALLOCATOR.alloc(Layout::from_size_align_unchecked(bytes, align))
        } else {
            ALLOCATOR.realloc(old, Layout::from_size_align_unchecked(old_bytes, align), bytes)
        }
    };
    if memory.is_null() {
        wasm32::unreachable()
    }
    memory
}

/// A panic is a trap: the host logs it with the wasm backtrace. The message is not formatted, which keeps the machinery
/// for it out of the app.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    wasm32::unreachable()
}
