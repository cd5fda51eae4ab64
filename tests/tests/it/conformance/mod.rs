//! The rules of WSGI, CGI and HTTP as docs/conformance.md numbers them: each is a test or more, named by its number, over real
//! sockets and against every kind of guest that the rule is for.

mod bare;
mod body;
mod cgi;
mod connection;
mod environ;
mod http;
mod input;
mod redirect;
mod start_response;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tests::{Builder, Host, guest, repository};

/// A guest of `tests/guests` that speaks WSGI through an SDK.
struct WsgiGuest {
    /// It is mounted there.
    name: &'static str,
    component: &'static str,
    /// What its sidecar begins with.
    sidecar: &'static str,
}

/// One for each SDK, and one with the validator of Python's standard library between server and application: it looks at every
/// argument of every call, in both directions. All of them answer the same requests in the same way, so that a case is written once.
const WSGI_GUESTS: &[WsgiGuest] = &[
    WsgiGuest { name: "probe", component: "probe", sidecar: "" },
    WsgiGuest { name: "probe-python", component: "probe-python", sidecar: "" },
    WsgiGuest { name: "validated", component: "probe-python", sidecar: "env.VALIDATED = 'yes'\n" },
];

/// Whether it is the guest with the validator in between. What an application does wrong on purpose, that objects to, before an SDK
/// or the host can. And as any middleware it returns an iterable of its own: neither the length of a list nor that of a file
/// is known behind it.
fn is_validated(app: &str) -> bool {
    app == "/validated"
}

/// Runs a case against every guest that speaks WSGI; it is told where the guest is mounted (`/probe`).
fn each_wsgi_guest(case: impl Fn(&Host, &str)) {
    each_wsgi_guest_with("", |host| host, case);
}

/// The same with a sidecar, and with a host made to measure.
fn each_wsgi_guest_with(sidecar: &str, build: impl Fn(Builder) -> Builder, case: impl Fn(&Host, &str)) {
    for WsgiGuest { name, component, sidecar: own } in WSGI_GUESTS {
        // Shown where the case fails.
        println!("the guest is {name}");
        // A case that does not say so means fresh instances, whatever the makers of an SDK recommend.
        let policy = if sidecar.contains("instances") { "" } else { "instances = 'fresh'\n" };
        let sidecar = format!("{policy}{own}{sidecar}");
        let host = Host::start(|host| build(host.app(name, guest(component)).sidecar(name, &sidecar)));
        case(&host, &format!("/{name}"));
    }
}

/// The target for a list of steps, as each guest that speaks WSGI takes them (`tests/guests/probe/src/script.rs`).
fn script(app: &str, steps: &str) -> String {
    let encoded: String = steps
        .chars()
        .map(|char| match char {
            ' ' => "%20".to_owned(),
            '<' | '>' | '"' | '^' | '`' | '|' | '#' => format!("%{:02X}", u32::from(char)),
            char => char.to_string(),
        })
        .collect();
    format!("{app}/script?{encoded}")
}

/// Serves the guest that speaks the bare contract and checks nothing: for what the host enforces by itself.
fn raw() -> Host {
    Host::start(|host| host.app("raw", guest("raw")))
}

/// Runs a case against those guests and the one without an SDK: for what the host alone makes.
fn each_guest_of_the_contract(case: impl Fn(&Host, &str)) {
    each_wsgi_guest(&case);
    println!("the guest is raw");
    case(&raw(), "/raw");
}

/// The rules that the page has to have: a letter, and up to which number.
const RULES: &[(&str, u32)] = &[("E", 12), ("I", 7), ("S", 12), ("B", 9), ("C", 11), ("H", 24)];

/// What docs/conformance.md says of each rule: the tests that prove it.
fn page() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(repository().join("docs/conformance.md")).expect("the page is there");
    let mut rules = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("| ")) {
        let columns: Vec<&str> = line.trim_end_matches('|').split(" | ").map(str::trim).collect();
        let (Some(rule), Some(tests)) = (columns.first(), columns.last()) else { continue };
        if !is_rule(rule) {
            continue;
        }
        assert_eq!(columns.len(), 6, "the row of {rule} has as many columns as its head");
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(rules.insert((*rule).to_owned(), tests).is_none(), "{rule} has two rows");
    }
    rules
}

/// `E5`: one of our letters, and a number.
fn is_rule(text: &str) -> bool {
    RULES.iter().any(|(letter, _)| text.strip_prefix(letter).is_some_and(|number| number.parse::<u32>().is_ok()))
}

/// The tests in this folder that are named by a rule: the rule's number, and the names.
fn named() -> BTreeMap<String, BTreeSet<String>> {
    let folder = repository().join("tests/tests/it/conformance");
    let mut rules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let text = fs::read_to_string(entry.expect("it can be read").path()).expect("sources are text");
        for test in text.split("#[test]\nfn ").skip(1) {
            let name = test.split('(').next().unwrap_or_default();
            let rule = name.split('_').next().unwrap_or_default().to_uppercase();
            if is_rule(&rule) {
                rules.entry(rule).or_default().insert(name.to_owned());
            }
        }
    }
    rules
}

/// Rules whose tests are still to be written.
fn missing() -> BTreeSet<String> {
    let lists = [
        environ::MISSING,
        input::MISSING,
        start_response::MISSING,
        body::MISSING,
        cgi::MISSING,
        connection::MISSING,
        http::MISSING,
    ];
    lists.concat().into_iter().map(str::to_owned).collect()
}

#[test]
fn every_rule_is_on_the_page_and_names_its_tests() {
    let (page, named, missing) = (page(), named(), missing());
    let rules: BTreeSet<String> =
        RULES.iter().flat_map(|(letter, last)| (1..=*last).map(move |number| format!("{letter}{number}"))).collect();
    for rule in &rules {
        assert!(
            page.contains_key(rule) != missing.contains(rule),
            "{rule}: a row on the page, or a place among the missing"
        );
    }
    for (rule, tests) in &page {
        assert!(rules.contains(rule), "{rule} is no rule");
        let listed: BTreeSet<String> = tests.iter().cloned().collect();
        let known = named.get(rule).cloned().unwrap_or_default();
        assert!(!listed.is_empty(), "{rule} has no test");
        assert_eq!(listed, known, "{rule}: the tests on the page, and those that there are");
    }
    for (rule, tests) in &named {
        assert!(page.contains_key(rule), "{rule} has tests, but no row on the page: {tests:?}");
    }
}
