//! The apps directory → a list of what is in it, by name. It looks at names and metadata only: no file is opened here but
//! directories, and nothing outside the apps directory is ever looked at, since no symbolic link is followed.
//!
//! What counts:
//!
//! | in the directory | outcome |
//! | --- | --- |
//! | `hello.wasm`, `shop/cart.wasm` | an app: `hello`, `shop/cart` |
//! | `hello.toml` beside `hello.wasm` | its sidecar |
//! | a name that starts with a dot (also of a folder), or that doesn't end in `.wasm` (`x.wasm~`, `x.wasm.part`) | ignored |
//! | a name with other characters than A–Z a–z 0–9 `-` `.` `_` `~` | refused: it would have to be encoded in a URL |
//! | a symbolic link, folder, pipe, socket or device that is called `x.wasm` (or is the sidecar of an app) | refused |
//! | a symbolic link that is called anything else | ignored |
//! | folders nested deeper than [`DEPTH_MAX`] | refused |
//! | a folder at the top that holds more than [`ENTRIES_MAX`] | left unread as a whole: the tenant's own business, and nobody else's |

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

/// Folders within each other, the file's name included.
pub const DEPTH_MAX: usize = 8;
/// What one tenant's folder holds, with all folders in it: entries of whatever kind. More would make every look long, for all tenants,
/// and so many apps take much of the host's memory.
const ENTRIES_MAX: usize = 20_000;
/// What lies at the top of the apps directory, where only the operator puts something. Beyond it the directory is not what was meant.
const TOP_ENTRIES_MAX: usize = 200_000;

/// What the apps directory holds at one moment.
#[derive(Debug, Default)]
pub struct Scan {
    /// The files that may be apps, by app name.
    pub candidates: BTreeMap<String, Candidate>,
    /// What can never be an app as it is, with the reason; by app name, or by path if there is no such name.
    pub refused: BTreeMap<String, String>,
    /// Folders that could not be read (`shop/`): nothing is known of the apps in them.
    pub unread: BTreeSet<String>,
}

impl Scan {
    /// Whether nothing is known of an app, since a folder that it is in could not be read.
    pub fn is_unread(&self, name: &str) -> bool {
        name.match_indices('/').any(|(slash, _)| self.unread.contains(&name[..=slash]))
    }
}

/// A file that may be an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub wasm: Stamp,
    pub sidecar: Option<Stamp>,
}

/// Which file it is, and in which state. Unequal stamps mean that it may hold something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub bytes: u64,
    /// The last change to content, name or metadata. Unlike the modification time nobody can set it.
    pub changed: SystemTime,
    pub modified: SystemTime,
    device: u64,
    inode: u64,
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// A time before 1970 becomes 1970: only order and change matter here.
fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(nanoseconds)
}

/// Reads the directory, with its folders.
///
/// # Errors
/// Where the directory itself cannot be read, or holds too much at its top. A folder in it that cannot be read, or holds too much, is no
/// error but [`Scan::unread`].
pub fn scan(apps_dir: &Path) -> io::Result<Scan> {
    let root = rustix::fs::open(apps_dir, DIRECTORY, Mode::empty())?;
    let mut walk = Walk { scan: Scan::default(), sidecars: BTreeMap::new(), entries: 0 };
    walk.top(&root)?;
    let Walk { mut scan, sidecars, .. } = walk;
    for (name, sidecar) in sidecars {
        match (scan.candidates.get_mut(&name), sidecar) {
            // Without its app a `.toml` is not ours.
            (None, _) => {}
            (Some(candidate), Ok(stamp)) => candidate.sidecar = Some(stamp),
            (Some(_), Err(reason)) => {
                scan.candidates.remove(&name);
                scan.refused.insert(name, reason);
            }
        }
    }
    Ok(scan)
}

/// Opens an app's file or sidecar for reading, `path` being relative to the apps directory (`shop/cart.wasm`).
///
/// # Errors
/// If it is not a regular file (any more), or any part of the path is a symbolic link.
pub fn open(apps_dir: &Path, path: &str) -> io::Result<(File, Stamp)> {
    let mut folder: OwnedFd = rustix::fs::open(apps_dir, DIRECTORY, Mode::empty())?;
    let mut segments = path.split('/');
    let name = segments.next_back().unwrap_or_default();
    for segment in segments {
        folder = rustix::fs::openat(&folder, segment, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    }
    // NONBLOCK, since the file may have become a pipe since it was listed: opening one waits for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a regular file any more"));
    }
    Ok((File::from(file), Stamp::of(&stat)))
}

/// The state of an open file now.
///
/// # Errors
/// As the kernel reports them.
pub fn stamp(file: &File) -> io::Result<Stamp> {
    Ok(Stamp::of(&rustix::fs::fstat(file)?))
}

