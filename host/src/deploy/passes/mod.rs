//! What is done to a stranger's bytes before they are compiled: bytes in, bytes out, in the compiler's process.

pub(super) mod adapt;
pub(super) mod rewind;

/// Part of the name of compiled code: other passes, other code.
pub(super) const VERSION: u32 = 1;
