//! What the host holds for clients that do not take it is memory of the tenant's whose apps said it: the host's is not in danger,
//! nor are other tenants.

use h2::client::Builder;
use tests::{Bundle, Client, Host, Request, eventually, guest};

use crate::edge::http2_client::{Http2, get};

/// Two apps of a tenant with this budget, and one of another.
fn serving(memory: &str) -> Host {
    let public = r#"{"version": 1, "static": {"/static/": "public"}}"#;
    let bundle = Bundle::default()
        .manifest(public)
        .file("public/60k", vec![b'x'; 60_000])
        .file("public/9m", vec![b'x'; 9_000_000]);
    Host::start(|host| {
        host.config(&format!("[tenant.acme.budget]\nmemory = \"{memory}\"\n[tenant.hive]\n"))
            .app("acme/raw", guest("raw"))
            .app("acme/probe", bundle.on(guest("probe")))
            .app("hive/one", guest("probe"))
            .limit("queue_time=100ms")
            .limit("host_call_size=32MiB")
            .edge("client_idle_time=10m")
    })
}

fn memory(host: &Host) -> f64 {
    host.metric("wasgi_tenant_memory_bytes{tenant=\"acme\"}").unwrap_or_default()
}

/// Asks, and takes the head alone.
fn ask(host: &Host, target: &str) -> (Client, u16) {
    let mut client = host.connect();
    client.send(&Request::get(target).to_bytes());
    let status = client.head("GET").status;
    (client, status)
}

#[test]
fn what_waits_for_slow_clients_is_their_tenants_memory() {
    let host = serving("96MiB");
    // A list, whose sandbox is gone; a part of an iterable, whose guest waits; a file.
    for (target, bytes) in [
        ("/acme/raw/payload-block?12000000", 12e6),
        ("/acme/probe/stream?blocks=2&bytes=12000000", 12e6),
        ("/acme/probe/static/9m", 1e5),
    ] {
        let before = memory(&host);
        let clients: Vec<_> = (0..2).map(|_| ask(&host, target)).collect();
        assert!(clients.iter().all(|(_, status)| *status == 200), "{target}");
        eventually("what waits is counted", || (memory(&host) - before >= 2.0 * bytes).then_some(()));
        drop(clients);
        eventually("it is given back", || (memory(&host) < 8e6).then_some(()));
    }
    let mut clients = Vec::new();
    let refused = loop {
        let (client, status) = ask(&host, "/acme/raw/payload-block?12000000");
        if status != 200 {
            break status;
        }
        clients.push(client);
        assert!(clients.len() < 8, "more waits than the tenant may have");
    };
    assert_eq!(refused, 503);
    assert!(host.failed("busy").message().contains("budget.memory"));
    for _ in 0..20 {
        assert_eq!(host.get("/hive/one/hello").text(), "hello", "the neighbour does not notice");
    }
    drop(clients);
    eventually("it may again", || (host.get("/acme/raw/payload-block?12000000").status() == 200).then_some(()));
}

/// What is too small to count as a call is counted all the same: a client of HTTP/2 may ask for it again and again.
#[test]
fn small_responses_that_wait_on_many_streams_are_their_tenants_memory() {
    let host = serving("16MiB");
    for target in ["/acme/probe/length?promise=60000&bytes=60000&iterator=0", "/acme/probe/static/60k"] {
        let mut clients: Vec<_> =
            (0..6).map(|_| Http2::with(host.address(), Builder::new().initial_window_size(0))).collect();
        let (mut served, mut refused, mut waiting) = (0, 0, Vec::new());
        for client in &mut clients {
            let asked: Vec<_> = (0..100).map(|_| client.begin(get(target), true).0).collect();
            for response in asked {
                let response = client.wait("a head", response).expect("it is answered");
                match response.status().as_u16() {
                    200 => {
                        served += 1;
                        // Dropped, it would be given up.
                        waiting.push(response);
                    }
                    503 => refused += 1,
                    status => panic!("{target}: {status}"),
                }
            }
        }
        assert!(served < 16 * (1 << 20) / 60_000 && refused > 300, "{target}: {served} and {refused}");
        assert!(served > 100, "{target}: {served}");
        assert!(memory(&host) > 60_000.0 * f64::from(served), "{target}: {served} in {}", memory(&host));
        drop((waiting, clients));
        eventually("it is given back", || (memory(&host) < 8e6).then_some(()));
    }
}
