//! Components that others' tools make of JavaScript (componentize-js) and Python (componentize-py), as they are.

use std::time::{Duration, Instant};

use tests::{End, Host, Request, guest};

use super::check;

/// One test, so that each of them is compiled once: that takes a while.
#[test]
fn components_of_javascript_and_python_are_served_unchanged() {
    // Machines that test are busy; elsewhere a fraction of the defaults is enough.
    let host = Host::start(|host| host.limit("compile_time=10m").limit("cpu_time=60s"));
    host.drop_in("javascript.wasm", guest("http-javascript"));
    host.drop_in("python.wasm", guest("http-python"));
    for app in ["javascript", "python"] {
        is_live(&host, app);
    }
    for (app, name) in [("javascript", "JavaScript"), ("python", "Python")] {
        check(&host.get(&format!("/{app}/hello")), 200, &format!("hello from {name}"));
        sees_the_request(&host, app);
        echoes_as_it_comes(&host, app);
        is_refused_what_is_outside(&host, app);
        fails_as_others_do(&host, app);
    }
}

/// Waits for as long as compiling it may take.
fn is_live(host: &Host, app: &str) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while host.log().all(|event| event.text("app") == app && event.message() == "live").is_empty() {
        assert!(Instant::now() < deadline, "{app} is not live");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn sees_the_request(host: &Host, app: &str) {
    let request = Request::get(&format!("/{app}/request?q=1")).header("X-Given", "value");
    check(&host.ask(&request), 200, &format!("GET /{app}/request?q=1 value"));
    let response = host.get(&format!("/{app}/status?404"));
    check(&response, 404, "a body");
    assert_eq!(response.header("x-given").as_deref(), Some("yes"));
}

fn echoes_as_it_comes(host: &Host, app: &str) {
    let mut client = host.connect();
    client.send(&Request::chunked(&format!("/{app}/echo")).to_bytes());
    for piece in [&b"one"[..], b"two"] {
        client.chunk(piece);
        if piece == b"one" {
            assert_eq!(client.head("POST").status, 200);
        }
        assert_eq!(client.piece().as_deref(), Ok(piece), "{app}: nothing is kept back");
    }
    client.chunk(b"");
    assert_eq!(client.piece().as_deref(), Ok(&b""[..]));
    let bytes = vec![b'x'; 1_000_000];
    let response = host.ask(&Request::post(&format!("/{app}/echo"), bytes.clone()));
    assert!(response.body == bytes && response.end == End::Whole, "{app}: {} bytes came back", response.body.len());
}

fn is_refused_what_is_outside(host: &Host, app: &str) {
    let response = host.get(&format!("/{app}/outgoing"));
    assert!(response.text().starts_with("refused: "), "{app}: {}", response.text());
    host.log().wait("the app's log says so", |event| {
        event.text("app") == app
            && event.message().contains("refused an outgoing request (GET http://elsewhere.example")
    });
}

fn fails_as_others_do(host: &Host, app: &str) {
    let response = host.get(&format!("/{app}/throw"));
    assert_eq!(response.status(), 500, "{app}");
    assert!(!response.text().contains("secret"), "{}", response.text());
    host.log().wait("the reason is in the log", |event| {
        event.text("app") == app && event.message().contains("secret reason")
    });
}
