//! Python apps, built by the SDK in guest-sdk/python: what only Python can do right or wrong. The rules of WSGI are in
//! `conformance`, which runs against a Python guest, too.

mod django;
mod frameworks;
mod kept;
mod outbound;
mod probe;
mod rebuild;

use tests::{Host, guest};

/// A script that ends in `serve_forever()`, given to `wasgi build` as it is.
#[test]
fn the_classic_sample_is_served_unchanged() {
    let host = Host::start(|host| host.app("hello", guest("hello-python")));
    let response = host.get("/hello/");
    assert_eq!((response.status(), response.text().as_str()), (200, "Hello World"));
    assert_eq!(response.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
}
