//! Pure: host + path → app, `SCRIPT_NAME`, `PATH_INFO`.

/// Finds what is mounted where. `T` is what is found: an app, or a name in tests.
#[derive(Default)]
pub struct Router<T> {
    _routes: Vec<T>,
}
