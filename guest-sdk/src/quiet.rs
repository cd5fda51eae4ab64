//! The feature `quiet`: `std` without its standard streams, so that an app that does no I/O of its own imports no WASI.
//!
//! Every program with `std` holds the code that prints a panic's message, and with it thirteen WASI interfaces that a
//! fresh instance pays for. These three functions stand before the C library's, which are then not linked. What they cost:
//! `println!` and a panic's message go nowhere (the host still logs the trap with its backtrace, and
//! [`Environ::errors`](crate::Environ::errors) works), `std::env::var` finds nothing (variables are in the
//! [`Environ`](crate::Environ)), and writing to files or sockets through `std` fails. Reading, clocks, random numbers and
//! sleeping are untouched.

#![allow(unsafe_code, reason = "symbols of the C library are defined by name")]

use core::ffi::{c_char, c_int, c_void};
use core::ptr;

/// Swallows what goes to the standard streams and refuses the rest.
fn swallow(file: c_int, bytes: isize) -> isize {
    if matches!(file, 1 | 2) { bytes } else { -1 }
}

#[unsafe(no_mangle)]
extern "C" fn write(file: c_int, _: *const c_void, bytes: usize) -> isize {
    swallow(file, bytes as isize)
}

/// One buffer of `writev`: a pointer and a length.
#[repr(C)]
struct Piece {
    _start: *const c_void,
    bytes: usize,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(file: c_int, pieces: *const Piece, count: c_int) -> isize {
    // SAFETY: the caller passes so many pieces (POSIX, writev); only their lengths are read.
    let pieces = unsafe { core::slice::from_raw_parts(pieces, usize::try_from(count).unwrap_or(0)) };
    swallow(file, pieces.iter().map(|piece| piece.bytes as isize).sum())
}

#[unsafe(no_mangle)]
extern "C" fn getenv(_: *const c_char) -> *mut c_char {
    ptr::null_mut()
}
