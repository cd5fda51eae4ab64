//! Grants: asked for by the app, given by the operator, taken away without a restart, and nobody else's.

use std::fs;

use super::reload;
use tests::{Host, Request, eventually, guest, wasgi};

const HUSH: &str = "hush-hush-4711";

fn variable(dump: &str, name: &str) -> Option<String> {
    dump.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).map(str::to_owned)
}

/// Everything that this host has said: its log, its list of apps, its configuration.
fn all_that_is_said(host: &Host) -> String {
    let run = |args: &[&str]| {
        let output = wasgi().args(args).current_dir(host.folder()).output().expect("the binary can be run");
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
    };
    let state_dir = host.state_dir().display().to_string();
    [
        host.log().all(|_| true).iter().map(ToString::to_string).collect(),
        run(&["apps", "--state-dir", &state_dir]),
        run(&["apps", "--json", "--state-dir", &state_dir]),
        run(&["check", "--config"]),
        run(&["check", "apps/acme/shop.wasm"]),
    ]
    .concat()
}

#[test]
fn a_secret_reaches_the_apps_that_ask_for_it_and_nothing_that_is_printed() {
    let config = "dev = true\n[tenant.acme.grant.env]\nREGION = 'eu'\n[tenant.acme.grant.secrets]\n\
                  DB = { env = 'HUSH' }\nKEY = { file = 'key', apps = ['shop'] }\n";
    let host = Host::start(|host| {
        fs::write(host.folder().join("key"), format!("{HUSH}-file\n")).expect("the folder is ours");
        let host = host.config(config).started_by(&format!("HUSH={HUSH}; export HUSH; exec \"$@\""));
        let host = host.app("acme/shop", guest("probe")).sidecar("acme/shop", "secrets = ['DB', 'KEY']");
        let host = host.app("acme/quiet", guest("probe")).app("acme/cgi", guest("cgi-probe"));
        let host = host.sidecar("acme/cgi", "secrets = 'DB'").app("other/thief", guest("probe"));
        host.sidecar("other/thief", "secrets = ['DB']")
            .app("acme/blog", guest("probe"))
            .sidecar("acme/blog", "\nsecrets = ['KEY']")
    });
    let dump = host.get("/acme/shop/environ").text();
    assert_eq!(variable(&dump, "DB").as_deref(), Some(HUSH));
    assert_eq!(variable(&dump, "KEY"), Some(format!("{HUSH}-file")));
    assert_eq!(variable(&dump, "REGION").as_deref(), Some("eu"));
    let quiet = host.get("/acme/quiet/environ").text();
    assert!(!quiet.contains(HUSH) && quiet.contains("REGION=eu"), "{quiet}");
    assert!(host.get("/acme/cgi/environ").text().contains(HUSH), "a program has it in its environment");
    for (app, secret) in [("other/thief", "DB"), ("acme/blog", "KEY")] {
        let words = format!("the operator has not granted \"{secret}\": it is to stand in [tenant.");
        assert!(host.listed_problem(app, &words).text("problem").contains("line "));
    }
    // A page of development mode has the variables of the request, and of secrets their names.
    let fault = host.ask(&Request::get("/acme/shop/fault?kind=panic").header("Host", "localhost")).text();
    assert!(fault.contains("REGION = eu") && fault.contains("DB = (not shown: a secret)"), "{fault}");
    assert!(!fault.contains(HUSH), "{fault}");
    let said = all_that_is_said(&host);
    assert!(said.contains("\"KEY\" = { apps = [\"shop\"], file = ") && said.contains("secrets DB, KEY"), "{said}");
    assert!(!said.contains(HUSH), "{said}");
}

