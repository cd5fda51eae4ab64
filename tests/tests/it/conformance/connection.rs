//! H: what a connection goes through, from one request to the next: sizes that arrive late, times, and clients that leave.

use std::time::Instant;

use tests::{Client, End, Request, guest};

use super::http::{check_logged, check_refused, get, post, probe, probe_with};

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &[];

#[test]
fn h10_a_body_beyond_the_limit_is_a_413_that_arrives() {
    let host = probe_with(|host| host.limit("request_body_size=1KiB"));
    // The client sends all of it before it looks at what it is told, which must not be lost by that.
    let mut client = host.connect();
    client.send(&Request::new("POST", "/probe/count").header("Content-Length", "4000000").to_bytes());
    for _ in 0..4000 {
        assert!(client.try_send(&[b'x'; 1000]), "it is listened to");
    }
    let response = client.response("POST");
    assert_eq!((response.status(), response.end), (413, End::Whole));
    check_logged(&host, &response);
    let mut client = host.connect();
    client.send(&Request::chunked("/probe/count").to_bytes());
    (0..3).for_each(|_| _ = client.try_send(format!("200\r\n{}\r\n", "x".repeat(512)).as_bytes()));
    assert_eq!(client.response("POST").status(), 413);
    for length in [u64::MAX - 2, u64::MAX - 1, u64::MAX] {
        check_refused(&host, post(&format!("Content-Length: {length}"), "hello"), 413);
    }
}

#[test]
fn h13_a_slow_head_is_a_408_and_an_idle_connection_is_closed() {
    let host = probe_with(|host| host.edge("header_time=300ms"));
    let mut slow = host.connect();
    slow.send(b"GET /probe/hello HTTP/1.1\r\nHost:");
    let mut silent = host.connect();
    for client in [&mut slow, &mut silent] {
        let response = client.response("GET");
        assert_eq!((response.status(), response.header("connection").as_deref()), (408, Some("close")));
        client.expect_end();
        check_logged(&host, &response);
        assert_eq!(host.failure(&response).text("cause"), "slow_head");
    }
    let mut idle = host.connect();
    assert_eq!(idle.get("/probe/hello").text(), "hello");
    idle.expect_end();
    let mut second = host.connect();
    assert_eq!(second.get("/probe/hello").text(), "hello");
    second.send(b"GET /probe/hello HTTP/1.1\r\n");
    assert_eq!(second.response("GET").status(), 408, "a part of a further head");
}

