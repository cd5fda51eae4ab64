//! The apps directory → the table of apps.
