//! Descriptors of the host's process: what a tenant's guests have open is bounded, and whatever guests and clients do, the host has some
//! for itself.

use std::io::{Read, Write};

use super::{disk, kinds};
use tests::{Bundle, Client, Host, Request, eventually, guest, tcp};

fn open(host: &Host, tenant: &str) -> f64 {
    host.metric(&format!("wasgi_tenant_descriptors{{tenant=\"{tenant}\"}}")).expect("it has an app")
}

fn with_file(wasm: Vec<u8>) -> Vec<u8> {
    Bundle::default().file("a.txt", "here").on(wasm)
}

#[test]
fn what_guests_of_every_kind_have_open_is_bounded_for_their_tenant() {
    for (app, wasm) in kinds() {
        let host = Host::start(|host| host.config("[budget]\ndescriptors = 12\n").app(app, with_file(wasm)));
        assert_eq!(open(&host, ""), 1.0, "{app}: the tree of its files");
        assert_eq!(disk(&host, app, "open:/a.txt:7"), "7", "{app}");
        for _ in 0..2 {
            // Beside the tree a call has its `/`; a kind may have it twice, for what it did before its start.
            let said = disk(&host, app, "open:/a.txt:50");
            let opened = said.strip_suffix(", then QuotaExceeded").and_then(|count| count.parse().ok());
            assert!(opened.is_some_and(|count: u32| (7..=10).contains(&count)), "{app}: {said}");
        }
        host.log_contains("it may open nothing more");
        host.log_contains("are refused more");
        let refused = host.metric("wasgi_tenant_descriptors_refused_total{tenant=\"\"}");
        assert!(refused.is_some_and(|count| count >= 2.0), "{app}: {refused:?}");
        // What is closed may be opened again at once.
        assert_eq!(disk(&host, app, "reopen:/a.txt:200"), "200", "{app}");
        // An instance of WASI 0.3 stays, and with it its `/`.
        eventually("nothing is open any more", || (open(&host, "") <= 2.0).then_some(()));
    }
}

#[test]
fn data_that_is_opened_again_and_again_is_not_open_for_long() {
    for (app, wasm) in kinds() {
        let host = Host::start(|host| {
            host.config("[budget]\ndescriptors = 12\n[grant]\ndata = ['*']\n")
                .app(app, wasm)
                .sidecar(app, "data = true")
        });
        assert_eq!(disk(&host, app, "write:/data/a:x"), "done", "{app}");
        assert_eq!(disk(&host, app, "reopen:/data/a:200"), "200", "{app}");
        assert_eq!(disk(&host, app, "many:/data:100"), "100", "{app}");
        let said = disk(&host, app, "open:/data/a:50");
        assert!(said.ends_with(", then QuotaExceeded"), "{app}: {said}");
    }
}

#[test]
fn whatever_guests_and_clients_take_the_host_has_descriptors_for_itself() {
    // 128 are the host's, 64 for clients, 64 for guests, of which one tenant gets four fifths.
    let host = Host::start(|host| {
        let app = with_file(guest("site"));
        host.started_by("ulimit -n 256; exec \"$@\"").app("acme/site", &app).app("hive/site", &app)
    });
    host.log_contains("64 connections at once instead of edge.connections = 10000, and 64 for all guests");
    // One that is there before all others.
    let mut neighbour = host.connect();
    let hello = |client: &mut Client| client.get("/hive/site?disk=reopen:/a.txt:50").text();
    assert_eq!(hello(&mut neighbour), "50");
    let mut holders: Vec<_> = (0..4)
        .map(|_| {
            let mut client = host.connect();
            client.send(&Request::get("/acme/site?disk=open:/a.txt:50:600000").to_bytes());
            client
        })
        .collect();
    eventually("one tenant has what it can get", || (open(&host, "acme") >= 48.0).then_some(()));
    let others: Vec<_> = (0..250).map(|_| tcp(host.address())).collect();
    host.drop_in("hive/new.wasm", guest("probe"));
    eventually("another app is compiled", || (neighbour.get("/hive/new/hello").text() == "hello").then_some(()));
    assert_eq!(hello(&mut neighbour), "50", "another tenant has its own");
    assert!(open(&host, "acme") <= 52.0);
    drop(others);
    // Until the host has noticed, who comes from the same address gets no connection.
    eventually("a new client is served", || {
        let mut client = tcp(host.address());
        client.write_all(b"GET /hive/new/hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).ok()?;
        answer.ends_with("hello").then_some(())
    });
    assert!(host.log().all(|event| event.message().contains("cannot accept")).is_empty());
    holders.clear();
    eventually("it has nothing open any more", || (open(&host, "acme") <= 1.0).then_some(()));
}
