//! B: what an application returns, and what of it the client gets.

use tests::{Client, End, Host, Request, Response};

use super::{each_wsgi_guest, each_wsgi_guest_with, is_validated, raw, script};

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &[];

const STREAM: &str = "chunked_bodies = 'stream'";
const REUSE: &str = "instances = 'reuse'";

#[test]
fn b1_the_client_has_a_block_before_the_next_is_asked_for() {
    each_wsgi_guest_with(
        STREAM,
        |host| host,
        |host, app| {
            let mut client = host.connect();
            client.send(
                &Request::chunked(&script(app, "start=200 OK&iterate=&block=one&line=&line=&block=last")).to_bytes(),
            );
            assert_eq!(client.head("POST").status, 200);
            assert_eq!(client.piece().as_deref(), Ok(&b"one"[..]));
            for answer in [&b"two\n"[..], b"three\n"] {
                client.chunk(answer);
                assert_eq!(client.piece().as_deref(), Ok(answer), "the guest had nothing of it to read before");
            }
            assert_eq!(client.piece().as_deref(), Ok(&b"last"[..]));
            assert_eq!(client.piece().as_deref(), Ok(&b""[..]));
        },
    );
}

#[test]
fn b1_what_is_written_goes_out_while_the_app_still_runs() {
    each_wsgi_guest_with(
        STREAM,
        |host| host,
        |host, app| {
            let mut client = host.connect();
            client.send(&Request::chunked(&script(app, "start=200 OK&write=one&line=&block=end")).to_bytes());
            assert_eq!(client.head("POST").status, 200);
            assert_eq!(client.piece().as_deref(), Ok(&b"one"[..]));
            client.chunk(b"two\n");
            let rest: Vec<u8> =
                std::iter::from_fn(|| client.piece().ok().filter(|piece| !piece.is_empty())).flatten().collect();
            assert_eq!(rest, b"two\nend");
        },
    );
}

#[test]
fn b1_an_empty_block_sends_nothing() {
    each_wsgi_guest(|host, app| {
        let mut client = host.connect();
        // An empty chunk would end the body.
        let response = client.get(&script(app, "start=200 OK&iterate=&block=&block=a&block=&block=&block=b&block="));
        assert_eq!((response.text().as_str(), response.end), ("ab", End::Whole));
        let response = client.get(&script(app, "start=200 OK&write=&write=a&write=&write=b"));
        assert_eq!((response.text().as_str(), response.end), ("ab", End::Whole));
        let response = client.get(&script(app, "start=200 OK&block=&block=a&block=&block=b"));
        assert_eq!(response.text(), "ab");
        assert_eq!(response.header("content-length").as_deref(), of_a_list(app, Some("2")));
    });
    let response = raw().get("/raw/empty-blocks");
    assert_eq!((response.text().as_str(), response.header("content-length").as_deref()), ("ab", Some("2")));
}

#[test]
fn b2_what_was_written_goes_before_what_is_returned() {
    each_wsgi_guest(|host, app| {
        for steps in [
            "start=200 OK&write=one&write=two&block=three",
            "start=200 OK&write=one&iterate=&block=two&block=three",
            "start=200 OK&block=two&write=one&block=three",
        ] {
            let response = host.get(&script(app, steps));
            assert_eq!((response.text().as_str(), response.end), ("onetwothree", End::Whole), "{steps}");
        }
    });
    assert_eq!(raw().get("/raw/write-then-iterator").text(), "written block block ");
}

#[test]
fn b3_more_than_the_content_length_is_cut_and_no_more_is_asked_for() {
    each_wsgi_guest(|host, app| {
        let mut client = host.connect();
        for steps in [
            "block=abc&block=defgh",
            "iterate=&block=abc&block=defgh",
            "iterate=&block=abc&block=de&log=asked for more&spin=",
            "write=abc&write=defgh",
            "write=abc&block=defgh",
        ] {
            let response = client.get(&script(app, &format!("header=Content-Length:5&start=200 OK&{steps}")));
            assert_eq!((response.text().as_str(), response.end), ("abcde", End::Whole), "{steps}");
        }
        assert_eq!(client.get(&format!("{app}/hello")).text(), "hello", "the connection is still in step");
        assert!(host.log().all(|event| event.message() == "asked for more").is_empty());
    });
}