/// Which directory it is, to notice when it was replaced by another; none if there is none.
pub fn identity(apps_dir: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::stat(apps_dir).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

struct Walk {
    scan: Scan,
    /// By app name, found before or after the app itself.
    sidecars: BTreeMap<String, Result<Stamp, String>>,
    /// At the top, or in the folder at the top that is being read.
    entries: usize,
}

impl Walk {
    /// Reads the apps directory.
    fn top(&mut self, folder: &OwnedFd) -> io::Result<()> {
        for (count, entry) in Dir::read_from(folder)?.enumerate() {
            if count > TOP_ENTRIES_MAX {
                return Err(io::Error::other(format!("it holds more than {TOP_ENTRIES_MAX} files and folders")));
            }
            self.entry(folder.as_fd(), "", entry?.file_name(), 1);
        }
        Ok(())
    }

    /// Reads a folder in it; `path` ends with a slash. It ends early where there is too much.
    fn folder(&mut self, folder: &OwnedFd, path: &str, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Ok(());
            }
            self.entry(folder.as_fd(), path, entry.file_name(), depth);
        }
        Ok(())
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, path: &str, raw_name: &CStr, depth: usize) {
        let raw = raw_name.to_bytes();
        // Hidden, "." and "..".
        if raw.starts_with(b".") {
            return;
        }
        // Gone since the folder was listed, or not ours to look at: as if it weren't there.
        let Ok(stat) = rustix::fs::statat(folder, raw_name, AtFlags::SYMLINK_NOFOLLOW) else {
            return;
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let extension = Path::new(OsStr::from_bytes(raw)).extension().map(OsStr::as_bytes);
        let is_folder = file_type == FileType::Directory && extension != Some(b"wasm");
        if !is_folder && !matches!(extension, Some(b"wasm" | b"toml")) {
            return;
        }
        let Some(name) = valid_name(raw) else {
            if is_folder || extension == Some(b"wasm") {
                let place = format!("{path}{}", raw.escape_ascii());
                let reason =
                    "its name may only have the characters A-Z a-z 0-9 - . _ ~, since it is part of the URL: rename it";
                self.scan.refused.insert(place, reason.to_owned());
            }
            return;
        };
        let place = format!("{path}{name}");
        if is_folder {
            return self.subfolder(folder, raw_name, &place, depth);
        }
        let found = match what(file_type) {
            None => Ok(Stamp::of(&stat)),
            Some(what) => {
                Err(format!("{place} is {what}, which is never followed or opened: put a regular file there"))
            }
        };
        match place.strip_suffix(".toml") {
            Some(app) => {
                self.sidecars.insert(app.to_owned(), found);
            }
            None => {
                let app = place.strip_suffix(".wasm").unwrap_or(&place).to_owned();
                match found {
                    Ok(wasm) => _ = self.scan.candidates.insert(app, Candidate { wasm, sidecar: None }),
                    Err(reason) => _ = self.scan.refused.insert(app, reason),
                }
            }
        }
    }

    fn subfolder(&mut self, folder: BorrowedFd<'_>, raw_name: &CStr, place: &str, depth: usize) {
        if depth == DEPTH_MAX {
            let reason = format!("folders nested deeper than {DEPTH_MAX} are not read: move it up");
            self.scan.refused.insert(format!("{place}/"), reason);
            return;
        }
        let path = format!("{place}/");
        if depth == 1 {
            self.entries = 0;
        }
        let read = rustix::fs::openat(folder, raw_name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|subfolder| self.folder(&subfolder, &path, depth + 1));
        match read {
            Ok(()) if depth == 1 && self.entries > ENTRIES_MAX => {
                let reason = format!(
                    "it holds more than {ENTRIES_MAX} files and folders, so that it is not read: what is live stays as it is; \
                     remove what is no app"
                );
                self.leave_unread(path, reason);
            }
            Ok(()) => {}
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.leave_unread(path, format!("the folder cannot be read: {error}")),
        }
    }

    /// Nothing is known of a folder, whatever was found in it before.
    fn leave_unread(&mut self, path: String, reason: String) {
        forget_within(&mut self.scan.candidates, &path);
        forget_within(&mut self.scan.refused, &path);
        forget_within(&mut self.sidecars, &path);
        self.scan.refused.insert(path.clone(), reason);
        self.scan.unread.insert(path);
    }
}

/// Removes what lies in a folder. Looks at nothing else: one tenant may have thousands that cannot be read, and others
/// thousands of apps.
fn forget_within<T>(names: &mut BTreeMap<String, T>, folder: &str) {
    let within = names.range(folder.to_owned()..).map(|(name, _)| name).take_while(|name| name.starts_with(folder));
    let within: Vec<_> = within.cloned().collect();
    for name in within {
        names.remove(&name);
    }
}

