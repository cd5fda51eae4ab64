//! What archives may hold, and each thing that they may not.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const BOUNDS: Bounds = Bounds { bytes_max: 1 << 20, entries_max: 100 };

/// An archive as `fill` makes it.
fn archive(fill: impl FnOnce(&mut Builder<GzEncoder<Vec<u8>>>)) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    fill(&mut builder);
    builder.into_inner().and_then(GzEncoder::finish).expect("it goes into memory")
}

/// An entry whose name is written as it is: the crate's own functions would refuse most of what is tried here.
fn entry(builder: &mut Builder<impl Write>, kind: EntryType, name: &[u8], content: &[u8]) {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mtime(1_000_000_000);
    header.set_cksum();
    builder.append(&header, content).expect("it goes into memory");
}

fn file(builder: &mut Builder<impl Write>, name: &str, content: &str) {
    entry(builder, EntryType::Regular, name.as_bytes(), content.as_bytes());
}

fn unpacked(archive: &[u8]) -> (tempfile::TempDir, anyhow::Result<Unpacked>) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let unpacked = unpack(archive, folder.path(), BOUNDS);
    (folder, unpacked)
}

#[track_caller]
fn refused(archive: &[u8], words: &str) {
    let error = format!("{:#}", unpacked(archive).1.expect_err("it should be refused"));
    assert!(error.contains(words), "{error}, not {words}");
}

