//! Responses: whole and block by block, heads that come late or twice, errors before and after the head.

use tests::{End, Host, Request, guest};

fn probe() -> Host {
    Host::start(|host| host.app("probe", guest("probe")).stream_bodies())
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
