//! I: `wsgi.input` and `wsgi.errors`.

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &["I1", "I2", "I3", "I4", "I5", "I6", "I7"];
