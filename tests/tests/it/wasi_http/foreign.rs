//! Components that others' tools make of JavaScript (componentize-js), Python (componentize-py) and Rust (Spin's SDK), and those that
//! others have published, as they are.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use tests::{Client, End, Host, PATIENCE, Request, guest};

use super::{check, rest, with_trailers};

/// One test, so that each of them is compiled once: that takes a while.
#[test]
fn components_of_javascript_python_and_spin_are_served_unchanged() {
    // Machines that test are busy; elsewhere a fraction of the defaults is enough.
    let host = Host::start(|host| host.limit("compile_time=10m").limit("cpu_time=60s"));
    host.drop_in("javascript.wasm", guest("http-javascript"));
    host.drop_in("python.wasm", guest("http-python"));
    host.drop_in("spin.wasm", guest("http-spin"));
    for app in ["javascript", "python", "spin"] {
        is_live(&host, app);
    }
    for (app, name) in [("javascript", "JavaScript"), ("python", "Python"), ("spin", "Spin")] {
        check(&host.get(&format!("/{app}/hello")), 200, &format!("hello from {name}"));
        sees_the_request(&host, app);
        echoes_as_it_comes(&host, app);
        is_refused_what_is_outside(&host, app);
        fails_as_others_do(&host, app);
    }
    let mut client = host.connect();
    client.send(&with_trailers(Request::chunked("/spin/echo").header("Trailer", "X-Given")).to_bytes());
    client.send(b"3\r\nabc\r\n0\r\nX-Given: from the client\r\n\r\n");
    client.finish_sending();
    let text = rest(&mut client);
    assert!(text.contains("abc\r\n0\r\nx-given: from the client\r\n\r\n"), "{text}");
}

/// The package `wstd`'s example `http_server`: WASI 0.2, on an executor of its own.
#[test]
fn the_example_of_wstd_is_served_unchanged() {
    let host = Host::start(|host| host.app("index", guest("http-wstd")));
    check(&host.get("/"), 200, "Hello, wasi:http/proxy world!\n");
    let asked = host.ask(&Request::get("/echo-headers").header("X-Given", "value"));
    assert_eq!((asked.status(), asked.header("x-given").as_deref()), (200, Some("value")));
    let asked = host.ask(&Request::get("/response-status").header("X-Response-Status", "404"));
    assert_eq!(asked.status(), 404);
    streams_both_ways(host.connect(), "/echo");
    let streamed = host.get("/stream-body");
    assert_eq!((streamed.text().lines().count(), streamed.end), (5, End::Whole));
    assert_eq!(trailers_of(&host, "/echo-trailers").get("x-given").map(AsRef::as_ref), Some(&b"from the client"[..]));
    for target in ["/response-fail", "/response-body-fail"] {
        let failed = host.get(target);
        assert!(failed.status() == 500 || failed.end == End::Aborted, "{target}: {failed:?}");
        assert!(!failed.text().contains("error creating"), "{}", failed.text());
    }
    check(&host.get("/"), 200, "Hello, wasi:http/proxy world!\n");
}

/// Its example `http_server_proxy`, which passes requests on.
#[test]
fn the_proxy_of_wstd_is_refused_what_is_outside() {
    let host = Host::start(|host| {
        let host = host.app("index", guest("http-wstd-proxy"));
        host.sidecar("index", "env = { TARGET_URL = 'http://elsewhere.example/' }")
    });
    assert!(host.get("/proxy/a").status() >= 500);
    host.log_contains("refused an outgoing request (GET http://elsewhere.example)");
    assert_eq!(host.get("/other").status(), 404);
}

/// The package `wasip3`'s example `http-proxy-compat`: WASI 0.3, on the crate `http`'s types.
#[test]
fn the_example_of_wasip3_is_served_unchanged() {
    for sidecar in ["", "instances = 'reuse'"] {
        let host = Host::start(|host| host.app("app", guest("http-wasip3")).sidecar("app", sidecar));
        let mut client = host.connect();
        for _ in 0..3 {
            check(&client.get("/app"), 200, "Hello, WASI!");
            check(&client.ask(&Request::post("/app/a", "a body that nobody reads")), 200, "Hello, WASI!");
        }
    }
}

/// Those that follow a response's body with HTTP/2, where they need no announcement. The request has `x-given` as one.
fn trailers_of(host: &Host, target: &str) -> HeaderMap {
    let asked = async {
        let stream = tokio::net::TcpStream::connect(host.address()).await.expect("it listens");
        let (mut send, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://test.example{target}")).body(()).expect("it is a request");
        let (response, mut body) = send.send_request(request, false).expect("it is taken");
        body.send_data(Bytes::from_static(b"abc"), false).expect("it is taken");
        let given = http::HeaderValue::from_static("from the client");
        body.send_trailers(HeaderMap::from_iter([(http::HeaderName::from_static("x-given"), given)]))
            .expect("it is taken");
        let mut body = response.await.expect("it is answered").into_body();
        while let Some(piece) = body.data().await {
            piece.expect("it goes on");
        }
        body.trailers().await.expect("it ends").unwrap_or_default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it can be made");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await.expect("it is answered in time") })
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

fn streams_both_ways(mut client: Client, target: &str) {
    client.send(&Request::chunked(target).to_bytes());
    for piece in [&b"one"[..], b"two"] {
        client.chunk(piece);
        if piece == b"one" {
            assert_eq!(client.head("POST").status, 200);
        }
        assert_eq!(client.piece().as_deref(), Ok(piece), "{target}: nothing is kept back");
    }
    client.chunk(b"");
    assert_eq!(client.piece().as_deref(), Ok(&b""[..]));
}

fn echoes_as_it_comes(host: &Host, app: &str) {
    streams_both_ways(host.connect(), &format!("/{app}/echo"));
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
