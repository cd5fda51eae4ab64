//! The apps directory is the truth: what is dropped, replaced, removed or wrong, and what the requests see of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tests::{Host, Request, eventually, guest, parse, wat};

/// A guest of text that answers with two letters: releases that differ.
fn saying(letters: &str) -> Vec<u8> {
    assert_eq!(letters.len(), 2);
    wat(&format!(
        r#"(data (i32.const 1120) "{letters}")
           (func (export "call") (param i32 i32 i32 i32 i32) (result i32) (global.get $ok))"#
    ))
}

fn empty() -> Host {
    Host::start(|host| host)
}

fn serving_aa() -> Host {
    Host::start(|host| host.cold().app("app", saying("aa")))
}

#[test]
fn a_dropped_file_is_served_at_its_name() {
    let host = empty();
    for (file, target) in
        [("hello.wasm", "/hello"), ("shop/cart.wasm", "/shop/cart"), ("shop/index.wasm", "/shop"), ("index.wasm", "/")]
    {
        host.drop_in(file, saying("aa"));
        host.until(target, 200, "aa");
    }
}

#[test]
fn a_replaced_file_is_the_new_release_and_a_removed_one_is_a_404() {
    let host = serving_aa();
    let before = host.listed("app").expect("it is listed");
    assert_eq!((before.text("state").as_str(), before.text("problem").as_str()), ("live", ""));
    host.drop_in("app.wasm", saying("bb"));
    host.until("/app", 200, "bb");
    let after = host.listed("app").expect("it is listed");
    assert_ne!(before.text("release"), after.text("release"));
    host.remove("app.wasm");
    host.until("/app", 404, "");
    assert!(host.listed("app").is_none());
}

#[test]
fn twenty_replacements_under_load_fail_no_request() {
    let host = Host::start(|host| host.app("app", saying("aa")).workers(2));
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..32)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = host.connect();
                    while !over.load(Ordering::Relaxed) {
                        let response = client.get("/app");
                        assert_eq!(response.status(), 200, "{}", response.text());
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for release in 0..20 {
            let letters = format!("{release:02}");
            host.drop_in("app.wasm", saying(&letters));
            host.drop_in(&format!("other{}.wasm", release % 3), saying(&letters));
            if release % 2 == 1 {
                host.remove(&format!("other{}.wasm", release % 3));
            }
            let before = served.load(Ordering::Relaxed);
            eventually("the release is live", || {
                let dead = clients.iter().any(std::thread::ScopedJoinHandle::is_finished);
                (dead || host.get("/app").text() == letters).then_some(())
            });
            eventually("the load goes on", || {
                let dead = clients.iter().any(std::thread::ScopedJoinHandle::is_finished);
                (dead || served.load(Ordering::Relaxed) > before + 32).then_some(())
            });
        }
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no request failed");
        }
    });
    assert!(host.access().all(|event| event.text("app") == "app" && event.number("status") != 200).is_empty());
}

#[test]
fn a_call_that_runs_ends_in_the_release_in_which_it_began() {
    let host = Host::start(|host| host.app("app", guest("probe")).stream_bodies());
    let mut running = host.connect();
    running.send(&Request::chunked("/app/echo-blocks").to_bytes());
    running.chunk(b"one");
    assert_eq!(running.head("POST").status, 200);
    host.drop_in("app.wasm", saying("bb"));
    host.until("/app", 200, "bb");
    running.chunk(b"two");
    running.chunk(b"");
    let mut body = Vec::new();
    while let Ok(piece) = running.piece() {
        if piece.is_empty() {
            break;
        }
        body.extend_from_slice(&piece);
    }
    assert_eq!(body, b"onetwo");
}

#[test]
fn a_broken_replacement_leaves_the_old_release_and_says_why() {
    let host = serving_aa();
    for (bytes, words) in [
        (&b""[..], "empty"),
        (&b"<!DOCTYPE html><title>404</title>"[..], "not WebAssembly"),
        (&saying("bb")[..1000], "truncated"),
        (&b"\0asm\x01\0\0\0"[..], "core module"),
    ] {
        host.drop_in("app.wasm", bytes);
        let listed = host.listed_problem("app", words);
        assert_eq!(listed.text("state"), "live-problem", "{words}");
        assert_eq!(host.get("/app").text(), "aa");
        let line = host.log().wait(words, |event| event.text("app") == "app" && event.message().contains(words));
        assert_eq!(line.text("level"), "WARN");
    }
    host.drop_in("app.wasm", saying("cc"));
    host.until("/app", 200, "cc");
    eventually("the problem is over", || host.listed("app").filter(|app| app.text("problem").is_empty()));
}

