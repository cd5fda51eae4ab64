//! Guests: the components that `make test-guests` builds, and text that is assembled here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The bytes of a guest: `probe` or `raw` of `tests/guests`, or an example such as `hello`.
///
/// # Panics
/// If it has not been built.
pub fn guest(name: &str) -> Vec<u8> {
    static READ: OnceLock<Mutex<HashMap<String, Vec<u8>>>> = OnceLock::new();
    let mut read = READ.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    read.entry(name.to_owned()).or_insert_with(|| find(name)).clone()
}

fn find(name: &str) -> Vec<u8> {
    let file = format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
    let places = [root().join("tests/guests").join(&file), root().join("examples").join(&file)];
    places
        .iter()
        .find_map(|path| std::fs::read(path).ok())
        .unwrap_or_else(|| panic!("there is no guest {name}: run `make test-guests`"))
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the crate lies in the repository").to_owned()
}

/// A component that speaks `wasgi:gateway`, around a core module given as text: for attacks that the text shows better than a
/// program.
///
/// `core` stands in the module of `component.wat`, where the answer `$ok` is laid out; it exports `call`.
///
/// # Panics
/// If the text is wrong.
pub fn wat(core: &str) -> Vec<u8> {
    parse(&include_str!("component.wat").replace(";; CORE", core))
}

/// A whole component given as text.
///
/// # Panics
/// If the text is wrong.
pub fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
