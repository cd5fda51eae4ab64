//! HTTPS: certificates, what is agreed on, and what guests are told.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tests::{Builder, Client, Host, Request, TlsStream, eventually, guest, tcp};

use super::{check_environ, write_certificate};

pub(super) fn client_config(trusted: &CertificateDer<'static>, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("it is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.expect("ring has them").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

fn name() -> ServerName<'static> {
    "localhost".try_into().expect("it is a name")
}

#[track_caller]
pub(crate) fn connect(address: SocketAddr, trusted: &CertificateDer<'static>) -> TlsStream {
    let connection = ClientConnection::new(client_config(trusted, &[b"http/1.1"]), name()).expect("the name is right");
    TlsStream::new(connection, tcp(address))
}

/// Whether a handshake with this trust succeeds.
fn is_trusted(address: SocketAddr, trusted: &CertificateDer<'static>) -> bool {
    let mut stream = connect(address, trusted);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok()
}

pub(super) fn with_certificate(host: Builder) -> (Builder, CertificateDer<'static>) {
    let certified = write_certificate(host.folder(), "own");
    let host = host.app("probe", guest("probe")).flag("--certfile", "own.pem").flag("--keyfile", "own.key");
    (host, certified.cert.der().clone())
}

/// A host with a certificate, and the certificate.
#[track_caller]
pub(crate) fn start(build: impl FnOnce(Builder) -> Builder) -> (Host, CertificateDer<'static>) {
    let mut trusted = None;
    let host = Host::start(|host| {
        let (host, certificate) = with_certificate(host);
        trusted = Some(certificate);
        build(host)
    });
    (host, trusted.expect("it was made"))
}

#[test]
fn with_a_certificate_addresses_speak_https_unless_they_say_otherwise() {
    let (host, trusted) = start(|host| host.bind(&["127.0.0.1:0", "http://127.0.0.1:0", "unix:plain.sock"]));
    assert!(host.places()[0].starts_with("https://127.0.0.1:"), "{:?}", host.places());
    assert!(host.places()[1].starts_with("http://127.0.0.1:"), "{:?}", host.places());
    let mut client = Client::over_tls(connect(host.address_of(0), &trusted));
    let port = host.address_of(0).port().to_string();
    check_environ(
        &client.ask(&Request::get("/probe/environ")),
        &[("HTTPS", Some("on")), ("SERVER_PORT", Some(&port)), ("SERVER_PROTOCOL", Some("HTTP/1.1"))],
    );
    assert!(client.get("/probe/gateway").text().contains("url_scheme=https"));

    check_environ(&Client::connect(host.address_of(1)).get("/probe/environ"), &[("HTTPS", None)]);
    assert!(Client::connect(host.address_of(1)).get("/probe/gateway").text().contains("url_scheme=http "));
    check_environ(&super::get_unix(&host.folder().join("plain.sock"), "/probe/environ"), &[("HTTPS", None)]);
}

#[test]
fn large_bodies_pass_through_tls_both_ways() {
    let (host, trusted) = start(|host| host);
    let mut client = Client::over_tls(connect(host.address(), &trusted));
    let body: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let response = client.ask(&Request::post("/probe/echo", body.clone()));
    assert_eq!((response.status(), response.body.len()), (200, body.len()));
    assert!(response.body == body);
}

#[test]
fn sighup_takes_a_new_certificate_and_a_bad_one_changes_nothing() {
    let (host, first) = start(|host| host);
    let mut open = Client::over_tls(connect(host.address(), &first));
    assert_eq!(open.get("/probe/hello").status(), 200);

    std::fs::write(host.folder().join("own.pem"), "no certificate").expect("the folder is ours");
    host.signal(Signal::HUP);
    let said = host.log_contains("own.pem: it holds no certificate");
    assert_eq!(said.text("level"), "ERROR");
    assert!(is_trusted(host.address(), &first));

    // A certificate without its key.
    let other = write_certificate(host.folder(), "other");
    std::fs::copy(host.folder().join("other.pem"), host.folder().join("own.pem")).expect("the folder is ours");
    host.signal(Signal::HUP);
    host.log_contains("with keyfile own.key");
    assert!(is_trusted(host.address(), &first));

    std::fs::copy(host.folder().join("other.key"), host.folder().join("own.key")).expect("the folder is ours");
    host.signal(Signal::HUP);
    eventually("the new certificate is shown", || is_trusted(host.address(), other.cert.der()).then_some(()));
    assert!(!is_trusted(host.address(), &first));
    assert_eq!(open.get("/probe/hello").status(), 200, "connections that are open stay");
}

#[test]
fn a_handshake_that_does_not_end_is_not_waited_for() {
    let (host, trusted) = start(|host| host.edge("header_time=300ms"));
    // Nothing at all, and a part of a first message.
    for begin in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = Client::connect(host.address());
        client.send(begin);
        client.expect_end();
    }
    assert!(is_trusted(host.address(), &trusted));
}

#[test]
fn who_speaks_no_tls_is_shown_the_door() {
    let (host, trusted) = start(|host| host);
    let mut client = Client::connect(host.address());
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // An alert of TLS, and the end.
    assert_eq!(client.rest().first(), Some(&0x15));
    drop(TcpStream::connect(host.address()));
    assert!(is_trusted(host.address(), &trusted));
}

#[test]
fn the_end_of_the_host_ends_handshakes_and_idle_connections() {
    let (mut host, trusted) = start(|host| host.edge("header_time=10m").edge("drain_time=10m"));
    let mut silent = Client::connect(host.address());
    let mut idle = Client::over_tls(connect(host.address(), &trusted));
    assert_eq!(idle.get("/probe/hello").status(), 200);
    host.signal(Signal::TERM);
    assert_eq!(host.wait().code(), Some(0));
    silent.expect_end();
    idle.expect_end();
}
