//! The claims of configuration and sidecars.
