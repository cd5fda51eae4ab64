//! TCP connections that guests open themselves, for databases and the like: the same rules.

use std::net::SocketAddr;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tests::{Builder, Elsewhere, Host, Request, eventually, guest};

use super::{ask, grant, target, tries};

/// Kinds whose sockets are WASI 0.2's.
const KINDS: [(&str, &str); 3] = [("wsgi", "site"), ("cgi", "elsewhere"), ("p2", "http-p2")];

fn serving(destinations: &[String], change: impl FnOnce(Builder) -> Builder) -> Host {
    Host::start(|host| {
        let host = change(host.config(&grant(destinations)));
        KINDS.iter().fold(host, |host, (name, wasm)| host.app(name, guest(wasm)).sidecar(name, &ask(destinations)))
    })
}

fn place(server: &Elsewhere) -> String {
    format!("tcp://127.0.0.1:{}", server.port())
}

#[test]
fn a_guest_talks_to_a_server_that_is_granted_by_address_or_by_name() {
    let server = Elsewhere::echo();
    let port = server.port();
    let host = serving(&[place(&server), format!("tcp://localhost:{port}")], |host| host);
    for (app, _) in KINDS {
        assert_eq!(tries(&host, app, &format!("tcp,127.0.0.1:{port},a-query")), "a-query", "{app}");
        assert_eq!(tries(&host, app, &format!("tcp,localhost:{port},by-name")), "by-name", "{app}");
    }
    server.until_alone();
}

#[test]
fn what_is_not_granted_is_neither_connected_to_nor_looked_up() {
    let (server, other) = (Elsewhere::echo(), Elsewhere::echo());
    let port = server.port();
    let host = serving(&[place(&server), format!("tcp://elsewhere.example:{port}")], |host| host);
    for (app, _) in KINDS {
        for words in [
            format!("tcp,127.0.0.1:{},x", other.port()),
            format!("tcp,127.0.0.2:{port},x"),
            format!("tcp,[::1]:{port},x"),
            format!("tcp,localhost:{port},x"),
            format!("tcp,169.254.169.254:{port},x"),
            "look-up,localhost".to_owned(),
            "look-up,secret.attacker.example".to_owned(),
            "listen".to_owned(),
            format!("udp,127.0.0.1:{port}"),
        ] {
            let said = tries(&host, app, &words);
            assert!(said.starts_with("error "), "{app} {words}: {said}");
        }
        host.log_contains("refused an outgoing connection (169.254.169.254:");
        host.log_contains("refused an outgoing connection (secret.attacker.example)");
        // What is granted for TCP is not for requests.
        let said = tries(&host, app, &format!("get,{}", server.url("/")));
        assert_eq!(said, "error ErrorCode::HttpRequestDenied", "{app}");
    }
    assert_eq!((server.connected(), other.connected()), (0, 0));
}

#[test]
fn every_name_and_network_lead_to_nothing_special() {
    let server = Elsewhere::echo();
    let port = server.port();
    let all = [format!("tcp://*:{port}"), format!("tcp://0.0.0.0/0:{port}"), format!("tcp://[::/0]:{port}")];
    let host = serving(&all, |host| host);
    for (app, _) in KINDS {
        for place in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            let said = tries(&host, app, &format!("tcp,{place}:{port},x"));
            assert!(said.starts_with("error "), "{app} {place}: {said}");
        }
    }
    assert_eq!(server.connected(), 0);
}

#[test]
fn bytes_and_time_and_number_are_bounded() {
    let server = Elsewhere::echo();
    let port = server.port();
    let limits = ["outbound_sent_size=1KiB", "outbound_time=500ms", "outbound_connections=2"];
    let host = serving(&[place(&server)], |host| limits.iter().fold(host, |host, limit| host.limit(limit)));
    for (app, _) in KINDS {
        let text = "x".repeat(1000);
        assert_eq!(tries(&host, app, &format!("tcp,127.0.0.1:{port},{text}")), text, "{app}");
        let said = tries(&host, app, &format!("tcp,127.0.0.1:{port},{text}{text}"));
        assert!(said.starts_with("error "), "{app}: {said}");
        let said = tries(&host, app, &format!("hold,127.0.0.1:{port}"));
        assert!(said.starts_with("0 bytes, then "), "{app}: {said}");
        host.log_contains("more than limits.outbound_time = 500ms");
    }
    server.until_alone();
}

