//! Nobody waits for anybody else's guest or client, on one worker thread too; and a client that goes frees what it held.

use tests::{End, Host, Request, guest};

/// A host with one worker; `probe` has one call at a time, `other` is there to be asked meanwhile.
fn lonely() -> Host {
    Host::start(|host| {
        host.app("probe", guest("probe"))
            .app("other", guest("probe"))
            .sidecar("probe", "limits = { concurrent_calls = 1 }")
            .limit("queue_time=30s")
            .edge("half_closed_time=100ms")
            .stream_bodies()
            .workers(1)
    })
}

#[test]
fn an_endless_loop_does_not_delay_others() {
    let host = Host::start(|host| {
        host.app("probe", guest("probe")).app("other", guest("probe")).limit("cpu_time=20s").workers(1)
    });
    let mut spinning: Vec<_> = (0..3).map(|_| host.connect()).collect();
    for client in &mut spinning {
        client.send(&Request::get("/probe/then?kind=spin").to_bytes());
        assert_eq!(client.head("GET").status, 200);
        assert_eq!(client.piece().as_deref(), Ok(&b"a block"[..]));
    }
    // They spin from now on, for 20 seconds of processor time; nobody would be answered if they were not interrupted.
    let begin = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(host.get("/other/hello").text(), "hello");
    }
    assert!(begin.elapsed().as_secs() < 15, "others waited for the loops: {:?}", begin.elapsed());
    assert!(host.log().all(|event| event.text("cause") == "cpu").is_empty(), "the loops still run");
}

#[test]
fn a_guest_that_waits_in_a_host_call_does_not_delay_others() {
    let host = lonely();
    let mut waiting = host.connect();
    waiting.send(&Request::chunked("/probe/echo").to_bytes());
    let mut sleeping = host.connect();
    sleeping.send(&Request::get("/other/fault?kind=sleep&ms=600000").to_bytes());
    for _ in 0..20 {
        assert_eq!(host.get("/other/hello").text(), "hello");
    }
    waiting.chunk(b"at last");
    waiting.chunk(b"");
    assert_eq!(waiting.response("POST").text(), "at last");
}

#[test]
fn a_client_that_takes_nothing_does_not_delay_others() {
    let host = lonely();
    let mut slow = host.connect();
    slow.send(&Request::get("/other/stream?blocks=100000&bytes=65536").to_bytes());
    assert_eq!(slow.head("GET").status, 200);
    for _ in 0..20 {
        assert_eq!(host.get("/other/hello").text(), "hello");
    }
}

/// Lets a client go in the middle of its call, and shows that the app's only permit is free again.
#[track_caller]
fn gone(begin: impl FnOnce(&Host) -> tests::Client) {
    let host = lonely();
    let client = begin(&host);
    drop(client);
    assert_eq!(host.get("/probe/hello").text(), "hello", "the permit is free");
    // A guest that waits for input is told, and may say so by an exception of its own.
    let ended = ["client_gone", "exception"];
    let line = host.access().wait("the call in the access log", |event| ended.contains(&&*event.text("cause")));
    assert_eq!(line.text("app"), "probe");
}

#[test]
fn a_client_gone_while_the_guest_streams_frees_the_permit() {
    gone(|host| {
        let mut client = host.connect();
        client.send(&Request::get("/probe/stream?blocks=1000000&bytes=65536").to_bytes());
        assert_eq!(client.head("GET").status, 200);
        client
    });
}

#[test]
fn a_client_gone_while_the_guest_loops_frees_the_permit() {
    gone(|host| {
        let mut client = host.connect();
        client.send(&Request::get("/probe/then?kind=spin").to_bytes());
        assert_eq!(client.head("GET").status, 200);
        assert_eq!(client.piece().as_deref(), Ok(&b"a block"[..]));
        client
    });
}

#[test]
fn a_client_gone_while_the_guest_sleeps_frees_the_permit() {
    gone(|host| {
        let mut client = host.connect();
        client.send(&Request::get("/probe/then?kind=sleep&ms=600000").to_bytes());
        assert_eq!(client.head("GET").status, 200);
        client
    });
}

#[test]
fn a_client_gone_while_the_guest_waits_for_input_frees_the_permit() {
    gone(|host| {
        let mut client = host.connect();
        client.send(&Request::chunked("/probe/echo-blocks").to_bytes());
        client.chunk(b"one");
        assert_eq!(client.head("POST").status, 200);
        client
    });
}

#[test]
fn a_client_gone_before_the_head_frees_the_permit() {
    let host = lonely();
    for kind in ["spin", "sleep&ms=600000"] {
        let mut client = host.connect();
        client.send(&Request::get(&format!("/probe/fault?kind={kind}")).to_bytes());
        // Whether its request has been read by now or not, the next one is served.
        drop(client);
        assert_eq!(host.get("/probe/hello").text(), "hello", "{kind}");
    }
}

