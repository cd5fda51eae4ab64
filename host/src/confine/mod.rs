//! What this process, and those that it starts for strangers' bytes, may do of what their user may: files by Landlock, system calls
//! by a filter. It is a second wall behind wasmtime's, and confines the host's own mistakes.
//!
//! [`host`] confines the process that serves, [`child`] the compiler and the unpacker; [`user`] makes root somebody else. [`kernel`]
//! says what there is: what a kernel lacks is left out, or, with `confine = "strict"`, refused.

pub(crate) mod child;
pub mod host;
pub mod kernel;
pub mod user;

pub use host::Confinement;
