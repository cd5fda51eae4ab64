//! The PROXY protocol: before everything else, from those who may, or not at all.

use tests::{Client, Host, Request, guest};

use super::check_environ;

fn probe(allowed: &str) -> Host {
    Host::start(|host| {
        let host = host.app("probe", guest("probe")).bind(&["proxy+127.0.0.1:0"]);
        host.flag("--forwarded-allow-ips", allowed).edge("header_time=2s")
    })
}

#[track_caller]
fn introduced(host: &Host, header: &[u8]) -> Client {
    let mut client = host.connect();
    client.send(header);
    client
}

/// Version 2 of `192.0.2.7:4711` to `198.51.100.1:443`.
const VERSION_2: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00";

#[test]
fn the_header_names_the_client_of_all_requests_of_the_connection() {
    let host = probe("127.0.0.1");
    for header in [&b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"[..], VERSION_2] {
        let mut client = introduced(&host, header);
        for _ in 0..2 {
            let asked = Request::get("/probe/environ").header("Host", "a");
            check_environ(
                &client.ask(&asked),
                &[
                    ("REMOTE_ADDR", Some("192.0.2.7")),
                    ("REMOTE_PORT", Some("4711")),
                    ("SERVER_PORT", Some("443")),
                    ("HTTPS", None),
                ],
            );
        }
        let line = host.access().wait("its line", |event| event.text("target") == "/probe/environ");
        assert_eq!(line.text("remote"), "192.0.2.7");
    }
    for header in [&b"PROXY UNKNOWN\r\n"[..], LOCAL] {
        check_environ(&introduced(&host, header).get("/probe/environ"), &[("REMOTE_ADDR", Some("127.0.0.1"))]);
    }
}

/// Whom the proxy speaks for is not the proxy.
#[test]
fn the_client_behind_it_is_not_trusted() {
    let host = probe("127.0.0.1");
    let mut client = introduced(&host, VERSION_2);
    let forged = Request::get("/probe/environ").header("X-Forwarded-For", "203.0.113.9");
    check_environ(&client.ask(&forged), &[("REMOTE_ADDR", Some("192.0.2.7")), ("HTTP_X_FORWARDED_FOR", None)]);
}

/// The proxy is trusted, but what it passes on is its client's word.
#[test]
fn a_client_that_the_proxy_does_not_name_is_not_trusted() {
    let host = probe("127.0.0.1,unix");
    // Version 2 with the addresses of Unix sockets.
    let unix = [b"\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8", &[0_u8; 216][..]].concat();
    for header in [&b"PROXY UNKNOWN\r\n"[..], LOCAL, &unix] {
        for (name, value) in [("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.9;proto=https")] {
            let forged = Request::get("/probe/environ").header(name, value);
            check_environ(
                &introduced(&host, header).ask(&forged),
                &[
                    ("REMOTE_ADDR", Some("127.0.0.1")),
                    ("HTTPS", None),
                    ("HTTP_X_FORWARDED_FOR", None),
                    ("HTTP_FORWARDED", None),
                ],
            );
        }
    }
}

#[test]
fn a_header_may_come_in_pieces() {
    let host = probe("127.0.0.1");
    let mut client = host.connect();
    for byte in VERSION_2.chunks(1) {
        client.send(byte);
    }
    check_environ(&client.get("/probe/environ"), &[("REMOTE_ADDR", Some("192.0.2.7"))]);
}

#[test]
fn without_it_or_from_somebody_else_or_never_ending_nothing_is_answered() {
    let host = probe("127.0.0.1");
    for begin in [&b"GET /probe/hello HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PROXY TCP4 1.2.3.4\r\n", b"PROXY TCP4 ", b""]
    {
        introduced(&host, begin).expect_end();
    }
    let host = probe("192.0.2.1");
    introduced(&host, b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n").expect_end();
}

#[test]
fn where_it_is_not_expected_it_is_no_request() {
    let host = Host::start(|host| host.app("probe", guest("probe")).flag("--forwarded-allow-ips", "127.0.0.1"));
    let mut client = introduced(&host, VERSION_2);
    client.send(b"GET /probe/hello HTTP/1.1\r\nHost: a\r\n\r\n");
    let said = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
}
