//! What a guest is given, and how its response arrives.

use std::io::Write;

use tests::{Builder, End, Request, guest};

use super::{GUESTS, check, each, rest, serving, with_trailers};

#[test]
fn a_whole_response_has_its_length() {
    each(
        |host| host,
        |host| {
            let response = host.get("/app/hello");
            check(&response, 200, "hello from wasi:http");
            assert_eq!(response.header("content-length").as_deref(), Some("20"));
            assert_eq!(host.listed("app").expect("it is live").text("kind"), "http");
        },
    );
}

#[test]
fn the_guest_sees_the_request_as_it_was_sent() {
    each(
        |host| host.sidecar("app", "routes = ['/deep/mount']"),
        |host| {
            let request = Request::new("PROPFIND", "/deep/mount/a%20b/request?q=%41&r")
                .header("X-Twice", "one")
                .header("X-Twice", "two")
                .header("X_Underscore", "kept")
                .header("Connection", "keep-alive")
                .header("Keep-Alive", "1")
                .header("Proxy", "evil")
                .header("Proxy-Authorization", "evil");
            let text = host.ask(&request).text();
            for line in [
                "method PROPFIND",
                "target /deep/mount/a%20b/request?q=%41&r",
                "scheme http",
                "authority test.example",
                "host: test.example",
                "x-twice: one",
                "x-twice: two",
                "x_underscore: kept",
            ] {
                assert!(text.lines().any(|found| found == line), "{line}: {text}");
            }
            assert!(!text.contains("evil") && !text.contains("connection") && !text.contains("keep-alive"), "{text}");
        },
    );
}

#[test]
fn the_authority_is_the_one_that_was_routed() {
    each(
        |host| host,
        |host| {
            let text =
                host.ask(&Request::get("http://other.example:81/app/request").header("Host", "a.example")).text();
            for line in ["target /app/request", "authority other.example:81", "host: other.example:81"] {
                assert!(text.lines().any(|found| found == line), "{line}: {text}");
            }
            let mut client = host.connect();
            client.send(b"GET /app/request HTTP/1.0\r\n\r\n");
            let text = client.response("GET").text();
            let line = format!("authority {}", host.address());
            assert!(
                text.lines().any(|found| found == line),
                "a client that names none means what it has reached: {text}"
            );
        },
    );
}

#[test]
fn status_and_headers_reach_the_client() {
    each(
        |host| host,
        |host| {
            for status in [201, 404, 418, 503] {
                let response = host.get(&format!("/app/status?{status}"));
                check(&response, status, "a body");
                assert_eq!(response.header("x-given").as_deref(), Some("yes"));
                assert!(response.header("date").is_some() && response.header("server").is_some());
            }
            // A status that nobody has registered has no phrase (RFC 9112 §4).
            for status in [299, 520, 599] {
                let response = host.get(&format!("/app/status?{status}"));
                check(&response, status, "a body");
                assert_eq!(response.head.reason, "", "{status}");
            }
            assert_eq!(host.get("/app/cookies").head.all("set-cookie"), ["a=1", "b=2"]);
            assert_eq!(host.get("/app/length").header("content-length").as_deref(), Some("6"));
        },
    );
}

#[test]
fn responses_without_a_body_have_none() {
    each(
        |host| host,
        |host| {
            let mut client = host.connect();
            let head = client.ask(&Request::new("HEAD", "/app/hello"));
            assert_eq!(
                (head.status(), head.header("content-length").as_deref(), head.body.len()),
                (200, Some("20"), 0)
            );
            for status in [204, 304] {
                let response = client.get(&format!("/app/status?{status}"));
                check(&response, status, "");
                assert_eq!((response.header("content-length"), response.header("transfer-encoding")), (None, None));
            }
            check(&client.get("/app/hello"), 200, "hello from wasi:http");
        },
    );
}

#[test]
fn a_body_streams_both_ways() {
    each(
        |host| host,
        |host| {
            let mut client = host.connect();
            client.send(&Request::chunked("/app/echo").to_bytes());
            let head = client.head("POST");
            assert_eq!(head.status, 200, "the head comes while the guest waits for the first piece");
            for piece in [&b"one"[..], b"two", b"three"] {
                client.chunk(piece);
                assert_eq!(client.piece().as_deref(), Ok(piece), "nothing is kept back");
            }
            client.chunk(b"");
            assert_eq!(client.piece().as_deref(), Ok(&b""[..]));
            check(&client.get("/app/hello"), 200, "hello from wasi:http");
        },
    );
}

#[test]
fn a_large_body_passes_through() {
    each(
        |host| host,
        |host| {
            let bytes: Vec<u8> = (0..4_000_000_u32).map(|index| (index % 251) as u8).collect();
            let mut client = host.connect();
            let mut sender = client.sender();
            let request = Request::post("/app/echo", bytes.clone()).to_bytes();
            let sending = std::thread::spawn(move || sender.write_all(&request));
            let response = client.response("POST");
            sending.join().expect("the thread ends").expect("the host takes it");
            assert!(response.body == bytes && response.end == End::Whole, "{} bytes came back", response.body.len());
        },
    );
}

