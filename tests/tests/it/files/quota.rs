//! How much an app's data may take: counted as it grows, by whatever way, for guests of every kind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{disk, kinds};
use tests::{Host, guest, wasgi};

const GRANT: &str = "[grant]\ndata = ['*']\n";
const QUOTA: &str = "data = true\n[limits]\ndata_size = '64KiB'\ndata_files = 12\n";
const FULL: &str = "error ENOSPC";
/// What C libraries make of a stream that fails halfway.
const FAILED: &str = "error EIO";

/// What lies there, in bytes of whole blocks, and how many names there are.
fn taken(folder: &Path) -> (u64, usize) {
    let entries = fs::read_dir(folder).expect("it can be read").map(|entry| entry.expect("it can be read"));
    entries.fold((0, 0), |(bytes, names), entry| {
        let metadata = entry.path().symlink_metadata().expect("it is there");
        let inner = if metadata.is_dir() { taken(&entry.path()) } else { (0, 0) };
        (bytes + metadata.size().div_ceil(4096).max(1) * 4096 + inner.0, names + 1 + inner.1)
    })
}

#[test]
fn data_takes_no_more_than_it_may_by_any_way_and_what_is_there_stays() {
    let host = Host::start(|host| {
        let host = host.config(GRANT);
        kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, QUOTA))
    });
    for (app, _) in kinds() {
        let folder = host.folder().join("data").join(app);
        assert_eq!(disk(&host, app, "write:/data/kept:kept"), "done");
        for (words, expected) in [
            ("fill:/data/a:100000", FAILED),
            ("remove:/data/a", "done"),
            ("extend:/data/b:1000000000000", FULL),
            ("seek:/data/b:1000000000000", FULL),
            ("seek:/data/b:65536", FULL),
            ("remove:/data/b", "done"),
            ("nameless:/data/c:100000", "61 KB, then EIO"),
            // What it took is free again: a block for the one that stays, fifteen.
            ("fill:/data/a:61440", "done"),
            ("append:/data/a:x", FULL),
            ("append:/data/kept:-and-more", "done"),
            ("write:/data/d:x", FULL),
            ("make-folder:/data/d", FULL),
            ("symlink:kept:/data/d", FULL),
            ("link:/data/kept:/data/d", FULL),
            // No room is needed for another name instead of the old one, nor for what becomes shorter.
            ("rename:/data/a:/data/d", "done"),
            ("fill:/data/d:40000", "done"),
            ("links:/data/d:3", "0, then ENOSPC"),
            ("links:/data/kept:3", "3"),
            ("rename:/data/kept-0:/data/d", "done"),
            ("remove:/data/kept-1", "done"),
            ("remove:/data/kept-2", "done"),
            ("many:/data:20", "10, then ENOSPC"),
            ("make-folder:/data/e", FULL),
            ("read:/data/kept", "kept-and-more"),
        ] {
            assert_eq!(disk(&host, app, words), expected, "{app} {words}");
            let (bytes, names) = taken(&folder);
            assert!(bytes <= 65536 && names <= 12, "{app} {words}: {names} names with {bytes} bytes");
        }
        host.log_contains("its data has no room for more: limits.data_size = 65536 bytes");
    }
    // It is counted when the host begins, and by the program that an operator runs beside it.
    let host = host.restart();
    assert_eq!(disk(&host, "wsgi", "write:/data/f:x"), FULL);
    assert_eq!(disk(&host, "wsgi", "remove:/data/file-0"), "done");
    let manage = |words: &str| {
        let state_dir = host.state_dir().display().to_string();
        let mut command = wasgi();
        command.current_dir(host.folder()).args(["manage", "--state-dir", &state_dir, "apps/wsgi.wasm", words]);
        String::from_utf8(command.output().expect("the binary can be run").stdout).expect("it prints text")
    };
    assert_eq!(manage("write:/data/g:x").trim(), "done");
    assert_eq!(manage("write:/data/h:x").trim(), FULL);
    assert_eq!(disk(&host, "wsgi", "write:/data/h:x"), FULL);
    assert_eq!(manage("remove:/data/g").trim(), "done");
    assert_eq!(disk(&host, "wsgi", "write:/data/h:x"), "done");
}

