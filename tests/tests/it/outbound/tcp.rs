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
