//! A guest of each kind, which tries what it is told and says what came of it: the same words mean the same to all of them.

use tests::{Host, guest};

/// One app of each kind that can try this, by name. A program of CGI is made for one thing to try, and is called by it.
pub(crate) fn kinds(thing: &str) -> [(&'static str, Vec<u8>); 4] {
    [("wsgi", guest("site")), ("cgi", guest(thing)), ("p2", guest("http-p2")), ("p3", guest("http-p3"))]
}

/// Where an app that is named by its kind is told to.
pub(crate) fn target(thing: &str, app: &str, words: &str) -> String {
    match app.rsplit('/').next() {
        Some("cgi") => format!("/{app}?{words}"),
        Some("p2" | "p3") => format!("/{app}/{thing}?{words}"),
        _ => format!("/{app}?{thing}={words}"),
    }
}

/// What came of a guest's try.
#[track_caller]
pub(crate) fn tries(thing: &str, host: &Host, app: &str, words: &str) -> String {
    let response = host.get(&target(thing, app, words));
    assert_eq!(response.status(), 200, "{app} {words}: {}", response.text());
    response.text().trim_end().to_owned()
}