#[test]
fn b3_less_than_the_content_length_closes_the_connection() {
    each_wsgi_guest(|host, app| {
        let cases = ["block=abc", "iterate=&block=abc", "write=abc", "iterate=&block=&block=a&block=bc"];
        for steps in cases {
            let mut client = host.connect();
            assert_eq!(client.get(&format!("{app}/hello")).status(), 200, "the connection is one that is kept");
            let response = client.get(&script(app, &format!("header=Content-Length:5&start=200 OK&{steps}")));
            assert_eq!((response.text().as_str(), response.end), ("abc", End::Aborted), "{steps}");
        }
        let lines = host.log().wait_for("all are in the log", cases.len(), |event| event.text("cause") == "protocol");
        assert!(lines[0].message().contains("2 bytes shorter than its Content-Length"), "{}", lines[0].message());
    });
}

/// The length of what was returned as a list, as the client is told it.
fn of_a_list<'a>(app: &str, length: Option<&'a str>) -> Option<&'a str> {
    // Nothing at all has one however it is returned.
    length.filter(|length| !is_validated(app) || *length == "0")
}

/// A response to a request of this version of HTTP.
#[track_caller]
fn ask(client: &mut Client, version: &str, target: &str, fields: &str) -> Response {
    client.send(format!("GET {target} HTTP/{version}\r\nHost: a\r\n{fields}\r\n").as_bytes());
    client.response("GET")
}

#[test]
fn b4_a_list_has_its_length_and_a_stream_is_chunked_or_ends_the_connection() {
    each_wsgi_guest(|host, app| {
        for (steps, body, length) in [
            ("block=hello", "hello", Some("5")),
            ("block=hel&block=lo", "hello", Some("5")),
            ("", "", Some("0")),
            ("iterate=", "", Some("0")),
            ("iterate=&block=hello", "hello", None),
            ("write=hel&block=lo", "hello", None),
            ("write=hello", "hello", None),
        ] {
            let length = of_a_list(app, length);
            let target = script(app, &format!("start=200 OK&{steps}"));
            let mut client = host.connect();
            let modern = ask(&mut client, "1.1", &target, "");
            assert_eq!(
                (modern.text().as_str(), modern.end, modern.head.minor_version),
                (body, End::Whole, 1),
                "{steps}"
            );
            assert_eq!(modern.header("content-length").as_deref(), length, "{steps}");
            let chunked = length.is_none().then_some("chunked");
            assert_eq!(modern.header("transfer-encoding").as_deref(), chunked, "{steps}");
            assert_eq!(client.get(&format!("{app}/hello")).text(), "hello", "{steps}: the connection goes on");

            let mut client = host.connect();
            let old = ask(&mut client, "1.0", &target, "Connection: keep-alive\r\n");
            assert_eq!((old.text().as_str(), old.end, old.head.minor_version), (body, End::Whole, 0), "{steps}");
            assert_eq!(old.header("content-length").as_deref(), length, "{steps}");
            assert_eq!(old.header("transfer-encoding"), None, "HTTP/1.0 has no chunks: {steps}");
            match length {
                Some(_) => {
                    assert_eq!(client.get(&format!("{app}/hello")).text(), "hello", "{steps}: it was to be kept")
                }
                None => client.expect_end(),
            }
            let mut client = host.connect();
            assert_eq!(ask(&mut client, "1.0", &target, "").text(), body, "{steps}");
            client.expect_end();
        }
    });
}

#[test]
fn b4_a_length_that_the_app_gave_stays() {
    each_wsgi_guest(|host, app| {
        for steps in ["block=hello", "iterate=&block=hel&block=lo", "write=hello"] {
            let response = host.get(&script(app, &format!("header=Content-Length:5&start=200 OK&{steps}")));
            assert_eq!((response.text().as_str(), response.end), ("hello", End::Whole), "{steps}");
            assert_eq!(response.head.all("content-length"), ["5"], "{steps}");
            assert_eq!(response.header("transfer-encoding"), None, "{steps}");
        }
    });
}

