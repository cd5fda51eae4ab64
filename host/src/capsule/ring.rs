//! Files in a folder, bounded in number and size: where there are too many, the oldest goes of whoever has the most. An app that
//! crashes all day so pushes out its own, never another's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::NamedTempFile;

use crate::config::tenant_name;

/// A file that was being written when the host died.
const TEMP_PREFIX: &str = "tmp-";
/// Of an app's name, in a file's: a path in the apps directory may be longer than a file's name.
const APP_BYTES_MAX: usize = 128;
/// Stands in a file's name for the `/` in an app's; no app's name has it.
const SLASH: &str = "+";

/// A folder of files named `<when>-<id>-<app>.<kind>`, with milliseconds since 1970: all that is needed to choose which goes.
pub(super) struct Ring {
    folder: PathBuf,
    kind: &'static str,
    /// By app, oldest first.
    files: BTreeMap<String, VecDeque<Kept>>,
    /// All that is there, by id.
    ids: HashSet<String>,
    count: u64,
    bytes: u64,
}

struct Kept {
    name: String,
    id: String,
    bytes: u64,
}

/// How much there may be.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

/// What a file's name says.
pub(super) struct Name<'n> {
    pub(super) id: &'n str,
    /// With [`SLASH`] where it has a slash.
    pub(super) app: &'n str,
}

impl<'n> Name<'n> {
    pub(super) fn parse(name: &'n str, kind: &str) -> Option<Self> {
        let (when, rest) = name.strip_suffix(kind)?.strip_suffix('.')?.split_once('-')?;
        let (id, app) = rest.split_once('-')?;
        let is_id = !id.is_empty() && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_time = when.bytes().all(|byte| byte.is_ascii_digit());
        (is_id && is_time).then_some(Self { id, app })
    }
}

impl Ring {
    /// Takes over what is there, making the folder where it is missing: for the host's user alone.
    pub(super) fn open(folder: &Path, kind: &'static str) -> io::Result<Self> {
        make(folder)?;
        let mut ring =
            Self { folder: folder.to_owned(), kind, files: BTreeMap::new(), ids: HashSet::new(), count: 0, bytes: 0 };
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            if name.starts_with(TEMP_PREFIX) {
                let _ = fs::remove_file(entry.path());
            } else if metadata.is_file() {
                names.push((name, metadata.len()));
            }
        }
        // Their names begin with the time.
        names.sort();
        for (name, bytes) in names {
            let Some(Name { id, app, .. }) = Name::parse(&name, kind) else { continue };
            let (id, app) = (id.to_owned(), app.to_owned());
            ring.enter(app, Kept { name, id, bytes });
        }
        Ok(ring)
    }

    /// Whether there is a file with this id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Writes a file, whole or not at all, and makes room for it: `write` is given the file. It does nothing where the file alone is
    /// more than `bounds`.
    pub(super) fn put(
        &mut self,
        id: &str,
        app: &str,
        bounds: Bounds,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = match self.temp() {
            // Somebody has tidied up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&self.folder)?;
                self.temp()?
            }
            file => file?,
        };
        write(&mut file)?;
        let bytes = file.as_file().metadata()?.len();
        if bytes > bounds.bytes || bounds.count == 0 {
            return Ok(());
        }
        let mut app = app.replace('/', SLASH);
        app.truncate(APP_BYTES_MAX);
        self.make_room(&app, bytes, bounds);
        let when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let name = format!("{when:013}-{id}-{app}.{}", self.kind);
        file.persist(self.folder.join(&name)).map_err(|error| error.error)?;
        self.enter(app, Kept { name, id: id.to_owned(), bytes });
        Ok(())
    }

    /// Removes files until there is room for another of this app's, which counts already.
    fn make_room(&mut self, app: &str, bytes: u64, bounds: Bounds) {
        while self.count + 1 > bounds.count || self.bytes + bytes > bounds.bytes {
            let by_count = self.count + 1 > bounds.count;
            let weight = |of: &str, files: &VecDeque<Kept>| {
                let (own, own_bytes) = if of == app { (1, bytes) } else { (0, 0) };
                match by_count {
                    true => files.len() as u64 + own,
                    false => files.iter().map(|file| file.bytes).sum::<u64>() + own_bytes,
                }
            };
            let Some(app) = heaviest(&self.files, weight) else { return };
            self.remove_oldest(&app);
        }
    }

    fn remove_oldest(&mut self, app: &str) {
        let Some(files) = self.files.get_mut(app) else { return };
        if let Some(file) = files.pop_front() {
            // It may be gone already, which is what was wanted.
            let _ = fs::remove_file(self.folder.join(&file.name));
            self.ids.remove(&file.id);
            self.count -= 1;
            self.bytes -= file.bytes;
        }
        if files.is_empty() {
            self.files.remove(app);
        }
    }

    fn enter(&mut self, app: String, file: Kept) {
        self.count += 1;
        self.bytes += file.bytes;
        self.ids.insert(file.id.clone());
        self.files.entry(app).or_default().push_back(file);
    }

    fn temp(&self) -> io::Result<NamedTempFile> {
        // With mode 0600.
        tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(&self.folder)
    }
}

