//! C: CGI programs, by RFC 3875.

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11"];
