//! An archive (gzip, tar) ↔ files in a folder. What is unpacked is a stranger's: only regular files and folders, only names that
//! lead down, bounded in number and bytes; the first thing that is wrong refuses all of it, by its name.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, FileTimes, FileType, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::TreeEntry;

/// A name in the archive, from its root.
const PATH_BYTES_MAX: usize = 1024;
/// What file systems take.
const NAME_BYTES_MAX: usize = 255;
const DEPTH_MAX: usize = 32;
/// Nobody's files are younger: a time beyond it would not fit what HTTP writes.
const SECONDS_MAX: u64 = 4_000_000_000;

/// How much an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of the archive, uncompressed.
    pub bytes_max: u64,
    /// Files and folders.
    pub entries_max: u64,
}

/// What became of an archive.
#[derive(Debug, Default)]
pub struct Unpacked {
    pub files: Vec<TreeEntry>,
    pub folders: u64,
}

/// Unpacks into `root`, an empty folder that nobody else writes to.
///
/// # Errors
/// Names the entry and what is wrong with it. What was unpacked until then stays.
pub fn unpack(archive: impl Read, root: &Path, bounds: Bounds) -> anyhow::Result<Unpacked> {
    let reader = Bounded { inner: GzDecoder::new(archive), left: bounds.bytes_max, bytes_max: bounds.bytes_max };
    let mut archive = tar::Archive::new(reader);
    let mut unpacking = Unpacking { root, bounds, seen: HashMap::new(), unpacked: Unpacked::default() };
    for entry in archive.entries().map_err(whole)? {
        let mut entry = entry.map_err(whole)?;
        let shown = show(&entry.path_bytes());
        unpacking.take(&mut entry).with_context(|| format!("\"{shown}\""))?;
    }
    Ok(unpacking.unpacked)
}

/// What is wrong with the archive as a whole.
fn whole(error: io::Error) -> anyhow::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TooLarge>()) {
        Some(too_large) => anyhow::anyhow!("{too_large}"),
        None => anyhow::anyhow!("not a gzip-compressed tar archive: {error}"),
    }
}

struct Unpacking<'a> {
    root: &'a Path,
    bounds: Bounds,
    seen: HashMap<String, Seen>,
    unpacked: Unpacked,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    File,
    /// It has an entry of its own.
    Folder,
    /// Made for what is in it.
    Parent,
}

impl Unpacking<'_> {
    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> anyhow::Result<()> {
        let kind = entry.header().entry_type();
        let is_folder = match kind {
            EntryType::Directory => true,
            EntryType::Regular => false,
            other => bail!("{}: only regular files and folders are allowed", describe(other)),
        };
        let Some(path) = path(&entry.path_bytes())? else {
            ensure!(is_folder, "the name is empty");
            return Ok(());
        };
        self.parents(&path)?;
        if is_folder {
            return self.folder(&path, Seen::Folder);
        }
        self.count(&path, Seen::File)?;
        let modified = entry.header().mtime().context("its time cannot be read")?.min(SECONDS_MAX);
        let (bytes, sha256) = self.file(&path, entry, modified)?;
        self.unpacked.files.push(TreeEntry { path, bytes, modified, sha256 });
        Ok(())
    }

    fn file(&self, path: &str, entry: &mut tar::Entry<'_, impl Read>, modified: u64) -> anyhow::Result<(u64, String)> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(self.root.join(path))
            .context("cannot be written")?;
        let promised = entry.size();
        let mut sha256 = Sha256::new();
        let mut block = vec![0; 64 << 10];
        let mut bytes = 0;
        loop {
            let read = entry.read(&mut block).map_err(whole)?;
            if read == 0 {
                break;
            }
            sha256.update(&block[..read]);
            file.write_all(&block[..read]).context("cannot be written")?;
            bytes += read as u64;
        }
        ensure!(bytes == promised, "the archive ends in the middle of it");
        // Python compares it with what a compiled module remembers of its source.
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(modified);
        file.set_times(FileTimes::new().set_modified(modified)).context("its time cannot be set")?;
        let sha256 = sha256.finalize().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Ok((bytes, sha256))
    }

    /// The folders that a name lies in: archives need not list them.
    fn parents(&mut self, path: &str) -> anyhow::Result<()> {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            match self.seen.get(parent) {
                None => self.folder(parent, Seen::Parent)?,
                Some(Seen::File) => bail!("\"{}\" is a file", show(parent.as_bytes())),
                Some(Seen::Folder | Seen::Parent) => {}
            }
        }
        Ok(())
    }

    fn folder(&mut self, path: &str, seen: Seen) -> anyhow::Result<()> {
        if seen == Seen::Folder && self.seen.get(path) == Some(&Seen::Parent) {
            self.seen.insert(path.to_owned(), seen);
            return Ok(());
        }
        self.count(path, seen)?;
        self.unpacked.folders += 1;
        fs::DirBuilder::new().mode(0o700).create(self.root.join(path)).context("cannot be made")
    }

    fn count(&mut self, path: &str, seen: Seen) -> anyhow::Result<()> {
        let entries_max = self.bounds.entries_max;
        ensure!(
            (self.seen.len() as u64) < entries_max,
            "more than bundle_files = {entries_max} files and folders are in the archive"
        );
        ensure!(self.seen.insert(path.to_owned(), seen).is_none(), "the name is there twice");
        Ok(())
    }
}