/// What to call something that is not a regular file.
fn what(file_type: FileType) -> Option<&'static str> {
    match file_type {
        FileType::RegularFile => None,
        FileType::Symlink => Some("a symbolic link"),
        FileType::Directory => Some("a folder"),
        FileType::Fifo => Some("a pipe"),
        FileType::Socket => Some("a socket"),
        _ => Some("a device"),
    }
}

/// The name as text if it can stand in a URL as it is: RFC 3986's unreserved characters.
fn valid_name(raw: &[u8]) -> Option<&str> {
    let stem = raw.strip_suffix(b".wasm").or_else(|| raw.strip_suffix(b".toml")).unwrap_or(raw);
    let unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    if stem.is_empty() || !stem.iter().all(unreserved) {
        return None;
    }
    std::str::from_utf8(raw).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory can be made")
    }

    fn put(directory: &tempfile::TempDir, path: impl AsRef<Path>) {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it is in the directory")).expect("folders can be made");
        std::fs::write(path, "x").expect("files can be written");
    }

    fn names(scan: &Scan) -> (Vec<&str>, Vec<&str>) {
        (scan.candidates.keys().map(String::as_str).collect(), scan.refused.keys().map(String::as_str).collect())
    }

    #[test]
    fn files_become_names() {
        let directory = directory();
        for path in ["hello.wasm", "index.wasm", "shop/cart.wasm", "shop/index.wasm", "a/b/c.wasm", "v1.2~x_y-z.wasm"] {
            put(&directory, path);
        }
        let scan = scan(directory.path()).expect("it can be read");
        let expected = ["a/b/c", "hello", "index", "shop/cart", "shop/index", "v1.2~x_y-z"];
        assert_eq!(names(&scan), (expected.to_vec(), vec![]));
    }

    #[test]
    fn hidden_temporary_and_other_files_are_ignored() {
        let directory = directory();
        for path in [
            ".x.wasm",
            ".wasm",
            ".hidden/x.wasm",
            "x.wasm~",
            "x.wasm.tmp",
            "#x.wasm#",
            "x.wasm.part",
            "x.wasm.swp",
            "x.WASM",
            "README.md",
            "alone.toml",
            "wasm",
            ".#x.wasm",
        ] {
            put(&directory, path);
        }
        assert_eq!(names(&scan(directory.path()).expect("it can be read")), (vec![], vec![]));
    }

    #[test]
    fn names_that_a_url_would_have_to_encode_are_refused() {
        let directory = directory();
        for name in
            ["two words.wasm", "per%2fcent.wasm", "caf\u{e9}.wasm", "new\nline.wasm", "folder with space/x.wasm"]
        {
            put(&directory, name);
        }
        put(&directory, std::ffi::OsString::from_vec(b"\xff\xfe.wasm".to_vec()));
        put(&directory, "..x.wasm");
        put(&directory, "a..b.wasm");
        let scan = scan(directory.path()).expect("it can be read");
        let refused = [
            "\\xff\\xfe.wasm",
            "caf\\xc3\\xa9.wasm",
            "folder with space",
            "new\\nline.wasm",
            "per%2fcent.wasm",
            "two words.wasm",
        ];
        assert_eq!(names(&scan), (vec!["a..b"], refused.to_vec()));
    }

    #[test]
    fn only_regular_files_are_taken_and_no_link_is_followed() {
        let outside = directory();
        put(&outside, "secret.wasm");
        let directory = directory();
        let path = directory.path();
        symlink(outside.path().join("secret.wasm"), path.join("link.wasm")).expect("links can be made");
        symlink(outside.path(), path.join("linked")).expect("links can be made");
        symlink(path, path.join("loop")).expect("links can be made");
        std::fs::create_dir(path.join("folder.wasm")).expect("folders can be made");
        put(&directory, "folder.wasm/inner.wasm");
        rustix::fs::mknodat(rustix::fs::CWD, path.join("pipe.wasm"), FileType::Fifo, Mode::RUSR, 0)
            .expect("pipes can be made");
        put(&directory, "app.wasm");
        symlink("/etc/passwd", path.join("app.toml")).expect("links can be made");
        let scan = scan(path).expect("it can be read");
        assert_eq!(names(&scan), (vec![], vec!["app", "folder", "link", "pipe"]));
        assert!(scan.refused["app"].contains("app.toml is a symbolic link"), "{:?}", scan.refused);
        assert!(scan.refused["pipe"].contains("is a pipe"), "{:?}", scan.refused);
    }

    #[test]
    fn opening_never_follows_a_link_and_never_waits_for_a_pipe() {
        let outside = directory();
        put(&outside, "secret.wasm");
        let directory = directory();
        let path = directory.path();
        put(&directory, "shop/cart.wasm");
        symlink(outside.path().join("secret.wasm"), path.join("link.wasm")).expect("links can be made");
        symlink(outside.path(), path.join("linked")).expect("links can be made");
        rustix::fs::mknodat(rustix::fs::CWD, path.join("pipe.wasm"), FileType::Fifo, Mode::RUSR, 0)
            .expect("pipes can be made");
        assert!(open(path, "shop/cart.wasm").is_ok());
        for name in ["link.wasm", "linked/secret.wasm", "pipe.wasm", "shop", "missing.wasm"] {
            assert!(open(path, name).is_err(), "{name}");
        }
    }

    #[test]
    fn deep_folders_are_refused_and_unreadable_ones_say_nothing_of_their_apps() {
        let directory = directory();
        put(&directory, "1/2/3/4/5/6/7/ok.wasm");
        put(&directory, "1/2/3/4/5/6/7/8/deep.wasm");
        put(&directory, "locked/x.wasm");
        let locked = directory.path().join("locked");
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).expect("modes can be set");
        let scan = scan(directory.path()).expect("it can be read");
        // Root reads everything.
        let is_root = rustix::process::geteuid().is_root();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o700)).expect("modes can be set");
        assert_eq!(scan.unread.is_empty(), is_root);
        assert!(scan.candidates.contains_key("1/2/3/4/5/6/7/ok"));
        assert!(scan.refused["1/2/3/4/5/6/7/8/"].contains("deeper"));
    }

    #[test]
    fn a_folder_that_holds_too_much_is_unread_alone_wherever_in_it_that_lies() {
        let directory = directory();
        for path in ["a/x.wasm", "a/x.toml", "a/0/y.wasm", "b/x.wasm", "c.wasm", "z/x.wasm"] {
            put(&directory, path);
        }
        let names_of = |scan: &Scan| scan.candidates.keys().cloned().collect::<Vec<_>>();
        let full = directory.path().join("a/0/1");
        std::fs::create_dir_all(&full).expect("folders can be made");
        // Five are there: three files and two folders.
        for number in 5..ENTRIES_MAX {
            std::fs::write(full.join(number.to_string()), "").expect("files can be written");
        }
        let whole = scan(directory.path()).expect("it can be read");
        assert_eq!(names_of(&whole), ["a/0/y", "a/x", "b/x", "c", "z/x"]);
        std::fs::write(full.join("more"), "").expect("files can be written");
        let scan = scan(directory.path()).expect("it can be read");
        assert_eq!((names_of(&scan).join(" ").as_str(), &scan.unread), ("b/x c z/x", &["a/".to_owned()].into()));
        assert!(scan.refused["a/"].contains("more than 20000"), "{:?}", scan.refused);
    }

    #[test]
    fn folders_that_cannot_be_read_cost_a_look_at_what_is_in_them() {
        const MANY: usize = 20_000;
        let mut walk = Walk { scan: Scan::default(), sidecars: BTreeMap::new(), entries: 0 };
        let stat = rustix::fs::stat(".").expect("it is there");
        let candidate = Candidate { wasm: Stamp::of(&stat), sidecar: None };
        for number in 0..MANY {
            walk.scan.candidates.insert(format!("b/{number}"), candidate);
            walk.scan.candidates.insert(format!("a/{number}/x"), candidate);
        }
        let began = std::time::Instant::now();
        for number in 0..MANY {
            walk.leave_unread(format!("a/{number}/"), "locked".to_owned());
        }
        let Scan { candidates, refused, .. } = &walk.scan;
        assert_eq!((candidates.len(), refused.len()), (MANY, MANY));
        assert!(candidates.keys().all(|name| name.starts_with("b/") && !walk.scan.is_unread(name)));
        let is_hidden = |name: &str| walk.scan.is_unread(name);
        assert!(
            is_hidden("a/7/x")
                && is_hidden("a/7/y/z")
                && is_hidden("a/7/")
                && !is_hidden("a/7")
                && !is_hidden("a/x/7/")
        );
        // Were each of them a look at all, it would be hundreds of millions.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[test]
    fn a_sidecar_belongs_to_the_app_beside_it() {
        let directory = directory();
        for path in ["a.wasm", "a.toml", "b.wasm", "shop/a.toml"] {
            put(&directory, path);
        }
        let scan = scan(directory.path()).expect("it can be read");
        let sidecars: Vec<_> =
            scan.candidates.iter().map(|(name, found)| (name.as_str(), found.sidecar.is_some())).collect();
        assert_eq!(sidecars, [("a", true), ("b", false)]);
    }
}
