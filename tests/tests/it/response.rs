//! Responses: whole and block by block, heads that come late or twice, errors before and after the head.

use tests::{Host, Request, guest};

fn probe() -> Host {
    Host::start(|host| host.app("probe", guest("probe")).stream_bodies())
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
