//! Capsules on disk, for those who may read them: `wasgi capsule` and `wasgi replay`. A running host may write meanwhile.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use rustix::fs::{Mode, OFlags};

use super::record::Capsule;
use super::ring::Name;

/// In the state directory.
pub(super) const FOLDER: &str = "capsules";
pub(super) const KIND: &str = "json";
/// In that folder.
pub(super) const MODULES: &str = "modules";
pub(super) const MODULE_KIND: &str = "wasm";
/// A capsule with the largest body that may be kept, in hex, is smaller.
const BYTES_MAX: u64 = 64 << 20;
const ID_DIGITS: usize = 16;

/// All capsules, the newest first; those that cannot be read with the reason.
///
/// # Errors
/// Where the folder cannot be read: it is another user's, say.
pub fn list(state_dir: &Path) -> anyhow::Result<Vec<(String, anyhow::Result<Capsule>)>> {
    let folder = state_dir.join(FOLDER);
    let mut names = names(&folder, KIND)?;
    names.sort_unstable_by(|one, other| other.cmp(one));
    let read = |name: String| {
        let id = Name::parse(&name, KIND).map_or(String::new(), |name| name.id.to_owned());
        // One that has been pushed out since is no concern of anybody.
        match read(&folder.join(&name)) {
            Err(error)
                if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) =>
            {
                None
            }
            read => Some((id, read)),
        }
    };
    Ok(names.into_iter().filter_map(read).collect())
}

/// The capsule of a request.
///
/// # Errors
/// Where there is none, or it is damaged; says what to do.
pub fn find(state_dir: &Path, id: &str) -> anyhow::Result<Capsule> {
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ensure!(
        is_id,
        "{:?} is no request id: it has {ID_DIGITS} digits, 0 to 9 and a to f, as on the page that the client got",
        id.chars().take(40).collect::<String>()
    );
    let folder = state_dir.join(FOLDER);
    let found =
        names(&folder, KIND)?.into_iter().find(|name| Name::parse(name, KIND).is_some_and(|name| name.id == id));
    let Some(name) = found else {
        bail!(
            "there is no capsule of request {id} in {}: `wasgi capsule` lists those that there are",
            folder.display()
        );
    };
    let path = folder.join(name);
    let capsule = read(&path).with_context(|| format!("{} cannot be used", path.display()))?;
    ensure!(capsule.id == id, "{} is another request's capsule: somebody has renamed it", path.display());
    Ok(capsule)
}

/// Where the bytes of a release are kept, if they are.
pub(super) fn module(state_dir: &Path, hash: &str) -> Option<PathBuf> {
    let folder = state_dir.join(FOLDER).join(MODULES);
    let names = names(&folder, MODULE_KIND).ok()?;
    let found = names.into_iter().find(|name| Name::parse(name, MODULE_KIND).is_some_and(|name| name.id == hash))?;
    Some(folder.join(found))
}

fn names(folder: &Path, kind: &str) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(anyhow!("{} is another user's: ask as the user that wasgi runs as", folder.display()));
        }
        entries => entries.with_context(|| format!("{} cannot be read", folder.display()))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    Ok(entries.filter_map(name).filter(|text| Name::parse(text, kind).is_some()).collect())
}

fn read(path: &Path) -> anyhow::Result<Capsule> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?);
    ensure!(file.metadata()?.is_file(), "it is not a regular file");
    let mut text = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut text)?;
    ensure!(text.len() as u64 <= BYTES_MAX, "it has more than {BYTES_MAX} bytes");
    serde_json::from_slice(&text).map_err(|error| anyhow!("it is damaged, or another version's: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_no_path() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(FOLDER)).unwrap();
        fs::write(folder.path().join("secret"), "{}").unwrap();
        for id in
            ["", "..", "../secret", "/etc/passwd", "0123456789ABCDEF", "0123456789abcde", "0123456789abcde/", "\n"]
        {
            let error = find(folder.path(), id).unwrap_err().to_string();
            assert!(error.contains("is no request id"), "{error}");
        }
    }

    #[test]
    fn what_is_damaged_a_link_or_a_pipe_is_told_and_the_others_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(FOLDER);
        fs::create_dir(&place).unwrap();
        let path = |number: u32| place.join(format!("{number:013}-{number:016x}-app.json"));
        for (number, text) in [(1, ""), (2, "{\"id\": 1}"), (3, "not json")] {
            fs::write(path(number), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", path(4)).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path(5), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::create_dir(path(6)).unwrap();
        let listed = list(folder.path()).unwrap();
        assert_eq!(listed.len(), 6);
        assert!(listed.iter().all(|(_, capsule)| capsule.is_err()));
        assert_eq!(listed[0].0, format!("{:016x}", 6));
        for number in 1..=6 {
            let error = format!("{:#}", find(folder.path(), &format!("{number:016x}")).unwrap_err());
            assert!(error.contains("cannot be used") && !error.contains("root:"), "{error}");
        }
    }

    #[test]
    fn without_a_folder_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(list(folder.path()).unwrap().is_empty());
        assert!(find(folder.path(), "0123456789abcdef").unwrap_err().to_string().contains("no capsule of request"));
    }
}
