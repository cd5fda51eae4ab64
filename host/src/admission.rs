//! Who may run now: concurrency, queue → a permit.

/// The door of one app.
pub struct Admission;