#[test]
fn a_component_of_another_version_is_refused_by_name() {
    let host = empty();
    let text = "(component (instance $app) (export \"wasgi:gateway/application@0.9.0\" (instance $app)))";
    host.drop_in("future.wasm", parse(text));
    let problem = host.listed_problem("future", "0.9.0").text("problem");
    assert!(problem.contains("0.1.0"), "both versions are named: {problem}");
}

/// A component whose `interface` has functions of these types, and no other content.
fn of_types(interface: &str, functions: &[(&str, &str)]) -> Vec<u8> {
    let lifted = |(name, ty): &(&str, &str)| {
        let params = ty.matches("param").count();
        let core = format!("(func (export {name:?}) {} (result i32) unreachable)", "(param i32)".repeat(params));
        let lift = format!(r#"(func ${name} {ty} (canon lift (core func $i {name:?})))"#);
        (core, lift, format!("(export {name:?} (func ${name}))"))
    };
    let (mut cores, mut lifts, mut exports) = (String::new(), String::new(), String::new());
    for (core, lift, export) in functions.iter().map(lifted) {
        cores.push_str(&core);
        lifts.push_str(&lift);
        exports.push_str(&export);
    }
    parse(&format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types (export "incoming-request" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (core module $m {cores}) (core instance $i (instantiate $m)) {lifts}
            (instance $exported {exports}) (export {interface:?} (instance $exported)))"#
    ))
}

