//! What guests leave behind where they write leads nobody to elsewhere: neither apps that see a part of it, nor the
//! host.

use std::fs;
use std::os::unix::fs::symlink;

use super::reload;
use tests::{Host, guest, wasgi};

const MEDIA: &str = "[tenant.acme.grant.directories]\n'/media' = { path = 'media', write = true }\n\
                     [tenant.hive.grant.directories]\n'/pub' = { path = 'media/public' }\n";

/// A tenant that writes, and one that sees a part of it.
fn host(confine: &str) -> Host {
    Host::start(|host| {
        fs::create_dir_all(host.folder().join("media/public")).expect("the folder is ours");
        fs::write(host.folder().join("media/public/a"), "a picture").expect("the folder is ours");
        fs::create_dir(host.folder().join("private")).expect("the folder is ours");
        fs::write(host.folder().join("private/a"), "hush").expect("the folder is ours");
        host.config(MEDIA)
            .flag("--confine", confine)
            .app("acme/upload", guest("site"))
            .sidecar("acme/upload", "directories = '/media'")
            .app("hive/site", guest("site"))
            .sidecar("hive/site", "directories = '/pub'")
    })
}

fn disk(host: &Host, app: &str, words: &str) -> String {
    host.get(&format!("/{app}?disk={words}")).text().trim_end().to_owned()
}

/// The writer puts a link where the other's directory was, and both are loaded anew.
#[test]
fn a_link_in_a_directory_that_is_written_to_leads_no_app_out_of_it() {
    for confine in ["off", "on"] {
        let host = host(confine);
        assert_eq!(disk(&host, "hive/site", "read:/pub/a"), "a picture");
        for words in ["rename:/media/public:/media/old", "symlink:../private:/media/public"] {
            assert_eq!(disk(&host, "acme/upload", words), "done");
        }
        host.drop_in("hive/site.toml", "directories = '/pub'\n[env]\nAGAIN = '1'");
        host.listed_problem("hive/site", "a symbolic link is on the way to it, and none is followed");
        assert_eq!(disk(&host, "hive/site", "read:/pub/a"), "a picture", "what was live is live");
        let host = host.restart();
        host.listed_problem("hive/site", "a symbolic link is on the way to it, and none is followed");
        assert_eq!(host.get("/hive/site").status(), 404);
        // A directory in its place is what it was.
        for words in ["remove:/media/public", "rename:/media/old:/media/public"] {
            assert_eq!(disk(&host, "acme/upload", words), "done");
        }
        host.drop_in("hive/site.toml", "directories = '/pub'\n[env]\nAGAIN = '2'");
        host.until("/hive/site?disk=read:/pub/a", 200, "a picture");
    }
}

/// A link to where nothing may be granted, and to where a confined host has no way: the operator takes something away
/// nevertheless.
#[test]
fn no_guest_keeps_the_operator_from_taking_a_grant_away() {
    let elsewhere = tempfile::tempdir().expect("there is a temporary directory");
    for target in ["../state", "../apps", &elsewhere.path().display().to_string()] {
        let host = host("on");
        assert_eq!(disk(&host, "acme/upload", "rename:/media/public:/media/old"), "done");
        // As a guest makes them, or by one that is absolute, which wasmtime keeps guests from.
        symlink(target, host.folder().join("media/public")).expect("links can be made");
        reload(&host, &MEDIA.replace("'/media' = ", "'/other' = "));
        host.log_contains("the configuration was read again");
        host.listed_problem("acme/upload", "the operator has not granted \"/media\"");
        assert_eq!(host.get("/acme/upload").status(), 404);
    }
}

/// The operator is told of a grant that will not be opened, before an app is missed.
#[test]
fn a_grant_by_way_of_a_link_is_named_with_the_path_to_write() {
    let host = Host::start(|host| {
        fs::create_dir_all(host.folder().join("real/public")).expect("the folder is ours");
        fs::write(host.folder().join("real/public/a"), "a picture").expect("the folder is ours");
        symlink("real", host.folder().join("led")).expect("links can be made");
        host.config("[tenant.hive.grant.directories]\n'/pub' = { path = 'led/public' }\n")
            .app("hive/site", guest("site"))
            .sidecar("hive/site", "directories = '/pub'")
    });
    let wanted = format!("grant {}", host.folder().join("real/public").display());
    host.log_contains(&wanted);
    for arguments in [["check", "--config"], ["check", "apps/hive/site.wasm"]] {
        let output = wasgi().args(arguments).current_dir(host.folder()).output().expect("the binary can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(&wanted), "{arguments:?}: {said}");
    }
    reload(&host, "[tenant.hive.grant.directories]\n'/pub' = { path = 'real/public' }\n");
    host.until("/hive/site?disk=read:/pub/a", 200, "a picture");
}
