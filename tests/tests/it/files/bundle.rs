//! Files that an app carries: guests see them at `/`, cannot change them, and cannot leave them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{disk, kinds};
use tests::{Bundle, Host, append_section, eventually, guest, wasgi};

/// The folders of unpacked archives.
fn trees(host: &Host) -> Vec<PathBuf> {
    let entries = fs::read_dir(host.state_dir().join("files")).expect("the host made it");
    entries.map(|entry| entry.expect("it can be read").path()).collect()
}

#[test]
fn guests_of_every_kind_see_their_files_and_nothing_else() {
    let host = Host::start(|host| {
        kinds().into_iter().fold(host, |host, (name, wasm)| {
            let bundle = Bundle::default().file("0/site/settings.txt", format!("of {name}")).file("top.txt", "top");
            host.app(name, bundle.on(wasm))
        })
    });
    for (name, _) in kinds() {
        // Late as well: the second call finds what the first one did.
        for _ in 0..2 {
            assert_eq!(disk(&host, name, "read:/0/site/settings.txt"), format!("of {name}"));
        }
        assert_eq!(disk(&host, name, "read:top.txt"), "top", "a relative path starts at the root");
        assert_eq!(disk(&host, name, "list:/"), "0 top.txt");
        assert_eq!(disk(&host, name, "modified:/top.txt"), "1000000000");
        for words in ["read:/etc/passwd", "read:/../index", "read:/0/../../index", "list:/.."] {
            let answer = disk(&host, name, words);
            assert!(answer.starts_with("error "), "{name} {words}: {answer}");
        }
    }
}

#[test]
fn no_guest_changes_its_files() {
    let host = Host::start(|host| {
        kinds().into_iter().fold(host, |host, (name, wasm)| {
            // One archive for all: what one did the others would see.
            host.app(name, Bundle::default().file("a/b.txt", "as it was").on(wasm))
        })
    });
    assert_eq!(trees(&host).len(), 1, "the same archive is unpacked once");
    for (name, _) in kinds() {
        for words in [
            "write:/a/b.txt:changed",
            "write:/a/new.txt:new",
            "append:/a/b.txt:more",
            "truncate:/a/b.txt",
            "remove:/a/b.txt",
            "rename:/a/b.txt:/a/c.txt",
            "make-folder:/a/d",
            "symlink:/etc/passwd:/a/link",
            "symlink:b.txt:/a/link",
            "link:/a/b.txt:/a/link",
        ] {
            let answer = disk(&host, name, words);
            assert!(answer.starts_with("error "), "{name} {words}: {answer}");
        }
        assert_eq!(disk(&host, name, "list:/a"), "b.txt");
        assert_eq!(disk(&host, name, "read:/a/b.txt"), "as it was");
    }
}

#[test]
fn a_new_release_has_new_files_and_the_old_ones_go() {
    let release = |text: &str| Bundle::default().file("text", text).on(guest("site"));
    let host = Host::start(|host| host.cold().app("site", release("one")));
    assert_eq!(disk(&host, "site", "read:/text"), "one");
    let old = trees(&host);
    let mode = |path: PathBuf| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(old[0].clone()), mode(old[0].join("root/text"))), (0o700, 0o400));
    host.drop_in("site.wasm", release("two"));
    eventually("the new release is live", || (disk(&host, "site", "read:/text") == "two").then_some(()));
    eventually("the old files are gone", || (trees(&host).len() == 1 && trees(&host) != old).then_some(()));
    // The code is the same: it was compiled once.
    let live = host.log().all(|event| event.message() == "live");
    assert_ne!(live[1].text("code"), "compiled");
    host.remove("site.wasm");
    eventually("all files are gone", || trees(&host).is_empty().then_some(()));
}