#[test]
fn a_tenants_apps_keep_no_more_together_than_its_budget() {
    let config = "[tenant.acme.grant]\ndata = ['*']\n[tenant.acme.grant.keyvalue]\ndefault = {}\n\
                  [tenant.acme.budget]\ndisk = '80KiB'\ndisk_files = 5\n[tenant.other.grant]\ndata = ['*']\n";
    let host = Host::start(|host| {
        let host = host.config(config).app("other/site", guest("site")).sidecar("other/site", "data = true");
        ["acme/one", "acme/two"]
            .into_iter()
            .fold(host, |host, app| host.app(app, guest("site")).sidecar(app, "data = true\nkeyvalue = 'default'"))
    });
    let metric = |name: &str, tenant: &str| host.metric(&format!("wasgi_tenant_disk_{name}{{tenant=\"{tenant}\"}}"));
    assert_eq!(disk(&host, "acme/one", "fill:/data/a:40000"), "done");
    assert_eq!(disk(&host, "acme/two", "fill:/data/a:50000"), FAILED);
    assert_eq!(metric("bytes", "acme"), Some(81920.0));
    assert_eq!(disk(&host, "acme/two", "fill:/data/a:20000"), "done");
    // Key-value stores count with it, and their names do not.
    let kept = |words: &str| host.get(&format!("/acme/two?shelf={words}")).text();
    assert_eq!(kept("large,default,10,17000"), "done");
    assert_eq!(kept("large,default,11,17000"), "error Error::Other(\"the tenant has no room: budget.disk\")");
    assert_eq!(disk(&host, "acme/one", "write:/data/b:x"), FULL);
    assert_eq!((metric("files", "acme"), metric("files", "other")), (Some(2.0), Some(0.0)));
    let host = host.restart();
    assert_eq!(disk(&host, "acme/one", "write:/data/b:x"), FULL);
    assert_eq!(host.get("/acme/two?shelf=delete,default,kkkkkkkkkk").text(), "done");
    assert_eq!(disk(&host, "acme/one", "many:/data:10"), "3, then ENOSPC");
    assert_eq!(disk(&host, "other/site", "many:/data:10"), "10");
}

#[test]
fn nothing_moves_between_what_is_counted_and_what_is_not() {
    let config = "[grant]\ndata = ['*']\n[grant.directories]\n'/media' = { path = 'media', write = true }\n";
    let host = Host::start(|host| {
        fs::create_dir(host.folder().join("media")).expect("the folder is ours");
        fs::write(host.folder().join("media/large"), vec![b'x'; 100_000]).expect("the folder is ours");
        host.config(config).app("site", guest("site")).sidecar("site", &format!("directories = '/media'\n{QUOTA}"))
    });
    assert_eq!(disk(&host, "site", "write:/data/a:x"), "done");
    for words in
        ["rename:/media/large:/data/b", "link:/media/large:/data/b", "rename:/data/a:/media/a", "link:/data/a:/media/a"]
    {
        assert_eq!(disk(&host, "site", words), "error CrossesDevices", "{words}");
    }
    assert_eq!(disk(&host, "site", "rename:/media/large:/media/other"), "done");
}

