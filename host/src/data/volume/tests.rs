//! Files that come and go, and what is counted of them.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::super::count::{DEPTH_MAX, TOO_DEEP, count};
use super::*;

const QUOTA: Quota = Quota { bytes_max: 10 * BLOCK_BYTES, names_max: 100 };

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

fn volume() -> Volume {
    Volume::new(&Account::of_nobody())
}

fn counted(path: &Path) -> Usage {
    let folder = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it is there");
    count(&folder).expect("it can be counted")
}

/// Makes a file, as a guest does: with what the table of its sandbox has of it.
fn make(volume: &Volume, path: &Path) -> (u64, Arc<File>) {
    volume.take(Usage::one(1), QUOTA).expect("there is room");
    let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = Arc::new(options.expect("it can be opened"));
    let key = file.metadata().expect("it is open").ino();
    volume.opened(key, Arc::clone(&file), 0);
    (key, file)
}

fn blocks_of(volume: &Volume) -> u64 {
    volume.usage().blocks
}

#[test]
fn all_that_has_a_name_is_counted_and_no_link_is_followed() {
    let folder = folder();
    let path = folder.path();
    std::fs::create_dir_all(path.join("a/b")).expect("folders can be made");
    std::fs::write(path.join("a/b/file"), vec![0; 4097]).expect("files can be made");
    std::fs::hard_link(path.join("a/b/file"), path.join("link")).expect("links can be made");
    symlink("/etc", path.join("away")).expect("links can be made");
    let sparse = File::create(path.join("sparse")).expect("files can be made");
    sparse.set_len(1 << 40).expect("it can be long");
    assert_eq!(counted(path), Usage { blocks: 2 + 2 + 2 + 1 + (1 << 28), names: 6 });
}

#[test]
fn folders_in_folders_without_end_are_more_than_anybody_may_have() {
    let folder = folder();
    let mut at =
        rustix::fs::open(folder.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it is there");
    for _ in 0..DEPTH_MAX + 1 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("folders can be made");
        at = rustix::fs::openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it is there");
    }
    assert_eq!(counted(folder.path()), TOO_DEEP);
    let volume = volume();
    volume.recount(counted(folder.path()));
    assert_eq!(volume.take(Usage::one(1), QUOTA), Err(Full::Bytes(QUOTA.bytes_max)));
}

#[test]
fn a_file_is_counted_before_it_grows_and_looked_at_when_it_is_closed() {
    let (folder, volume) = (folder(), volume());
    let (key, file) = make(&volume, &folder.path().join("a"));
    volume.reach(key, 5 * BLOCK_BYTES, QUOTA).expect("there is room");
    assert_eq!(volume.reach(key, 11 * BLOCK_BYTES, QUOTA), Err(Full::Bytes(QUOTA.bytes_max)));
    assert_eq!(volume.append(key, 5 * BLOCK_BYTES + 1, QUOTA), Err(Full::Bytes(QUOTA.bytes_max)));
    volume.append(key, 5 * BLOCK_BYTES, QUOTA).expect("it fits exactly");
    // Little of it was ever written.
    (&*file).write_all(&[0; 5000]).expect("there is a disk");
    volume.tidy();
    assert_eq!(blocks_of(&volume), 10, "a write may be under way");
    drop(file);
    volume.tidy();
    assert_eq!(volume.usage(), Usage::one(2));
    assert_eq!(volume.usage(), counted(folder.path()));
}

#[test]
fn what_is_under_way_counts_though_the_file_is_cut() {
    let (folder, volume) = (folder(), volume());
    let (key, file) = make(&volume, &folder.path().join("a"));
    volume.reach(key, 5 * BLOCK_BYTES, QUOTA).expect("there is room");
    // A stream has the file, too.
    let stream = Arc::clone(&file);
    file.set_len(0).expect("it can be cut");
    volume.settle(key);
    assert_eq!(blocks_of(&volume), 5);
    (&*stream).write_all(&vec![0; 5 * 4096]).expect("there is a disk");
    drop(stream);
    file.set_len(0).expect("it can be cut");
    volume.settle(key);
    assert_eq!(blocks_of(&volume), 1);
}

