//! E: what an application finds in `environ`.

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &["E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "E9", "E10", "E11", "E12"];
