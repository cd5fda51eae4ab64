//! HTTP/2: what guests see of it, and that every protection of HTTP/1.1 holds for each of many requests on one connection.

use std::io::{Read as _, Write as _};

use h2::Reason;
use h2::client::Builder;
use h2::ext::Protocol;
use http::Request;
use rustix::process::Signal;
use tests::{Client, Host, eventually, guest, tcp};

use super::http2_client::{Http2, get, runtime, stream};
use super::tls;

fn probe() -> Host {
    Host::start(|host| host.app("probe", guest("probe")))
}

#[test]
fn a_client_that_knows_it_speaks_http2_without_tls() {
    let host = probe();
    let mut client = Http2::connect(host.address());
    let asked = get("/probe/environ?a=b").header("cookie", "a=1").header("cookie", "b=2").header("x-list", "c");
    let environ = client.ask(asked).environ();
    for (name, value) in [
        ("SERVER_PROTOCOL", "HTTP/2"),
        ("HTTP_HOST", "test.example"),
        ("SERVER_NAME", "test.example"),
        ("HTTP_COOKIE", "a=1; b=2"),
        ("HTTP_X_LIST", "c"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REQUEST_URI", "/probe/environ?a=b"),
    ] {
        assert_eq!(environ.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!environ.contains_key("HTTPS"), "the client's word for the scheme does not count");
    let line = host.access().wait("its line", |event| event.text("target").contains("environ"));
    assert_eq!(line.text("version"), "HTTP/2.0");
    assert_eq!(host.get("/probe/hello").text(), "hello", "the same listener speaks HTTP/1.1");
}

#[test]
fn tls_agrees_on_http2() {
    let (host, trusted) = tls::start(|host| host);
    let runtime = runtime();
    let connector = tokio_rustls::TlsConnector::from(tls::client_config(&trusted, &[b"h2", b"http/1.1"]));
    let shaken = runtime.block_on(async {
        let name = "localhost".try_into().expect("it is a name");
        let tls = connector.connect(name, stream(host.address())).await.expect("it is trusted");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        h2::client::handshake(tls).await
    });
    let mut client = Http2::over(runtime, shaken);
    let environ = client.ask(Request::get("https://localhost/probe/environ")).environ();
    assert_eq!((environ["SERVER_PROTOCOL"].as_str(), environ["HTTPS"].as_str()), ("HTTP/2", "on"));
    assert_eq!(environ["SERVER_PORT"], host.address().port().to_string());
}

#[test]
fn requests_of_one_connection_run_side_by_side() {
    let host = Host::start(|host| host.app("probe", guest("probe")).stream_bodies().workers(1));
    let mut client = Http2::connect(host.address());
    let mut open = Vec::new();
    for _ in 0..5 {
        let (response, mut body) = client.begin(Request::post("http://a/probe/echo-blocks"), false);
        body.send_data("one".into(), false).expect("the stream is open");
        open.push((client.body(response), body));
    }
    let mut spinning = client.begin(get("/probe/then?kind=spin"), true);
    assert_eq!(client.ask(get("/probe/hello")).text(), "hello");
    for (received, body) in &mut open {
        let block = client.wait("the block comes back", received.data()).expect("a block").expect("the stream is open");
        assert_eq!(&block[..], b"one");
        body.send_data("two".into(), true).expect("the stream is open");
        let block = client.wait("the block comes back", received.data()).expect("a block").expect("the stream is open");
        assert_eq!(&block[..], b"two");
    }
    spinning.1.send_reset(Reason::CANCEL);
}

#[test]
fn large_bodies_pass_both_ways() {
    let host = probe();
    let mut client = Http2::connect(host.address());
    let (response, mut body) = client.begin(Request::post("http://a/probe/echo"), false);
    let sent: Vec<u8> = (0..2_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    // The client queues what no window is open for.
    body.send_data(sent.clone().into(), true).expect("the stream is open");
    let answer = client.answer(response).expect("a head");
    assert_eq!((answer.status, answer.reset), (200, None));
    assert!(answer.body == sent);

    let (response, mut body) = client.begin(Request::post("http://a/probe/count"), false);
    body.send_data(vec![0; 17 << 20].into(), true).expect("the stream is open");
    assert_eq!(client.answer(response).expect("a head").status, 413);
}

#[test]
fn a_response_that_breaks_off_resets_its_stream_alone() {
    let host = probe();
    let mut client = Http2::connect(host.address());
    let answer = client.ask(get("/probe/raise-after"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "a block"));
    assert_eq!(answer.reset, Some(Reason::CANCEL));
    let short = client.ask(get("/probe/length?promise=10&bytes=5"));
    assert_eq!((short.status, short.body.len(), short.reset), (200, 5, Some(Reason::CANCEL)));
    assert_eq!(client.ask(get("/probe/hello")).text(), "hello");
}

/// The socket is ready all the time: others are served by it.
#[test]
fn a_stream_whose_client_takes_nothing_is_reset_alone() {
    let host = Host::start(|host| {
        host.app("probe", guest("probe")).edge("client_idle_time=500ms").limit("concurrent_calls=2")
    });
    let mut client = Http2::with(host.address(), Builder::new().initial_window_size(10_000));
    // One whose guest makes block after block, and one whose guest was done at once.
    let mut stuck = Vec::new();
    for target in ["/probe/stream?blocks=100&bytes=100000", "/probe/length?promise=200000&bytes=200000&iterator=0"] {
        let (response, _) = client.begin(get(target), true);
        stuck.push(client.body(response));
    }
    for stream in &mut stuck {
        // The window was used up; then nothing until the reset.
        let mut received = 0;
        let error = loop {
            match client.wait("the stream ends", stream.data()).expect("it does not end well") {
                Ok(block) => received += block.len(),
                Err(error) => break error,
            }
        };
        assert_eq!((received, error.reason()), (10_000, Some(Reason::CANCEL)));
    }
    assert_eq!(client.ask(get("/probe/hello")).text(), "hello", "the connection goes on, and the calls are free");
}

#[test]
fn a_response_has_its_deadline_however_slowly_it_is_taken() {
    let host =
        Host::start(|host| host.app("probe", guest("probe")).edge("client_idle_time=10m").limit("wall_time=700ms"));
    let mut client = Http2::with(host.address(), Builder::new().initial_window_size(1000));
    let (response, _) = client.begin(get("/probe/stream?blocks=100&bytes=100000"), true);
    let mut stuck = client.body(response);
    let ended = client.wait("the stream ends", async {
        loop {
            match stuck.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.reason(),
                None => return None,
            }
        }
    });
    assert_eq!(ended, Some(Reason::CANCEL));
    assert_eq!(client.ask(get("/probe/hello")).text(), "hello");
}

/// Raw frames, for what no decent client does.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// HPACK: the static table's entries for `:method: GET` and `:scheme: http`, `:path` and `:authority` as literals.
fn get_block(target: &str) -> Vec<u8> {
    let length = u8::try_from(target.len()).expect("targets are short");
    [&[0x82, 0x86, 0x04, length], target.as_bytes(), &[0x01, 1, b'a']].concat()
}

#[track_caller]
fn raw(host: &Host) -> Client {
    let mut client = host.connect();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send(&frame(SETTINGS, 0, 0, &[]));
    client
}

#[test]
fn a_client_that_does_not_read_its_socket_is_cut_off() {
    let host = Host::start(|host| {
        host.app("probe", guest("probe")).edge("client_idle_time=500ms").limit("concurrent_calls=1")
    });
    let mut client = raw(&host);
    // All windows are as wide as they can be: nothing but the socket holds the response back.
    client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    client.send(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get_block("/probe/stream?blocks=9999&bytes=1000000")));
    host.failed("client_gone");
    host.until("/probe/hello", 200, "hello");
}

#[test]
fn who_owes_a_head_is_not_waited_for() {
    let host = Host::start(|host| host.app("probe", guest("probe")).edge("header_time=300ms"));
    // A part of the preface, the preface alone, a head that is never finished.
    let mut client = host.connect();
    client.send(b"PRI * HTTP/2.0\r\n");
    client.rest();
    raw(&host).rest();
    let mut client = raw(&host);
    client.send(&frame(HEADERS, END_STREAM, 1, &get_block("/probe/hello")));
    client.rest();
    // One that has been served is told to go, so that no request is lost that crosses it.
    let mut client = Http2::connect(host.address());
    assert_eq!(client.ask(get("/probe/hello")).text(), "hello");
    client.end().expect("it ends without an error");
}

#[test]
fn a_long_call_is_no_idle_connection() {
    let host = Host::start(|host| host.app("probe", guest("probe")).edge("header_time=300ms"));
    let mut client = Http2::connect(host.address());
    let answer = client.ask(get("/probe/stream?blocks=3&pause=600"));
    assert_eq!((answer.status, answer.body.len(), answer.reset), (200, 30, None));
}

/// CVE-2023-44487, at a pace at which the host has seen each request before it is given up.
#[test]
fn who_gives_up_request_after_request_is_cut_off() {
    let host = Host::start(|host| host.app("probe", guest("probe")).edge("streams=10").limit("concurrent_calls=100"));
    let mut client = raw(&host);
    let mut taken = 0;
    for stream in (1..100_000).step_by(2) {
        let target = format!("/probe/then?kind=sleep&ms=600000&stream={stream}");
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get_block(&target));
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        if !client.try_send(&[request, reset].concat()) {
            break;
        }
        taken += 1;
    }
    client.rest();
    assert!(taken < 40_000, "{taken} requests were taken");
    assert_eq!(host.get("/probe/hello").text(), "hello");
}

