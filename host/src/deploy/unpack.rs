//! An archive → files, in a process of its own, limited as the compiler's is: `wasgi unpack`, started in the folder that it fills.
//! The archive comes in through stdin, words about a failure go out through stderr.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::Context;
use bytesize::ByteSize;

use super::child::{self, Outcome};
use super::compile::Failure;
use super::library::Index;
use super::turns::Turn;
use crate::bundle::archive::{self, Bounds};
use crate::bundle::{Refusal, Tree};
use crate::config::Confine;
use crate::confine::child::Sees;
use crate::limits::Limits;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "unpack";
/// What is known of the files, beside their root.
pub(super) const INDEX: &str = "index";
/// Names and hashes of all files are held until the end: as much as a million of the longest.
const MEMORY_BYTES: u64 = 2 << 30;
/// A file system may give a file more than it holds, and the index is a file as well.
const FILE_BYTES_MIN: u64 = 256 << 20;

/// Starts that process.
pub struct Unpacker {
    pub(super) program: PathBuf,
    pub(super) confine: Confine,
    /// Unpack in this process: a unit test's binary has no such subcommand.
    #[cfg(test)]
    pub(super) is_here: bool,
}

impl Unpacker {
    /// Unpacks into `folder`, which is empty. `boot` is kept with it.
    pub(super) async fn unpack(
        &self,
        _turn: &Turn,
        archive: &[u8],
        folder: &Path,
        boot: &str,
        limits: &Limits,
    ) -> Result<(), Failure> {
        let bounds = Bounds { bytes_max: limits.bundle_bytes, entries_max: limits.bundle_files.into() };
        #[cfg(test)]
        if self.is_here {
            return fill(folder, archive, bounds, boot).map_err(|error| refused(&format!("{error:#}")));
        }
        let file_bytes_max = bounds.bytes_max.max(FILE_BYTES_MIN);
        let numbers = [
            MEMORY_BYTES,
            child::cpu_seconds(limits.compile_time),
            file_bytes_max,
            bounds.bytes_max,
            bounds.entries_max,
            child::confine_number(self.confine),
        ];
        let mut command = child::command(&self.program);
        command.arg(SUBCOMMAND).args(numbers.map(|number| number.to_string())).arg(boot);
        command.current_dir(folder).stdout(Stdio::null());
        let words = match child::run(command, "unpacker", archive, limits.compile_time).await? {
            Outcome::Done => return Ok(()),
            Outcome::Refused(words) | Outcome::Own(_, words) => words,
            Outcome::TooSlow => {
                let time = humantime::format_duration(limits.compile_time);
                format!("unpacking takes longer than compile_time = {time}")
            }
            Outcome::FileTooLarge => format!("a file has more than {}", ByteSize::b(file_bytes_max)),
            Outcome::OutOfMemory => "unpacking takes too much memory".to_owned(),
            Outcome::Crashed(words) => format!("unpacking failed {words}"),
        };
        Err(refused(&words))
    }
}

fn refused(words: &str) -> Failure {
    Failure::Refused(Refusal::Files(words.to_owned()).to_string())
}

/// Whether an app with these limits may have what was unpacked before, for another.
pub(super) fn check(tree: &Tree, limits: &Limits) -> Result<(), Failure> {
    let entries = tree.files().len() as u64 + tree.folders();
    if entries > limits.bundle_files.into() {
        let entries_max = limits.bundle_files;
        return Err(refused(&format!("more than bundle_files = {entries_max} files and folders are in the archive")));
    }
    if tree.bytes() > limits.bundle_bytes {
        let bytes_max = ByteSize::b(limits.bundle_bytes).display().iec();
        return Err(refused(&format!("it has more than bundle_size = {bytes_max} when it is unpacked")));
    }
    Ok(())
}

fn fill(folder: &Path, archive: impl std::io::Read, bounds: Bounds, boot: &str) -> anyhow::Result<()> {
    let root = folder.join(crate::bundle::ROOT);
    fs::DirBuilder::new().mode(0o700).create(&root).context("cannot make a folder")?;
    let unpacked = archive::unpack(archive, &root, bounds)?;
    let index = Index { boot: boot.to_owned(), files: unpacked.files, folders: unpacked.folders };
    let text = serde_json::to_vec(&index).context("cannot write the index")?;
    fs::write(folder.join(INDEX), text).context("cannot write the index")
}

/// `wasgi unpack MEMORY_BYTES CPU_SECONDS FILE_BYTES BYTES ENTRIES CONFINE BOOT`, in the folder that is to be filled. For `main`, before it
/// does anything else.
pub fn unpack_child_main<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> ExitCode {
    let texts: Option<Vec<&str>> = arguments.into_iter().map(OsStr::to_str).collect();
    let (numbers, boot) = match texts.as_deref() {
        Some([numbers @ .., boot]) => (numbers.iter().map(|text| text.parse().ok()).collect(), *boot),
        _ => (None, ""),
    };
    let Some(Ok([memory_bytes, cpu_seconds, file_bytes, bytes_max, entries_max, confine])) =
        numbers.map(|numbers: Vec<u64>| <[u64; 6]>::try_from(numbers))
    else {
        return child::not_for_people();
    };
    // Before the first byte is read: what comes next may be hostile.
    let bounds = child::Bounds { memory_bytes, cpu_seconds, file_bytes, confine };
    if let Err(error) = child::limit_self(&bounds, Sees::Folder(Path::new("."))) {
        return child::fail(child::NOT_LIMITED, &format!("{error:#}"));
    }
    match fill(Path::new("."), std::io::stdin().lock(), Bounds { bytes_max, entries_max }, boot) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => child::fail(child::REFUSED, &format!("{error:#}")),
    }
}