/// The app that has the most, of the tenant that has the most; of several the one with the oldest.
fn heaviest(files: &BTreeMap<String, VecDeque<Kept>>, weight: impl Fn(&str, &VecDeque<Kept>) -> u64) -> Option<String> {
    let mut tenants = BTreeMap::<String, u64>::new();
    for (app, files) in files {
        *tenants.entry(tenant_of(app)).or_default() += weight(app, files);
    }
    let key = |(app, files): &(&String, &VecDeque<Kept>)| {
        let oldest = files.front().map(|file| file.name.clone());
        (tenants.get(&tenant_of(app)).copied(), weight(app, files), Reverse(oldest))
    };
    files.iter().max_by_key(key).map(|(app, _)| app.clone())
}

fn tenant_of(app: &str) -> String {
    tenant_name(&app.replace(SLASH, "/")).to_owned()
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ALL: Bounds = Bounds { count: 100, bytes: 1 << 20 };

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| Name::parse(&name, "json").map(|name| format!("{} {}", name.app, name.id)))
            .collect();
        names.sort();
        names
    }

    fn put(ring: &mut Ring, number: u32, app: &str, bounds: Bounds) {
        ring.put(&format!("{number:016x}"), app, bounds, |file| file.write_all(&[b'x'; 100])).unwrap();
    }

    #[test]
    fn who_has_the_most_loses_its_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(folder.path(), "json").unwrap();
        let bounds = Bounds { count: 4, ..ALL };
        put(&mut ring, 1, "acme/shop", bounds);
        put(&mut ring, 2, "quiet", bounds);
        for number in 3..50 {
            put(&mut ring, number, if number % 2 == 0 { "acme/loud" } else { "acme/louder" }, bounds);
        }
        let left = names(folder.path());
        assert_eq!(left.len(), 4);
        assert!(left.contains(&format!("quiet {:016x}", 2)), "{left:?}");
        assert!(left.contains(&format!("acme+shop {:016x}", 1)), "{left:?}");
        assert!(left.contains(&format!("acme+louder {:016x}", 49)), "{left:?}");
    }

    #[test]
    fn bytes_are_bounded_and_a_restart_counts_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds { bytes: 350, ..ALL };
        let mut ring = Ring::open(folder.path(), "json").unwrap();
        (0..3).for_each(|number| put(&mut ring, number, "a", bounds));
        fs::write(folder.path().join("tmp-left"), "x").unwrap();
        fs::write(folder.path().join("a stranger's"), "x").unwrap();
        let mut ring = Ring::open(folder.path(), "json").unwrap();
        assert!(!folder.path().join("tmp-left").exists());
        assert!(ring.has(&format!("{:016x}", 0)));
        put(&mut ring, 9, "b", bounds);
        let expected = [format!("a {:016x}", 1), format!("a {:016x}", 2), format!("b {:016x}", 9)];
        assert_eq!(names(folder.path()), expected);
        // What alone is too large changes nothing.
        ring.put("ff", "b", bounds, |file| file.write_all(&[0; 400])).unwrap();
        assert_eq!(names(folder.path()), expected);
        assert!(folder.path().join("a stranger's").exists());
    }

    #[test]
    fn nobody_else_can_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("capsules");
        put(&mut Ring::open(&place, "json").unwrap(), 1, "a", ALL);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&place), 0o700);
        let file = fs::read_dir(&place).unwrap().next().unwrap().unwrap().path();
        assert_eq!(mode(&file), 0o600);
    }

    #[test]
    fn a_folder_that_is_gone_is_made_again_and_one_that_cannot_be_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("capsules");
        let mut ring = Ring::open(&place, "json").unwrap();
        fs::remove_dir(&place).unwrap();
        put(&mut ring, 1, "a", ALL);
        assert_eq!(names(&place).len(), 1);
        fs::remove_dir_all(&place).unwrap();
        // Not even root can make a folder where a file is.
        fs::write(&place, "").unwrap();
        assert!(ring.put("2", "a", ALL, |file| file.write_all(b"x")).is_err());
        fs::remove_file(&place).unwrap();
        put(&mut ring, 3, "a", ALL);
        assert_eq!(names(&place).len(), 1);
    }

    #[test]
    fn what_cannot_be_written_whole_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(folder.path(), "json").unwrap();
        let full = |file: &mut dyn Write| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        assert!(ring.put("1", "a", ALL, full).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(!ring.has("1"));
    }
}
