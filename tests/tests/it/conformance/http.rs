//! H: HTTP itself, before any guest is asked: which requests are none, and what others mean.

use tests::{Builder, Host, Request, Response, guest};

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &[];

pub(super) fn probe() -> Host {
    probe_with(|host| host)
}

pub(super) fn probe_with(build: impl FnOnce(Builder) -> Builder) -> Host {
    Host::start(|host| build(host.app("probe", guest("probe"))))
}

/// What a proxy in front may have taken for a body, and must not be answered.
const SMUGGLED: &str = "GET /probe/hello?smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends `request` and a second one behind it. The first has to be refused with `status`, on the page, in the log and in the
/// access log, and the second must not be answered.
#[track_caller]
pub(super) fn check_refused(host: &Host, request: impl AsRef<[u8]>, status: u16) -> Response {
    let request = request.as_ref();
    let shown = request[..request.len().min(300)].escape_ascii();
    let mut client = host.connect();
    client.try_send(&[request, SMUGGLED.as_bytes()].concat());
    let response = client.response("GET");
    assert_eq!(response.status(), status, "{shown}");
    assert_eq!(response.header("connection").as_deref(), Some("close"), "{shown}");
    let rest = client.rest();
    assert!(rest.is_empty(), "{shown}: more was answered: {:?}", String::from_utf8_lossy(&rest));
    check_logged(host, &response);
    response
}

/// Every refusal has an id, under which the logs know it.
#[track_caller]
pub(super) fn check_logged(host: &Host, response: &Response) {
    let id = response.request_id();
    let cause = host.failure(response).text("cause");
    let line = host.access().wait("a line in the access log", |event| event.text("request") == id);
    assert_eq!((line.number("status"), line.text("cause")), (u64::from(response.status()), cause));
}

#[track_caller]
fn check_all_refused(host: &Host, requests: &[&str], status: u16) {
    for request in requests {
        check_refused(host, request, status);
    }
    assert_eq!(host.get("/probe/hello").text(), "hello", "the host goes on");
    let smuggled = host.access().all(|event| event.text("target").contains("smuggled"));
    assert!(smuggled.is_empty(), "{smuggled:?}");
}

