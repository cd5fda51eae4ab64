//! Responses: whole and block by block, heads that come late or twice, errors before and after the head.

use tests::{End, Host, Request, guest};

fn probe() -> Host {
    Host::start(|host| host.app("probe", guest("probe")))
}

fn raw() -> Host {
    Host::start(|host| host.app("raw", guest("raw")))
}

#[test]
fn a_whole_response_has_its_length() {
    let host = probe();
    let response = host.get("/probe/hello");
    assert_eq!((response.status(), response.text().as_str()), (200, "hello"));
    assert_eq!(response.header("content-length").as_deref(), Some("5"));
    assert_eq!(response.header("transfer-encoding"), None);
    let response = host.get("/probe/respond?block=one&block=&block=two");
    assert_eq!((response.header("content-length").as_deref(), response.text().as_str()), (Some("6"), "onetwo"));
}

#[test]
fn a_generator_arrives_block_by_block() {
    let host = probe();
    let mut client = host.connect();
    client.send(&Request::chunked("/probe/echo-blocks").to_bytes());
    client.chunk(b"one");
    assert_eq!(client.head("POST").status, 200);
    // The second block is not even made before the client has the first.
    assert_eq!(client.piece().as_deref(), Ok(&b"one"[..]));
    client.chunk(b"two");
    assert_eq!(client.piece().as_deref(), Ok(&b"two"[..]));
    client.chunk(b"");
    assert_eq!(client.piece().as_deref(), Ok(&b""[..]));
    assert_eq!(client.get("/probe/hello").text(), "hello", "the connection goes on");
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let host = probe();
    let mut client = host.connect();
    client.send(&Request::chunked("/probe/events?count=3").to_bytes());
    for index in 0..3 {
        client.chunk(format!("event {index}\n").as_bytes());
        if index == 0 {
            let head = client.head("POST");
            assert_eq!(head.header("content-type").as_deref(), Some("text/event-stream"));
        }
        let event = client.piece().expect("an event");
        assert_eq!(String::from_utf8_lossy(&event), format!("id: {index}\ndata: event {index}\n\n"));
    }
}

#[test]
fn what_was_written_goes_before_what_is_returned() {
    let host = probe();
    let response = host.get("/probe/write?write=one&write=two&block=three");
    assert_eq!((response.text().as_str(), response.end), ("onetwothree", End::Whole));
    let host = raw();
    assert_eq!(host.get("/raw/write-then-iterator").text(), "written block block ");
}

#[test]
fn start_response_may_be_called_in_the_first_step() {
    let host = probe();
    let response = host.get("/probe/late");
    assert_eq!((response.status(), response.text().as_str()), (202, "first second"));
    assert_eq!(response.header("x-late").as_deref(), Some("yes"));
    let host = raw();
    assert_eq!((host.get("/raw/late-block").status(), host.get("/raw/late-block").text().as_str()), (203, "late"));
}

#[test]
fn exc_info_before_the_headers_replaces_them() {
    let host = probe();
    let response = host.get("/probe/exc-info-before");
    assert_eq!((response.status(), response.head.reason.as_str()), (500, "Oops"));
    assert_eq!((response.header("x-first"), response.header("x-second").as_deref()), (None, Some("yes")));
    assert_eq!(response.text(), "an error page of the app's own");
    host.log_contains("secret reason");
    let host = raw();
    let response = host.get("/raw/empty-then-replace");
    assert_eq!((response.status(), response.text().as_str()), (500, "replaced"), "an empty block sends no headers");
}

#[test]
fn exc_info_after_the_headers_breaks_the_response_off() {
    let host = probe();
    let response = host.get("/probe/exc-info-after");
    assert_eq!((response.status(), response.text().as_str(), response.end), (200, "some of it", End::Aborted));
    host.failed("exception");
    let host = raw();
    let response = host.get("/raw/exc-info-after");
    assert_eq!(response.text(), "someSome(ProtocolError::HeadersSent)");
    assert_eq!(response.end, End::Aborted);
}

#[test]
fn more_than_the_content_length_is_cut() {
    let host = probe();
    for iterator in [0, 1] {
        let mut client = host.connect();
        let response = client.get(&format!("/probe/length?promise=25&blocks=10&bytes=10&iterator={iterator}"));
        assert_eq!((response.body.len(), response.end), (25, End::Whole));
        assert_eq!(client.get("/probe/hello").text(), "hello", "the connection is still in step");
    }
}

#[test]
fn less_than_the_content_length_closes_the_connection() {
    let host = probe();
    for iterator in [0, 1] {
        let response = host.get(&format!("/probe/length?promise=25&blocks=2&bytes=10&iterator={iterator}"));
        assert_eq!((response.body.len(), response.end), (20, End::Aborted), "iterator={iterator}");
    }
    let lines = host.log().wait_for("both are in the log", 2, |event| event.text("cause") == "protocol");
    assert!(lines[0].message().contains("5 bytes shorter than its Content-Length"), "{}", lines[0].message());
}

#[test]
fn head_has_the_length_and_no_body() {
    let host = probe();
    let mut client = host.connect();
    for (target, length) in [
        ("/probe/hello", Some("5")),
        ("/probe/length?promise=25&blocks=3", Some("25")),
        ("/probe/write?write=one", None),
        ("/probe/stream?blocks=1000000", None),
    ] {
        let response = client.ask(&Request::new("HEAD", target));
        assert_eq!((response.status(), response.header("content-length").as_deref()), (200, length), "{target}");
    }
    assert_eq!(client.get("/probe/hello").text(), "hello", "nothing came in between");
}

