//! E: what an application finds in `environ`.

use std::collections::BTreeMap;

use tests::{Client, Host, Request, Response, guest};

use super::{WSGI_GUESTS, WsgiGuest, each_guest_of_the_contract, each_wsgi_guest, each_wsgi_guest_with};
use crate::edge::tls;

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &[];

/// A dump of environ: a line for each variable, each byte a character.
#[track_caller]
fn variables(response: &Response) -> BTreeMap<String, String> {
    assert_eq!(response.status(), 200, "{}", response.text());
    let mut variables = BTreeMap::new();
    for line in response.text().split_terminator('\n') {
        let (name, value) = line.split_once('=').expect("NAME=value");
        assert!(variables.insert(name.to_owned(), value.to_owned()).is_none(), "{name} is there twice");
    }
    variables
}

#[track_caller]
fn environ(host: &Host, request: &Request) -> BTreeMap<String, String> {
    variables(&host.ask(request))
}

/// The environ of a request that goes as it is written here, and what comes after `\r\n\r\n` is its body.
#[track_caller]
fn environ_of(host: &Host, request: &str) -> BTreeMap<String, String> {
    let mut client = host.connect();
    client.send(request.as_bytes());
    variables(&client.response("GET"))
}

#[track_caller]
fn check(environ: &BTreeMap<String, String>, expected: &[(&str, Option<&str>)]) {
    for (name, value) in expected {
        assert_eq!(environ.get(*name).map(String::as_str), *value, "{name}");
    }
}

#[test]
fn e1_an_app_may_change_its_environ_and_nobody_else_sees_it() {
    each_wsgi_guest_with(
        "instances = 'reuse'",
        |host| host,
        |host, app| {
            for _ in 0..2 {
                let changed = environ(host, &Request::get(&format!("{app}/change-environ?a=b")));
                check(&changed, &[("PATH_INFO", Some("/changed")), ("X_NEW", Some("new")), ("QUERY_STRING", None)]);
            }
            let fresh = environ(host, &Request::get(&format!("{app}/environ?a=b")));
            check(&fresh, &[("PATH_INFO", Some("/environ")), ("X_NEW", None), ("QUERY_STRING", Some("a=b"))]);
        },
    );
}

#[test]
fn e2_a_value_is_the_bytes_of_the_wire() {
    each_guest_of_the_contract(|host, app| {
        // Everything but NUL and what ends the line of the dump.
        let all: Vec<u8> = (1..=255).filter(|byte| *byte != b'\n').collect();
        let encoded: String = all.iter().map(|byte| format!("%{byte:02X}")).collect();
        let request = Request::get(&format!("{app}/{encoded}?dump=1"));
        let found = environ(host, &request);
        let expected: String = all.iter().copied().map(char::from).collect();
        check(&found, &[("PATH_INFO", Some(&format!("/{expected}")))]);
        for (name, value) in &found {
            assert!(name.is_ascii() && value.chars().all(|char| char <= '\u{ff}'), "{name}");
        }
    });
}

#[test]
fn e3_method_server_and_protocol_are_always_there() {
    each_guest_of_the_contract(|host, app| {
        let port = host.address().port().to_string();
        for (request, method, name, port, protocol) in [
            ("GET @/environ HTTP/1.0\r\n\r\n", "GET", "127.0.0.1", port.as_str(), "HTTP/1.0"),
            ("GET @/environ HTTP/1.0\r\nHost: a.example\r\n\r\n", "GET", "a.example", &port, "HTTP/1.0"),
            ("GET @/environ HTTP/1.1\r\nHost: a.example:81\r\n\r\n", "GET", "a.example", "81", "HTTP/1.1"),
            ("GET @/environ HTTP/1.1\r\nHost: [::1]:81\r\n\r\n", "GET", "[::1]", "81", "HTTP/1.1"),
            ("GET @/environ HTTP/1.1\r\nHost:\r\n\r\n", "GET", "127.0.0.1", &port, "HTTP/1.1"),
            ("PURGE @/environ HTTP/1.1\r\nHost: a\r\n\r\n", "PURGE", "a", &port, "HTTP/1.1"),
        ] {
            let found = environ_of(host, &request.replace('@', app));
            check(
                &found,
                &[
                    ("REQUEST_METHOD", Some(method)),
                    ("SERVER_NAME", Some(name)),
                    ("SERVER_PORT", Some(port)),
                    ("SERVER_PROTOCOL", Some(protocol)),
                ],
            );
        }
    });
}