#[test]
fn a_secret_that_cannot_be_read_refuses_the_app_with_the_reason() {
    let config = "[tenant.acme.grant.secrets]\nA = { file = 'none' }\nB = { env = 'NONE' }\nC = { file = 'binary' }\n";
    let host = Host::start(|host| {
        fs::write(host.folder().join("binary"), b"hush-hush\xff").expect("the folder is ours");
        let host = host.config(config).app("fine", guest("probe"));
        ["A", "B", "C"].into_iter().fold(host, |host, name| {
            let app = format!("acme/{}", name.to_lowercase());
            host.app(&app, guest("probe")).sidecar(&app, &format!("secrets = ['{name}']"))
        })
    });
    host.listed_problem("acme/a", "the secret A cannot be read: its file ");
    host.listed_problem("acme/b", "the secret B cannot be read: the host was started without a variable NONE");
    let binary = host.listed_problem("acme/c", "the secret C cannot be read: its file ");
    assert!(!binary.to_string().contains("hush"), "{binary}");
    assert_eq!(host.get("/acme/a/hello").status(), 404);
    assert_eq!(host.get("/fine/hello").text(), "hello");
    // It is tried again.
    fs::write(host.folder().join("none"), "here").expect("the folder is ours");
    reload(&host, config);
    eventually("the app has it", || {
        (variable(&host.get("/acme/a/environ").text(), "A").as_deref() == Some("here")).then_some(())
    });
}

#[test]
fn a_secret_that_was_changed_or_taken_away_is_so_without_a_restart() {
    let config = "[tenant.acme.grant.secrets]\nKEY = { file = 'key' }\n[tenant.hive]\n";
    let host = Host::start(|host| {
        fs::write(host.folder().join("key"), "old").expect("the folder is ours");
        let host = host.config(config).app("acme/shop", guest("probe")).sidecar("acme/shop", "secrets = ['KEY']");
        host.app("hive/one", guest("probe")).sidecar("hive/one", "instances = 'reuse'")
    });
    let key = || variable(&host.get("/acme/shop/environ").text(), "KEY");
    assert_eq!((key().as_deref(), host.get("/hive/one/state").text().as_str()), (Some("old"), "call 1"));
    fs::write(host.folder().join("key"), "new").expect("the folder is ours");
    reload(&host, config);
    eventually("the new one is in force", || (key().as_deref() == Some("new")).then_some(()));
    reload(&host, "[tenant.hive]\n");
    eventually("the app is served no more", || (host.get("/acme/shop/environ").status() == 404).then_some(()));
    host.listed_problem("acme/shop", "the operator has not granted \"KEY\"");
    assert_eq!(host.get("/hive/one/state").text(), "call 2", "another tenant's instance has stayed");
}

#[test]
fn data_that_was_taken_away_is_out_of_reach_without_a_restart() {
    let config = "[tenant.acme.grant]\ndata = ['shop']\n";
    let host =
        Host::start(|host| host.config(config).app("acme/shop", guest("site")).sidecar("acme/shop", "data = true"));
    let disk = |words: &str| host.get(&format!("/acme/shop?disk={words}"));
    assert_eq!(disk("write:/data/a:kept").text(), "done");
    reload(&host, "");
    eventually("it is served no more", || (disk("read:/data/a").status() == 404).then_some(()));
    host.listed_problem("acme/shop", "put \"shop\" into `data` of [tenant.acme.grant]");
    reload(&host, config);
    eventually("it is back, and so is what it had", || (disk("read:/data/a").text() == "kept").then_some(()));
}