/// The same at a pace at which the host has begun with each request before it is given up.
#[test]
fn who_gives_up_what_has_begun_again_and_again_is_cut_off_as_well() {
    let host = Host::start(|host| host.app("probe", guest("probe")).edge("streams=10").limit("concurrent_calls=100"));
    let mut stream = tcp(host.address());
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
    stream.write_all(&begin).expect("the host takes what is sent");
    let given_up = (0..1000_u32).take_while(|number| {
        let id = number * 2 + 1;
        let request = frame(HEADERS, END_STREAM | END_HEADERS, id, &get_block("/probe/fault?kind=sleep&ms=600000"));
        let ping = frame(PING, 0, 0, &[0; 8]);
        // What answers the ping has seen the request.
        let seen = stream.write_all(&[request, ping].concat()).is_ok() && until_ping(&mut stream);
        seen && stream.write_all(&frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())).is_ok()
    });
    let given_up = given_up.count();
    assert!((20..=60).contains(&given_up), "{given_up} requests were taken");
    assert_eq!(host.get("/probe/hello").text(), "hello");
}

/// Reads frames until the answer to a ping; false where the connection ends before it.
fn until_ping(stream: &mut std::net::TcpStream) -> bool {
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if stream.read_exact(&mut vec![0; length]).is_err() {
            return false;
        }
        if head[3] == PING {
            return true;
        }
    }
    false
}

