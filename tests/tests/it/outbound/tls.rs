//! HTTPS, which the host speaks for the guest.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tests::{Elsewhere, Host};

use super::{ask, grant, kinds, tries};

/// A server with a certificate of its own, in PEM.
pub(crate) fn server(names: &[&str]) -> (Elsewhere, String) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let certified = rcgen::generate_simple_self_signed(names).expect("these are names");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("ring has them").with_no_client_auth();
    let config = config.with_single_cert(vec![certified.cert.der().clone()], key).expect("they fit");
    (Elsewhere::https(Arc::new(config)), certified.cert.pem())
}

fn host(servers: &[&Elsewhere], trusted: &str) -> Host {
    let places = |server: &&Elsewhere| {
        let port = server.port();
        [format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}")]
    };
    let destinations: Vec<String> = servers.iter().flat_map(places).collect();
    Host::start(|host| {
        std::fs::write(host.folder().join("ca.pem"), trusted).expect("the folder is ours");
        let host = host.config(&format!("outbound_cafile = 'ca.pem'\n{}", grant(&destinations)));
        kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, &ask(&destinations)))
    })
}

#[test]
fn a_server_is_believed_by_the_operators_authorities_and_its_name() {
    let (server, trusted) = server(&["localhost"]);
    let host = host(&[&server], &trusted);
    let port = server.port();
    for (app, _) in kinds() {
        let said = tries(&host, app, &format!("get,https://localhost:{port}/hello"));
        assert_eq!(said, "200 hello from elsewhere", "{app}");
        assert_eq!(tries(&host, app, &format!("send,https://localhost:{port}/count,70000")), "200 70000", "{app}");
        // The address is not in the certificate.
        let said = tries(&host, app, &format!("get,https://127.0.0.1:{port}/hello"));
        assert_eq!(said, "error ErrorCode::TlsCertificateError", "{app}");
    }
    let head = tries(&host, "p2", &format!("get,https://localhost:{port}/head"));
    assert!(head.contains(&format!("\r\nhost: localhost:{port}")), "{head}");
}

#[test]
fn what_tls_needs_is_counted_too() {
    // With a certificate that takes more than it may get.
    let names: Vec<String> = (0..100).map(|number| format!("name-{number}.example")).collect();
    let names: Vec<&str> = ["localhost"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let (server, trusted) = server(&names);
    let plain = Elsewhere::http();
    let port = server.port();
    let destinations = [format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}"), plain.url("")];
    let host = Host::start(|host| {
        std::fs::write(host.folder().join("ca.pem"), &trusted).expect("the folder is ours");
        let host = host.config(&format!("outbound_cafile = 'ca.pem'\n{}", grant(&destinations)));
        let host = host.limit("outbound_received_size=1KiB");
        kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, &ask(&destinations)))
    });
    for (app, _) in kinds() {
        assert_eq!(tries(&host, app, &format!("get,{}", plain.url("/hello"))), "200 hello from elsewhere", "{app}");
        let said = tries(&host, app, &format!("get,https://localhost:{port}/hello"));
        assert_eq!(said, "error ErrorCode::HttpResponseBodySize(Some(1024))", "{app}");
    }
}

#[test]
fn the_sdk_fetches_over_tls() {
    let (known, trusted) = server(&["localhost"]);
    let (other, _) = server(&["localhost"]);
    let host = host(&[&known, &other], &trusted);
    let fetch = |words: String| host.get(&format!("/wsgi?fetch={words}")).text();
    let place = format!("https://localhost:{}", known.port());
    assert_eq!(fetch(format!("GET,{place}/hello")), "200 text/plain hello from elsewhere");
    assert_eq!(fetch(format!("POST,{place}/echo,a-body")), "200 text/plain a-body");
    for url in [format!("https://127.0.0.1:{}/", known.port()), format!("https://localhost:{}/", other.port())] {
        let said = fetch(format!("GET,{url}"));
        assert!(said.starts_with("Tls: "), "{url}: {said}");
    }
    assert_eq!((known.asked().len(), other.asked().len()), (2, 0));
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_asked() {
    let (other, _) = server(&["localhost"]);
    let (_, trusted) = server(&["localhost"]);
    let plain = Elsewhere::http();
    let host = host(&[&other, &plain], &trusted);
    for (app, _) in kinds() {
        let said = tries(&host, app, &format!("get,https://localhost:{}/hello", other.port()));
        assert_eq!(said, "error ErrorCode::TlsCertificateError", "{app}");
        let said = tries(&host, app, &format!("get,https://localhost:{}/hello", plain.port()));
        assert_eq!(said, "error ErrorCode::TlsProtocolError", "{app}");
    }
    assert_eq!(other.asked(), Vec::<String>::new());
}
