//! What lies in the apps directory, read: a file and its sidecar, whole and unchanged since they were looked at.

use std::io::{self, Read};
use std::path::Path;

use super::cache;
use super::load::{Order, Outcome};
use super::scan;
use crate::bundle::{self, Manifest};
use crate::config::ConfigError;
use crate::limits::Limits;

/// A sidecar is a page of text.
const SIDECAR_BYTES_MAX: u64 = 64 << 10;

/// A file's content, known to be what its hashes say.
pub(super) struct Content {
    pub(super) hash: String,
    /// The file without its bundle.
    pub(super) code: Vec<u8>,
    pub(super) code_hash: String,
    pub(super) manifest: Manifest,
    pub(super) archive: Option<Archive>,
}

/// The files that it carries.
pub(super) struct Archive {
    pub(super) bytes: Vec<u8>,
    pub(super) hash: String,
}

/// The text of its sidecar. One that cannot be read refuses the app: its limits might be in it.
pub(super) fn read_sidecar(order: &Order) -> Result<Option<String>, Outcome> {
    let Some(stamp) = order.candidate.sidecar else { return Ok(None) };
    let path = format!("{}.toml", order.name);
    let bytes = read(&order.config.apps_dir, &path, stamp, SIDECAR_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| Outcome::Refused(format!("{path} is not UTF-8 text")))?;
    Ok(Some(text))
}

pub(super) fn refused_sidecar(order: &Order, error: ConfigError) -> Outcome {
    Outcome::Refused(one_line(&format!("{}.toml: {error}", order.name)))
}

pub(super) fn read_wasm(order: &Order, limits: &Limits) -> Result<Content, Outcome> {
    let path = format!("{}.wasm", order.name);
    let mut code = read(&order.config.apps_dir, &path, order.candidate.wasm, limits.module_bytes)?;
    let hash = cache::hash_bytes(&code);
    let refused = |refusal: bundle::Refusal| Outcome::Refused(refusal.to_string());
    let sections = bundle::Sections::find(&code).map_err(refused)?;
    let manifest = sections.manifest(&code).map_err(refused)?;
    let archive =
        sections.files(&code).map(|archive| Archive { bytes: archive.to_owned(), hash: cache::hash_bytes(archive) });
    let code_hash = match sections.strip(&mut code) {
        true => cache::hash_bytes(&code),
        false => hash.clone(),
    };
    Ok(Content { hash, code, code_hash, manifest, archive })
}

/// Reads a whole file that should be in the state that was seen. Its size is judged before anything is read.
fn read(apps_dir: &Path, path: &str, seen: scan::Stamp, bytes_max: u64) -> Result<Vec<u8>, Outcome> {
    if seen.bytes > bytes_max {
        let (size, limit) = (bytesize::ByteSize::b(seen.bytes), bytesize::ByteSize::b(bytes_max));
        return Err(Outcome::Refused(format!("{path} has {size}, the limit is {limit}")));
    }
    let read = || -> io::Result<Option<Vec<u8>>> {
        let (file, stamp) = scan::open(apps_dir, path)?;
        if stamp != seen {
            return Ok(None);
        }
        // The sizes fit: they were compared with the limit, and a limit beyond the address space reads nothing extra.
        let mut bytes = Vec::with_capacity(usize::try_from(seen.bytes).unwrap_or(0));
        // One more than expected, to notice growth without reading all of it.
        (&file).take(seen.bytes + 1).read_to_end(&mut bytes)?;
        let still = scan::stamp(&file)? == seen && bytes.len() as u64 == seen.bytes;
        Ok(still.then_some(bytes))
    };
    match read() {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(Outcome::Moved),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Outcome::Moved),
        // A change of mode is a change that is noticed.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Outcome::Refused(format!("{path} cannot be read by wasgi: chmod it ({error})")))
        }
        Err(error) => Err(Outcome::Passing(format!("{path} cannot be read: {error}"))),
    }
}

/// Messages about TOML point at the place in several lines; a log line is one.
fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / ")
}