#[test]
fn statuses_without_body_have_none() {
    let host = probe();
    let mut client = host.connect();
    for status in ["204 No Content", "205 Reset Content", "304 Not Modified"] {
        for iterator in [0, 1] {
            let target = format!("/probe/respond?status={}&block=body&iterator={iterator}", status.replace(' ', "%20"));
            let response = client.get(&target);
            assert_eq!(response.status().to_string(), status[..3]);
            assert_eq!((response.header("transfer-encoding"), response.body.len()), (None, 0));
            if status.starts_with("204") {
                assert_eq!(response.header("content-length"), None, "RFC 9110 §8.6");
            }
        }
    }
    assert_eq!(client.get("/probe/hello").text(), "hello", "nothing came in between");
}

#[test]
fn an_exception_before_the_headers_is_a_500_without_internals() {
    let host = probe();
    for kind in ["raise", "panic"] {
        let response = host.get(&format!("/probe/fault?kind={kind}"));
        assert_eq!(response.status(), 500);
        assert_eq!(response.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
        let text = response.text();
        for internal in ["secret", "ProbeError", "wasm", "probe"] {
            assert!(!text.contains(internal), "{internal} is none of the client's business: {text}");
        }
        let id = response.request_id();
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let failure = host.failure(&response);
        assert_eq!(failure.text("app"), "probe");
        assert_eq!(failure.text("level"), "WARN");
        match kind {
            "raise" => {
                assert_eq!(failure.text("cause"), "exception");
                assert!(failure.message().contains("ProbeError: secret reason"), "{}", failure.message());
            }
            _ => {
                assert_eq!(failure.text("cause"), "trap");
                host.log_contains("secret panic");
                assert!(failure.message().contains("at probe::fault::run"), "function names: {}", failure.message());
            }
        }
        let line = host.access().wait("its line in the access log", |event| event.text("request") == id);
        assert_eq!((line.number("status"), line.text("cause")), (500, failure.text("cause")));
    }
}

#[test]
fn an_exception_after_the_headers_aborts_the_body() {
    let host = probe();
    for target in ["/probe/raise-after", "/probe/then?kind=panic"] {
        let response = host.get(target);
        assert_eq!(
            (response.status(), response.text().as_str(), response.end),
            (200, "a block", End::Aborted),
            "{target}"
        );
    }
    host.failed("exception");
    host.failed("trap");
    host.log_contains("closed raise-after");
}

#[test]
fn a_response_without_start_response_is_a_500() {
    let host = Host::start(|host| host.app("probe", guest("probe")).app("raw", guest("raw")));
    for target in ["/probe/never", "/raw/never", "/raw/never-iterator"] {
        let response = host.get(target);
        assert_eq!(response.status(), 500, "{target}");
        assert!(host.failure(&response).message().contains("never called start_response"));
    }
}

#[test]
fn a_second_start_response_is_an_error() {
    let host = Host::start(|host| host.app("probe", guest("probe")).app("raw", guest("raw")));
    assert_eq!(host.get("/probe/twice").status(), 500);
    let response = host.get("/raw/call-twice");
    assert_eq!(response.text(), "true Some(ProtocolError::AlreadyStarted)");
    assert_eq!(response.header("x-first").as_deref(), Some("yes"), "the first call stands");
    let both = host.get("/raw/call-and-return");
    assert_eq!((both.status(), host.failure(&both).text("cause").as_str()), (500, "protocol"));
    assert_eq!(host.get("/raw/head-each-step").status(), 500);
}

#[test]
fn a_bad_head_never_reaches_the_client() {
    let host = raw();
    for (bad, error) in [
        ("status", "BadStatus"),
        ("status-control", "BadStatus"),
        ("informational", "BadStatus"),
        ("name", "BadHeader"),
        ("splitting", "BadHeader"),
        ("latin1", "BadHeader"),
        ("hop-by-hop", "BadHeader"),
        ("status-header", "BadHeader"),
        ("length", "BadHeader"),
        ("two-lengths", "BadHeader"),
    ] {
        let returned = host.get(&format!("/raw/head-returned?{bad}"));
        assert_eq!((returned.status(), returned.header("set-cookie")), (500, None), "{bad}");
        assert_eq!(host.failure(&returned).text("cause"), "protocol", "{bad}");
        let called = host.get(&format!("/raw/head-called?{bad}"));
        assert!(called.text().starts_with(&format!("Some(ProtocolError::{error}")), "{bad}: {}", called.text());
    }
}

#[test]
fn empty_blocks_send_nothing() {
    let host = raw();
    let response = host.get("/raw/empty-blocks");
    assert_eq!((response.text().as_str(), response.header("content-length").as_deref()), ("ab", Some("2")));
}

#[test]
fn a_failing_close_does_not_disturb_the_response() {
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

#[test]
fn pipelined_requests_are_answered_in_order() {
    let host = probe();
    let mut client = host.connect();
    let targets =
        ["/probe/hello", "/probe/stream?blocks=3&bytes=1", "/probe/fault", "/nowhere", "/probe/write?write=w"];
    let requests: Vec<u8> = targets.iter().flat_map(|target| Request::get(target).to_bytes()).collect();
    client.send(&requests);
    let answers: Vec<u16> = targets.iter().map(|_| client.response("GET").status()).collect();
    assert_eq!(answers, [200, 200, 500, 404, 200]);
}