#[test]
fn a_client_gone_while_it_waits_in_the_queue_leaves_it() {
    let host = Host::start(|host| {
        host.app("probe", guest("probe"))
            .sidecar("probe", "limits = { concurrent_calls = 1, queued_calls = 1 }")
            .limit("queue_time=30s")
            .stream_bodies()
    });
    let mut first = host.connect();
    first.send(&Request::chunked("/probe/echo-blocks").to_bytes());
    first.chunk(b"one");
    assert_eq!(first.head("POST").status, 200);
    let mut second = host.connect();
    second.send(&Request::get("/probe/hello").to_bytes());
    tests::eventually("the queue is full", || (host.get("/probe/hello").status() == 503).then_some(()));
    drop(second);
    let mut third = host.connect();
    tests::eventually("there is a place in the queue", || {
        third = host.connect();
        third.send(&Request::get("/probe/hello").to_bytes());
        // A refusal comes at once; a place in the queue gives nothing to read until the first call ends.
        let refused = third.sender();
        refused.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("not zero");
        refused.peek(&mut [0]).is_err().then_some(())
    });
    first.chunk(b"");
    third.sender().set_read_timeout(Some(tests::PATIENCE)).expect("not zero");
    assert_eq!(third.response("GET").text(), "hello");
}

#[test]
fn large_bodies_pass_through_a_small_host() {
    // A gigabyte each way takes a while; the host's memory shows the same with less.
    let bytes: usize = std::env::var("WASGI_TEST_BODY_BYTES").map_or(256 << 20, |text| text.parse().expect("a number"));
    let host =
        Host::start(|host| host.app("probe", guest("probe")).limit("request_body_size=4GiB").limit("cpu_time=10m"));
    assert_eq!(host.get("/probe/hello").status(), 200);
    let before = host.resident_bytes();
    let mut most = before;

    let mut client = host.connect();
    let (pieces, piece) = (bytes >> 20, vec![1_u8; 1 << 20]);
    let request = Request::new("POST", "/probe/count").header("Content-Length", (pieces << 20).to_string());
    client.send(&request.to_bytes());
    for _ in 0..pieces {
        client.send(&piece);
        most = most.max(host.resident_bytes());
    }
    assert_eq!(client.response("POST").text(), format!("{0} bytes, sum {0}", pieces << 20));

    client.send(&Request::get(&format!("/probe/stream?blocks={}&bytes=65536", bytes >> 16)).to_bytes());
    assert_eq!(client.head("GET").status, 200);
    let mut received = 0;
    loop {
        let piece = client.piece().expect("it comes to its end");
        if piece.is_empty() {
            break;
        }
        received += piece.len();
        if received % (1 << 20) == 0 {
            most = most.max(host.resident_bytes());
        }
    }
    assert_eq!(received, (bytes >> 16) << 16);
    let grown = most.saturating_sub(before);
    assert!(grown < 32 << 20, "the host grew by {} MiB", grown >> 20);
}

#[test]
fn a_slow_client_holds_the_guest_back() {
    let host = Host::start(|host| host.app("probe", guest("probe")));
    assert_eq!(host.get("/probe/hello").status(), 200);
    let before = host.resident_bytes();
    let mut client = host.connect();
    client.send(&Request::get("/probe/stream?blocks=16384&bytes=65536").to_bytes());
    assert_eq!(client.head("GET").status, 200);
    // The guest would have made its gigabyte by the time that these are answered.
    for _ in 0..50 {
        assert_eq!(host.get("/probe/stream?blocks=20&bytes=65536").end, End::Whole);
    }
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "the host grew by {} MiB", grown >> 20);
}

#[test]
fn large_responses_that_wait_for_their_clients_count_as_calls() {
    let host = Host::start(|host| {
        let large = guest("raw");
        host.app("raw", large)
            .sidecar("raw", "limits = { concurrent_calls = 2, queued_calls = 0 }")
            .limit("host_call_size=32MiB")
    });
    let ask = || {
        let mut client = host.connect();
        client.send(&Request::get("/raw/payload-block?16000000").to_bytes());
        let status = client.head("GET").status;
        (client, status)
    };
    let (first, second) = (ask(), ask());
    assert_eq!((first.1, second.1), (200, 200));
    assert_eq!(ask().1, 503, "the host holds no third one");
    drop((first, second));
    tests::eventually("the permits are free", || (ask().1 == 200).then_some(()));
}

#[test]
fn a_guest_reaches_no_file_no_socket_and_no_environment() {
    let host = Host::start(|host| host.app("probe", guest("probe")));
    let neighbour = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = neighbour.local_addr().expect("it is bound");
    assert_eq!(host.get(&format!("/probe/reach?address={address}")).text(), "reached: ");
}