/// Listens, and has as many connections waiting as it lets wait: whoever comes gets no answer.
fn deaf() -> (Socket, Vec<Socket>, u16) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is a socket");
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("there is a port");
    listener.listen(0).expect("it listens");
    let address = listener.local_addr().expect("it has an address");
    let waiting = (0..8).map(|_| {
        let client = socket();
        client.set_nonblocking(true).expect("it can");
        // In progress, or for ever.
        let _ = client.connect(&address);
        client
    });
    let (waiting, port) = (waiting.collect(), address.as_socket().expect("it is one of IP").port());
    (listener, waiting, port)
}

#[test]
fn a_connection_has_its_time_to_come_about() {
    let (_listener, _waiting, port) = deaf();
    let destinations = [format!("tcp://127.0.0.1:{port}")];
    let host = serving(&destinations, |host| host.limit("outbound_connect_time=300ms").limit("outbound_connections=1"));
    for (app, _) in KINDS {
        let said = tries(&host, app, &format!("tcp,127.0.0.1:{port},x"));
        assert!(said.starts_with("error "), "{app}: {said}");
        assert!(!said.contains("denied"), "{app}: the one before has given its place back: {said}");
    }
}

#[test]
fn a_grant_that_is_taken_away_ends_connections() {
    let server = Elsewhere::echo();
    let port = server.port();
    let destinations = [place(&server), "tcp://127.0.0.1:1".to_owned()];
    let host = serving(&destinations, |host| host);
    for (app, _) in KINDS {
        let open = |event: &tests::Event| event.message().contains("the connection is open");
        let before = host.log().all(open).len();
        let mut holding = host.connect();
        holding.send(&Request::get(&target(app, &format!("hold,127.0.0.1:{port}"))).to_bytes());
        eventually("it is open", || (host.log().all(open).len() == before + 1).then_some(()));
        host.write_config(&grant(&destinations[1..]));
        host.signal(Signal::HUP);
        let said = holding.response("GET").text();
        assert!(said.starts_with("0 bytes, then "), "{app}: {said}");
        server.until_alone();
        let said = tries(&host, app, &format!("tcp,127.0.0.1:{port},x"));
        assert!(said.starts_with("error "), "{app}: {said}");
        host.write_config(&grant(&destinations));
        host.signal(Signal::HUP);
        let words = format!("tcp,127.0.0.1:{port},back");
        eventually("it is granted again", || (tries(&host, app, &words) == "back").then_some(()));
    }
}

/// Sends a request whose answer takes long, and waits until the guest has said this.
fn begin(host: &Host, app: &str, words: &str, says: &str) -> tests::Client {
    let has_said = |event: &tests::Event| event.message().contains(says);
    let before = host.log().all(has_said).len();
    let mut client = host.connect();
    client.send(&Request::get(&target(app, words)).to_bytes());
    eventually(says, || (host.log().all(has_said).len() > before).then_some(()));
    client
}

/// Longer than anybody waits here.
const LONG: &str = "600000";
const PATIENT: [&str; 2] = ["first_byte_time=10m", "wall_time=10m"];

#[test]
fn a_connection_is_one_as_long_as_its_socket_is_open_and_no_longer_than_it_may() {
    let server = Elsewhere::echo();
    let place = format!("127.0.0.1:{}", server.port());
    let limits = ["outbound_time=2s", "outbound_connections=2"];
    let destinations = [self::place(&server)];
    let host = serving(&destinations, |host| limits.iter().chain(&PATIENT).fold(host, |host, limit| host.limit(limit)));
    for (app, _) in KINDS {
        // Streams that are dropped give nothing back.
        let said = tries(&host, app, &format!("keep,{place},4,0"));
        assert_eq!(said, "2 connections, then access-denied", "{app}");
        host.log_contains("the app has limits.outbound_connections = 2 already");
        server.until_alone();
        // Their time ends while the guest does nothing, and has the sockets still: the server learns of it.
        let keeping = begin(&host, app, &format!("keep,{place},2,{LONG}"), "the connections are kept");
        server.until_alone();
        // What is closed has given its place back, a moment after the server has seen it.
        let another = format!("tcp,{place},another");
        eventually("there is room", || (tries(&host, app, &another) == "another").then_some(()));
        drop(keeping);
        // The same for one of which nobody asks what has come of it.
        let before = server.connected();
        let leaving = begin(&host, app, &format!("leave,{place},{LONG}"), "the connection is left alone");
        eventually("it has come about", || (server.connected() > before).then_some(()));
        server.until_alone();
        drop(leaving);
    }
}