#[test]
fn files_are_what_they_were_and_for_the_owner_alone() {
    let bytes = archive(|builder| {
        file(builder, "a/b/deep.txt", "deep");
        entry(builder, EntryType::Directory, b"a/b/", b"");
        file(builder, "./top.txt", "");
        entry(builder, EntryType::Directory, b"empty/", b"");
        entry(builder, EntryType::Directory, b"./", b"");
        // Longer than a header has room for.
        let mut header = Header::new_gnu();
        header.set_size(4);
        header.set_entry_type(EntryType::Regular);
        builder.append_data(&mut header, "x".repeat(200), &b"long"[..]).expect("it goes into memory");
    });
    let (folder, unpacked) = unpacked(&bytes);
    let unpacked = unpacked.expect("nothing is wrong with it");
    let paths: Vec<_> = unpacked.files.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
    assert_eq!(paths, [("a/b/deep.txt", 4), ("top.txt", 0), ("x".repeat(200).as_str(), 4)]);
    assert_eq!(unpacked.folders, 3);
    let deep = folder.path().join("a/b/deep.txt");
    assert_eq!(fs::read(&deep).expect("it is there"), b"deep");
    let metadata = fs::metadata(&deep).expect("it is there");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o400);
    let modified = metadata.modified().expect("there are times");
    assert_eq!(modified, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    assert_eq!(unpacked.files[0].modified, 1_000_000_000);
    assert_eq!(unpacked.files[0].sha256, crate::deploy::cache::hash_bytes(b"deep"));
    let mode = fs::metadata(folder.path().join("a")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn names_that_do_not_lead_down_are_refused() {
    for (name, words) in [
        (&b"../x"[..], "segment \"..\""),
        (b"a/../../x", "segment \"..\""),
        (b"a/./x", "segment \".\""),
        (b"a//x", "segment \"\""),
        (b"/etc/passwd", "the name is absolute"),
        (b".//etc/passwd", "segment \"\""),
        (b"..", "segment \"..\""),
        (b"", "the name is empty"),
        (b"./", "the name is empty"),
        (b"\xff\xfe", "the name is not UTF-8"),
    ] {
        refused(&archive(|builder| entry(builder, EntryType::Regular, name, b"x")), words);
    }
    let deep = "d/".repeat(33);
    refused(&archive(|builder| entry(builder, EntryType::Directory, deep.as_bytes(), b"")), "folders deep");
}

/// What a pax header says of the name goes before what the header says.
#[test]
fn long_names_are_judged_as_short_ones() {
    let pax = |path: &[u8], words: &str| {
        let bytes = archive(|builder| {
            let mut record = b" path=".to_vec();
            record.extend_from_slice(path);
            record.push(b'\n');
            let digits = (1..).find(|digits| (record.len() + digits).to_string().len() == *digits).unwrap_or(1);
            let mut framed = (record.len() + digits).to_string().into_bytes();
            framed.extend_from_slice(&record);
            entry(builder, EntryType::XHeader, b"pax", &framed);
            file(builder, "harmless", "x");
        });
        refused(&bytes, words);
    };
    pax(b"../x", "segment \"..\"");
    pax(b"a\0b", "the name holds a NUL");
    pax("n".repeat(1025).as_bytes(), "more than 1024 bytes");
    pax("n".repeat(256).as_bytes(), "a segment of more than 255 bytes");
}

#[test]
fn whatever_is_neither_file_nor_folder_is_refused() {
    for (kind, words) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a pipe"),
        (EntryType::Continuous, "type '7'"),
        (EntryType::XGlobalHeader, "a global header"),
        (EntryType::new(b'S'), "sparse"),
        (EntryType::new(b'!'), "type '!'"),
    ] {
        refused(&archive(|builder| entry(builder, kind, b"odd", b"")), words);
    }
}

#[test]
fn a_name_is_there_once() {
    refused(
        &archive(|builder| {
            file(builder, "a", "1");
            file(builder, "./a", "2");
        }),
        "\"./a\": the name is there twice",
    );
    refused(
        &archive(|builder| {
            file(builder, "a", "1");
            file(builder, "a/b", "2");
        }),
        "\"a\" is a file",
    );
    refused(
        &archive(|builder| {
            file(builder, "a/b", "1");
            file(builder, "a", "2");
        }),
        "twice",
    );
    refused(
        &archive(|builder| {
            entry(builder, EntryType::Directory, b"a/", b"");
            entry(builder, EntryType::Directory, b"a/", b"");
        }),
        "twice",
    );
}

#[test]
fn bytes_and_entries_are_bounded() {
    let zeros = archive(|builder| {
        let mut header = Header::new_gnu();
        header.set_size(2 << 20);
        builder.append_data(&mut header, "zeros", io::repeat(0).take(2 << 20)).expect("it goes into memory");
    });
    assert!(zeros.len() < 20_000);
    refused(&zeros, "more than bundle_size = 1.0 MiB");
    // Those that a parser would hold in memory.
    refused(&archive(|builder| entry(builder, EntryType::GNULongName, b"l", &vec![b'n'; 2 << 20])), "bundle_size");
    refused(
        &archive(|builder| (0..101).for_each(|number| file(builder, &number.to_string(), ""))),
        "more than bundle_files = 100",
    );
    // Folders that are not listed count as well.
    refused(
        &archive(|builder| (0..51).for_each(|number| file(builder, &format!("{number}/x"), ""))),
        "more than bundle_files = 100",
    );
}

#[test]
fn what_is_no_archive_or_not_all_of_one_is_refused() {
    refused(b"", "not a gzip-compressed tar archive");
    refused(b"PK\x03\x04", "not a gzip-compressed tar archive");
    let whole = archive(|builder| file(builder, "a", &"content".repeat(1000)));
    refused(&whole[..whole.len() / 2], "gzip-compressed tar archive");
    let mut cut = GzEncoder::new(Vec::new(), Compression::fast());
    let mut inner = Vec::new();
    GzDecoder::new(&whole[..]).read_to_end(&mut inner).expect("it is whole");
    cut.write_all(&inner[..1000]).expect("it goes into memory");
    refused(&cut.finish().expect("it goes into memory"), "ends in the middle");
}

#[test]
fn what_is_packed_can_be_unpacked_and_is_the_same_each_time() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("b/c")).expect("folders can be made");
    fs::write(root.join("b/c/d"), "d").expect("files can be written");
    fs::write(root.join("a"), "a").expect("files can be written");
    fs::write(folder.path().join("beside"), "x").expect("files can be written");
    let paths = [root.clone(), folder.path().join("beside")];
    let packed = pack(&paths).expect("they can be read");
    assert_eq!(pack(&paths).expect("they can be read"), packed);
    let unpacked = unpacked(&packed).1.expect("it is what is wanted");
    let names: Vec<_> = unpacked.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["root/a", "root/b/c/d", "beside"]);
    assert_eq!(unpacked.folders, 3);
    symlink("a", root.join("link")).expect("links can be made");
    let refused = pack(&paths).expect_err("a link is not what it leads to").to_string();
    assert!(refused.contains("link is neither a file nor a folder"), "{refused}");
    assert!(pack(&["..".into()]).is_err() && pack(&[".".into()]).is_err(), "they have no names");
}
