//! What an app has beside its code: the files of its bundle, those that the host serves by itself, and its data.

mod assets;
mod bundle;
mod data;
mod descriptors;
mod manage;
mod quota;

use tests::{Host, Response, guest};

/// The answer of a guest of any kind to a thing to do with files.
#[track_caller]
fn disk(host: &Host, app: &str, words: &str) -> String {
    let response: Response = match app.rsplit('/').next() {
        Some("cgi" | "p2" | "p3") => host.get(&format!("/{app}/disk?{words}")),
        _ => host.get(&format!("/{app}?disk={words}")),
    };
    assert_eq!(response.status(), 200, "{app} {words}: {}", response.text());
    response.text().trim_end().to_owned()
}

/// One app of each kind, by name.
pub(crate) fn kinds() -> [(&'static str, Vec<u8>); 4] {
    [("wsgi", guest("site")), ("cgi", guest("cgi-probe")), ("p2", guest("http-p2")), ("p3", guest("http-p3"))]
}
