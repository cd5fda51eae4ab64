//! S: `start_response`, its status and its headers.

use tests::End;

use super::{each_wsgi_guest, raw};

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &["S1", "S4", "S5", "S6", "S7", "S8", "S9", "S12"];

#[test]
fn s2_a_second_start_response_is_an_error() {
    each_wsgi_guest(|host, app| assert_eq!(host.get(&format!("{app}/twice")).status(), 500));
    let host = raw();
    let response = host.get("/raw/call-twice");
    assert_eq!(response.text(), "true Some(ProtocolError::AlreadyStarted)");
    assert_eq!(response.header("x-first").as_deref(), Some("yes"), "the first call stands");
    let both = host.get("/raw/call-and-return");
    assert_eq!((both.status(), host.failure(&both).text("cause").as_str()), (500, "protocol"));
    assert_eq!(host.get("/raw/head-each-step").status(), 500);
}

#[test]
fn s3_exc_info_before_the_headers_replaces_them() {
    each_wsgi_guest(|host, app| {
        let response = host.get(&format!("{app}/exc-info-before"));
        assert_eq!((response.status(), response.head.reason.as_str()), (500, "Oops"));
        assert_eq!((response.header("x-first"), response.header("x-second").as_deref()), (None, Some("yes")));
        assert_eq!(response.text(), "an error page of the app's own");
        host.log_contains("secret reason");
    });
    let response = raw().get("/raw/empty-then-replace");
    assert_eq!((response.status(), response.text().as_str()), (500, "replaced"), "an empty block sends no headers");
}

#[test]
fn s3_exc_info_after_the_headers_breaks_the_response_off() {
    each_wsgi_guest(|host, app| {
        let response = host.get(&format!("{app}/exc-info-after"));
        assert_eq!((response.status(), response.text().as_str(), response.end), (200, "some of it", End::Aborted));
        host.failed("exception");
    });
    let response = raw().get("/raw/exc-info-after");
    assert_eq!(response.text(), "someSome(ProtocolError::HeadersSent)");
    assert_eq!(response.end, End::Aborted);
}

#[test]
fn s10_start_response_may_be_called_in_the_first_step() {
    each_wsgi_guest(|host, app| {
        let response = host.get(&format!("{app}/late"));
        assert_eq!((response.status(), response.text().as_str()), (202, "first second"));
        assert_eq!(response.header("x-late").as_deref(), Some("yes"));
    });
    let late = raw().get("/raw/late-block");
    assert_eq!((late.status(), late.text().as_str()), (203, "late"));
}

#[test]
fn s11_a_response_without_start_response_is_a_500() {
    let check = |host: &tests::Host, target: &str| {
        let response = host.get(target);
        assert_eq!(response.status(), 500, "{target}");
        assert!(host.failure(&response).message().contains("never called start_response"));
    };
    each_wsgi_guest(|host, app| check(host, &format!("{app}/never")));
    let host = raw();
    check(&host, "/raw/never");
    check(&host, "/raw/never-iterator");
}
