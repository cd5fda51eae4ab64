//! How requests reach the host: listeners, TLS, HTTP/2, proxies in front.

mod forwarded;
mod http2;
pub(crate) mod http2_client;
mod listeners;
mod proxy_protocol;
mod servers;
pub(crate) mod tls;

use std::collections::BTreeMap;
use std::path::Path;

use tests::{Client, Request, Response};

/// The variables that `probe` answers with at `/environ`.
fn environ(response: &Response) -> BTreeMap<String, String> {
    assert_eq!(response.status(), 200, "{}", response.text());
    let text = response.text();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[track_caller]
fn check_environ(response: &Response, expected: &[(&str, Option<&str>)]) {
    let environ = environ(response);
    for (name, value) in expected {
        assert_eq!(environ.get(*name).map(String::as_str), *value, "{name}");
    }
}

#[track_caller]
fn get_unix(path: &Path, target: &str) -> Response {
    Client::connect_unix(path).ask(&Request::get(target))
}

/// A certificate for `localhost` in a folder: `NAME.pem` and `NAME.key`.
fn write_certificate(folder: &Path, name: &str) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let certified = certified.expect("a certificate can be made");
    std::fs::write(folder.join(format!("{name}.pem")), certified.cert.pem()).expect("the folder is ours");
    std::fs::write(folder.join(format!("{name}.key")), certified.signing_key.serialize_pem())
        .expect("the folder is ours");
    certified
}