#[test]
fn a_directory_that_several_write_to_is_counted_once_for_all_of_them() {
    let entry = "path = 'out', write = true, size = '64KiB', files = 5";
    let config = format!(
        "[tenant.acme.grant.directories]\n'/out' = {{ {entry} }}\n[tenant.hive.grant.directories]\n'/in' = {{ {entry} }}\n\
         [tenant.idle.grant.directories]\n'/out' = {{ path = 'out' }}\n"
    );
    let host = Host::start(|host| {
        fs::create_dir(host.folder().join("out")).expect("the folder is ours");
        fs::write(host.folder().join("out/theirs"), vec![b'x'; 20_000]).expect("the folder is ours");
        let apps = [
            ("acme/one", "site", "/out"),
            ("acme/p2", "http-p2", "/out"),
            ("acme/p3", "http-p3", "/out"),
            ("hive/a", "site", "/in"),
            ("idle/a", "site", "/out"),
        ];
        apps.into_iter().fold(host.config(&config), |host, (name, wasm, place)| {
            host.app(name, guest(wasm)).sidecar(name, &format!("directories = '{place}'"))
        })
    });
    let folder = host.folder().join("out");
    for (app, words, expected) in [
        // Five blocks are there: eleven are left.
        ("acme/one", "fill:/out/a:20000", "done"),
        ("hive/a", "fill:/in/b:30000", FAILED),
        ("hive/a", "length:/in/b", "24000"),
        ("acme/p2", "append:/out/theirs:and-more", "done"),
        ("acme/p2", "extend:/out/theirs:100000", FULL),
        ("acme/one", "remove:/out/a", "done"),
        ("hive/a", "fill:/in/b:40000", "done"),
        ("acme/one", "many:/out:5", "3, then ENOSPC"),
        ("hive/a", "make-folder:/in/c", FULL),
        ("idle/a", "read:/out/file-0", ""),
        ("acme/p3", "fill:/out/file-0:30000", FAILED),
    ] {
        assert_eq!(disk(&host, app, words), expected, "{app} {words}");
        let (bytes, names) = taken(&folder);
        assert!(bytes <= 65536 && names <= 5, "{app} {words}: {names} names with {bytes} bytes");
    }
    assert!(disk(&host, "idle/a", "write:/out/file-0:x").starts_with("error "));
    host.log_contains("/in has no room for more: size = 65536 bytes of its grant");
    host.log_contains("/out has no room for more: files = 5 of its grant");
    // Nobody is charged for what two tenants write to; and it is found again after a restart.
    let host = host.restart();
    assert_eq!(host.metric("wasgi_tenant_disk_bytes{tenant=\"acme\"}"), Some(0.0));
    assert_eq!(disk(&host, "acme/one", "write:/out/d:x"), FULL);
}

/// Data stays when its app goes; so it counts, or each new name would have all of the budget.
#[test]
fn what_apps_that_are_gone_have_left_behind_counts_in_their_tenants_budget() {
    let config = "[tenant.acme.grant]\ndata = ['*']\n[tenant.acme.grant.keyvalue]\ndefault = {}\n[tenant.acme.budget]\ndisk = '80KiB'\n";
    let deploy = |host: &Host, name: &str, sidecar: &str| {
        host.drop_in(&format!("acme/{name}.toml"), sidecar);
        host.drop_in(&format!("acme/{name}.wasm"), guest("site"));
    };
    let remove = |host: &Host, name: &str| {
        host.remove(&format!("acme/{name}.wasm"));
        host.remove(&format!("acme/{name}.toml"));
        host.until(&format!("/acme/{name}?disk=length:/"), 404, "");
    };
    let is_there =
        |host: &Host, name: &str| host.until(&format!("/acme/{name}?disk=length:/none"), 200, "error NotFound");
    let bytes = |host: &Host| host.metric("wasgi_tenant_disk_bytes{tenant=\"acme\"}");
    // One that stays: a host that is restarted waits for the apps that it began with.
    let host = Host::start(|host| host.config(config).app("hive/site", guest("site")));
    deploy(&host, "one", "data = true");
    is_there(&host, "one");
    assert_eq!(disk(&host, "acme/one", "fill:/data/a:40000"), "done");
    remove(&host, "one");
    deploy(&host, "two", "data = true");
    is_there(&host, "two");
    // What the first has written, and its directory: nine blocks are left.
    assert_eq!(bytes(&host), Some(45056.0));
    assert_eq!(disk(&host, "acme/two", "fill:/data/a:40000"), FAILED);
    assert_eq!(disk(&host, "acme/two", "fill:/data/a:32768"), "done");
    deploy(&host, "stores", "keyvalue = 'default'");
    is_there(&host, "stores");
    assert_eq!(host.get("/acme/stores?shelf=large,default,10,3000").text(), "done");
    remove(&host, "stores");
    remove(&host, "two");
    deploy(&host, "three", "data = true");
    host.listed_problem("acme/three", "raise budget.disk");
    assert!(!host.folder().join("data/acme+three").exists());
    let host = host.restart();
    host.listed_problem("acme/three", "raise budget.disk");
    // The operator makes room: eleven blocks, of which the store has its part.
    fs::remove_dir_all(host.folder().join("data/acme+one")).expect("the folder is ours");
    let host = host.restart();
    is_there(&host, "three");
    assert_eq!(disk(&host, "acme/three", "fill:/data/a:45056"), FAILED, "stores count that no app has");
    assert_eq!(disk(&host, "acme/three", "fill:/data/a:40960"), "done");
}

