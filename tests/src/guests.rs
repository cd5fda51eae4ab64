//! Guests: the components that `make test-guests` builds, and text that is assembled here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The bytes of a guest: `probe`, `http-p2` and the others of `tests/guests`, `http-python` of `tests/guests/foreign`,
/// `probe-python` of `tests/guests/python`, or an example such as `hello`.
///
/// # Panics
/// If it has not been built.
pub fn guest(name: &str) -> Vec<u8> {
    // cargo names libraries with underscores, and programs as they are.
    read(&format!("wasm32-wasip2/release/{}.wasm", name.replace('-', "_")))
        .or_else(|| read(&format!("wasm32-wasip2/release/{name}.wasm")))
        .or_else(|| read(&format!("cgi/{name}.wasm")))
        .or_else(|| read(&format!("foreign/{name}.wasm")))
        .or_else(|| read(&format!("python/{name}.wasm")))
        .unwrap_or_else(|| panic!("there is no guest {name}: run `make test-guests`"))
}

/// The bytes of a program as a core module, built for WASI 0.1.
///
/// # Panics
/// If it has not been built.
pub fn core_module(name: &str) -> Vec<u8> {
    let found = read(&format!("wasm32-wasip1/release/{name}.wasm"));
    found.unwrap_or_else(|| panic!("there is no core module {name}: run `make test-guests`"))
}

/// A file below one of the target directories of guests, read once.
fn read(file: &str) -> Option<Vec<u8>> {
    static READ: OnceLock<Mutex<HashMap<String, Vec<u8>>>> = OnceLock::new();
    let mut read = READ.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = read.get(file) {
        return Some(known.clone());
    }
    let places = ["tests/guests/target", "examples/target"].map(|target| root().join(target).join(file));
    let bytes = places.iter().find_map(|path| std::fs::read(path).ok())?;
    read.insert(file.to_owned(), bytes.clone());
    Some(bytes)
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
    parse(&component_text(core))
}

/// The text of that component.
pub fn component_text(core: &str) -> String {
    // The same as the attacks of `wasgi selftest` have.
    let application = include_str!("../../host/src/selftest/attacks/application.wat");
    include_str!("component.wat").replace(";; CORE", core).replace(";; APPLICATION", application)
}

/// A whole component given as text.
///
/// # Panics
/// If the text is wrong.
pub fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