#[test]
fn functions_of_another_type_are_refused_by_name() {
    const WSGI: &str = "wasgi:gateway/application@0.1.0";
    let other = "(result u32)";
    let cases = [
        ("wsgi", WSGI, &[("call", other), ("next", other), ("close", other)][..], "call"),
        ("lacking", WSGI, &[("next", other)], "call"),
        ("p2", "wasi:http/incoming-handler@0.2.3", &[("handle", other)], "handle"),
        (
            "outless",
            "wasi:http/incoming-handler@0.2.0",
            &[("handle", r#"(param "a" (own $request)) (result u32)"#)],
            "handle",
        ),
        ("p3", "wasi:http/handler@0.3.0", &[("handle", other)], "handle"),
        ("cgi", "wasi:cli/run@0.2.0", &[("run", other)], "run"),
    ];
    let host = empty();
    for (name, interface, functions, _) in cases {
        host.drop_in(&format!("{name}.wasm"), of_types(interface, functions));
    }
    for (name, interface, functions, function) in cases {
        let problem = host.listed_problem(name, &format!("function {function}")).text("problem");
        let (package, _) = interface.split_once('@').expect("it has a version");
        assert!(problem.contains(package), "{problem}");
        let lacks = !functions.iter().any(|(name, _)| *name == function);
        assert!(problem.contains(if lacks { "does not export" } else { "of another type" }), "{problem}");
        assert_eq!(host.get(&format!("/{name}")).status(), 404);
    }
}

#[test]
fn a_touch_does_nothing() {
    let host = serving_aa();
    let since = host.listed("app").expect("it is listed").text("since");
    let path = host.apps_dir().join("app.wasm");
    let file = fs::File::options().append(true).open(&path).expect("it is there");
    file.set_modified(std::time::SystemTime::now()).expect("it is ours");
    // A second app tells when the directory has been looked at.
    host.drop_in("mark.wasm", saying("mm"));
    host.until("/mark", 200, "mm");
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(host.listed("app").expect("it is listed").text("since"), since);
    assert_eq!(live(&host, "app").len(), 1);
}

fn live(host: &Host, app: &str) -> Vec<tests::Event> {
    host.log().all(|event| event.message() == "live" && event.text("app") == app)
}

/// The `index`th time that an app went live. The line may come after the first answer.
#[track_caller]
fn went_live(host: &Host, app: &str, index: usize) -> tests::Event {
    let is_it = |event: &tests::Event| event.message() == "live" && event.text("app") == app;
    host.log().wait_for(&format!("{app} is live"), index + 1, is_it).swap_remove(index)
}

#[test]
fn the_same_bytes_compile_once() {
    let host = serving_aa();
    host.drop_in("copy.wasm", saying("aa"));
    host.until("/copy", 200, "aa");
    assert_eq!(went_live(&host, "app", 0).text("code"), "compiled");
    assert_ne!(went_live(&host, "copy", 0).text("code"), "compiled");
}

#[test]
fn a_slow_copy_is_taken_when_it_is_whole() {
    let host = Host::start(|host| host.app("app", saying("aa")).flag("--settle-time", "400ms"));
    let bytes = guest("probe");
    let path = host.apps_dir().join("app.wasm");
    let mut file = fs::File::create(&path).expect("the directory is ours");
    for piece in bytes.chunks(bytes.len().div_ceil(8)) {
        std::io::Write::write_all(&mut file, piece).expect("the disk has room");
        assert_eq!(host.get("/app").text(), "aa");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    host.until("/app", 200, "hello");
    assert!(host.log().all(|event| event.message().contains("refused")).is_empty(), "nobody looked at half a file");
}

#[test]
fn a_change_of_the_sidecar_alone_takes_effect() {
    let host = Host::start(|host| host.cold().app("app", guest("probe")).sidecar("app", "env = { GREETING = 'hi' }"));
    assert!(host.get("/app/environ").text().contains("GREETING=hi\n"));
    host.drop_in("app.toml", "env = { GREETING = 'moin' }\nroutes = ['/app', '/greeting']");
    host.until("/greeting/environ", 200, "GREETING=moin\n");
    assert_ne!(went_live(&host, "app", 1).text("code"), "compiled", "the code is what it was");
    host.remove("app.toml");
    host.until("/greeting/environ", 404, "");
    assert!(!host.get("/app/environ").text().contains("GREETING"));
}

#[test]
fn a_bad_sidecar_is_refused_and_the_old_release_stays() {
    let host = Host::start(|host| host.app("app", guest("probe")).sidecar("app", "env = { GREETING = 'hi' }"));
    for (sidecar, words) in [
        ("env = { GREETING = 7 }", "GREETING"),
        ("no_such_key = 1", "no_such_key"),
        ("limits = { memory = '1TiB' }", "memory"),
        ("routes = ['../up']", "route"),
        ("this is no TOML", "line 1"),
    ] {
        host.drop_in("app.toml", sidecar);
        let listed = host.listed_problem("app", words);
        assert_eq!(listed.text("state"), "live-problem");
        assert!(host.get("/app/environ").text().contains("GREETING=hi\n"), "{sidecar}");
    }
    let host = Host::start(|host| host.app("app", guest("probe")).sidecar("app", "no_such_key = 1"));
    assert_eq!(host.get("/app").status(), 404, "never with a default where the policy cannot be read");
}

#[test]
fn of_two_that_claim_a_route_the_older_stays_and_both_are_told() {
    let host = serving_aa();
    host.drop_in("newer.toml", "routes = ['/app', '/newer']");
    host.drop_in("newer.wasm", saying("bb"));
    let problem = host.listed_problem("newer", "/app").text("problem");
    assert!(problem.contains("app"), "{problem}");
    let told = host.listed("app").expect("it is live").text("rivals");
    assert!(told.contains("newer") && told.contains("/app"), "the older one is not told: {told}");
    assert_eq!((host.get("/app").text().as_str(), host.get("/newer").status()), ("aa", 404));
    host.remove("app.wasm");
    host.until("/app", 200, "bb");
    host.until("/newer", 200, "bb");
}

#[test]
fn routes_go_by_host_and_by_the_longest_prefix() {
    let host = Host::start(|host| {
        host.app("api", guest("probe"))
            .sidecar("api", "routes = ['api.example', '*.wild.example/in', '/deep/er']")
            .app("deep", saying("dd"))
    });
    let ask = |name: &str, target: &str| host.ask(&Request::get(target).header("Host", name)).text();
    let environ = ask("api.example:8080", "/environ");
    assert!(environ.contains("SCRIPT_NAME=\n") && environ.contains("PATH_INFO=/environ\n"), "{environ}");
    let environ = ask("a.b.wild.example", "/in/environ");
    assert!(environ.contains("SCRIPT_NAME=/in\n") && environ.contains("PATH_INFO=/environ\n"), "{environ}");
    assert!(ask("other.example", "/deep/er/environ").contains("SCRIPT_NAME=/deep/er\n"));
    assert_eq!(ask("other.example", "/deep/erer"), "dd", "prefixes end where segments end");
}

#[test]
fn what_is_no_regular_visible_file_is_never_an_app() {
    let host = empty();
    let apps = host.apps_dir();
    let outside = apps.parent().expect("it lies in a folder").join("outside.wasm");
    fs::write(&outside, saying("oo")).expect("the directory is ours");
    symlink(&outside, apps.join("link.wasm")).expect("the directory is ours");
    fs::create_dir(apps.join("folder.wasm")).expect("the directory is ours");
    symlink(apps.parent().expect("it lies in a folder"), apps.join("up")).expect("the directory is ours");
    for hidden in [".hidden.wasm", ".app.wasm.swp", "app.wasm~", "app.wasm.part", "app.wasm.tmp", "notes.txt"] {
        fs::write(apps.join(hidden), saying("hh")).expect("the directory is ours");
    }
    host.drop_in("mark.wasm", saying("mm"));
    host.until("/mark", 200, "mm");
    host.listed_problem("link", "symbolic link");
    host.listed_problem("folder", "folder");
    for target in ["/link", "/folder", "/up/outside", "/.hidden", "/hidden", "/app", "/app.wasm", "/notes"] {
        assert_eq!(host.get(target).status(), 404, "{target}");
    }
}

#[test]
fn odd_names_and_sizes_have_a_reason() {
    use std::os::unix::ffi::OsStrExt;
    let host = empty();
    let apps = host.apps_dir();
    fs::write(apps.join("with space.wasm"), saying("ss")).expect("the directory is ours");
    fs::write(apps.join(std::ffi::OsStr::from_bytes(b"caf\xe9.wasm")), saying("ll")).expect("the directory is ours");
    fs::write(apps.join("dots..wasm"), saying("dd")).expect("the directory is ours");
    fs::write(apps.join("nothing.wasm"), b"").expect("the directory is ours");
    let zeros = fs::File::create(apps.join("zeros.wasm")).expect("the directory is ours");
    zeros.set_len(1 << 30).expect("it is sparse");
    host.listed_problem("nothing", "empty");
    host.listed_problem("zeros", "the limit is 64.0 MiB");
    for (words, of) in [("rename it", "with space"), ("rename it", "caf\\xe9")] {
        host.log().wait(of, |event| event.text("app").contains(of) && event.message().contains(words));
    }
    for target in ["/with%20space", "/caf%E9", "/nothing", "/zeros", "/dots./../dots."] {
        assert_ne!(host.get(target).status(), 200, "{target}");
    }
}

#[test]
fn an_unreadable_file_is_refused() {
    let host = empty();
    let path = host.apps_dir().join("secret.wasm");
    fs::write(&path, saying("aa")).expect("the directory is ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("it is ours");
    if fs::read(&path).is_ok() {
        // Nothing is unreadable for root.
        host.until("/secret", 200, "aa");
        return;
    }
    host.listed_problem("secret", "ermission");
}

#[test]
fn a_second_start_takes_code_from_the_cache_and_a_damaged_entry_is_made_again() {
    let host = serving_aa();
    assert_eq!(live(&host, "app")[0].text("code"), "compiled");
    let host = host.restart();
    assert_eq!(live(&host, "app")[0].text("code"), "cached");
    assert_eq!(host.get("/app").text(), "aa");
    for entry in fs::read_dir(host.state_dir().join("cache")).expect("it is there") {
        let path = entry.expect("it is there").path();
        let mut bytes = fs::read(&path).expect("it is ours");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("it is ours");
    }
    let host = host.restart();
    host.log_contains("it is damaged");
    assert_eq!(live(&host, "app")[0].text("code"), "compiled");
    assert_eq!(host.get("/app").text(), "aa");
}

#[test]
fn changes_without_file_events_are_found_by_looking() {
    // A directory that is replaced as a whole takes its watch with it.
    let host = serving_aa();
    let apps = host.apps_dir();
    let new = apps.with_file_name("new");
    fs::create_dir(&new).expect("the directory is ours");
    fs::write(new.join("app.wasm"), saying("bb")).expect("the directory is ours");
    fs::rename(&apps, apps.with_file_name("old")).expect("the directory is ours");
    fs::rename(&new, &apps).expect("the directory is ours");
    host.until("/app", 200, "bb");
    host.drop_in("app.wasm", saying("cc"));
    host.until("/app", 200, "cc");
}

#[test]
fn an_app_that_nobody_calls_gives_its_code_back_and_wakes_with_the_next_call() {
    let host = Host::start(|host| host.app("hello", guest("hello")).flag("--app-idle-time", "100ms"));
    eventually("its code is not in memory", || (host.mappings(".cwasm") == 0).then_some(()));
    assert_eq!(host.get("/hello").status(), 200);
    assert!(host.mappings(".cwasm") > 0);
    eventually("it is not again", || (host.mappings(".cwasm") == 0).then_some(()));
    assert_eq!(host.listed("hello").expect("it is there").text("state"), "live");
    // As ever, what is damaged is found before it is loaded.
    let cache = host.state_dir().join("cache");
    for entry in std::fs::read_dir(&cache).expect("there is a cache") {
        let path = entry.expect("it can be read").path();
        let bytes = std::fs::read(&path).expect("it can be read");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("it is ours");
    }
    assert_eq!(host.get("/hello").status(), 500);
    host.log_contains("its compiled code cannot be loaded");
}
