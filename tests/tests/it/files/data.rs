//! A directory for data: granted by the operator, one for each app, kept over restarts and releases, and used by one call at a time.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::{disk, kinds};
use tests::{Bundle, Host, Request, guest};

const GRANT: &str = "[grant]\ndata = ['*']\n";
const DATA: &str = "data = true";

fn serving(sidecar: &str) -> Host {
    Host::start(|host| host.app("site", guest("site")).sidecar("site", sidecar).config(GRANT))
}

#[test]
fn data_survives_restarts_and_releases() {
    let host = serving(DATA);
    assert_eq!(disk(&host, "site", "write:/data/a:kept"), "done");
    let directory = host.folder().join("data/site");
    assert_eq!(fs::read(directory.join("a")).expect("it is where the operator looks"), b"kept");
    assert_eq!(fs::metadata(&directory).expect("it is there").permissions().mode() & 0o777, 0o700);
    let host = host.restart();
    assert_eq!(disk(&host, "site", "read:/data/a"), "kept");
    host.drop_in("site.wasm", Bundle::default().file("b", "new").on(guest("site")));
    tests::eventually("the new release is live", || (disk(&host, "site", "read:/b") == "new").then_some(()));
    assert_eq!(disk(&host, "site", "read:/data/a"), "kept");
    assert!(disk(&host, "site", "write:/b:x").starts_with("error "), "the bundle stays as it is");
}

#[test]
fn guests_of_every_kind_have_it() {
    let host = Host::start(|host| {
        let host = host.config(GRANT);
        kinds().into_iter().fold(host, |host, (name, wasm)| {
            // Also where 0.3's instances would be shared.
            let reuse = if name == "cgi" { "" } else { "\ninstances = 'reuse'" };
            host.app(name, wasm).sidecar(name, &format!("{DATA}{reuse}"))
        })
    });
    for (name, _) in kinds() {
        assert_eq!(disk(&host, name, &format!("write:/data/a:of-{name}")), "done");
        assert_eq!(disk(&host, name, "make-folder:/data/folder"), "done");
        assert_eq!(disk(&host, name, "rename:/data/a:/data/folder/b"), "done");
    }
    for (name, _) in kinds() {
        assert_eq!(disk(&host, name, "read:/data/folder/b"), format!("of-{name}"), "each has its own");
        assert_eq!(disk(&host, name, "list:/data"), "folder");
    }
}

#[test]
fn without_a_grant_the_app_is_refused_and_told_what_is_missing() {
    let host = Host::start(|host| {
        host.app("site", guest("site"))
            .sidecar("site", DATA)
            .app("blog/one", guest("site"))
            .sidecar("blog/one", DATA)
            .config("[tenant.blog.grant]\ndata = ['*']")
    });
    host.listed_problem("site", "site.toml: line 1: data = true: the operator has not granted it: put \"site\" into");
    assert_eq!(disk(&host, "blog/one", "write:/data/a:x"), "done");
    assert!(host.folder().join("data/blog+one/a").exists());
    assert!(!host.folder().join("data/site").exists());
}

#[test]
fn no_guest_leaves_its_data_by_a_link() {
    let host = serving(DATA);
    fs::write(host.folder().join("secret"), "secret").expect("the folder is ours");
    let directory = host.folder().join("data/site");
    // Made by the guest, or planted there by somebody.
    let _ = disk(&host, "site", "symlink:../../secret:/data/own");
    let _ = disk(&host, "site", "symlink:/etc/passwd:/data/absolute");
    symlink("../../secret", directory.join("planted")).expect("links can be made");
    symlink(host.folder(), directory.join("folder")).expect("links can be made");
    assert!(disk(&host, "site", "read:/data/absolute").starts_with("error "));
    for path in ["own", "planted", "folder/secret", "../../secret", "folder/../secret"] {
        for words in [format!("read:/data/{path}"), format!("write:/data/{path}:x")] {
            let answer = disk(&host, "site", &words);
            assert!(answer.starts_with("error "), "{words}: {answer}");
        }
    }
    assert_eq!(fs::read(host.folder().join("secret")).expect("it is there"), b"secret");
}

#[test]
fn calls_that_read_and_write_lose_nothing() {
    for sidecar in [DATA, "data = true\ninstances = 'reuse'"] {
        let host = serving(sidecar);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..5).for_each(|_| drop(disk(&host, "site", "increment:/data/count:5"))));
            }
        });
        assert_eq!(disk(&host, "site", "read:/data/count"), "40", "{sidecar}");
    }
}

#[test]
fn a_client_that_sends_slowly_keeps_nobody_from_the_data() {
    let host = serving("data = true\n[limits]\nqueue_time = '1s'");
    let mut slow = host.connect();
    slow.send(&Request::new("POST", "/site?disk=write:/data/a:x").header("Content-Length", "5").to_bytes());
    slow.send(b"a");
    for count in 1..=5 {
        assert_eq!(disk(&host, "site", "increment:/data/count:0"), count.to_string());
    }
    slow.send(b"bcde");
    assert_eq!(slow.response("POST").text(), "done");
}

#[test]
fn who_waits_too_long_for_the_data_is_told_that_the_app_is_busy() {
    let host = serving("data = true\n[limits]\nqueue_time = '100ms'");
    let mut first = host.connect();
    first.send(&Request::get("/site?disk=increment:/data/count:3000").to_bytes());
    tests::eventually("the first one is at it", || {
        let response = host.get("/site?disk=list:/data");
        (response.status() == 503).then(|| assert_eq!(host.failure(&response).text("cause"), "busy"))
    });
    assert_eq!(first.response("GET").text(), "1");
}
