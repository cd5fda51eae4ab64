//! What is done to an app before it is compiled makes its instances cheaper, and changes nothing else.

use std::path::Path;

use tests::{Host, Request, Response, guest, parse, wasgi};

const WSGI: &[&str] =
    &["hello", "environ?a=b%20c", "gateway", "count", "stream?blocks=3&bytes=1000", "echo", "nowhere"];
const HTTP: &[&str] = &["hello", "request?a=b", "status?404", "echo"];
const CGI: &[&str] = &["environ", "read", "echo", "nowhere"];

/// Guests that toolchains have made of one core module and of many, with what to ask them.
const GUESTS: &[(&str, &[&str])] = &[
    ("probe", WSGI),
    ("probe-python", WSGI),
    ("hello-python", &[""]),
    ("http-javascript", HTTP),
    ("http-p2", HTTP),
    ("http-p3", HTTP),
    ("cgi-probe", CGI),
];

/// Status, header fields, lines.
type Comparable = (u16, Vec<(String, Vec<u8>)>, Vec<String>);

/// A response without what differs from host to host, and from time to time.
fn comparable(response: &Response) -> Comparable {
    let is_own = |line: &&str| {
        !["PORT", "REQUEST_ID", "request_id", "Request id", "HTTP_HOST"].iter().any(|word| line.contains(word))
    };
    let text = response.text();
    let mut headers = response.head.headers.clone();
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date") && !name.eq_ignore_ascii_case("content-length"));
    (response.status(), headers, text.lines().filter(is_own).map(str::to_owned).collect())
}

/// All in one test, so that each guest is compiled twice and no more: that takes a while.
#[test]
fn apps_of_every_kind_answer_the_same_with_all_passes_and_with_the_needed_ones() {
    let [all, needed] = ["all", "needed"].map(|passes| {
        Host::start(|host| {
            // Machines that test are busy; elsewhere a fraction of the defaults is enough.
            let host = host.flag("--passes", passes).limit("cpu_time=60s").limit("first_byte_time=60s");
            GUESTS.iter().fold(host, |host, (name, _)| host.app(name, guest(name)))
        })
    });
    for (name, paths) in GUESTS {
        for path in *paths {
            let target = format!("/{name}/{path}");
            for request in [Request::get(&target), Request::post(&target, vec![b'x'; 5000])] {
                assert_eq!(comparable(&all.ask(&request)), comparable(&needed.ask(&request)), "{target}");
            }
        }
    }
}

/// An app of two core modules, the second of which calls the first, which traps.
const TRAPPING: &str = r#"(component
    (core module $inner (func $the-inner-one (export "f") unreachable))
    (core module $outer (import "inner" "f" (func $f))
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8))
        (func $the-outer-one (export "run") (result i32) (call $f) (i32.const 0)))
    (core instance $inner (instantiate $inner))
    (core instance $outer (instantiate $outer (with "inner" (instance $inner))))
    (func $run (result (result)) (canon lift (core func $outer "run")))
    (component $renamed (import "run" (func $run (result (result)))) (export "run" (func $run)))
    (instance $exported (instantiate $renamed (with "run" (func $run))))
    (export "wasi:cli/run@0.2.0" (instance $exported)))"#;

#[test]
fn a_trap_names_the_guests_functions_as_they_were() {
    let host = Host::start(|host| host.app("index", parse(TRAPPING)));
    let failed = host.failure(&host.get("/"));
    let reason = format!("{failed:?}");
    for name in ["the-inner-one", "the-outer-one"] {
        assert!(reason.contains(name), "{name}: {reason}");
    }
}

fn check(folder: &Path, arguments: &[&str]) -> String {
    let ran = wasgi().current_dir(folder).arg("check").args(arguments).output().expect("the binary can be run");
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).expect("it prints text")
}

#[test]
fn check_says_what_each_pass_does_or_why_it_does_nothing() {
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    let write = |file: &str, wasm: Vec<u8>| {
        std::fs::write(folder.path().join(file), wasm).expect("the directory is ours");
    };
    write("two.wasm", parse(TRAPPING));
    let one = TRAPPING
        .replace("(core instance $inner (instantiate $inner))", "")
        .replace("(instantiate $outer (with \"inner\" (instance $inner)))", "(instantiate $outer)")
        .replace("(import \"inner\" \"f\" (func $f))", "(func $f)");
    write("one.wasm", parse(&one));
    let said = check(folder.path(), &["-v", "two.wasm", "one.wasm"]);
    assert!(said.contains("flatten: of 2 core modules 1 are left"), "{said}");
    assert!(said.contains("flatten: left as it is: there is nothing to merge"), "{said}");
    assert!(!check(folder.path(), &["two.wasm"]).contains("flatten"), "only if it is asked");
    std::fs::write(folder.path().join("wasgi.toml"), "passes = 'needed'").expect("the directory is ours");
    assert!(!check(folder.path(), &["-v", "two.wasm"]).contains("flatten"), "there is none");
}