#[test]
fn a_client_that_leaves_frees_its_calls() {
    let host =
        Host::start(|host| host.app("probe", guest("probe")).limit("concurrent_calls=2").limit("queue_time=30s"));
    let mut client = Http2::connect(host.address());
    let (first, _) = client.begin(get("/probe/then?kind=sleep&ms=600000"), true);
    let _streaming = client.body(first);
    let _waiting = client.begin(get("/probe/fault?kind=sleep&ms=600000"), true);
    drop(client);
    assert_eq!(host.get("/probe/hello").text(), "hello");
}

#[test]
fn a_request_that_is_given_up_frees_its_call() {
    let host =
        Host::start(|host| host.app("probe", guest("probe")).limit("concurrent_calls=1").limit("queue_time=30s"));
    let mut client = Http2::connect(host.address());
    let (_response, mut stream) = client.begin(get("/probe/fault?kind=sleep&ms=600000"), true);
    stream.send_reset(Reason::CANCEL);
    assert_eq!(client.ask(get("/probe/hello")).text(), "hello");
}

#[test]
fn streams_and_heads_are_bounded() {
    let host = Host::start(|host| {
        let host = host.app("probe", guest("probe")).edge("streams=7");
        host.edge("request_headers=20").edge("request_head_size=8KiB")
    });
    let mut client = Http2::connect(host.address());
    assert_eq!(client.ask(get("/probe/hello")).text(), "hello");
    assert_eq!(client.send.current_max_send_streams(), 7);
    let many = (0..21).fold(get("/probe/hello"), |request, number| request.header(format!("x-{number}"), "a"));
    assert_eq!(client.ask(many).status, 431);
    let (response, _) = client.begin(get("/probe/hello").header("x-large", "a".repeat(9000)), true);
    match client.answer(response) {
        Ok(answer) => assert_eq!(answer.status, 431),
        Err(reason) => panic!("{reason}"),
    }
    // The second was refused by HTTP/2's own layer, as docs/conformance.md says: whoever logs it changes the page.
    assert_eq!(client.ask(get("/probe/hello?after")).text(), "hello");
    host.access().wait("the line of what came after", |event| event.text("target").contains("after"));
    assert_eq!(host.access().all(|event| event.number("status") == 431).len(), 1);
    let long = format!("/probe/{}", "a".repeat(3000));
    let host = Host::start(|host| host.app("probe", guest("probe")).edge("request_target_size=2KiB"));
    assert_eq!(Http2::connect(host.address()).ask(get(&long)).status, 414);
}

