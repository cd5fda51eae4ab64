//! What outlives a call in an instance: nothing, where instances are fresh.

use std::alloc::{Layout, alloc};
use std::cell::Cell;
use std::time::Duration;

use wasgi::StartResponse;

use crate::{Answer, Query, spin_for, text};

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

const CANARY: [u8; 16] = *b"canary-of-a-call";

/// How many calls this instance has served, and fills a megabyte with a canary; computes for `ms` first.
pub(crate) fn count(query: &Query, start_response: &StartResponse) -> Answer {
    spin_for(Duration::from_millis(query.number("ms", 0) as u64));
    CALLS.set(CALLS.get() + 1);
    if query.number("plant", 0) > 0 {
        std::mem::forget(CANARY.repeat(query.number("plant", 0)));
    }
    text(start_response, format!("call {}", CALLS.get()))
}

/// Whether memory that was never written in this call holds something.
pub(crate) fn hunt(start_response: &StartResponse) -> Answer {
    const BYTES: usize = 4 << 20;
    let layout = Layout::from_size_align(BYTES, 16).expect("a small power of two");
    // SAFETY: the size is not zero. What the allocator has no use of yet is what the host laid out, which is the point:
    // it is read byte by byte, volatile, so that the compiler supposes nothing about it.
    let dirty = unsafe {
        let memory = alloc(layout);
        assert!(!memory.is_null(), "4 MiB are there");
        (0..BYTES).step_by(16).filter(|at| memory.add(*at + 7).read_volatile() != 0).count()
    };
    CALLS.set(CALLS.get() + 1);
    text(start_response, format!("{dirty} dirty, call {}", CALLS.get()))
}
