//! Key-value stores: what the operator grants and the app asks for, within limits, for guests of every kind, and durable.

mod embedded;
mod limits;
mod redis;
mod tenants;

use tests::{Host, guest};

/// One app of each kind, by name.
fn kinds() -> [(&'static str, Vec<u8>); 4] {
    [("wsgi", guest("site")), ("cgi", guest("shelf")), ("p2", guest("http-p2")), ("p3", guest("http-p3"))]
}

/// What came of a guest's try.
#[track_caller]
fn tries(host: &Host, app: &str, words: &str) -> String {
    let response = host.get(&target(app, words));
    assert_eq!(response.status(), 200, "{app} {words}: {}", response.text());
    response.text().trim_end().to_owned()
}

fn target(app: &str, words: &str) -> String {
    match app.rsplit('/').next() {
        Some("cgi") => format!("/{app}?{words}"),
        Some("p2" | "p3") => format!("/{app}/shelf?{words}"),
        _ => format!("/{app}?shelf={words}"),
    }
}

const GRANT: &str = "[grant.keyvalue]\ndefault = {}\n";
const ASK: &str = "keyvalue = 'default'\n";

/// One app with a store.
fn serving(sidecar: &str) -> Host {
    Host::start(|host| host.config(GRANT).app("site", guest("site")).sidecar("site", &format!("{ASK}{sidecar}")))
}