/// A name as a path from the root of the archive; none for the root itself.
fn path(name: &[u8]) -> anyhow::Result<Option<String>> {
    let name = std::str::from_utf8(name).context("the name is not UTF-8")?;
    ensure!(!name.contains('\0'), "the name holds a NUL");
    ensure!(name.len() <= PATH_BYTES_MAX, "the name has more than {PATH_BYTES_MAX} bytes");
    ensure!(!name.starts_with('/'), "the name is absolute");
    // What `tar -C folder .` writes.
    let inner = name.strip_prefix("./").unwrap_or(name);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() || inner == "." {
        return Ok(None);
    }
    ensure!(inner.split('/').count() <= DEPTH_MAX, "more than {DEPTH_MAX} folders deep");
    for segment in inner.split('/') {
        ensure!(!matches!(segment, "" | "." | ".."), "the name has a segment \"{segment}\"");
        ensure!(segment.len() <= NAME_BYTES_MAX, "the name has a segment of more than {NAME_BYTES_MAX} bytes");
    }
    Ok(Some(inner.to_owned()))
}

fn describe(kind: EntryType) -> String {
    match kind {
        EntryType::Symlink => "a symbolic link".to_owned(),
        EntryType::Link => "a hard link".to_owned(),
        EntryType::Char | EntryType::Block => "a device".to_owned(),
        EntryType::Fifo => "a pipe".to_owned(),
        EntryType::GNUSparse => "a sparse file".to_owned(),
        EntryType::XGlobalHeader => "a global header".to_owned(),
        other => format!("an entry of type '{}'", other.as_byte().escape_ascii()),
    }
}

/// The start of a stranger's name, as one line.
fn show(name: &[u8]) -> String {
    const SHOWN: usize = 100;
    let rest = if name.len() > SHOWN { "…" } else { "" };
    format!("{}{rest}", name[..name.len().min(SHOWN)].escape_ascii())
}

/// A reader that fails where there is too much: an end would look like that of a small archive.
struct Bounded<R> {
    inner: R,
    left: u64,
    bytes_max: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("it has more than bundle_size = {} when it is unpacked", bytesize::ByteSize::b(self.0).display().iec())]
struct TooLarge(u64);

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(TooLarge(self.bytes_max))),
        }
        Ok(read)
    }
}

/// Packs files and folders by their names from here; by their last names where they lie elsewhere. Folders in the order of names
/// and without owners, so that the same files are the same bytes.
///
/// # Errors
/// Names what cannot be read, and what is neither file nor folder: a link would be something else where it is unpacked.
pub fn pack(paths: &[PathBuf]) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    for path in paths {
        let is_here = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let name = if is_here { Some(path.as_os_str()) } else { path.file_name() };
        let name = name.and_then(OsStr::to_str).map(|name| name.trim_start_matches("./").trim_end_matches('/'));
        let name = name.filter(|name| !matches!(*name, "" | "."));
        let name = name.with_context(|| format!("{} has no name of its own: name what is in it", path.display()))?;
        let kind = fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?.file_type();
        pack_one(&mut builder, path, kind, name.to_owned())?;
    }
    Ok(builder.into_inner()?.finish()?)
}

fn pack_folder(builder: &mut Builder<impl Write>, folder: &Path, prefix: &str) -> anyhow::Result<()> {
    let unreadable = || format!("{} cannot be read", folder.display());
    let mut entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_str().with_context(|| format!("{}: its name is not UTF-8", path.display()))?;
        let kind = entry.file_type().with_context(|| format!("{} cannot be read", path.display()))?;
        pack_one(builder, &path, kind, format!("{prefix}/{name}"))?;
    }
    Ok(())
}

fn pack_one(builder: &mut Builder<impl Write>, path: &Path, kind: FileType, name: String) -> anyhow::Result<()> {
    let mut header = Header::new_ustar();
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        builder.append_data(&mut header, format!("{name}/"), io::empty())?;
        return pack_folder(builder, path, &name);
    }
    ensure!(kind.is_file(), "{} is neither a file nor a folder: leave it out", path.display());
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let metadata = file.metadata()?;
    let modified = metadata.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    header.set_size(metadata.len());
    header.set_mtime(modified.as_secs());
    builder.append_data(&mut header, &name, file).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests;
