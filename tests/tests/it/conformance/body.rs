//! B: what an application returns, and what of it the client gets.

use tests::End;

use super::{each_wsgi_guest, raw};

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &["B1", "B4", "B5", "B6", "B8", "B9"];

#[test]
fn b2_what_was_written_goes_before_what_is_returned() {
    each_wsgi_guest(|host, app| {
        let response = host.get(&format!("{app}/write?write=one&write=two&block=three"));
        assert_eq!((response.text().as_str(), response.end), ("onetwothree", End::Whole));
    });
    assert_eq!(raw().get("/raw/write-then-iterator").text(), "written block block ");
}

#[test]
fn b3_more_than_the_content_length_is_cut() {
    each_wsgi_guest(|host, app| {
        for iterator in [0, 1] {
            let mut client = host.connect();
            let response = client.get(&format!("{app}/length?promise=25&blocks=10&bytes=10&iterator={iterator}"));
            assert_eq!((response.body.len(), response.end), (25, End::Whole));
            assert_eq!(client.get(&format!("{app}/hello")).text(), "hello", "the connection is still in step");
        }
    });
}

#[test]
fn b3_less_than_the_content_length_closes_the_connection() {
    each_wsgi_guest(|host, app| {
        for iterator in [0, 1] {
            let response = host.get(&format!("{app}/length?promise=25&blocks=2&bytes=10&iterator={iterator}"));
            assert_eq!((response.body.len(), response.end), (20, End::Aborted), "iterator={iterator}");
        }
        let lines = host.log().wait_for("both are in the log", 2, |event| event.text("cause") == "protocol");
        assert!(lines[0].message().contains("5 bytes shorter than its Content-Length"), "{}", lines[0].message());
    });
}

#[test]
fn b7_an_exception_before_the_headers_is_a_500_without_internals() {
    each_wsgi_guest(|host, app| {
        for kind in ["raise", "panic"] {
            let response = host.get(&format!("{app}/fault?kind={kind}"));
            assert_eq!(response.status(), 500);
            assert_eq!(response.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
            let text = response.text();
            for internal in ["secret", "ProbeError", "wasm", "probe"] {
                assert!(!text.contains(internal), "{internal} is none of the client's business: {text}");
            }
            let id = response.request_id();
            assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
            let failure = host.failure(&response);
            assert_eq!(failure.text("app"), "probe");
            assert_eq!(failure.text("level"), "WARN");
            match kind {
                "raise" => {
                    assert_eq!(failure.text("cause"), "exception");
                    assert!(failure.message().contains("ProbeError: secret reason"), "{}", failure.message());
                }
                _ => {
                    assert_eq!(failure.text("cause"), "trap");
                    host.log_contains("secret panic");
                    assert!(
                        failure.message().contains("at probe::fault::run"),
                        "function names: {}",
                        failure.message()
                    );
                }
            }
            let line = host.access().wait("its line in the access log", |event| event.text("request") == id);
            assert_eq!((line.number("status"), line.text("cause")), (500, failure.text("cause")));
        }
    });
}

#[test]
fn b7_an_exception_after_the_headers_aborts_the_body() {
    each_wsgi_guest(|host, app| {
        for target in ["raise-after", "then?kind=panic"] {
            let response = host.get(&format!("{app}/{target}"));
            assert_eq!(
                (response.status(), response.text().as_str(), response.end),
                (200, "a block", End::Aborted),
                "{target}"
            );
        }
        host.failed("exception");
        host.failed("trap");
        host.log_contains("closed raise-after");
    });
}