#[test]
fn directories_are_read_or_written_as_the_operator_says() {
    let config = "[tenant.acme.grant.directories]\n'/media' = { path = 'media' }\n'/out' = { path = 'out', write = true }\n\
                  '/gone' = { path = 'none' }\n";
    let host = Host::start(|host| {
        for name in ["media", "out"] {
            fs::create_dir(host.folder().join(name)).expect("the folder is ours");
        }
        fs::write(host.folder().join("media/a"), "a picture").expect("the folder is ours");
        let host = host
            .config(config)
            .app("acme/shop", guest("site"))
            .sidecar("acme/shop", "directories = ['/media', '/out']");
        let host = host.app("acme/quiet", guest("site")).app("acme/gone", guest("site"));
        host.sidecar("acme/gone", "directories = '/gone'")
            .app("hive/a", guest("site"))
            .sidecar("hive/a", "directories = '/media'")
    });
    let disk = |app: &str, words: &str| host.get(&format!("/acme/{app}?disk={words}")).text();
    assert_eq!(disk("shop", "read:/media/a"), "a picture");
    assert_eq!(disk("shop", "write:/out/b:new"), "done");
    assert_eq!(fs::read(host.folder().join("out/b")).expect("it was written"), b"new");
    for words in ["write:/media/b:x", "remove:/media/a", "read:/media/../out/b", "symlink:../out/b:/media/c"] {
        assert!(disk("shop", words).starts_with("error "), "{words}");
    }
    assert!(disk("quiet", "read:/media/a").starts_with("error "));
    host.listed_problem("acme/gone", "that it was granted at /gone: ");
    host.listed_problem("hive/a", "the operator has not granted \"/media\"");
}

#[test]
fn what_calls_have_open_leads_to_nothing_once_it_is_taken_away() {
    let granted = "[tenant.acme.grant]\ndata = '*'\n[tenant.acme.grant.directories]\n'/media' = { path = 'media' }\n";
    let without_data = granted.replace("data = '*'", "");
    let without_media = "[tenant.acme.grant]\ndata = '*'\n";
    // Who takes turns at its data has one call at a time: an app for each.
    let cases = [
        ("site", "?disk=hold:/data/a:read", without_data.as_str()),
        ("site", "?disk=hold:/data/a:write", without_data.as_str()),
        ("site", "?disk=hold:/data/a:look", without_data.as_str()),
        ("site", "?disk=hold:/media/a:read", without_media),
        ("cgi-probe", "/disk?hold:/data/a:write", without_data.as_str()),
        ("http-p2", "/disk?hold:/media/a:look", without_media),
        ("http-p3", "/disk?hold:/data/a:read", without_data.as_str()),
    ];
    let host = Host::start(|host| {
        fs::create_dir(host.folder().join("media")).expect("the folder is ours");
        fs::write(host.folder().join("media/a"), "a picture").expect("the folder is ours");
        let host = host.config(granted).app("hive/a", guest("site"));
        (0..cases.len()).fold(host, |host, case| {
            let asks = if cases[case].1.contains("/media/") { "directories = '/media'" } else { "data = true" };
            let folder = host.folder().join("data").join(format!("acme+{case}"));
            fs::create_dir_all(&folder).expect("the folder is ours");
            fs::write(folder.join("a"), "kept").expect("the folder is ours");
            host.app(&format!("acme/{case}"), guest(cases[case].0)).sidecar(&format!("acme/{case}"), asks)
        })
    });
    for config in [without_data.as_str(), without_media] {
        let of_this = || cases.iter().enumerate().filter(|(_, (.., without))| *without == config);
        let mut clients: Vec<_> = of_this()
            .map(|(case, (_, target, _))| {
                let mut client = host.connect();
                client.send(&Request::get(&format!("/acme/{case}{target}")).to_bytes());
                (case, client)
            })
            .collect();
        for (case, _) in of_this() {
            let app = format!("acme/{case}");
            let begun = |event: &tests::Event| event.text("app") == app && event.message().contains("holding");
            host.log().wait(&format!("{app} has it open"), begun);
        }
        reload(&host, config);
        for (case, client) in &mut clients {
            let answer = client.response("GET").text();
            let is_error = answer.starts_with("error ") && !answer.contains("UnexpectedEof");
            assert!(is_error, "{:?}: {answer}", cases[*case]);
        }
        reload(&host, granted);
        host.until("/acme/0?disk=length:/etc", 200, "error NotFound");
    }
    assert_eq!(host.get("/hive/a").text(), "call 1 of ", "another tenant's app is what it was");
}
