//! Static files: served by the host, without waking the guest.

use tests::{Bundle, End, Host, Request, Response, eventually, guest};

const MANIFEST: &str = r#"{"version": 1, "static": {"/static/": "public", "/robots.txt": "public/robots.txt"}}"#;

fn bundle() -> Bundle {
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    Bundle::default()
        .manifest(MANIFEST)
        .file("public/site.css", "body { color: red }")
        .file("public/site.css.gz", "gzip, as far as the host can tell")
        .file("public/site.css.br", "brotli")
        .file("public/robots.txt", "User-agent: *")
        .file("public/deep/er/a b.js", "1")
        .file("public/.secret", "secret")
        .file("public/.git/config", "secret")
        .file("public/empty.txt", "")
        .file("public/large.bin", large)
        .file("private/settings.py", "SECRET_KEY = 'secret'")
}

fn serving() -> Host {
    Host::start(|host| host.app("site", bundle().on(guest("site"))).sidecar("site", "instances = 'reuse'"))
}

fn ask(host: &Host, target: &str, fields: &[(&str, &str)]) -> Response {
    host.ask(&fields.iter().fold(Request::get(target), |request, (name, value)| request.header(name, value)))
}

#[test]
fn files_are_served_without_waking_the_guest() {
    let host = serving();
    let response = host.get("/site/static/site.css");
    assert_eq!((response.status(), response.text().as_str()), (200, "body { color: red }"));
    for (name, value) in [
        ("Content-Type", "text/css; charset=utf-8"),
        ("Content-Length", "19"),
        ("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT"),
        ("Accept-Ranges", "bytes"),
        ("Vary", "accept-encoding"),
        ("Cache-Control", "no-cache"),
    ] {
        assert_eq!(response.header(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(host.get("/site/robots.txt").text(), "User-agent: *");
    assert_eq!(host.get("/site/static/deep/er/a%20b.js").text(), "1");
    assert_eq!(host.get("/site/static/empty.txt").header("Content-Length").as_deref(), Some("0"));
    assert_eq!(host.get("/site/static/site.css?v=2").status(), 200, "a query is for caches");
    assert_eq!(host.get("/site").text(), "call 1 of ", "the guest has not been called before");
    let line =
        host.access().wait("the file in the access log", |event| event.text("target") == "/site/static/site.css");
    assert_eq!((line.text("app").as_str(), line.number("bytes"), line.number("status")), ("site", 19, 200));
    assert_eq!(host.listed("site").expect("it is listed").number("requests"), 6);
}

#[test]
fn what_is_no_file_is_the_guests() {
    let host = serving();
    for path in [
        "/static",
        "/static/",
        "/static/missing.css",
        "/static/deep",
        "/static/deep/",
        "/static/site.css/",
        "/static//site.css",
        "/static/SITE.CSS",
        "/static/.secret",
        "/static/.git/config",
        "/static/..%5c..%5cprivate",
        "/private/settings.py",
        "/robots.txt/",
        "/static/robots.txt%20",
    ] {
        let response = host.get(&format!("/site{path}"));
        assert!(response.text().contains(" of /"), "{path}: {}", response.text());
    }
    for path in ["/static/../private/settings.py", "/static/%2e%2e/private/settings.py", "/static/site.css%00.png"] {
        assert_eq!(host.get(&format!("/site{path}")).status(), 400, "{path}");
    }
}

#[test]
fn a_file_can_only_be_read() {
    let host = serving();
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let response = host.ask(&Request::new(method, "/site/static/site.css").header("Content-Length", "0"));
        assert_eq!((response.status(), response.header("Allow").as_deref()), (405, Some("GET, HEAD")), "{method}");
    }
    let head = host.ask(&Request::new("HEAD", "/site/static/site.css"));
    assert_eq!((head.status(), head.header("Content-Length").as_deref()), (200, Some("19")));
    assert_eq!(head.text(), "");
}

#[test]
fn who_has_it_already_is_told_so() {
    let host = serving();
    let target = "/site/static/site.css";
    let etag = host.get(target).header("ETag").expect("there is one");
    let response = ask(&host, target, &[("If-None-Match", &etag)]);
    assert_eq!((response.status(), response.text().as_str()), (304, ""));
    assert_eq!(response.header("ETag"), Some(etag.clone()));
    assert_eq!(ask(&host, target, &[("If-Modified-Since", "Sun, 09 Sep 2001 01:46:40 GMT")]).status(), 304);
    assert_eq!(ask(&host, target, &[("If-None-Match", "\"another\"")]).status(), 200);
    assert_eq!(ask(&host, target, &[("If-Match", "\"another\"")]).status(), 412);
    // What a coding makes of it is something else.
    let coded = ask(&host, target, &[("If-None-Match", &etag), ("Accept-Encoding", "gzip")]);
    assert_eq!(coded.status(), 200);
    // The same file in another release is the same; another one is not.
    host.drop_in("site.wasm", bundle().file("public/new.css", "new").on(guest("site")));
    host.until("/site/static/new.css", 200, "new");
    assert_eq!(ask(&host, target, &[("If-None-Match", &etag)]).status(), 304);
}

#[test]
fn the_coding_is_what_the_client_takes() {
    let host = serving();
    let target = "/site/static/site.css";
    for (accepted, coding, body) in [
        ("gzip, br", Some("br"), "brotli"),
        ("gzip", Some("gzip"), "gzip, as far as the host can tell"),
        ("br;q=0, gzip;q=0.5", Some("gzip"), "gzip, as far as the host can tell"),
        ("identity", None, "body { color: red }"),
        ("zstd", None, "body { color: red }"),
    ] {
        let response = ask(&host, target, &[("Accept-Encoding", accepted)]);
        assert_eq!((response.header("Content-Encoding").as_deref(), response.text().as_str()), (coding, body));
        assert_eq!(response.header("Content-Type").as_deref(), Some("text/css; charset=utf-8"));
    }
}

#[test]
fn a_part_is_what_was_asked_for() {
    let host = serving();
    let target = "/site/static/large.bin";
    let whole = host.get(target);
    assert_eq!((whole.body.len(), whole.end), (3_000_000, End::Whole));
    for (range, expected) in
        [("bytes=0-0", 0..1), ("bytes=1000000-1499999", 1_000_000..1_500_000), ("bytes=-7", 2_999_993..3_000_000)]
    {
        let response = ask(&host, target, &[("Range", range)]);
        assert_eq!(response.status(), 206, "{range}");
        assert_eq!(response.body, whole.body[expected.clone()], "{range}");
        let content_range = format!("bytes {}-{}/3000000", expected.start, expected.end - 1);
        assert_eq!(response.header("Content-Range"), Some(content_range));
    }
    let outside = ask(&host, target, &[("Range", "bytes=3000000-")]);
    assert_eq!((outside.status(), outside.header("Content-Range").as_deref()), (416, Some("bytes */3000000")));
    let changed = ask(&host, target, &[("Range", "bytes=0-0"), ("If-Range", "\"another\"")]);
    assert_eq!((changed.status(), changed.body.len()), (200, 3_000_000));
}

#[test]
fn so_many_are_sent_at_once_and_who_leaves_makes_room() {
    let host = Host::start(|host| {
        // More than the kernel takes of it for a client that reads nothing.
        let large = bundle().file("public/huge.bin", vec![7; 64 << 20]).on(guest("site"));
        host.app("site", large).limit("concurrent_assets=2").limit("queue_time=100ms")
    });
    let begin = || {
        let mut client = host.connect();
        client.send(&Request::get("/site/static/huge.bin").to_bytes());
        let status = client.head("GET").status;
        (client, status)
    };
    let held = [begin(), begin()];
    assert_eq!(held.each_ref().map(|(_, status)| *status), [200, 200]);
    let refused = host.get("/site/static/site.css");
    assert_eq!((refused.status(), host.failure(&refused).text("cause").as_str()), (503, "busy"));
    assert!(host.get("/site").text().starts_with("call "), "calls have places of their own");
    drop(held);
    eventually("there is room", || (host.get("/site/static/site.css").status() == 200).then_some(()));
    let gone = host.access().wait("the broken downloads", |event| event.text("cause") == "client_gone");
    assert_eq!(gone.text("app"), "site");
}

#[test]
fn a_large_file_passes_through_a_small_host() {
    let large =
        Bundle::default().manifest(r#"{"version": 1, "static": {"/f/": "f"}}"#).file("f/large", vec![7; 128 << 20]);
    let host = Host::start(|host| host.app("site", large.on(guest("site"))));
    host.get("/site/f/large");
    let before = host.resident_bytes();
    let mut slow = host.connect();
    slow.send(&Request::get("/site/f/large").to_bytes());
    assert_eq!(slow.head("GET").status, 200);
    let mut received = 0;
    let mut most = before;
    while let Ok(piece) = slow.piece()
        && !piece.is_empty()
    {
        received += piece.len();
        most = most.max(host.resident_bytes());
    }
    assert_eq!(received, 128 << 20);
    assert!(most - before < 16 << 20, "the host grew by {} MiB", (most - before) >> 20);
}

#[test]
fn a_sidecar_adds_and_takes_away() {
    let sidecar = "[static]\n'/static/' = false\n'/other' = 'public/deep'\n";
    let host = Host::start(|host| host.app("site", bundle().on(guest("site"))).sidecar("site", sidecar));
    assert!(host.get("/site/static/site.css").text().starts_with("call "));
    assert_eq!(host.get("/site/other/er/a%20b.js").text(), "1");
    host.drop_in("site.toml", "[static]\n'/other' = 'nowhere'\n");
    host.listed_problem("site", "static \"/other/\": there is nothing at \"nowhere\" in its bundle");
    host.drop_in("site.wasm", guest("site"));
    host.listed_problem("site", "it carries no files");
}