#[test]
fn h13_a_client_that_dribbles_its_head_has_the_same_time() {
    let host = probe_with(|host| host.edge("header_time=500ms"));
    let mut client = host.connect();
    client.send(b"GET /probe/hello HTTP/1.1\r\n");
    let mut sender = client.sender();
    let dribbling = std::thread::spawn(move || {
        use std::io::Write;
        while sender.write_all(b"X: y\r\n").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    assert_eq!(client.response("GET").status(), 408);
    drop(client);
    dribbling.join().expect("it ends when it is not listened to any more");
}

#[test]
fn h15_pipelined_requests_are_answered_in_order() {
    let host = probe();
    let mut client = host.connect();
    let requests: Vec<Vec<u8>> = vec![
        Request::get("/probe/hello").to_bytes(),
        Request::get("/probe/fault?kind=sleep&ms=200").to_bytes(),
        Request::post("/probe/echo", b"one").to_bytes(),
        Request::get("/probe/stream?blocks=3&bytes=1").to_bytes(),
        post("Transfer-Encoding: chunked", "3\r\ntwo\r\n0\r\nX: y\r\n\r\n").into_bytes(),
        Request::get("/probe/fault").to_bytes(),
        Request::get("/nowhere").to_bytes(),
        Request::post("/probe/echo", b"three").to_bytes(),
    ];
    client.send(&requests.concat());
    let mut answers = requests.iter().map(|_| client.response("GET"));
    let mut next = || answers.next().map(|response| (response.status(), response.text())).unwrap_or_default();
    assert_eq!(next(), (200, "hello".to_owned()));
    assert_eq!(next(), (200, "survived".to_owned()), "others wait for a slow one");
    assert_eq!(next(), (200, "one".to_owned()));
    assert_eq!(next(), (200, "abc".to_owned()));
    assert_eq!(next(), (200, "two".to_owned()));
    assert_eq!((next().0, next().0), (500, 404));
    assert_eq!(next(), (200, "three".to_owned()));
}

#[test]
fn h15_many_requests_in_any_pieces_are_answered() {
    let host = probe();
    let one = [
        Request::get("/probe/hello").to_bytes(),
        Request::post("/probe/echo", b"GET / HTTP/1.1\r\n\r\n").to_bytes(),
        post("Transfer-Encoding: chunked", "12\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n").into_bytes(),
    ]
    .concat();
    let all = one.repeat(40);
    for piece in [1, 7, 100, 4096, all.len()] {
        let mut client = host.connect();
        let mut sender = client.sender();
        let bytes = if piece == 1 { one.clone() } else { all.clone() };
        let rounds = bytes.len() / one.len();
        let sending = std::thread::spawn(move || {
            use std::io::Write;
            bytes.chunks(piece).for_each(|piece| sender.write_all(piece).expect("the host takes it"));
        });
        for round in 0..rounds {
            assert_eq!(client.response("GET").text(), "hello", "round {round} in pieces of {piece}");
            assert_eq!(client.response("POST").text(), "GET / HTTP/1.1\r\n\r\n");
            assert_eq!(client.response("POST").text(), "GET / HTTP/1.1\r\n\r\n");
        }
        sending.join().expect("all was sent");
    }
}

#[test]
fn h15_after_a_response_that_broke_off_nothing_is_answered() {
    let host = probe();
    let mut client = host.connect();
    client
        .send(&[Request::get("/probe/raise-after").to_bytes(), Request::get("/probe/hello?after").to_bytes()].concat());
    assert_eq!(client.response("GET").end, End::Aborted);
    client.expect_end();
    host.get("/probe/hello");
    assert!(
        host.access().all(|event| event.text("target").contains("after") && event.number("status") == 200).is_empty()
    );
}

/// Lets a client go by a reset in the middle of what `begin` began, and shows that the app's only permit is free again and
/// nobody else noticed.
#[track_caller]
fn check_undisturbed(begin: impl FnOnce(&mut Client)) {
    let host = probe_with(|host| {
        let host = host.app("other", guest("probe")).sidecar("other", "chunked_bodies = 'stream'");
        let host = host.sidecar("probe", "limits = { concurrent_calls = 1 }");
        host.limit("queue_time=30s").workers(1)
    });
    let mut other = host.connect();
    other.send(&Request::chunked("/other/echo-blocks").to_bytes());
    other.chunk(b"one");
    assert_eq!(other.head("POST").status, 200);
    assert_eq!(other.piece().as_deref(), Ok(&b"one"[..]));
    let mut client = host.connect();
    begin(&mut client);
    client.reset();
    assert_eq!(host.get("/probe/hello").text(), "hello", "the permit is free");
    other.chunk(b"two");
    assert_eq!(other.piece().as_deref(), Ok(&b"two"[..]), "another's call goes on");
    other.chunk(b"");
    assert_eq!(other.piece().as_deref(), Ok(&b""[..]));
}

#[test]
fn h16_a_client_that_resets_disturbs_nobody() {
    check_undisturbed(|client| client.send(b"GET /probe/he"));
    check_undisturbed(|client| client.send(b"POST /probe/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome"));
    check_undisturbed(|client| client.send(post("Transfer-Encoding: chunked", "5\r\nhel").as_bytes()));
    check_undisturbed(|client| client.send(get("X: y").replace("hello", "fault?kind=sleep&ms=600000").as_bytes()));
    check_undisturbed(|client| client.send(get("X: y").replace("hello", "fault?kind=spin").as_bytes()));
    check_undisturbed(|client| {
        client.send(get("X: y").replace("hello", "stream?blocks=1000000&bytes=65536").as_bytes());
        assert_eq!(client.head("GET").status, 200);
    });
    check_undisturbed(|client| {
        client.send(get("X: y").replace("hello", "then?kind=sleep&ms=600000").as_bytes());
        assert_eq!(client.head("GET").status, 200);
    });
}

#[test]
fn h16_a_client_that_leaves_with_a_part_of_a_further_request_is_noticed() {
    check_undisturbed(|client| {
        client.send(get("X: y").replace("hello", "then?kind=sleep&ms=600000").as_bytes());
        assert_eq!(client.head("GET").status, 200);
        assert_eq!(client.piece().as_deref(), Ok(&b"a block"[..]));
        client.send(b"GET /probe/hello HTTP/1.1\r\nHos");
    });
}

#[test]
fn h16_a_client_that_leaves_with_a_whole_further_request_is_noticed() {
    check_undisturbed(|client| {
        let first = get("X: y").replace("hello", "then?kind=sleep&ms=600000");
        client.send([first, get("X: y")].concat().as_bytes());
        assert_eq!(client.head("GET").status, 200);
        assert_eq!(client.piece().as_deref(), Ok(&b"a block"[..]));
    });
}

#[test]
fn h19_http_1_0_is_closed_unless_it_asks_to_be_kept() {
    let host = probe();
    let ask = |client: &mut Client, target: &str, fields: &str| {
        client.send(format!("GET {target} HTTP/1.0\r\n{fields}\r\n").as_bytes());
        client.response("GET")
    };
    let mut client = host.connect();
    let response = ask(&mut client, "/probe/hello", "");
    assert_eq!((response.status(), response.text().as_str(), response.head.minor_version), (200, "hello", 0));
    client.expect_end();
    let mut client = host.connect();
    for _ in 0..2 {
        let response = ask(&mut client, "/probe/hello", "Connection: Keep-Alive\r\n");
        assert_eq!((response.text().as_str(), response.header("connection").as_deref()), ("hello", Some("keep-alive")));
    }
    // There are no chunks: the end of a body of unknown length is the end of the connection.
    let streamed = ask(&mut client, "/probe/stream?blocks=3&bytes=1", "Connection: keep-alive\r\n");
    assert_eq!((streamed.text().as_str(), streamed.header("transfer-encoding")), ("abc", None));
    assert_eq!(streamed.header("connection"), None, "nothing is promised that is not kept");
    client.expect_end();
    let mut client = host.connect();
    client.send(&Request::get("/probe/hello").header("Connection", "close").to_bytes());
    assert_eq!(client.response("GET").header("connection").as_deref(), Some("close"));
    client.expect_end();
}

#[test]
fn h23_a_body_that_stands_still_is_a_408() {
    let host = probe_with(|host| host.limit("idle_time=200ms"));
    let mut client = host.connect();
    client.send(b"POST /probe/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nsome");
    let response = client.response("POST");
    assert_eq!((response.status(), response.header("connection").as_deref()), (408, Some("close")));
    check_logged(&host, &response);
    client.expect_end();
}

#[test]
fn h24_who_has_stopped_sending_gets_its_answers() {
    let host = probe();
    let ask = |requests: &[u8]| {
        let mut client = host.connect();
        client.send(requests);
        client.finish_sending();
        client
    };
    let mut whole = ask(&Request::get("/probe/hello").to_bytes());
    assert_eq!(whole.response("GET").text(), "hello");
    whole.expect_end();
    let mut slow = ask(&Request::get("/probe/fault?kind=sleep&ms=500").to_bytes());
    assert_eq!(slow.response("GET").text(), "survived");
    slow.expect_end();
    let mut streamed = ask(&Request::get("/probe/stream?blocks=5&pause=100").to_bytes());
    assert_eq!(streamed.response("GET").body.len(), 50);
    streamed.expect_end();
    let mut large = ask(&Request::get("/probe/stream?blocks=300&bytes=65536").to_bytes());
    assert_eq!(large.response("GET").body.len(), 300 << 16);
    let mut body = ask(&Request::post("/probe/echo", b"hello").to_bytes());
    assert_eq!(body.response("POST").text(), "hello");
    let mut two = ask(&Request::get("/probe/fault?kind=sleep&ms=300").to_bytes().repeat(2));
    assert_eq!(
        (two.response("GET").text(), two.response("GET").text()),
        ("survived".to_owned(), "survived".to_owned())
    );
    two.expect_end();
    let mut plain = ask(b"GET /probe/hello HTTP/1.0\r\n\r\n");
    assert_eq!(plain.response("GET").text(), "hello");
    plain.expect_end();
}

#[test]
fn h24_who_may_be_gone_is_waited_for_no_longer_than_half_closed_time() {
    let host = probe_with(|host| {
        let host = host.sidecar("probe", "limits = { concurrent_calls = 1 }").limit("queue_time=30s");
        host.edge("half_closed_time=200ms")
    });
    let further = Request::get("/probe/hello").to_bytes();
    for (target, further) in [
        ("/probe/then?kind=sleep&ms=600000", &[][..]),
        ("/probe/then?kind=sleep&ms=600000", &further),
        ("/probe/fault?kind=sleep&ms=600000", &[]),
    ] {
        let mut client = host.connect();
        client.send(&[&Request::get(target).to_bytes(), further].concat());
        if target.contains("then") {
            assert_eq!(client.head("GET").status, 200);
        }
        let begin = Instant::now();
        client.finish_sending();
        assert_eq!(host.get("/probe/hello").text(), "hello", "{target}: the permit is free");
        client.rest();
        assert!(begin.elapsed().as_millis() >= 200, "{target}: {:?}", begin.elapsed());
    }
}

#[test]
fn h24_half_a_request_is_no_request() {
    let host = probe();
    for request in ["GET /probe/hello HTTP/1.1\r\nHost: a\r\n", "\r\n", ""] {
        let mut client = host.connect();
        client.send(request.as_bytes());
        client.finish_sending();
        client.expect_end();
    }
    let mut client = host.connect();
    client.send(b"POST /probe/count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nsome");
    client.finish_sending();
    assert!(client.rest().starts_with(b"HTTP/1.1 408"), "half a body is told");
}