#[test]
fn a_file_without_a_name_counts_until_it_is_closed() {
    let (folder, volume) = (folder(), volume());
    let path = folder.path().join("a");
    let (key, file) = make(&volume, &path);
    volume.reach(key, 3 * BLOCK_BYTES, QUOTA).expect("there is room");
    (&*file).write_all(&vec![0; 3 * 4096]).expect("there is a disk");
    std::fs::remove_file(&path).expect("it is there");
    volume.unlinked(key, Usage::one(3));
    assert_eq!(volume.usage(), Usage { blocks: 3, names: 0 });
    volume.reach(key, 4 * BLOCK_BYTES, QUOTA).expect("there is room");
    assert_eq!(volume.reach(key, 11 * BLOCK_BYTES, QUOTA), Err(Full::Bytes(QUOTA.bytes_max)));
    // It is looked at meanwhile.
    volume.recount(counted(folder.path()));
    assert_eq!(volume.usage(), Usage { blocks: 3, names: 0 });
    drop(file);
    volume.tidy();
    assert_eq!(volume.usage(), Usage::default());
}

#[test]
fn each_name_of_a_file_counts() {
    let (folder, volume) = (folder(), volume());
    let path = folder.path().join("a");
    let (key, file) = make(&volume, &path);
    volume.reach(key, 2 * BLOCK_BYTES, QUOTA).expect("there is room");
    (&*file).write_all(&vec![0; 2 * 4096]).expect("there is a disk");
    std::fs::hard_link(&path, folder.path().join("b")).expect("links can be made");
    volume.take(Usage::one(2), QUOTA).expect("there is room");
    volume.linked(key);
    assert_eq!(volume.reach(key, 6 * BLOCK_BYTES, QUOTA), Err(Full::Bytes(QUOTA.bytes_max)));
    volume.reach(key, 5 * BLOCK_BYTES, QUOTA).expect("it fits exactly");
    std::fs::remove_file(&path).expect("it is there");
    volume.unlinked(key, Usage::one(5));
    assert_eq!(volume.usage(), Usage::one(5));
    drop(file);
    volume.tidy();
    assert_eq!(volume.usage(), counted(folder.path()));
}

#[test]
fn a_file_that_is_opened_again_and_again_keeps_no_descriptors() {
    let folder = folder();
    let (volume, path) = (volume(), folder.path().join("file"));
    let (key, _file) = make(&volume, &path);
    for _ in 0..100 {
        volume.opened(key, Arc::new(File::open(&path).expect("it is there")), 0);
    }
    assert_eq!(volume.ledger().open[&key].handles.len(), 2, "the one that is open, and the last");
}

#[test]
fn what_goes_while_it_is_counted_counts_nothing_and_ends_nothing() {
    let folder = folder();
    std::fs::write(folder.path().join("stays"), "x").expect("files can be made");
    let root = rustix::fs::open(folder.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it is there");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (path, is_over) = (folder.path().to_owned(), &is_over);
            scope.spawn(move || {
                // A file, a folder with something in it, and a file where the folder was.
                let (one, inner) = (path.join(format!("{writer}")), path.join(format!("{writer}/x")));
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::create_dir(&one).expect("folders can be made");
                    std::fs::create_dir(&inner).expect("folders can be made");
                    std::fs::remove_dir(&inner).expect("it is there");
                    std::fs::remove_dir(&one).expect("it is there");
                    std::fs::write(&one, "x").expect("files can be made");
                    std::fs::remove_file(&one).expect("it is there");
                }
            });
        }
        let counted: Vec<_> = (0..2000).map(|_| count(&root)).collect();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        for usage in counted {
            let usage = usage.expect("it can be counted whatever goes meanwhile");
            assert!((1..=5).contains(&usage.names) && usage.names == usage.blocks, "{usage:?}");
        }
    });
}