#[test]
fn e4_script_name_and_path_info_make_the_path_and_begin_with_a_slash() {
    let sidecar = "routes = ['/', '/a', '/a/b c', 'root.example']";
    each_wsgi_guest_with(
        sidecar,
        |host| host,
        |host, _| {
            for (name, path, script_name, path_info) in [
                ("x", "/environ", "", "/environ"),
                ("x", "/a/environ", "/a", "/environ"),
                ("x", "/a/b%20c/environ", "/a/b c", "/environ"),
                ("x", "/a/b%20c/environ/", "/a/b c", "/environ/"),
                ("x", "/ab/environ", "", "/ab/environ"),
                ("root.example", "/a/environ", "", "/a/environ"),
                ("x", "//environ", "", "//environ"),
            ] {
                let found = environ(host, &Request::get(&format!("{path}?dump=1")).header("Host", name));
                check(&found, &[("SCRIPT_NAME", Some(script_name)), ("PATH_INFO", Some(path_info))]);
            }
        },
    );
    // At the very place where an app is mounted, PATH_INFO is empty; the slash behind it is the app's.
    each_wsgi_guest(|host, app| {
        check(
            &environ(host, &Request::get(&format!("{app}?dump=1"))),
            &[("SCRIPT_NAME", Some(app)), ("PATH_INFO", Some(""))],
        );
        check(
            &environ(host, &Request::get(&format!("{app}/?dump=1"))),
            &[("SCRIPT_NAME", Some(app)), ("PATH_INFO", Some("/"))],
        );
    });
}

#[test]
fn e5_the_path_is_decoded_once_and_the_query_is_raw() {
    each_guest_of_the_contract(|host, app| {
        for (target, path_info, query) in [
            ("/%C3%A9?dump=1", "/\u{c3}\u{a9}", "dump=1"),
            ("/%2541?dump=1", "/%41", "dump=1"),
            ("/a+b?dump=1", "/a+b", "dump=1"),
            ("/%zz%4?dump=1", "/%zz%4", "dump=1"),
            ("/a%2Fb?dump=1", "/a/b", "dump=1"),
            ("/environ", "/environ", ""),
            ("/environ?", "/environ", ""),
            ("/environ?a=%C3%A9&b=c+d?e", "/environ", "a=%C3%A9&b=c+d?e"),
        ] {
            let found = environ(host, &Request::get(&format!("{app}{target}")));
            check(&found, &[("PATH_INFO", Some(path_info)), ("QUERY_STRING", Some(query))]);
        }
    });
}

#[test]
fn e6_content_type_and_length_have_no_prefix() {
    each_guest_of_the_contract(|host, app| {
        let target = format!("{app}/environ");
        let found = environ(host, &Request::post(&target, "hello").header("Content-Type", "text/x; a=b"));
        check(
            &found,
            &[
                ("CONTENT_TYPE", Some("text/x; a=b")),
                ("CONTENT_LENGTH", Some("5")),
                ("HTTP_CONTENT_TYPE", None),
                ("HTTP_CONTENT_LENGTH", None),
            ],
        );
        check(&environ(host, &Request::get(&target)), &[("CONTENT_TYPE", None), ("CONTENT_LENGTH", None)]);
    });
}

#[test]
fn e7_headers_are_variables_and_repeated_ones_are_joined() {
    each_guest_of_the_contract(|host, app| {
        let request = Request::get(&format!("{app}/environ"))
            .header("X-List", "a")
            .header("cookie", "a=1")
            .header("x-LIST", "b, c")
            .header("Cookie", "b=2")
            .header("User-Agent", "test/1  2")
            .header("X-Empty", "")
            .header("X-9!", "odd");
        check(
            &environ(host, &request),
            &[
                ("HTTP_X_LIST", Some("a,b, c")),
                ("HTTP_COOKIE", Some("a=1; b=2")),
                ("HTTP_USER_AGENT", Some("test/1  2")),
                ("HTTP_X_EMPTY", Some("")),
                ("HTTP_X_9!", Some("odd")),
                ("HTTP_HOST", Some("test.example")),
            ],
        );
        // What the target names goes before what the Host field says (RFC 9112 §3.2.2).
        let absolute = format!("GET http://named.example:81{app}/environ HTTP/1.1\r\nHost: other.example\r\n\r\n");
        check(
            &environ_of(host, &absolute),
            &[
                ("HTTP_HOST", Some("named.example:81")),
                ("SERVER_NAME", Some("named.example")),
                ("SERVER_PORT", Some("81")),
                ("REQUEST_URI", Some(&format!("{app}/environ"))),
            ],
        );
    });
}