#[test]
fn b5_head_has_the_length_and_no_body() {
    each_wsgi_guest(|host, app| {
        let mut client = host.connect();
        for (steps, length) in [
            ("start=200 OK&block=hello", of_a_list(app, Some("5"))),
            ("start=200 OK&block=hel&block=lo", of_a_list(app, Some("5"))),
            ("header=Content-Length:25&start=200 OK", Some("25")),
            ("header=Content-Length:25&start=200 OK&iterate=&block=hello&spin=", Some("25")),
            ("header=Content-Length:25&start=200 OK&write=hello", Some("25")),
            ("start=200 OK&write=hello", None),
            ("start=200 OK&iterate=&block=hello&spin=", None),
        ] {
            let response = client.ask(&Request::new("HEAD", &script(app, steps)));
            assert_eq!((response.status(), response.header("content-length").as_deref()), (200, length), "{steps}");
        }
        assert_eq!(client.get(&format!("{app}/hello")).text(), "hello", "nothing came in between");
    });
}

#[test]
fn b5_statuses_without_body_have_none() {
    each_wsgi_guest(|host, app| {
        let mut client = host.connect();
        for status in ["204 No Content", "205 Reset Content", "304 Not Modified"] {
            for steps in
                ["block=body", "iterate=&block=body&spin=", "write=body", "write=body&block=body", "iterate=", ""]
            {
                for header in ["", "header=Content-Length:4&"] {
                    let response = client.get(&script(app, &format!("{header}start={status}&{steps}")));
                    assert_eq!(response.status().to_string(), status[..3], "{steps}");
                    assert_eq!((response.header("transfer-encoding"), response.body.len()), (None, 0), "{steps}");
                    if status.starts_with("204") {
                        assert_eq!(response.header("content-length"), None, "RFC 9110 §8.6");
                    }
                }
            }
        }
        assert_eq!(client.get(&format!("{app}/hello")).text(), "hello", "nothing came in between");
    });
}

/// How often the log says that this iterable was closed, once everything that could say so has been heard.
fn closed(host: &Host, app: &str, name: &str) -> usize {
    // What a later request writes to the log comes after it.
    let mark = format!("mark after {name}");
    host.get(&script(app, &format!("log={mark}&start=200 OK")));
    host.log().wait(&mark, |event| event.message() == mark);
    host.log().all(|event| event.message() == format!("closed {name}")).len()
}

#[test]
fn b6_close_is_called_once_whether_the_body_ends_is_cut_or_not_wanted() {
    for sidecar in ["", REUSE] {
        each_wsgi_guest_with(
            sidecar,
            |host| host,
            |host, app| {
                for (name, method, steps) in [
                    ("at-the-end", "GET", "start=200 OK&iterate=&block=a&block=b"),
                    ("without-block", "GET", "start=200 OK&iterate="),
                    ("when-cut", "GET", "header=Content-Length:1&start=200 OK&iterate=&block=ab&block=c"),
                    ("after-head", "HEAD", "start=200 OK&iterate=&block=a&block=b"),
                    ("after-204", "GET", "start=204 No Content&iterate=&block=a&block=b"),
                    ("raised-at-first", "GET", "start=200 OK&iterate=&raise=x"),
                    ("raised-later", "GET", "start=200 OK&iterate=&block=a&raise=x"),
                    ("never-started", "GET", "iterate=&block=a"),
                    ("bad-head", "GET", "iterate=&start=nonsense"),
                ] {
                    let target = script(app, &format!("closes={name}&{steps}"));
                    host.ask(&Request::new(method, &target));
                    assert_eq!(closed(host, app, name), 1, "{name}, {sidecar:?}");
                }
            },
        );
    }
}

