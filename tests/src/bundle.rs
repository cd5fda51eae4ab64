//! What a `.wasm` carries beside its code, put there by hand: tests need bundles that no builder would make.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

/// A bundle in the making.
pub struct Bundle {
    manifest: Option<String>,
    archive: Builder<GzEncoder<Vec<u8>>>,
}

impl Default for Bundle {
    fn default() -> Self {
        Self { manifest: None, archive: Builder::new(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl Bundle {
    /// What stands in the section `wasgi:app`.
    #[must_use]
    pub fn manifest(mut self, json: &str) -> Self {
        self.manifest = Some(json.to_owned());
        self
    }

    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, path.as_bytes(), content.as_ref())
    }

    /// An entry whose name and type are written as they are.
    #[must_use]
    pub fn entry(mut self, kind: EntryType, name: &[u8], content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        self.archive.append(&header, content).expect("it goes into memory");
        self
    }

    /// The archive alone.
    ///
    /// # Panics
    /// Never: it goes into memory.
    pub fn archive(self) -> Vec<u8> {
        self.archive.into_inner().and_then(GzEncoder::finish).expect("it goes into memory")
    }

    /// The bundle behind the code.
    pub fn on(mut self, wasm: impl Into<Vec<u8>>) -> Vec<u8> {
        let mut wasm = wasm.into();
        if let Some(manifest) = self.manifest.take() {
            append_section(&mut wasm, "wasgi:app", manifest.as_bytes());
        }
        append_section(&mut wasm, "wasgi:files", &self.archive());
        wasm
    }
}

/// Puts a custom section behind what is there.
///
/// # Panics
/// If it is larger than a section can be.
pub fn append_section(wasm: &mut Vec<u8>, name: &str, content: &[u8]) {
    let leb = |number: usize| {
        let number = u32::try_from(number).expect("sections are smaller than that");
        // Padded to five bytes, as linkers write what they fill in later.
        (0..5).map(move |at| ((number >> (7 * at)) & 0x7f) as u8 | if at < 4 { 0x80 } else { 0 })
    };
    let mut inner: Vec<u8> = leb(name.len()).collect();
    inner.write_all(name.as_bytes()).expect("it goes into memory");
    inner.write_all(content).expect("it goes into memory");
    wasm.push(0);
    wasm.extend(leb(inner.len()));
    wasm.extend(inner);
}