#[test]
fn a_restart_uses_what_is_unpacked_and_removes_what_is_stale() {
    let host = Host::start(|host| host.app("site", Bundle::default().file("text", "one").on(guest("site"))));
    let tree = trees(&host).remove(0);
    let made = fs::metadata(&tree).and_then(|metadata| metadata.created()).expect("it is there");
    let files = host.state_dir().join("files");
    fs::create_dir_all(files.join("0123/root/x")).expect("it is ours");
    fs::create_dir_all(files.join("tmp-left")).expect("it is ours");
    let host = host.restart();
    assert_eq!(disk(&host, "site", "read:/text"), "one");
    eventually("what is stale is gone", || (trees(&host) == [tree.clone()]).then_some(()));
    assert_eq!(fs::metadata(&tree).and_then(|metadata| metadata.created()).expect("it is there"), made);
    // After a crash of the machine files may be empty: another run of it unpacks anew.
    let index = fs::read_to_string(tree.join("index")).expect("it is ours");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux has it");
    fs::write(tree.join("index"), index.replace(boot.trim(), "another")).expect("it is ours");
    let host = host.restart();
    assert_eq!(disk(&host, "site", "read:/text"), "one");
    assert_ne!(fs::metadata(&tree).and_then(|metadata| metadata.created()).expect("it is there"), made);
}

#[test]
fn a_bad_bundle_refuses_the_release_and_the_old_one_serves() {
    use tar::EntryType;

    let host = Host::start(|host| {
        let host = host.app("site", Bundle::default().file("text", "good").on(guest("site")));
        host.limit("bundle_size=1MiB").limit("bundle_files=10")
    });
    let entry = |kind, name: &[u8]| Bundle::default().file("text", "bad").entry(kind, name, b"").on(guest("site"));
    let bomb = |builder: Bundle| builder.file("zeros", vec![0; 8 << 20]).on(guest("site"));
    let many = (0..20).fold(Bundle::default(), |bundle, number| bundle.file(&number.to_string(), "")).on(guest("site"));
    let twice = Bundle::default().file("text", "a").file("text", "b").on(guest("site"));
    let mut sections = Bundle::default().on(guest("site"));
    append_section(&mut sections, "wasgi:files", b"");
    let mut garbage = guest("site");
    append_section(&mut garbage, "wasgi:files", b"garbage");
    let manifest = |json: &str| Bundle::default().manifest(json).on(guest("site"));
    for (wasm, words) in [
        (entry(EntryType::Symlink, b"link"), "\"link\": a symbolic link: only regular files and folders are allowed"),
        (entry(EntryType::Link, b"link"), "a hard link"),
        (entry(EntryType::Char, b"null"), "a device"),
        (entry(EntryType::Fifo, b"pipe"), "a pipe"),
        (entry(EntryType::Regular, b"../up"), "\"../up\": the name has a segment \"..\""),
        (entry(EntryType::Regular, b"/etc/passwd"), "the name is absolute"),
        (entry(EntryType::Regular, b"\xff\xfe"), "\"\\xff\\xfe\": the name is not UTF-8"),
        (twice, "\"text\": the name is there twice"),
        (bomb(Bundle::default()), "more than bundle_size = 1.0 MiB"),
        (many, "more than bundle_files = 10"),
        (garbage, "not a gzip-compressed tar archive"),
        (sections, "the section wasgi:files is there twice"),
        (manifest("{}"), "missing field `version`"),
        (manifest("{\"version\": 1, \"novelty\": 1}"), "unknown field `novelty`"),
        (manifest("{\"version\": 1, \"static\": {\"/static/\": \"none\"}}"), "there is nothing at \"none\""),
        (manifest("{\"version\": 1, \"data\": true}"), "the operator has not granted it"),
    ] {
        let path = host.folder().join("bad.wasm");
        fs::write(&path, &wasm).expect("the folder is ours");
        let checked = wasgi().current_dir(host.folder()).args(["check", "bad.wasm"]).output().expect("it runs");
        let is_seen = words.contains("bundle_") || words.contains("nothing at");
        assert!(is_seen || !checked.status.success(), "wasgi check: {}", String::from_utf8_lossy(&checked.stdout));
        host.drop_in("site.wasm", wasm);
        host.listed_problem("site", words);
        assert_eq!(disk(&host, "site", "read:/text"), "good", "{words}");
    }
    eventually("nothing is left of them", || (trees(&host).len() == 1).then_some(()));
    host.drop_in("site.wasm", Bundle::default().file("text", "better").on(guest("site")));
    eventually("a good one goes live", || (disk(&host, "site", "read:/text") == "better").then_some(()));
}

