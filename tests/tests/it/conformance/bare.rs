//! What the host enforces by itself, against a guest on the bare contract: an SDK would keep these rules, too, and so hide the
//! host's part.

use tests::{End, Host, Request};

use super::raw;

/// `WAY:STATUS:LENGTH:BLOCKS`, as `tests/guests/raw` understands it.
fn say(what: &str) -> String {
    format!("/raw/say?{}", what.replace('<', "%3C"))
}

/// How often the guest was asked for this block.
fn asked_for(host: &Host, block: &str) -> usize {
    host.log().all(|event| event.message() == format!("asked for {block}")).len()
}

#[test]
fn b1_a_bare_guest_is_asked_for_the_next_block_when_the_client_has_the_last() {
    let host = Host::start(|host| host.app("raw", tests::guest("raw")).sidecar("raw", "chunked_bodies = 'stream'"));
    for way in ["steps", "write"] {
        let mut client = host.connect();
        client.send(&Request::chunked(&say(&format!("{way}:200::one,<,<,end"))).to_bytes());
        assert_eq!(client.head("POST").status, 200);
        assert_eq!(client.piece().as_deref(), Ok(&b"one"[..]));
        for answer in [&b"two\n"[..], b"three\n"] {
            client.chunk(answer);
            assert_eq!(client.piece().as_deref(), Ok(answer), "{way}: it had nothing of it to read before");
        }
        let rest: Vec<u8> =
            std::iter::from_fn(|| client.piece().ok().filter(|piece| !piece.is_empty())).flatten().collect();
        assert_eq!(rest, b"end", "{way}");
    }
}

#[test]
fn b3_a_bare_guest_is_cut_at_its_length_and_asked_for_no_more() {
    let host = raw();
    let mut client = host.connect();
    for what in ["whole:200:5:abc,defgh", "steps:200:5:abc,defgh,never", "write:200:5:abc,defgh"] {
        let response = client.get(&say(what));
        assert_eq!((response.text().as_str(), response.end), ("abcde", End::Whole), "{what}");
    }
    assert_eq!(client.get(&say("whole:200::last")).text(), "last", "the connection is still in step");
    host.log_contains("asked for last");
    assert_eq!(asked_for(&host, "never"), 0);
}

#[test]
fn b3_less_than_a_bare_guest_has_promised_closes_the_connection() {
    let host = raw();
    for what in ["whole:200:5:abc", "steps:200:5:a,bc", "write:200:5:abc"] {
        let response = host.connect().get(&say(what));
        assert_eq!((response.text().as_str(), response.end), ("abc", End::Aborted), "{what}");
    }
    let lines = host.log().wait_for("all are in the log", 3, |event| event.text("cause") == "protocol");
    assert!(lines[0].message().contains("2 bytes shorter than its Content-Length"), "{}", lines[0].message());
}

#[test]
fn b4_what_a_bare_guest_returns_at_once_has_its_length_and_what_it_streams_is_framed() {
    let host = raw();
    for (what, length) in [
        ("whole:200::hel,lo", Some("5")),
        ("whole:200:5:hel,lo", Some("5")),
        ("steps:200::hel,lo", None),
        ("write:200::hel,lo", None),
    ] {
        let mut client = host.connect();
        let modern = client.get(&say(what));
        assert_eq!((modern.text().as_str(), modern.end), ("hello", End::Whole), "{what}");
        assert_eq!(modern.head.all("content-length"), length.into_iter().collect::<Vec<_>>(), "{what}");
        let chunked = length.is_none().then_some("chunked");
        assert_eq!(modern.header("transfer-encoding").as_deref(), chunked, "{what}");
        client.send(format!("GET {} HTTP/1.0\r\n\r\n", say(what)).as_bytes());
        let old = client.response("GET");
        assert_eq!((old.text().as_str(), old.header("transfer-encoding")), ("hello", None), "{what}");
        client.expect_end();
    }
}

#[test]
fn b5_a_bare_guests_body_is_kept_back_where_there_is_none() {
    let host = raw();
    let mut client = host.connect();
    for (what, length) in [
        ("whole:200::hel,lo", Some("5")),
        ("whole:200:25:", Some("25")),
        ("steps:200:25:hello,never", Some("25")),
        ("steps:200::hello,never", None),
        ("write:200:25:hello", Some("25")),
        ("write:200::hello", None),
    ] {
        let head = client.ask(&Request::new("HEAD", &say(what)));
        assert_eq!((head.status(), head.header("content-length").as_deref()), (200, length), "{what}");
    }
    for status in [204, 205, 304] {
        for what in ["whole", "steps", "write"] {
            let response = client.get(&say(&format!("{what}:{status}:4:body,never")));
            assert_eq!((response.status(), response.body.len()), (status, 0), "{what}");
            assert_eq!(response.header("transfer-encoding"), None, "{what}");
        }
    }
    assert_eq!(client.get(&say("whole:200::last")).text(), "last", "nothing came in between");
}

#[test]
fn b7_a_bare_guests_exception_is_a_500_or_breaks_off_what_has_begun() {
    let host = raw();
    for what in ["whole:200::one,!", "steps:200::!", "write:200::!"] {
        let response = host.get(&say(what));
        assert_eq!(response.status(), 500, "{what}");
        assert!(!response.text().contains("secret") && !response.text().contains("RawError"), "{}", response.text());
        let failure = host.failure(&response);
        assert_eq!(failure.text("cause"), "exception");
        assert!(failure.message().contains("RawError: secret reason"), "{}", failure.message());
    }
    for what in ["steps:200::one,!", "write:200::one,!", "steps:200:9:one,!"] {
        let response = host.get(&say(what));
        assert_eq!((response.status(), response.text().as_str(), response.end), (200, "one", End::Aborted), "{what}");
    }
}

/// What the guest has read of this body, step by step.
fn read(steps: &str, body: &str) -> String {
    raw().ask(&Request::post(&format!("/raw/read?{steps}"), body)).text()
}

#[test]
fn i2_a_bare_guest_reads_nothing_after_the_end() {
    assert_eq!(read("r100,r100,l100,r1", "all of it"), "all of it|||");
    let host = raw();
    let mut client = host.connect();
    for _ in 0..2 {
        assert_eq!(
            client.ask(&Request::post("/raw/read?r3,r9,r9", "abcde")).text(),
            "abc|de|",
            "nothing of the next one"
        );
    }
}

#[test]
fn i3_a_bare_guest_loses_nothing_between_lines_and_sizes() {
    assert_eq!(read("l100,r2,l100,l100,r100", "one\ntwo\nthree\nfour"), "one\n|tw|o\n|three\n|four");
}

#[test]
fn i4_a_bare_guest_consumes_nothing_by_zero_and_leaves_the_rest_of_a_line() {
    assert_eq!(read("r0,l0,l2,l100,r100", "line\nrest"), "||li|ne\n|rest");
}