#[test]
fn b6_an_iterable_whose_client_left_or_whose_time_is_over_goes_with_its_sandbox() {
    let sidecar = "instances = 'reuse'\nlimits = { concurrent_calls = 1, wall_time = '1s', cpu_time = '200ms' }";
    each_wsgi_guest_with(
        sidecar,
        |host| host.limit("queue_time=30s"),
        |host, app| {
            let gone = |name: &str, steps: &str, leave: &dyn Fn(Client)| {
                assert_eq!(
                    host.get(&format!("{app}/state")).text(),
                    "call 1",
                    "before {name}: no earlier sandbox lives on"
                );
                let mut client = host.connect();
                let target = script(app, &format!("closes={name}&start=200 OK&iterate=&block=first&{steps}"));
                client.send(&Request::get(&target).to_bytes());
                assert_eq!(client.head("GET").status, 200, "{name}");
                assert_eq!(client.piece().as_deref(), Ok(&b"first"[..]), "{name}");
                leave(client);
                assert!(closed(host, app, name) <= 1, "{name}");
            };
            gone("client-gone", "sleep=600000", &|client| drop(client));
            let wait_for_the_end = |mut client: Client| assert_eq!(client.piece(), Err(End::Aborted));
            gone("wall-time", "sleep=600000", &wait_for_the_end);
            gone("cpu-time", "spin=", &wait_for_the_end);
        },
    );
}

#[test]
fn b6_a_failing_close_does_not_disturb_the_response() {
    let host = raw();
    for target in ["/raw/close-raises", "/raw/close-traps"] {
        let response = host.get(target);
        assert!(response.text().starts_with("block block "), "{target}: {}", response.text());
        let whole = matches!(response.end, End::Whole);
        assert_eq!(whole, target == "/raw/close-raises", "{target}: an exception after the response is for the log");
    }
    host.log().wait_for("both were closed, once", 2, |event| event.message().contains("after 3 steps"));
    assert_eq!(host.get("/raw/empty-blocks").status(), 200);
}

/// A panic is a trap in Rust; in Python nothing that is raised is one.
fn panicked(app: &str) -> (String, &'static str, &'static str) {
    let target = format!("{app}/fault?kind=panic");
    match app {
        "/probe" => (target, "trap", "at probe::fault::run"),
        // "/probe-python", "/validated"
        _ => (target, "exception", "PanicError: secret panic"),
    }
}

#[test]
fn b7_an_exception_before_the_headers_is_a_500_without_internals() {
    each_wsgi_guest(|host, app| {
        for (target, cause, words) in [
            (script(app, "raise=secret reason"), "exception", "ProbeError: secret reason"),
            (script(app, "start=200 OK&raise=secret reason"), "exception", "ProbeError: secret reason"),
            (script(app, "start=200 OK&iterate=&block=&raise=secret reason"), "exception", "ProbeError: secret reason"),
            panicked(app),
        ] {
            let response = host.get(&target);
            assert_eq!(response.status(), 500);
            assert_eq!(response.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
            let text = response.text();
            for internal in ["secret", "ProbeError", "wasm", "probe"] {
                assert!(!text.contains(internal), "{internal} is none of the client's business: {text}");
            }
            let id = response.request_id();
            assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
            let failure = host.failure(&response);
            assert_eq!((failure.text("app"), failure.text("level")), (app[1..].to_owned(), "WARN".to_owned()));
            assert_eq!(failure.text("cause"), cause);
            assert!(failure.message().contains(words), "{}", failure.message());
            let line = host.access().wait("its line in the access log", |event| event.text("request") == id);
            assert_eq!((line.number("status"), line.text("cause").as_str()), (500, cause));
        }
        host.log_contains("secret panic");
    });
}

#[test]
fn b7_an_exception_after_the_headers_aborts_the_body() {
    each_wsgi_guest(|host, app| {
        for target in [
            script(app, "start=200 OK&iterate=&block=a block&raise=secret reason"),
            script(app, "start=200 OK&write=a block&raise=secret reason"),
            script(app, "header=Content-Length:20&start=200 OK&write=a block&raise=secret reason"),
            format!("{app}/then?kind=panic"),
        ] {
            let response = host.get(&target);
            assert_eq!((response.status(), response.end), (200, End::Aborted), "{target}");
            assert_eq!(response.text(), "a block", "{target}");
        }
        host.log().wait_for("they are in the log", 3, |event| event.text("cause") == "exception");
        let (_, cause, _) = panicked(app);
        host.log().wait("the panic, too", |event| event.text("cause") == cause && event.message().contains("panic"));
    });
}

/// The length of a file, as the client is told it. A server that gets something else than its own `wsgi.file_wrapper` back knows none,
/// unless the application has given it; but it sees where there is nothing.
fn of_a_file<'a>(app: &str, query: &str, length: &'a str) -> Option<&'a str> {
    Some(length).filter(|length| !is_validated(app) || query.contains("promise") || *length == "0")
}

