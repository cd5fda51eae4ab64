//! Of libc, what the memories call.

#![expect(clippy::missing_safety_doc, reason = "they are libc's")]

use std::ffi::{c_int, c_long, c_void};

pub const RUSAGE_SELF: c_int = 0;

#[repr(C)]
pub struct rusage {
    pub ru_minflt: c_long,
    pub ru_majflt: c_long,
}

pub unsafe fn getrusage(_: c_int, usage: *mut rusage) -> c_int {
    // SAFETY: the caller says that there is room.
    unsafe { usage.write(rusage { ru_minflt: rustix::faults() as c_long, ru_majflt: 0 }) };
    0
}

/// Knows no advice.
pub unsafe fn madvise(_: *mut c_void, _: usize, _: c_int) -> c_int {
    -1
}