#[test]
fn a_grant_that_is_taken_away_closes_sockets_whose_streams_are_gone() {
    let server = Elsewhere::echo();
    let destinations = [place(&server), "tcp://127.0.0.1:1".to_owned()];
    let host = serving(&destinations, |host| PATIENT.iter().fold(host, |host, limit| host.limit(limit)));
    let keep = format!("keep,127.0.0.1:{},1,{LONG}", server.port());
    let _keeping = KINDS.map(|(app, _)| begin(&host, app, &keep, "the connections are kept"));
    host.write_config(&grant(&destinations[1..]));
    host.signal(Signal::HUP);
    server.until_alone();
    assert_eq!(server.connected(), KINDS.len());
}

#[test]
fn a_socket_that_connects_is_told_nothing_else_and_ends_with_the_grant_that_it_was_judged_by() {
    let (server, other) = (Elsewhere::echo(), Elsewhere::echo());
    let destinations = [place(&server), place(&other)];
    let host = serving(&destinations, |host| host);
    for (app, _) in KINDS {
        let words = format!("twice,127.0.0.1:{},127.0.0.1:{}", server.port(), other.port());
        let mut client = begin(&host, app, &words, "the connection is open");
        host.write_config(&grant(&destinations[1..]));
        host.signal(Signal::HUP);
        let said = client.response("GET").text();
        let expected = ["concurrency-conflict", "invalid-state"]
            .map(|again| format!("Err(\"{again}\") Err(\"invalid-state\") a word Err("));
        assert!(expected.iter().any(|expected| said.starts_with(expected)), "{app}: {said}");
        server.until_alone();
        host.write_config(&grant(&destinations));
        host.signal(Signal::HUP);
        let back = format!("tcp,127.0.0.1:{},back", server.port());
        eventually("it is granted again", || (tries(&host, app, &back) == "back").then_some(()));
    }
    assert_eq!(other.connected(), 0);
}

#[test]
fn a_socket_that_is_dropped_while_it_connects_gives_its_place_back() {
    let (_listener, _waiting, port) = deaf();
    let destinations = [format!("tcp://127.0.0.1:{port}")];
    let host = serving(&destinations, |host| host.limit("outbound_connections=1"));
    for (app, _) in KINDS {
        assert_eq!(tries(&host, app, &format!("give-up,127.0.0.1:{port},20")), "0 failed", "{app}");
    }
}

#[test]
fn what_goes_over_a_connection_that_is_kept_counts_for_the_call_that_uses_it() {
    let server = Elsewhere::echo();
    let port = server.port();
    let destinations = [place(&server)];
    let host = Host::start(|host| {
        let sidecar = format!("{}instances = 'reuse'\n", ask(&destinations));
        let host = host.config(&grant(&destinations)).limit("outbound_sent_size=1KiB");
        host.app("wsgi", guest("site")).sidecar("wsgi", &sidecar)
    });
    let text = "x".repeat(600);
    for _ in 0..5 {
        assert_eq!(tries(&host, "wsgi", &format!("again,127.0.0.1:{port},{text}")), text);
    }
    assert_eq!(server.connected(), 1, "it is the same");
    let said = tries(&host, "wsgi", &format!("again,127.0.0.1:{port},{text}{text}"));
    assert!(said.starts_with("error "), "{said}");
}

#[test]
fn sockets_are_what_wasi_says() {
    let server = Elsewhere::echo();
    let port = server.port();
    let host = serving(&[place(&server)], |host| host);
    for (app, _) in KINDS {
        // More than the kernel takes at once, in both directions.
        assert_eq!(tries(&host, app, &format!("flood,127.0.0.1:{port},8192")), "8388608 8388608", "{app}");
        let set = "true 7000000000 3000000000 5 42 true true";
        let expected = format!("{set} (true, true) {set} {port} true Some(\"invalid-argument\")");
        assert_eq!(tries(&host, app, &format!("options,127.0.0.1:{port}")), expected, "{app}");
    }
    server.until_alone();
}