#[test]
fn b8_a_file_is_sent_from_its_offset_with_its_length_and_closed() {
    let expected = |range: std::ops::Range<usize>| -> Vec<u8> { range.map(|at| (at % 251) as u8).collect() };
    each_wsgi_guest(|host, app| {
        let mut client = host.connect();
        for (query, range, length) in [
            ("bytes=10", 0..10, "10"),
            ("bytes=10&offset=4", 4..10, "6"),
            ("bytes=10&offset=4&promise=3", 4..7, "3"),
            ("bytes=1000000", 0..1_000_000, "1000000"),
            ("bytes=1000000&offset=999&block=1000", 999..1_000_000, "999001"),
            ("bytes=1000000&promise=600000&block=65536", 0..600_000, "600000"),
            ("bytes=0", 0..0, "0"),
            ("bytes=10&offset=10", 0..0, "0"),
            ("bytes=10&offset=99", 0..0, "0"),
        ] {
            let response = client.get(&format!("{app}/file?{query}"));
            assert_eq!((response.status(), response.end), (200, End::Whole), "{query}");
            let length = of_a_file(app, query, length);
            assert_eq!(response.header("content-length").as_deref(), length, "{query}");
            assert_eq!(response.header("transfer-encoding").is_none(), length.is_some(), "{query}");
            assert!(response.body == expected(range), "{query}: {} bytes", response.body.len());
        }
        let head = client.ask(&Request::new("HEAD", &format!("{app}/file?bytes=1000000")));
        assert_eq!(head.header("content-length").as_deref(), of_a_file(app, "", "1000000"));
        let short = host.get(&format!("{app}/file?bytes=10&promise=20"));
        assert_eq!((short.body.len(), short.end), (10, End::Aborted), "less than was promised");
        let closes = host.log().wait_for("all were closed", 11, |event| event.message().starts_with("closed the file"));
        assert_eq!(closes.len(), 11, "once each");
    });
}

#[test]
fn b8_a_large_file_waits_for_its_client() {
    each_wsgi_guest(|host, app| {
        let target = format!("{app}/file?bytes=50000000");
        let mut client = host.connect();
        client.send(&Request::get(&target).to_bytes());
        assert_eq!(client.head("GET").status, 200);
        let before = host.resident_bytes();
        for _ in 0..20 {
            assert_eq!(host.get(&format!("{app}/hello")).text(), "hello");
        }
        // The guest holds the file; the host has a few blocks of it.
        let grown = host.resident_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "the host grew by {} MiB", grown >> 20);
        let mut received = 0;
        while let Ok(piece @ [_, ..]) = client.piece().as_deref() {
            received += piece.len();
        }
        assert_eq!(received, 50_000_000);
    });
}

#[test]
fn b9_early_hints_are_not_offered_and_refused_as_a_status() {
    each_wsgi_guest(|host, app| {
        assert!(!host.get(&format!("{app}/environ")).text().contains("early_hints"));
        let response = host.get(&script(app, "header=Link:</style.css>; rel=preload&start=103 Early Hints"));
        assert_eq!(response.status(), 500);
        let why = host.failure(&response).message();
        assert!(why.contains("informational"), "{why}");
    });
    let host = raw();
    let response = host.get("/raw/head-returned?informational");
    assert_eq!(response.status(), 500);
    let why = host.failure(&response).message();
    assert!(why.contains("informational"), "{why}");
}