#[test]
fn trailers_go_both_ways() {
    each(
        |host| host,
        |host| {
            let ask = |request: Request| {
                let mut client = host.connect();
                client.send(&request.header("Connection", "close").to_bytes());
                client.send(b"3\r\nabc\r\n0\r\nX-Given: from the client\r\n\r\n");
                rest(&mut client)
            };
            let text = ask(with_trailers(Request::chunked("/app/trailers").header("Trailer", "X-Given")));
            assert!(text.contains("\r\ntrailer: x-bytes, x-given\r\n"), "{text}");
            assert!(text.contains("\r\na body\r\n0\r\nx-bytes: 3\r\nx-given: from the client\r\n\r\n"), "{text}");
            let text = ask(Request::chunked("/app/trailers"));
            assert!(text.ends_with("\r\na body\r\n0\r\n\r\n"), "who did not ask for trailers gets none: {text}");
        },
    );
}

#[test]
fn what_a_guest_prints_is_logged_with_its_request() {
    each(
        |host| host,
        |host| {
            check(&host.get("/app/log"), 200, "logged");
            for (words, stream) in [("to standard output", "stdout"), ("to standard error", "stderr")] {
                let line = host.log_contains(words);
                assert_eq!((line.text("app").as_str(), line.text("stream").as_str()), ("app", stream));
                assert_eq!(line.text("request").len(), 16);
            }
        },
    );
}

#[test]
fn instances_are_fresh_unless_the_app_says_otherwise() {
    for name in GUESTS {
        let reuse = "instances = 'reuse'\nreuse_requests = 3";
        // With one worker a call waits for the instance of the one before it, which is idle a moment after that is answered.
        let host =
            serving(name, |host| host.app("reused", guest(name)).sidecar("reused", reuse).flag("--workers", "1"));
        for _ in 0..3 {
            check(&host.get("/app/calls"), 200, "call 1");
        }
        let calls: Vec<String> = (0..5).map(|_| host.get("/reused/calls").text()).collect();
        assert_eq!(calls, ["call 1", "call 2", "call 3", "call 1", "call 2"], "{name}");
    }
}

#[test]
fn a_body_that_the_guest_keeps_is_taken_from_it() {
    each(
        |host| host.sidecar("app", "instances = 'reuse'").edge("header_time=5m"),
        |host| {
            let mut client = host.connect();
            for _ in 0..3 {
                check(&client.ask(&Request::post("/app/ignore", "never read")), 200, "ignored");
            }
            client.send(&Request::chunked("/app/ignore").to_bytes());
            check(&client.response("POST"), 200, "ignored");
            // The rest will not be read by anybody: the connection ends, rather than waits for it.
            client.expect_end();
        },
    );
}

#[test]
fn work_after_the_response_keeps_no_client_waiting_and_is_done() {
    each(
        |host| host,
        |host| {
            for reuse in ["background", "background"] {
                let response = host.get(&format!("/app/{reuse}"));
                assert_eq!((response.text().as_str(), response.end), ("a block", End::Whole));
            }
            host.log().wait_for("both were done", 2, |event| event.message() == "in the background");
        },
    );
}

#[test]
fn work_after_a_head_alone_is_done_and_nobody_produces_a_body_for_nobody() {
    for reuse in ["", "instances = 'reuse'"] {
        each(
            |host| host.sidecar("app", reuse).limit("concurrent_calls=1"),
            |host| {
                let mut client = host.connect();
                for target in ["/app/background", "/app/blocks?60000"] {
                    assert_eq!(client.ask(&Request::new("HEAD", target)).status(), 200);
                }
                host.log_contains("in the background");
                check(&client.get("/app/hello"), 200, "hello from wasi:http");
                assert_eq!(host.log().all(|event| !event.text("cause").is_empty()).len(), 0);
            },
        );
    }
}

#[test]
fn work_after_the_response_counts_as_the_call() {
    each(
        |host| host.limit("cpu_time=200ms").limit("concurrent_calls=1").limit("queued_calls=0"),
        |host| {
            check(&host.get("/app/background-spin"), 200, "a block");
            assert_eq!(host.get("/app/hello").status(), 503, "it has its place until it ends");
            let stopped = host.failed("cpu");
            assert!(stopped.message().contains("after the response"), "{}", stopped.message());
            host.until("/app/hello", 200, "hello");
        },
    );
}

#[test]
fn a_slow_client_holds_the_guest_back() {
    each(
        |host| host,
        |host| {
            let before = host.resident_bytes();
            let mut client = host.connect();
            client.send(&Request::post("/app/blocks?4000", "a").to_bytes());
            assert_eq!(client.head("POST").status, 200);
            assert!(client.piece().is_ok_and(|piece| piece[0] == b'a'));
            // 250 MB would come; while nobody takes them, they are not there.
            check(&host.get("/app/hello"), 200, "hello from wasi:http");
            let grown = host.resident_bytes().saturating_sub(before);
            assert!(grown < 64 << 20, "{grown} bytes");
        },
    );
}

#[test]
fn compiled_code_is_kept_for_both_engines() {
    for name in GUESTS {
        let host = serving(name, Builder::cold).restart();
        check(&host.get("/app/hello"), 200, "hello from wasi:http");
        let compiled = host.log().all(|event| event.message() == "live" && event.text("code") != "cached");
        assert!(compiled.is_empty(), "{name}: {compiled:?}");
    }
}

#[test]
fn one_app_may_be_of_any_kind_after_another() {
    let host = serving("http-p2", |host| host);
    for (name, text) in [("http-p3", "call 1"), ("http-p2", "call 1")] {
        host.drop_in("app.wasm", guest(name));
        host.log().wait("the new release is live", |event| event.message() == "live");
        host.until("/app/calls", 200, text);
    }
    host.drop_in("app.wasm", guest("hello"));
    host.until("/app", 200, "This is a sample WSGI Application");
}
