//! Crash capsules: what is kept of a call that its app failed, for whom, and running it again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;
use tests::{Elsewhere, Host, Request, Response, eventually, guest, wasgi, wat};

/// A trap at once.
const TRAPS: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32) unreachable)"#;

#[track_caller]
fn run(host: &Host, arguments: &[&str]) -> Output {
    let mut command = wasgi();
    command.current_dir(host.folder()).args(arguments).args(["--state-dir"]).arg(host.state_dir());
    command.output().expect("the binary can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it prints text")
}

/// The capsule of a response, as soon as it is there.
#[track_caller]
fn capsule(host: &Host, response: &Response) -> Value {
    let id = response.request_id();
    eventually(&format!("there is a capsule of request {id}"), || {
        let output = run(host, &["capsule", "--json", &id]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("it prints JSON"))
    })
}

fn files(host: &Host) -> Vec<PathBuf> {
    let entries = fs::read_dir(host.state_dir().join("capsules"));
    let paths = entries.into_iter().flatten().map(|entry| entry.expect("it can be read").path());
    paths.filter(|path| path.is_file()).collect()
}

#[track_caller]
fn replay(host: &Host, id: &str, code: i32) -> Value {
    let output = run(host, &["replay", "--json", id, "--config", "wasgi.toml", "--apps-dir", "apps"]);
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

#[test]
fn every_kind_of_fault_leaves_a_capsule_with_what_happened() {
    let host = Host::start(|host| {
        let host = host.app("probe", guest("probe")).app("http", guest("http-p2")).app("p3", guest("http-p3"));
        host.app("cgi", guest("cgi-probe")).limit("cpu_time=200ms").limit("memory=32MiB")
    });
    let check = |target: &str, cause: &str, frame: &str, line: &str| {
        let request = Request::get(target).header("User-Agent", "tester/1").header("Cookie", "a=hidden");
        let response = host.ask(&request);
        let capsule = capsule(&host, &response);
        let shown = capsule.to_string();
        assert_eq!(capsule["cause"], cause, "{shown}");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let kept = capsule["request"]["target"].as_str().expect("it is text");
        assert_eq!(kept.split('?').next(), Some(path), "{shown}");
        assert_eq!(kept.contains(" bytes)"), !query.is_empty(), "of the query there are lengths: {shown}");
        let frames = capsule["backtrace"].as_array().expect("it is a list");
        assert!(frames.iter().any(|found| found.as_str().is_some_and(|found| found.contains(frame))), "{shown}");
        let lines = capsule["log"].as_array().expect("it is a list");
        let own = |found: &&Value| found["own"] == true && found["text"].as_str().unwrap_or("").contains(line);
        assert!(line.is_empty() || lines.iter().any(|found| own(&found)), "{shown}");
        assert!(shown.contains("tester/1") && !shown.contains("hidden"), "{shown}");
        assert!(shown.contains("\"cookie\""), "{shown}");
        assert_eq!(capsule["release"]["hash"].as_str().map(str::len), Some(64), "{shown}");
        assert!(capsule["used"]["cpu_micros"].as_u64() > Some(0) && capsule["used"]["wall_micros"].as_u64() > Some(0));
        assert!(capsule["used"]["memory_bytes"].as_u64() > Some(60_000), "{shown}");
    };
    check("/probe/fault?kind=panic", "trap", "probe::fault::run", "secret panic");
    check("/probe/fault?kind=spin", "cpu", "probe::fault::run", "");
    check("/probe/fault?kind=memory", "memory", "probe::fault", "");
    check("/probe/fault?kind=recurse", "trap", "recurse_without_end", "");
    check("/http/panic?x", "trap", "handle", "secret panic");
    check("/p3/panic?x", "trap", "", "");
    check("/cgi/say-and-panic", "trap", "", "it panics");
}

#[test]
fn what_is_kept_is_for_the_hosts_user_alone_and_is_listed_newest_first() {
    let host = Host::start(|host| host.app("acme/trap", wat(TRAPS)).app("ok", guest("hello")));
    assert_eq!(text(&run(&host, &["capsule"]).stdout).lines().count(), 1, "there are none");
    assert_eq!(host.get("/ok").status(), 200);
    let (first, second) = (host.get("/acme/trap/first"), host.get("/acme/trap/second"));
    capsule(&host, &first);
    assert_eq!(capsule(&host, &second)["tenant"], "acme");
    let listed = text(&run(&host, &["capsule"]).stdout);
    let at = |id: &str| listed.find(id).unwrap_or_else(|| panic!("{id} is missing in\n{listed}"));
    assert!(at(&second.request_id()) < at(&first.request_id()), "{listed}");
    assert_eq!(listed.lines().count(), 3, "{listed}");
    for path in files(&host) {
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    }
    let folder = fs::metadata(host.state_dir().join("capsules")).expect("it is there");
    assert_eq!((folder.permissions().mode() & 0o777, folder.uid()), (0o700, rustix::process::getuid().as_raw()));
    // The same in words.
    let shown = text(&run(&host, &["capsule", &first.request_id()]).stdout);
    assert!(shown.contains("cause     trap") && shown.contains("/acme/trap/first"), "{shown}");
    assert_eq!(host.metric("wasgi_capsules_total{outcome=\"written\"}"), Some(2.0));
}

#[test]
fn nothing_of_a_request_or_an_app_that_may_be_secret_is_in_it() {
    let host = Host::start(|host| {
        let config = "[grant.secrets]\nTOKEN = { file = 'token' }\n[grant.env]\nPLAIN = 'canary-of-the-environment'";
        fs::write(host.folder().join("token"), "canary-of-the-secret\nanother canary of it\n")
            .expect("the directory is ours");
        host.app("probe", guest("probe")).sidecar("probe", "secrets = ['TOKEN']").config(config)
    });
    // As a client may write what it should not have.
    let target = "/probe/fault?kind=raise&k=c%61nary-of-the-secret&l=another+c%61nary%20of%20it&token=0123canary";
    let request = Request::post(target, "canary-of-the-body").header("Referer", "https://a.example/b?reset=0123canary");
    let request = ["Authorization", "Cookie", "X-Api-Key", "X-Anything"]
        .iter()
        .fold(request, |request, name| request.header(name, "canary-of-a-field"));
    let response =
        host.ask(&request.header("Content-Type", "text/x-kept").header("User-Agent", "canary-of-the-secret"));
    let capsule = capsule(&host, &response).to_string();
    assert!(capsule.contains("text/x-kept") && capsule.contains("x-anything"), "{capsule}");
    assert!(capsule.contains("token=(10 bytes)") && capsule.contains("https://a.example/b\""), "{capsule}");
    for path in files(&host) {
        let file = fs::read_to_string(path).expect("it is text");
        assert!(["canary", "of-the-secret", "another"].iter().all(|words| !file.contains(words)), "{file}");
    }
}

/// Paths may hold UTF-8 as it is: a terminal would act upon some of it.
#[test]
fn no_client_speaks_to_the_operators_terminal() {
    let host = Host::start(|host| host.app("app", wat(TRAPS)));
    let id = host.ask(&Request::get("/app/a\u{9b}2Jb\u{202e}c?d\u{9b}=\u{202e}")).request_id();
    eventually("it is kept", || run(&host, &["capsule", &id]).status.success().then_some(()));
    for arguments in [&["capsule"][..], &["capsule", &id], &["capsule", "--json"], &["capsule", "--json", &id]] {
        let shown = text(&run(&host, arguments).stdout);
        assert!(shown.contains("/app/a"), "{arguments:?}: {shown:?}");
        assert!(!shown.contains(['\u{9b}', '\u{202e}']), "{arguments:?}: {shown:?}");
    }
    let parsed: Value = serde_json::from_slice(&run(&host, &["capsule", "--json", &id]).stdout).expect("it is JSON");
    assert!(parsed["request"]["target"].as_str().is_some_and(|target| target.contains("a\u{9b}2Jb\u{202e}c")));
    let again = run(&host, &["replay", &id, "--config", "wasgi.toml", "--apps-dir", "apps"]);
    assert!(!text(&again.stdout).contains(['\u{9b}', '\u{202e}']), "{:?}", text(&again.stdout));
}

#[test]
fn a_request_is_run_again_and_fails_in_the_same_way() {
    let host = Host::start(|host| host.app("probe", guest("probe")).flag("--capsules", "whole"));
    let body: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let request = Request::post("/probe/raise-with-request?a=%20b", &body[..10_000]);
    let response = host.ask(&request.header("Authorization", "Basic 1234").header("User-Agent", "tester/1"));
    let before = capsule(&host, &response);
    let said = before["error"].as_str().expect("it is text");
    assert!(said.contains("10000 bytes") && said.contains("authorization 10"), "{said}");
    let again = replay(&host, &response.request_id(), 0);
    assert_eq!((&again["same"], &again["response"]["status"]), (&true.into(), &500.into()), "{again}");
    assert_eq!(again["fault"]["error"], before["error"], "to the byte");

    // Of a larger body there is a beginning.
    let response = host.ask(&Request::post("/probe/raise-with-request", body));
    capsule(&host, &response);
    let again = replay(&host, &response.request_id(), 0);
    assert!(again["fault"]["error"].as_str().is_some_and(|said| said.contains("100000 bytes")), "{again}");
    assert!(again["differences"].to_string().contains("the last 34464 of 100000 bytes"), "{again}");

    // In words, and with the exit code of what went before.
    let shown = run(&host, &["replay", &response.request_id(), "--config", "wasgi.toml", "--apps-dir", "apps"]);
    assert!(text(&shown.stdout).contains("the same  yes"), "{}", text(&shown.stdout));
}

#[test]
fn what_was_not_kept_is_replaced_and_said() {
    let host = Host::start(|host| host.app("probe", guest("probe")));
    let request =
        Request::post("/probe/raise-with-request?token=0123", "twelve bytes").header("Authorization", "Basic 1234");
    let response = host.ask(&request);
    let before = capsule(&host, &response);
    let again = replay(&host, &response.request_id(), 0);
    let differences = again["differences"].to_string();
    assert!(differences.contains("12 zeros were sent") && differences.contains("authorization"), "{differences}");
    assert!(differences.contains("of the query the values were not kept"), "{differences}");
    let said = |value: &Value| value["error"].as_str().unwrap_or_default().to_owned();
    assert_ne!(said(&before), said(&again["fault"]));
    let again = said(&again["fault"]);
    assert!(again.contains("12 bytes (0)") && again.contains("authorization 10"), "{again}");
}

#[test]
fn it_runs_the_release_that_failed_whatever_has_become_of_the_app() {
    let host = Host::start(|host| host.app("app", wat(TRAPS)).flag("--capsules-module-size", "1MiB"));
    let response = host.get("/app/x");
    let id = response.request_id();
    let modules = host.state_dir().join("capsules/modules");
    capsule(&host, &response);
    let module = eventually("the release is kept", || fs::read_dir(&modules).ok()?.next());
    host.drop_in("app.wasm", guest("hello"));
    host.until("/app", 200, "");
    assert_eq!(replay(&host, &id, 0)["verdict"], "yes");
    // A copy that somebody has changed is none.
    fs::write(module.expect("it can be read").path(), guest("hello")).expect("it is ours");
    let output = run(&host, &["replay", &id, "--apps-dir", "apps"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("it cannot be run again"), "{}", text(&output.stderr));
    // Nor is a host disturbed by it.
    assert_eq!(host.get("/app").status(), 200);
}

#[test]
fn running_again_changes_nothing_and_reaches_nothing() {
    let server = Elsewhere::http();
    let host = Host::start(|host| {
        fs::create_dir(host.folder().join("out")).expect("the directory is ours");
        let config = format!(
            "[grant]\ndata = ['*']\n[grant.directories]\n'/out' = {{ path = 'out', write = true }}\n\
             [grant.outbound]\n'*' = ['{}']\n",
            server.url("")
        );
        let sidecar = format!("data = true\ndirectories = ['/out']\noutbound = ['{}']\n", server.url(""));
        let host = host.app("site", guest("site")).sidecar("site", &sidecar).config(&config);
        host.flag("--capsules", "whole")
    });
    let fail = |what: &str| {
        let response = host.get(&format!("/site/raise?{what}"));
        capsule(&host, &response);
        response.request_id()
    };
    let said = |id: &str| replay(&host, id, 0)["fault"]["error"].as_str().expect("it is text").to_owned();

    let counted = fail("disk=increment:/data/count:1");
    assert!(said(&counted).ends_with("SiteError: 1"));
    assert!(said(&counted).ends_with("SiteError: 1"), "it finds no data each time");
    assert_eq!(host.get("/site?disk=read:/data/count").text(), "1");

    let written = fail("disk=write:/out/file:x");
    fs::remove_file(host.folder().join("out/file")).expect("the app has written it");
    assert!(said(&written).ends_with("SiteError: done"));
    assert!(!host.folder().join("out/file").exists());

    let asked = fail(&format!("elsewhere=get,{}", server.url("/hello")));
    let before = server.connected();
    assert_eq!(before, 1, "the app itself has reached it");
    assert!(!said(&asked).contains("200"), "{}", said(&asked));
    assert_eq!(server.connected(), before);
}

#[test]
fn a_loud_app_leaves_room_for_others_and_the_host_answers_on() {
    let host = Host::start(|host| {
        let host = host.app("loud", wat(TRAPS)).app("acme/quiet", wat(TRAPS));
        host.flag("--capsules-count", "5").config("[budget]\nfaults = 1_000_000\n")
    });
    let quiet = host.get("/acme/quiet");
    capsule(&host, &quiet);
    let mut client = host.connect();
    let loud: Vec<String> = (0..2000).map(|_| client.get("/loud").request_id()).collect();
    eventually("what is too much is counted", || {
        host.metric("wasgi_capsules_total{outcome=\"dropped\"}").filter(|dropped| *dropped > 1000.0)
    });
    eventually("five are left", || (files(&host).len() == 5).then_some(()));
    assert_eq!(capsule(&host, &quiet)["app"], "acme/quiet");
    let listed: BTreeSet<String> =
        text(&run(&host, &["capsule"]).stdout).lines().skip(1).map(|line| line[..16].to_owned()).collect();
    assert!(loud.iter().filter(|id| listed.contains(*id)).count() == 4, "{listed:?}");
    host.log_contains("there is no capsule, since there were too many at once");
}

#[test]
fn where_nothing_can_be_written_requests_are_answered_and_it_is_said() {
    let host = Host::start(|host| host.app("app", wat(TRAPS)).app("ok", guest("hello")));
    // Not even root can make a folder there.
    fs::write(host.state_dir().join("capsules"), "").expect("the directory is ours");
    assert_eq!(host.get("/app").status(), 500);
    host.log_contains("a capsule cannot be written to");
    assert_eq!((host.get("/app").status(), host.get("/ok").status()), (500, 200));
    fs::remove_file(host.state_dir().join("capsules")).expect("it is ours");
    capsule(&host, &host.get("/app"));
    assert!(host.metric("wasgi_capsules_total{outcome=\"failed\"}") >= Some(1.0));
}

#[test]
fn it_can_be_switched_off_and_on_without_a_restart() {
    let host = Host::start(|host| host.app("app", wat(TRAPS)).config("capsules = 'off'\n"));
    let first = host.get("/app");
    host.failure(&first);
    host.write_config("capsules = 'redacted'\n");
    host.signal(Signal::HUP);
    host.log_contains("the configuration was read again");
    capsule(&host, &host.get("/app"));
    let output = run(&host, &["capsule", &first.request_id()]);
    assert!(!output.status.success() && text(&output.stderr).contains("there is no capsule of request"));
    for id in ["../../wasgi.toml", "..", "x", "0123456789abcdeg"] {
        let output = run(&host, &["capsule", id]);
        assert!(text(&output.stderr).contains("is no request id"), "{}", text(&output.stderr));
        assert!(!run(&host, &["replay", id]).status.success());
    }
}