#[test]
fn tunnels_are_refused_and_a_second_host_too() {
    let host = probe();
    let mut client = Http2::connect(host.address());
    let (response, _) = client.begin(Request::connect("shop.example:443"), false);
    assert_eq!(client.answer(response).map(|answer| answer.status), Ok(400));
    let tunnel = Request::connect("http://a/probe/hello").extension(Protocol::from_static("websocket"));
    let tunnel = client.send.send_request(tunnel.body(()).expect("it is right"), false);
    match tunnel {
        // The host has not offered it, so that a client may know better than to try.
        Err(_) => {}
        Ok((response, _)) => assert_ne!(client.answer(response).map(|answer| answer.status), Ok(200)),
    }
    let mut client = Http2::connect(host.address());
    assert_eq!(client.ask(get("/probe/hello").header("host", "evil.example")).status, 400);
    assert_eq!(client.ask(get("/probe/hello").header("host", "TEST.example")).status, 200);
}

#[test]
fn who_names_no_host_and_port_is_refused_however_it_is_named() {
    let host = probe();
    let mut client = Http2::connect(host.address());
    for authority in ["u@a", "u:p@a", "a:65536"] {
        let asked = Request::get(format!("http://{authority}/probe/hello"));
        assert_eq!(client.ask(asked).status, 400, "{authority}");
    }
    // Without `:authority`, as a proxy may pass on what came by HTTP/1.1.
    let with_field = |host: &str| Request::get("/probe/hello").header("host", host);
    for field in ["u@a", "a:b:c", "a:999999999", "%zz,]["] {
        assert_eq!(client.ask(with_field(field)).status, 400, "{field}");
    }
    assert_eq!(client.ask(with_field("a.example:80")).status, 200);
}

#[test]
fn the_end_of_the_host_lets_running_streams_end_and_takes_no_new_ones() {
    let mut host = Host::start(|host| host.app("probe", guest("probe")).stream_bodies());
    let mut idle = Http2::connect(host.address());
    assert_eq!(idle.ask(get("/probe/hello")).text(), "hello");
    let mut client = Http2::connect(host.address());
    let (response, mut body) = client.begin(Request::post("http://a/probe/echo-blocks"), false);
    body.send_data("one".into(), false).expect("the stream is open");
    let mut received = client.body(response);
    host.signal(Signal::TERM);
    idle.end().expect("it ends without an error");
    eventually("no request is taken any more", || {
        let ready = client.wait("an answer", client.send.clone().ready());
        ready.is_err().then_some(())
    });
    body.send_data("two".into(), true).expect("the stream is open");
    let mut blocks = Vec::new();
    while let Some(block) = client.wait("the call goes on", received.data()) {
        blocks.extend_from_slice(&block.expect("it ends well"));
    }
    assert_eq!(blocks, b"onetwo");
    client.end().expect("it ends without an error");
    assert_eq!(host.wait().code(), Some(0));
}

/// The last word to a client follows the answer to a ping: without the answer, nothing follows.
#[test]
fn the_end_of_the_host_does_not_wait_for_who_does_not_answer() {
    let mut host = Host::start(|host| host.app("probe", guest("probe")).edge("drain_time=10m").edge("header_time=10m"));
    let (mut new, mut served) = (raw(&host), raw(&host));
    served.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get_block("/probe/hello")));
    host.access().wait("the answer is through", |event| event.text("target") == "/probe/hello");
    host.signal(Signal::TERM);
    assert_eq!(host.wait().code(), Some(0));
    new.rest();
    served.rest();
}

#[test]
fn a_trusted_proxy_speaks_for_many_clients_on_one_connection() {
    let host = Host::start(|host| host.app("probe", guest("probe")).flag("--forwarded-allow-ips", "127.0.0.1"));
    let mut proxy = Http2::connect(host.address());
    for client in ["192.0.2.7", "192.0.2.8"] {
        let asked = get("/probe/environ").header("x-forwarded-for", client).header("x-forwarded-proto", "https");
        let environ = proxy.ask(asked).environ();
        assert_eq!((environ["REMOTE_ADDR"].as_str(), environ["HTTPS"].as_str()), (client, "on"));
    }
    assert_eq!(proxy.ask(get("/probe/environ")).environ()["REMOTE_ADDR"], "127.0.0.1");
}