/// A POST with these fields and this body, as they are.
pub(super) fn post(fields: &str, body: &str) -> String {
    format!("POST /probe/echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
}

/// A GET with these lines after the Host field.
pub(super) fn get(lines: &str) -> String {
    format!("GET /probe/hello HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
}

#[test]
fn h1_a_content_length_that_is_no_number_or_conflicts_is_a_400() {
    let refused = [
        post("Content-Length: 5\r\nContent-Length: 6", "hello"),
        post("Content-Length: 5, 6", "hello"),
        post("Content-Length: 5, 5", "hello"),
        post("Content-Length: +5", "hello"),
        post("Content-Length: -5", "hello"),
        post("Content-Length: 0x5", "hello"),
        post("Content-Length: 5 5", "hello"),
        post("Content-Length: ", ""),
        post("Content-Length: 18446744073709551621", "hello"),
        post("Content-Length: five", "hello"),
    ];
    let host = probe();
    check_all_refused(&host, &refused.each_ref().map(String::as_str), 400);
    let mut client = host.connect();
    client.send(post("Content-Length: 5\r\ncontent-length: 5", "hello").as_bytes());
    assert_eq!(client.response("POST").text(), "hello", "said twice, it is the same (RFC 9110 §8.6)");
    assert_eq!(client.get("/probe/hello").text(), "hello");
}

#[test]
fn h2_content_length_with_transfer_encoding_is_a_400() {
    let refused = [
        post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nX: y\r\nCONTENT-LENGTH: 0", "0\r\n\r\n"),
        post("Content-Length: 0\r\nTransfer-Encoding: identity", ""),
    ];
    let host = probe();
    check_all_refused(&host, &refused.each_ref().map(String::as_str), 400);
    // Behind a request that is right, too, which is answered first.
    let mut client = host.connect();
    let both = post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n");
    client.send([get("X: y"), both, SMUGGLED.to_owned()].concat().as_bytes());
    assert_eq!(client.response("GET").text(), "hello");
    assert_eq!(client.response("POST").status(), 400);
    client.expect_end();
}

#[test]
fn h3_a_bad_chunk_is_a_400() {
    let host = probe();
    let long = "x".repeat(20_000);
    for body in [
        "x\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;x=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        &format!("5;{long}\r\nhello\r\n0\r\n\r\n"),
    ] {
        let mut client = host.connect();
        client.try_send(format!("{}{SMUGGLED}", post("Transfer-Encoding: chunked", body)).as_bytes());
        let response = client.response("POST");
        assert_eq!(response.status(), 400, "{:?}", &body[..body.len().min(40)]);
        let rest = client.rest();
        assert!(rest.is_empty(), "{body:?}: more was answered: {:?}", String::from_utf8_lossy(&rest));
        check_logged(&host, &response);
    }
    let mut client = host.connect();
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "005;a=b;c=\"d e\"\r\nhello\r\n0000\r\nX: y\r\n\r\n",
        "2\r\nhe\r\n3 \r\nllo\r\n0\r\n\r\n",
    ] {
        client.send(post("Transfer-Encoding: chunked", body).as_bytes());
        assert_eq!(client.response("POST").text(), "hello", "{body:?}");
    }
}

#[test]
fn h3_trailers_are_no_header_fields() {
    let host = probe();
    let mut client = host.connect();
    let trailers = "0\r\nX-Forged: yes\r\nHost: b\r\nContent-Length: 7\r\n\r\n";
    let request = post("Transfer-Encoding: chunked", trailers).replace("/echo", "/environ");
    client.send(request.as_bytes());
    let environ = client.response("POST").text();
    assert!(!environ.contains("FORGED") && environ.contains("HTTP_HOST=a\n"), "{environ}");
    assert_eq!(client.get("/probe/hello").text(), "hello", "they ended where they ended");
}

#[test]
fn h4_a_bare_cr_or_a_nul_is_a_400() {
    let host = probe();
    let refused = [
        get("X: a\rb"),
        get("X: a\r\rb"),
        get("X: a\0b"),
        get("X\r: a"),
        get("X: \x0b"),
        get("X: a\r\n\rY: b"),
        get("X: \x7f"),
    ];
    check_all_refused(&host, &refused.each_ref().map(String::as_str), 400);
    check_refused(&host, "GET /probe/hello HTTP/1.1\rHost: a\r\n\r\n", 400);
    check_refused(&host, "GET /probe/hello\r HTTP/1.1\r\nHost: a\r\n\r\n", 400);
}

#[test]
fn h4_a_line_may_end_without_its_cr() {
    let host = probe();
    let mut client = host.connect();
    client.send(b"\r\nGET /probe/hello HTTP/1.1\nHost: a\n\nGET /probe/hello HTTP/1.1\r\nHost: a\n\r\n");
    assert_eq!(
        (client.response("GET").text(), client.response("GET").text()),
        ("hello".to_owned(), "hello".to_owned())
    );
}

#[test]
fn h5_a_folded_line_is_a_400() {
    let refused = [get("X: a\r\n b"), get("X: a\r\n\tb"), get("X:\r\n Transfer-Encoding: chunked"), get(" X: a")];
    check_all_refused(&probe(), &refused.each_ref().map(String::as_str), 400);
}

#[test]
fn h6_a_space_before_the_colon_or_no_colon_is_a_400() {
    let refused = [
        get("X : a"),
        get("X\t: a"),
        post("Transfer-Encoding : chunked", "0\r\n\r\n"),
        post("Content-Length : 5", "hello"),
        get("X"),
        get(": a"),
        get("X Y: a"),
        get("X(: a"),
        get("caf\u{e9}: a"),
    ];
    check_all_refused(&probe(), &refused.each_ref().map(String::as_str), 400);
}

#[test]
fn h7_an_invalid_method_is_a_400() {
    let line = |method: &str| format!("{method} /probe/hello HTTP/1.1\r\nHost: a\r\n\r\n");
    let refused =
        [line("G@T"), line("GE\tT"), line(""), line("\"GET\""), line("G\u{c9}T"), line("GET\0"), line("GET(")];
    let host = probe();
    check_all_refused(&host, &refused.each_ref().map(String::as_str), 400);
    let unusual = host.ask(&Request::new("b!rew", "/probe/environ"));
    assert!(unusual.text().contains("REQUEST_METHOD=b!rew\n"), "a token is a method, and has its case");
}

#[test]
fn h8_an_invalid_target_is_a_400() {
    let line = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let refused = [
        line(""),
        line("probe/hello"),
        line("/probe/ hello"),
        line("/probe\thello"),
        line("/probe/hello#fragment"),
        line("?x"),
        line("a.example:80"),
        line("\\probe"),
        line("ftp://a.example/probe/hello"),
        line("/probe/\x01"),
        line("/probe/\x7f"),
        line("/probe/<b>"),
        line("http://"),
        line("http://u:p@a/probe/hello"),
        line("http://u@a/probe/hello"),
        line("http://a:65536/probe/hello"),
        line("http://a:b/probe/hello"),
        line("a:b:c"),
    ];
    let host = probe();
    for request in &refused {
        let mut client = host.connect();
        client.send(request.as_bytes());
        let response = client.response("GET");
        assert_eq!(response.status(), 400, "{request:?}");
        check_logged(&host, &response);
    }
    // CONNECT makes tunnels, which there are none of.
    let mut client = host.connect();
    client.send(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n");
    assert_eq!(client.response("GET").status(), 400);
}

#[test]
fn h8_a_host_field_that_is_missing_repeated_or_no_host_is_a_400() {
    let host = probe();
    for fields in [
        "X: y",
        "Host: a\r\nHost: a",
        "Host: a\r\nhost: b",
        "Host: a b",
        "Host: a/b",
        "Host: a@b",
        "Host: \"a\"",
        "Host: a\u{e9}",
        "Host: a:b:c",
        "Host: a:999999999",
        "Host: a:65536",
        "Host: %zz,][",
        "Host: [::1",
        "Host: :80",
    ] {
        let mut client = host.connect();
        client.send(format!("GET /probe/hello HTTP/1.1\r\n{fields}\r\n\r\n").as_bytes());
        let response = client.response("GET");
        assert_eq!(response.status(), 400, "{fields}");
        check_logged(&host, &response);
    }
    for field in ["Host: a.example:80", "Host: a.example:", "Host: [::1]:80", "Host: a_b.example", "Host:"] {
        let mut client = host.connect();
        client.send(format!("GET /probe/hello HTTP/1.1\r\n{field}\r\n\r\n").as_bytes());
        assert_eq!(client.response("GET").status(), 200, "{field}");
    }
}

#[test]
fn h9_an_invalid_version_is_a_400() {
    let refused = [
        "GET /probe/hello\r\n\r\n",
        "GET /probe/hello \r\nHost: a\r\n\r\n",
        "GET /probe/hello http/1.1\r\nHost: a\r\n\r\n",
        "GET /probe/hello HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET /probe/hello HTTP/0.9\r\nHost: a\r\n\r\n",
        "GET /probe/hello HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /probe/hello HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET /probe/hello HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /probe/hello  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /probe/hello HTTPS/1.1\r\nHost: a\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    ];
    check_all_refused(&probe(), &refused, 400);
}

#[test]
fn h11_a_target_beyond_the_limit_is_a_414() {
    let host = probe_with(|host| host.edge("request_target_size=256B").edge("request_head_size=8KiB"));
    assert_eq!(host.get(&format!("/probe/hello?{}", "x".repeat(200))).status(), 200);
    let response = host.get(&format!("/probe/hello?{}", "x".repeat(300)));
    assert_eq!(response.status(), 414);
    check_logged(&host, &response);
    // Longer than a whole head may be, and without an end.
    check_refused(&host, format!("GET /probe/hello?{}", "x".repeat(20_000)), 414);
}

#[test]
fn h12_a_head_beyond_the_limits_is_a_431() {
    let host = probe_with(|host| host.edge("request_head_size=8KiB").edge("request_headers=20"));
    let fields = |count: usize, bytes: usize| -> String {
        (0..count).map(|index| format!("X-{index}: {}\r\n", "v".repeat(bytes))).collect()
    };
    let head = |fields: &str| format!("GET /probe/hello HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut client = host.connect();
    client.send(head(&fields(19, 100)).as_bytes());
    assert_eq!(client.response("GET").text(), "hello");
    let exact = head(&format!("X: {}\r\n", "v".repeat(8192 - head("X: \r\n").len())));
    assert_eq!(exact.len(), 8192);
    client.send(exact.as_bytes());
    assert_eq!(client.response("GET").text(), "hello", "as much as is allowed");
    check_refused(&host, exact.replace("X: ", "X: v"), 431);
    check_refused(&host, head(&fields(20, 1)), 431);
    check_refused(&host, head(&fields(10, 2000)), 431);
    check_refused(&host, &head(&fields(10, 2000))[..10_000], 431);
}

#[test]
fn h14_an_unknown_transfer_coding_is_a_501() {
    let host = probe();
    for coding in ["gzip", "xchunked", "gzip, chunked", "chunked, gzip", "chunkedx"] {
        let response = check_refused(&host, post(&format!("Transfer-Encoding: {coding}"), "0\r\n\r\n"), 501);
        assert_eq!(host.failure(&response).text("cause"), "transfer_coding");
    }
    let refused = [
        post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        post("Transfer-Encoding: identity", ""),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"),
        post("Transfer-Encoding: \x0bchunked", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked;q=1", "0\r\n\r\n"),
        post("Transfer-Encoding: ,chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: ", ""),
        post("Transfer-Encoding: chunked", "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0"),
    ];
    check_all_refused(&host, &refused.each_ref().map(String::as_str), 400);
    let mut client = host.connect();
    client.send(post("transfer-ENCODING: Chunked", "5\r\nhello\r\n0\r\n\r\n").as_bytes());
    assert_eq!(client.response("POST").text(), "hello", "names of codings have no case");
}

#[test]
fn h17_an_expectation_that_cannot_be_met_is_a_417() {
    let host = probe();
    for expectation in ["200-ok", "100-continue, 100-continue", "x=y", ""] {
        let response = host.ask(&Request::post("/probe/echo", b"hello").header("Expect", expectation));
        assert_eq!(response.status(), 417, "{expectation:?}");
        check_logged(&host, &response);
    }
    let second = Request::post("/probe/echo", b"hello").header("Expect", "100-continue").header("Expect", "200-ok");
    assert_eq!(host.ask(&second).status(), 417, "a second field is an expectation, too");
    let mut client = host.connect();
    client.send(
        &Request::new("POST", "/probe/echo").header("Content-Length", "5").header("Expect", "100-Continue").to_bytes(),
    );
    assert_eq!(client.head("POST").status, 100);
    client.send(b"hello");
    assert_eq!(client.response("POST").text(), "hello");
}

#[test]
fn h18_head_has_what_get_has_but_no_body() {
    let host = probe();
    let mut client = host.connect();
    for target in ["/probe/hello", "/probe/length?promise=25&blocks=3", "/nowhere", "/probe/fault"] {
        let (get, head) = (client.get(target), client.ask(&Request::new("HEAD", target)));
        assert_eq!(head.status(), get.status(), "{target}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{target}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{target}");
    }
    assert_eq!(client.get("/probe/hello").text(), "hello", "nothing came in between");
    client.send(b"HEAD /probe/hello HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n");
    assert_eq!(client.head("HEAD").status, 400);
    client.expect_end();
    let heads = host
        .access()
        .wait_for("the HEADs that failed", 3, |event| event.text("method") == "HEAD" && event.number("status") >= 400);
    assert!(heads.iter().all(|event| event.number("bytes") == 0), "no byte of a body was sent");
}

#[test]
fn h20_an_absolute_target_names_the_host() {
    let host = Host::start(|host| {
        let host = host.app("a", guest("probe")).sidecar("a", "routes = ['a.example/']");
        host.app("b", guest("probe")).sidecar("b", "routes = ['b.example/']\nenv = { WHICH = 'b' }")
    });
    let mut client = host.connect();
    client.send(b"GET http://b.example:81/environ?q HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let environ = client.response("GET").text();
    for line in [
        "WHICH=b",
        "PATH_INFO=/environ",
        "QUERY_STRING=q",
        "HTTP_HOST=b.example:81",
        "SERVER_NAME=b.example",
        "SERVER_PORT=81",
    ] {
        assert!(environ.lines().any(|found| found == line), "{line} is missing in {environ}");
    }
    client.send(b"GET HTTP://b.example HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response("GET").text(), "hello", "no path is the root's");
}

#[test]
fn h21_an_asterisk_asks_the_server() {
    let host = Host::start(|host| host.app("index", guest("probe")));
    let response = host.ask(&Request::new("OPTIONS", "*"));
    assert_eq!((response.status(), response.body.len()), (204, 0));
    assert!(response.header("server").is_some_and(|server| server.starts_with("wasgi/")));
    assert_eq!(host.ask(&Request::get("*")).status(), 400, "of OPTIONS alone");
    let app = host.ask(&Request::new("OPTIONS", "/environ"));
    assert!(app.text().contains("REQUEST_METHOD=OPTIONS\n"), "what names a path is the app's");
}

#[test]
fn h22_a_guest_sees_the_path_that_was_routed() {
    let host = Host::start(|host| {
        let host = host.app("index", guest("probe")).sidecar("index", "env = { WHICH = 'index' }");
        host.app("shop", guest("probe")).sidecar("shop", "routes = ['/shop']\nenv = { WHICH = 'shop' }")
    });
    // Of a path that it does not know the probe says what it is, and else it shows its environ.
    let seen = |target: &str| {
        let response = host.get(target);
        let text = response.text();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        match response.status() {
            200 => format!("{}{}", value("SCRIPT_NAME=").unwrap_or_default(), value("PATH_INFO=").unwrap_or_default()),
            404 => text.strip_prefix("probe has no ").unwrap_or("no app").to_owned(),
            status => status.to_string(),
        }
    };
    let which = |target: &str| {
        let text = host.get(target).text();
        text.lines().find_map(|line| line.strip_prefix("WHICH=")).unwrap_or_default().to_owned()
    };
    for (target, app, path) in [
        ("/environ", "index", "/environ"),
        ("/shop/environ", "shop", "/shop/environ"),
        ("/%73hop/environ", "shop", "/shop/environ"),
        ("/shop%2Fenviron", "shop", "/shop/environ"),
        ("/shop%2fenviron", "shop", "/shop/environ"),
    ] {
        assert_eq!((which(target).as_str(), seen(target).as_str()), (app, path), "{target}");
    }
    for target in [
        "/./environ",
        "/shop/../environ",
        "/shop/%2e%2e/environ",
        "/shop/%2E./environ",
        "/shop%2f..%2fenviron",
        "/shop/..",
        "/environ%00",
        "/shop%00/environ",
    ] {
        assert_eq!(seen(target), "400", "{target}");
    }
    // Nothing is joined, lowered, cut or decoded twice; what is no segment of its own is not the app's prefix.
    for (target, path) in [
        ("//shop/x", "//shop/x"),
        ("/shop//x", "//x"),
        ("/shop;x/y", "/shop;x/y"),
        ("/SHOP/x", "/SHOP/x"),
        ("/shopx", "/shopx"),
        ("/shop%252fx", "/shop%2fx"),
        ("/shop\\..\\x", "/shop\\..\\x"),
        ("/a%FFb", "/a\u{c3}\u{bf}b"),
    ] {
        assert_eq!(seen(target), path, "{target}");
    }
}
