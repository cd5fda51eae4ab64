//! What is done to a stranger's bytes before they are compiled: bytes in, bytes out, in the compiler's process.

pub(super) mod adapt;