#[test]
fn a_directory_of_one_tenant_counts_in_its_budget_and_none_lies_in_another() {
    let config = "[tenant.acme.budget]\ndisk = '40KiB'\n[tenant.acme.grant.directories]\n'/out' = { path = 'out', write = true }\n\
                  [tenant.hive.grant.directories]\n'/inner' = { path = 'out/inner', write = true }\n";
    let host = Host::start(|host| {
        fs::create_dir_all(host.folder().join("out/inner")).expect("the folder is ours");
        host.config(config).app("acme/one", guest("site")).sidecar("acme/one", "directories = '/out'")
    });
    host.drop_in("hive/a.toml", "directories = '/inner'");
    host.drop_in("hive/a.wasm", guest("site"));
    host.listed_problem("hive/a", "grant directories that do not lie in each other");
    assert_eq!(disk(&host, "acme/one", "fill:/out/a:60000"), FAILED);
    host.log_contains("/out has no room for more: budget.disk");
    assert_eq!(host.metric("wasgi_tenant_disk_bytes{tenant=\"acme\"}"), Some(40960.0));
}

/// A resource of one version can be handed to functions of the other; those of 0.3 count nothing.
#[test]
fn what_was_opened_by_one_version_of_wasi_is_not_written_uncounted_by_another() {
    let host = Host::start(|host| {
        fs::create_dir(host.folder().join("out")).expect("the folder is ours");
        let host = host.config(&format!("{GRANT}[grant.directories]\n'/out' = {{ path = 'out', write = true }}\n"));
        let wasm = tests::parse(include_str!("mixed.wat"));
        let host = host.app("mixed", &wasm).sidecar("mixed", "data = true");
        host.app("other", &wasm).sidecar("other", "directories = '/out'")
    });
    for (app, folder) in [("mixed", "data/mixed"), ("other", "out")] {
        // It says nothing, once it was refused; had it not been, it would have trapped.
        let answer = host.get(&format!("/{app}"));
        let failure = host.failure(&answer);
        assert_eq!(failure.text("cause"), "cgi_response", "{app}: {failure:?}");
        assert_eq!(fs::read_dir(host.folder().join(folder)).expect("it is there").count(), 0, "{app}");
    }
    let note = "it imports wasi:filesystem/types of WASI 0.3, so that it only reads its data and directories";
    host.log_contains(note);
    let check = wasgi().current_dir(host.folder()).args(["check", "-c", "wasgi.toml", "apps/mixed.wasm"]).output();
    let said = String::from_utf8(check.expect("the binary can be run").stdout).expect("it prints text");
    assert!(said.contains(note), "{said}");
}
