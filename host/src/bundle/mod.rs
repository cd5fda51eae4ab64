//! What a `.wasm` carries beside its code, in two custom sections at its top level: a manifest ([`manifest`]) and an archive of
//! files ([`archive`]), which becomes a [`Tree`] on disk. docs/decisions/0013 has the format.
//!
//! It starts no process and knows no app: `deploy` does.

pub mod archive;
mod manifest;
mod tree;

use std::ops::Range;

use wasmparser::BinaryReader;

pub use manifest::Manifest;
pub use tree::{ROOT, Tree, TreeEntry};

/// The section with the manifest.
pub const MANIFEST_SECTION: &str = "wasgi:app";
/// The section with the archive.
pub const FILES_SECTION: &str = "wasgi:files";

/// Magic number, version and layer.
const HEADER_BYTES: usize = 8;
/// The identifier of custom sections, in modules and components alike.
const CUSTOM: u8 = 0;

/// Where a file has which of the sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    /// The contents, and the whole sections with their headers.
    manifest: Option<(Range<usize>, Range<usize>)>,
    files: Option<(Range<usize>, Range<usize>)>,
}

/// Why a bundle is refused. Each message says what is wrong where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the section {0} is there twice: build the file anew")]
    Twice(&'static str),
    #[error("its manifest (section {MANIFEST_SECTION}) cannot be used: {0}")]
    Manifest(String),
    #[error("its files (section {FILES_SECTION}) cannot be used: {0}")]
    Files(String),
}

impl Sections {
    /// Finds them. Bytes that are not framed as sections have none: what they are is for others to say.
    ///
    /// # Errors
    /// If one is there twice.
    pub fn find(wasm: &[u8]) -> Result<Self, Refusal> {
        let mut found = Self::default();
        let mut reader = BinaryReader::new(wasm.get(HEADER_BYTES..).unwrap_or_default(), HEADER_BYTES);
        while !reader.eof() {
            let start = reader.original_position();
            let Ok((id, contents)) = section(&mut reader) else { break };
            if id != CUSTOM {
                continue;
            }
            let mut contents = contents;
            let (place, name) = match contents.read_string() {
                Ok(MANIFEST_SECTION) => (&mut found.manifest, MANIFEST_SECTION),
                Ok(FILES_SECTION) => (&mut found.files, FILES_SECTION),
                _ => continue,
            };
            let end = reader.original_position();
            if place.replace((contents.original_position()..end, start..end)).is_some() {
                return Err(Refusal::Twice(name));
            }
        }
        Ok(found)
    }

    /// What the manifest says; what an empty one would, if there is none.
    ///
    /// # Errors
    /// If it is no manifest that this host understands.
    pub fn manifest(&self, wasm: &[u8]) -> Result<Manifest, Refusal> {
        match &self.manifest {
            Some((contents, _)) => Manifest::parse(&wasm[contents.clone()]).map_err(Refusal::Manifest),
            None => Ok(Manifest::default()),
        }
    }

    /// The archive, compressed as it is.
    pub fn files<'w>(&self, wasm: &'w [u8]) -> Option<&'w [u8]> {
        self.files.as_ref().map(|(contents, _)| &wasm[contents.clone()])
    }

    /// Takes both sections out: what is left is the code. Says whether there were any.
    pub fn strip(&self, wasm: &mut Vec<u8>) -> bool {
        let mut whole: Vec<_> = [&self.manifest, &self.files].into_iter().flatten().map(|(_, whole)| whole).collect();
        // From the end, so that what is taken out moves none of the others.
        whole.sort_by_key(|whole| std::cmp::Reverse(whole.start));
        for whole in &whole {
            wasm.drain((*whole).clone());
        }
        !whole.is_empty()
    }
}

fn section<'a>(reader: &mut BinaryReader<'a>) -> wasmparser::Result<(u8, BinaryReader<'a>)> {
    let id = reader.read_u8()?;
    let bytes = reader.read_var_u32()? as usize;
    let start = reader.original_position();
    Ok((id, BinaryReader::new(reader.read_bytes(bytes)?, start)))
}

/// Puts a section behind what is there.
pub fn append(wasm: &mut Vec<u8>, name: &str, contents: &[u8]) {
    let mut framed = Vec::with_capacity(name.len() + contents.len() + 5);
    push_number(&mut framed, name.len());
    framed.extend_from_slice(name.as_bytes());
    framed.extend_from_slice(contents);
    wasm.push(CUSTOM);
    push_number(wasm, framed.len());
    wasm.extend_from_slice(&framed);
}

/// LEB128, as wasm writes lengths.
fn push_number(bytes: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("the text is valid")
    }

    #[test]
    fn what_is_appended_is_found_and_taken_out() {
        for plain in [component("(component (core module))"), component("(module)")] {
            let mut wasm = plain.clone();
            append(&mut wasm, FILES_SECTION, &[7; 300]);
            append(&mut wasm, "other", b"stays");
            append(&mut wasm, MANIFEST_SECTION, b"{\"version\": 1}");
            let found = Sections::find(&wasm).expect("each is there once");
            assert_eq!(found.files(&wasm), Some(&[7; 300][..]));
            assert_eq!(found.manifest(&wasm), Ok(Manifest::default()));
            found.strip(&mut wasm);
            let mut expected = plain.clone();
            append(&mut expected, "other", b"stays");
            assert_eq!(wasm, expected);
            assert!(Sections::find(&plain).expect("there are none").files(&plain).is_none());
        }
    }

    #[test]
    fn only_the_top_level_counts() {
        let mut inner = component("(module)");
        append(&mut inner, FILES_SECTION, b"x");
        let mut outer = component("(component)");
        // Section 1 of a component is a core module.
        outer.push(1);
        push_number(&mut outer, inner.len());
        outer.extend_from_slice(&inner);
        assert_eq!(Sections::find(&outer), Ok(Sections::default()));
    }

    #[test]
    fn one_that_is_there_twice_is_refused() {
        let mut wasm = component("(component)");
        append(&mut wasm, FILES_SECTION, b"");
        append(&mut wasm, FILES_SECTION, b"");
        assert_eq!(Sections::find(&wasm), Err(Refusal::Twice(FILES_SECTION)));
    }

    #[test]
    fn bytes_that_are_no_sections_have_none() {
        for bytes in
            [&b""[..], b"\0asm", b"\0asm\x0d\0\x01\0\0\xff\xff\xff\xff\x0f", b"\0asm\x0d\0\x01\0\0\x05\xffabcd"]
        {
            assert_eq!(Sections::find(bytes), Ok(Sections::default()), "{bytes:?}");
        }
    }
}
