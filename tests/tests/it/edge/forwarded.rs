//! What proxies say of their clients, and who may say it.

use tests::{Host, Request, guest};

use super::{check_environ, get_unix};
use tests::Client;

fn probe(allowed: &str) -> Host {
    Host::start(|host| host.app("probe", guest("probe")).flag("--forwarded-allow-ips", allowed))
}

#[test]
fn a_trusted_proxy_names_client_and_scheme() {
    let host = probe("127.0.0.1,10.0.0.0/8");
    let asked = Request::get("/probe/environ")
        .header("Host", "shop.example")
        .header("X-Forwarded-For", "203.0.113.9, 192.0.2.7, 10.1.2.3")
        .header("X-Forwarded-Proto", "https");
    let response = host.ask(&asked);
    check_environ(
        &response,
        &[
            ("REMOTE_ADDR", Some("192.0.2.7")),
            ("REMOTE_PORT", None),
            ("HTTPS", Some("on")),
            ("SERVER_NAME", Some("shop.example")),
            ("SERVER_PORT", Some("443")),
            ("HTTP_HOST", Some("shop.example")),
            ("HTTP_X_FORWARDED_FOR", Some("203.0.113.9, 192.0.2.7, 10.1.2.3")),
        ],
    );
    let line = host.access().wait("its line", |event| event.text("target") == "/probe/environ");
    assert_eq!(line.text("remote"), "192.0.2.7");
    let scheme = host.ask(&Request::get("/probe/gateway").header("Forwarded", "for=192.0.2.7;proto=https"));
    assert!(scheme.text().contains("url_scheme=https"), "{}", scheme.text());
}

/// The next request of a connection is not the last one's client.
#[test]
fn what_is_said_counts_for_one_request() {
    let host = probe("127.0.0.1");
    let mut proxy = host.connect();
    for client in ["192.0.2.7", "192.0.2.8"] {
        let response = proxy.ask(&Request::get("/probe/environ").header("X-Forwarded-For", client));
        check_environ(&response, &[("REMOTE_ADDR", Some(client))]);
    }
    check_environ(&proxy.get("/probe/environ"), &[("REMOTE_ADDR", Some("127.0.0.1")), ("HTTPS", None)]);
}

#[test]
fn who_is_not_trusted_can_say_nothing_neither_to_the_host_nor_to_the_app() {
    for host in [Host::start(|host| host.app("probe", guest("probe"))), probe("10.0.0.0/8,unix")] {
        let forged = Request::get("/probe/environ")
            .header("Forwarded", "for=192.0.2.7;proto=https")
            .header("X-Forwarded-For", "192.0.2.7")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "evil.example")
            .header("x-forwarded-prefix", "/evil");
        check_environ(
            &host.ask(&forged),
            &[
                ("REMOTE_ADDR", Some("127.0.0.1")),
                ("HTTPS", None),
                ("HTTP_FORWARDED", None),
                ("HTTP_X_FORWARDED_FOR", None),
                ("HTTP_X_FORWARDED_PROTO", None),
                ("HTTP_X_FORWARDED_HOST", None),
                ("HTTP_X_FORWARDED_PREFIX", None),
                ("HTTP_HOST", Some("test.example")),
            ],
        );
        let line = host.access().wait("its line", |event| event.text("target") == "/probe/environ");
        assert_eq!(line.text("remote"), "127.0.0.1");
    }
}

#[test]
fn two_ways_of_saying_it_that_disagree_are_a_400() {
    let host = probe("127.0.0.1");
    for (name, value) in [("Forwarded", "for=192.0.2.8"), ("Forwarded", "for=\""), ("X-Forwarded-Proto", "gopher")] {
        let request = Request::get("/probe/environ").header("X-Forwarded-For", "192.0.2.7").header(name, value);
        assert_eq!(host.ask(&request).status(), 400, "{name}: {value}");
    }
}

#[test]
fn a_unix_sockets_peer_is_a_proxy_if_it_is_said_so() {
    for (allowed, client) in [("unix", "192.0.2.7"), ("127.0.0.1", "")] {
        let host = Host::start(|host| {
            let host = host.app("probe", guest("probe")).bind(&["unix:http.sock"]);
            host.flag("--forwarded-allow-ips", allowed)
        });
        let path = host.folder().join("http.sock");
        let asked = Request::get("/probe/environ").header("X-Forwarded-For", "192.0.2.7");
        check_environ(&Client::connect_unix(&path).ask(&asked), &[("REMOTE_ADDR", Some(client))]);
        assert_eq!(get_unix(&path, "/probe/hello").status(), 200);
    }
}
