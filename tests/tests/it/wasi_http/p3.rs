//! WASI 0.3: calls that are under way together.
