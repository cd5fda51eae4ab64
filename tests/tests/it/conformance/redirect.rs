//! C6 to C8: where a CGI program sends its visitor, by RFC 3875 §6.2: inside, where the host answers with another of its paths, or
//! elsewhere.

use super::cgi::{each_form, say, saying, variable};
use tests::{Host, Request, Response, guest, parse};

#[test]
fn c6_a_path_alone_is_answered_inside() {
    each_form(|host, form| {
        let target = saying(form, "say", &format!("Location: {form}/environ?from=inside\n\n"));
        for method in ["GET", "POST"] {
            let mut request = Request::new(method, &target).header("Cookie", "c=1");
            if method == "POST" {
                request = Request::post(&target, "a body").header("Cookie", "c=1").header("Content-Type", "a/b");
            }
            let response = host.ask(&request);
            assert_eq!((response.status(), response.header("location")), (200, None));
            let shown = response.text();
            for (name, value) in [
                ("REQUEST_METHOD", Some("GET")),
                ("QUERY_STRING", Some("from=inside")),
                ("HTTP_COOKIE", Some("c=1")),
                ("CONTENT_LENGTH", None),
                ("CONTENT_TYPE", None),
            ] {
                assert_eq!(variable(&shown, name).as_deref(), value, "{method}: {name}");
            }
        }
        let head = host.ask(&Request::new("HEAD", &target));
        assert_eq!((head.status(), head.body.len()), (200, 0));
    });
}

#[test]
fn c6_another_app_may_answer_and_what_the_first_did_is_done() {
    let host = Host::start(|host| host.app("component", guest("cgi-probe")).app("probe", guest("probe")));
    assert_eq!(say(&host, "/component", "Location: /probe/hello\n\n").text(), "hello");
    assert_eq!(say(&host, "/component", "Location: /nowhere\n\n").status(), 404);
    // Bytes beyond ASCII are the ones that a client would have encoded.
    for (given, bytes) in [("caf\u{e9}", "caf%C3%A9"), ("caf%C3%A9", "caf%C3%A9")] {
        let shown = say(&host, "/component", &format!("Location: /component/environ?{given}\n\n")).text();
        assert_eq!(variable(&shown, "QUERY_STRING").as_deref(), Some(bytes));
        let shown = say(&host, "/component", &format!("Location: /probe/nothing/{given}\n\n")).text();
        assert_eq!(shown, host.get(&format!("/probe/nothing/{bytes}")).text());
    }
    let response = host.ask(&Request::post("/component/redirect-after-work", "work"));
    assert_eq!(variable(&response.text(), "QUERY_STRING").as_deref(), Some("from=redirect"));
    host.log_contains("the work is done");
}

#[test]
fn c6_waiting_before_a_redirect_is_no_processor_time_after_it() {
    let host = Host::start(|host| host.app("component", guest("cgi-probe")).limit("cpu_time=500ms"));
    let mut client = host.connect();
    let request = Request::new("POST", "/component/redirect-after-work").header("Content-Length", "4");
    client.send(&request.to_bytes());
    // The client's time is what this is about.
    std::thread::sleep(std::time::Duration::from_secs(1));
    client.send(b"work");
    let response = client.response("POST");
    assert_eq!(variable(&response.text(), "QUERY_STRING").as_deref(), Some("from=redirect"), "{}", response.status());
}

#[test]
fn c6_a_path_that_nobody_could_ask_for_is_the_programs_fault() {
    let long = parse(&that_says(&format!("Location: /{}\n\n", "x".repeat(2000))));
    let host = Host::start(|host| {
        host.app("component", guest("cgi-probe")).app("long", long).edge("request_target_size=1KiB")
    });
    for path in ["/component/../secret", "/%2e%2e/x", "/component/%00"] {
        check_blamed(&host, &say(&host, "/component", &format!("Location: {path}\n\n")));
    }
    check_blamed(&host, &host.get("/long"));
}

#[track_caller]
fn check_blamed(host: &Host, response: &Response) {
    assert_eq!(response.status(), 502);
    let failure = host.failure(response);
    assert_eq!((failure.text("cause").as_str(), failure.text("level").as_str()), ("cgi_response", "WARN"));
}

/// A core module that says but one thing.
fn that_says(text: &str) -> String {
    let bytes: String = text.len().to_le_bytes()[..4].iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00{bytes}") (data (i32.const 16) {text:?})
            (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    )
}

#[test]
fn c6_a_loop_is_stopped() {
    let wat = that_says("Location: /loop\n\n");
    let host = Host::start(|host| host.app("loop", parse(&wat)).limit("concurrent_calls=1"));
    for _ in 0..2 {
        let response = host.get("/loop");
        assert_eq!((response.status(), host.failure(&response).text("cause").as_str()), (502, "cgi_response"));
    }
}

#[test]
fn c7_an_absolute_location_sends_the_client_there() {
    each_form(|host, form| {
        for location in ["https://b.example/x", "//b.example/x", "/x#part", "x"] {
            let response = say(host, form, &format!("Location: {location}\n\n"));
            assert_eq!((response.status(), response.header("location").as_deref()), (302, Some(location)));
        }
    });
}

#[test]
fn c8_a_redirect_may_have_a_status_fields_and_a_document() {
    each_form(|host, form| {
        let response = say(
            host,
            form,
            "Status: 301 Moved Permanently\nLocation: https://b.example/\nContent-Type: text/html\n\n<p>there",
        );
        assert_eq!((response.status(), response.text().as_str()), (301, "<p>there"));
        assert_eq!(response.header("location").as_deref(), Some("https://b.example/"));
        assert_eq!(response.header("content-type").as_deref(), Some("text/html"));
        let response = say(host, form, "Location: /welcome\nSet-Cookie: login=1\n\n");
        assert_eq!((response.status(), response.header("set-cookie").as_deref()), (302, Some("login=1")));
    });
}