#[test]
fn e8_no_header_poses_as_another_variable() {
    each_guest_of_the_contract(|host, app| {
        let request = Request::get(&format!("{app}/environ"))
            .header("X-User", "visitor")
            .header("X_User", "admin")
            .header("Content_Length", "5")
            .header("Proxy", "http://evil.example");
        let found = environ(host, &request);
        check(
            &found,
            &[
                ("HTTP_X_USER", Some("visitor")),
                ("HTTP_PROXY", None),
                ("CONTENT_LENGTH", None),
                ("HTTP_CONTENT_LENGTH", None),
            ],
        );
        assert!(!found.values().any(|value| value.contains("evil") || value.contains("admin")), "{found:?}");
    });
}

#[test]
fn e9_header_bytes_beyond_ascii_survive() {
    each_guest_of_the_contract(|host, app| {
        let all: Vec<u8> = (0x80..=0xff).collect();
        let request = Request::get(&format!("{app}/environ")).header("X-Bytes", &all);
        let request = request.header("X-Text", "café €");
        let latin1 = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
        check(
            &environ(host, &request),
            &[("HTTP_X_BYTES", Some(&latin1(&all))), ("HTTP_X_TEXT", Some(&latin1("café €".as_bytes())))],
        );
    });
}

#[test]
fn e10_what_is_known_is_there_and_what_is_not_is_absent() {
    each_wsgi_guest(|host, app| {
        let mut client: Client = host.connect();
        let local = client.sender().local_addr().expect("it is connected");
        let found = variables(&client.get(&format!("{app}/environ?q")));
        check(
            &found,
            &[
                ("REMOTE_ADDR", Some("127.0.0.1")),
                ("REMOTE_PORT", Some(&local.port().to_string())),
                ("REQUEST_URI", Some(&format!("{app}/environ?q"))),
                ("GATEWAY_INTERFACE", Some("CGI/1.1")),
                ("HTTPS", None),
                ("AUTH_TYPE", None),
                ("REMOTE_USER", None),
                ("PATH_TRANSLATED", None),
            ],
        );
        assert!(found["SERVER_SOFTWARE"].starts_with("wasgi/"), "{found:?}");
        let may_be_empty = ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"];
        let empty = found.iter().find(|(name, value)| value.is_empty() && !may_be_empty.contains(&name.as_str()));
        assert_eq!(empty, None, "what is not known is absent");
        assert!(host.get(&format!("{app}/gateway")).text().contains("url_scheme=http "));
    });
}

#[test]
fn e10_with_tls_the_scheme_is_https() {
    for WsgiGuest { name, component, sidecar } in WSGI_GUESTS {
        let (host, trusted) = tls::start(|host| host.app(name, guest(component)).sidecar(name, sidecar));
        let mut client = Client::over_tls(tls::connect(host.address(), &trusted));
        check(&variables(&client.get(&format!("/{name}/environ"))), &[("HTTPS", Some("on"))]);
        assert!(client.get(&format!("/{name}/gateway")).text().contains("url_scheme=https "), "{name}");
    }
}

#[test]
fn e11_the_gateways_values_tell_the_truth() {
    for (sidecar, multiprocess, run_once) in [
        ("", true, true),
        ("instances = 'reuse'", true, false),
        // Such an instance serves once, too.
        ("instances = 'reuse'\nreuse_requests = 1", true, true),
        ("limits = { concurrent_calls = 1 }", false, true),
    ] {
        each_wsgi_guest_with(
            sidecar,
            |host| host,
            |host, app| {
                let expected = format!("multiprocess={multiprocess} run_once={run_once} input_terminated=true");
                assert_eq!(
                    host.get(&format!("{app}/gateway")).text(),
                    format!("url_scheme=http {expected}"),
                    "{sidecar}"
                );
            },
        );
    }
}

#[test]
fn e12_the_hosts_own_keys_have_a_prefix_and_an_apps_variables_are_there() {
    let sidecar = "env.GREETING = 'héllo'\nenv.lower = '1'\nenv.EMPTY = ''";
    each_wsgi_guest_with(
        sidecar,
        |host| host.app("other", guest("probe")),
        |host, app| {
            let found = environ(host, &Request::get(&format!("{app}/environ")));
            let greeting: String = "héllo".bytes().map(char::from).collect();
            check(&found, &[("GREETING", Some(&greeting)), ("lower", Some("1")), ("EMPTY", Some(""))]);
            let own: Vec<&String> = found
                .keys()
                .filter(|name| *name != "lower" && name.contains(|char: char| char.is_lowercase()))
                .collect();
            assert_eq!(own, ["wasgi.request_id"]);
            let line = host.access().wait("the request in the access log", |event| event.text("app") == app[1..]);
            assert_eq!(found["wasgi.request_id"], line.text("request"));
            check(&environ(host, &Request::get("/other/environ")), &[("GREETING", None)]);
        },
    );
}
