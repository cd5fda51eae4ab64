//! H: HTTP itself, before any guest is asked.

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &[
    "H1", "H2", "H3", "H4", "H5", "H6", "H7", "H8", "H9", "H10", "H11", "H12", "H13", "H14", "H15", "H16", "H17",
    "H18", "H19", "H20", "H21", "H22", "H23", "H24",
];