#[test]
fn an_archive_of_a_gigabyte_of_zeros_is_stopped_early() {
    let host = Host::start(|host| host.limit("bundle_size=16MiB"));
    // Gzip of gzip would be smaller still; what counts is what comes out.
    let bundle = Bundle::default().file("zeros", vec![0; 1 << 30]);
    host.drop_in("site.wasm", bundle.on(guest("site")));
    host.listed_problem("site", "more than bundle_size = 16.0 MiB");
    assert!(trees(&host).is_empty());
}

#[test]
fn check_shows_what_a_bundle_is() {
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    let manifest = r#"{"version": 1, "language": "rust", "instances": "reuse", "static": {"/static/": "s"}, "data": true,
        "notes": ["needs a grant of data"]}"#;
    let bundle = Bundle::default().manifest(manifest).file("s/a.css", "a {}").file("b", vec![0; 4096]);
    fs::write(folder.path().join("site.wasm"), bundle.on(guest("site"))).expect("it is ours");
    fs::write(folder.path().join("wasgi.toml"), "grant = { data = 'site' }").expect("it is ours");
    let ran = wasgi().current_dir(&folder).args(["check", "site.wasm"]).output().expect("it runs");
    let out = String::from_utf8_lossy(&ran.stdout);
    for words in [
        "written in rust",
        "carries 2 files and 1 folders, 4.0 KiB",
        "asks for instances = \"reuse\"",
        "static /static/ from s",
        "asks for a directory for its data",
        "note: needs a grant of data",
    ] {
        assert!(out.contains(words), "{words}: {out}{}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn a_manifest_chooses_instances_and_the_sidecar_goes_before_it() {
    let wasm = || Bundle::default().manifest("{\"version\": 1, \"instances\": \"reuse\"}").on(guest("site"));
    let host =
        Host::start(|host| host.app("site", wasm()).app("other", wasm()).sidecar("other", "instances = 'fresh'"));
    assert_eq!((host.get("/site").text(), host.get("/site").text()), ("call 1 of ".into(), "call 2 of ".into()));
    assert_eq!((host.get("/other").text(), host.get("/other").text()), ("call 1 of ".into(), "call 1 of ".into()));
}

#[test]
fn an_instance_that_outgrew_its_memory_is_retired_after_its_response() {
    let sidecar = "instances = 'reuse'\nreuse_memory = '4MiB'";
    let host = Host::start(|host| host.app("site", guest("site")).sidecar("site", sidecar));
    let calls =
        ["?grow=1000", "?grow=8000000", "?grow=1000", "?grow=1000"].map(|query| host.get(&format!("/site{query}")));
    assert_eq!(calls.map(|response| response.text()), ["call 1", "call 2", "call 1", "call 2"]);
}

#[test]
fn an_instance_that_calls_share_is_retired_as_well() {
    let sidecar = "instances = 'reuse'\nreuse_memory = '8MiB'";
    let host = Host::start(|host| host.app("p3", guest("http-p3")).sidecar("p3", sidecar));
    assert_eq!((host.get("/p3/calls").text(), host.get("/p3/calls").text()), ("call 1".into(), "call 2".into()));
    assert_eq!(host.get("/p3/memory?15").text(), "16 MiB");
    assert_eq!(host.get("/p3/calls").text(), "call 1");
}

#[test]
fn an_instance_that_was_rewound_finds_its_files_again() {
    let sidecar = "instances = 'rewind'";
    let host = Host::start(|host| {
        host.app("site", Bundle::default().file("text", "one").on(guest("site"))).sidecar("site", sidecar)
    });
    for _ in 0..3 {
        assert_eq!(disk(&host, "site", "read:/text"), "one");
        assert_eq!(host.get("/site").text(), "call 1 of ");
    }
}
