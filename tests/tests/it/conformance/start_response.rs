//! S: `start_response`, its status and its headers.

use tests::{End, Host, Request, Response, guest};

use super::{each_wsgi_guest, each_wsgi_guest_with, is_validated, raw, script};

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &[];

/// The app's mistake is a 500, and the log names the rule with these words.
#[track_caller]
fn check_refused(host: &Host, target: &str, words: &str) {
    let response = host.get(target);
    assert_eq!((response.status(), response.header("set-cookie")), (500, None), "{target}: {}", response.text());
    let failure = host.failure(&response);
    assert!(failure.message().contains(words), "{target}: {}", failure.message());
}

/// What the validator says where it is the first to object; where it lets something pass, the SDK behind it does.
const PASSES: &str = "";

/// A head that breaks a rule, against an SDK's guest, whose application hears of it at once, and against one without SDK. Beside the
/// SDK's words stand the validator's.
#[track_caller]
fn check_bad_heads(sdk: &[(&str, &str, &str)], raw_heads: &[&str], error: &str) {
    each_wsgi_guest(|host, app| {
        for (steps, words, validators) in sdk {
            let words = if is_validated(app) && *validators != PASSES { validators } else { words };
            check_refused(host, &script(app, &format!("{steps}&block=never")), words);
            // An application may go on; what it was told is in its log.
            let told = host
                .get(&script(app, &format!("{}&restart=200 OK&block=went on", steps.replace("start=", "try-start="))));
            assert_eq!((told.status(), told.text().as_str()), (200, "went on"), "{steps}");
        }
        let raised = host.log().wait_for("what was raised", sdk.len(), |event| event.message().starts_with("raised: "));
        assert_eq!(raised.len(), sdk.len());
    });
    let host = raw();
    for bad in raw_heads {
        let returned = host.get(&format!("/raw/head-returned?{bad}"));
        assert_eq!((returned.status(), returned.header("set-cookie")), (500, None), "{bad}");
        assert_eq!(host.failure(&returned).text("cause"), "protocol", "{bad}");
        let called = host.get(&format!("/raw/head-called?{bad}"));
        let told = called.text();
        assert!(told.starts_with(&format!("Some(ProtocolError::{error}")) && told.ends_with(" true"), "{bad}: {told}");
    }
}

#[test]
fn s1_start_response_returns_write() {
    each_wsgi_guest(|host, app| {
        let response = host.get(&script(app, "start=200 OK&write=one&write=&write=%00%FFtwo"));
        assert_eq!((response.body.as_slice(), response.end), (&b"one\x00\xfftwo"[..], End::Whole));
    });
}

#[test]
fn s2_a_second_start_response_without_exc_info_is_an_error() {
    each_wsgi_guest(|host, app| {
        for steps in [
            "start=200 OK&start=201 Created&block=x",
            "start=200 OK&iterate=&start=201 Created&block=x",
            "start=200 OK&write=&start=201 Created&block=x",
        ] {
            check_refused(host, &script(app, steps), "second time");
        }
        let late = host.get(&script(app, "start=200 OK&write=sent&start=201 Created"));
        assert_eq!((late.status(), late.text().as_str(), late.end), (200, "sent", End::Aborted));
    });
    let host = raw();
    let response = host.get("/raw/call-twice");
    assert_eq!(response.text(), "true Some(ProtocolError::AlreadyStarted)");
    assert_eq!(response.header("x-first").as_deref(), Some("yes"), "the first call stands");
    check_refused(&host, "/raw/call-and-return", "start_response was called twice");
    check_refused(&host, "/raw/head-each-step", "start_response was called twice");
}

#[test]
fn s2_also_after_a_first_call_that_raised() {
    each_wsgi_guest(|host, app| {
        let target = script(app, "try-start=nonsense&start=200 OK&block=x");
        if is_validated(app) {
            // Of a call that the validator has refused no server hears: the next one is the first.
            assert_eq!(host.get(&target).text(), "x");
            host.log_contains("raised: Status codes must be three characters: 'nonsense'");
            return;
        }
        check_refused(host, &target, "second time");
        host.log_contains("raised: bad status 'nonsense'");
    });
    let host = raw();
    assert_eq!(host.get("/raw/refused-then-called").text(), "true Some(ProtocolError::AlreadyStarted)");
    check_refused(&host, "/raw/refused-then-returned", "start_response was called twice");
}

#[test]
fn s3_exc_info_before_the_headers_replaces_them() {
    each_wsgi_guest(|host, app| {
        for steps in [
            "header=X-First:yes&start=200 OK&header=X-Second:yes&restart=500 Oops&block=an error page",
            "header=X-First:yes&start=200 OK&iterate=&block=&header=X-Second:yes&restart=500 Oops&block=an error page",
            "header=X-Second:yes&restart=500 Oops&write=an error page",
        ] {
            let response = host.get(&script(app, steps));
            assert_eq!((response.status(), response.head.reason.as_str()), (500, "Oops"), "{steps}");
            assert_eq!((response.header("x-first"), response.header("x-second").as_deref()), (None, Some("yes")));
            assert_eq!((response.text().as_str(), response.end), ("an error page", End::Whole));
        }
        host.log().wait_for("the exceptions", 3, |event| event.message().contains("secret reason"));
    });
    let response = raw().get("/raw/empty-then-replace");
    assert_eq!((response.status(), response.text().as_str()), (500, "replaced"), "an empty block sends no headers");
}

#[test]
fn s3_exc_info_after_the_headers_raises_it_again() {
    each_wsgi_guest(|host, app| {
        for steps in [
            "start=200 OK&write=some of it&restart=500 Oops&block=never",
            "start=200 OK&iterate=&block=some of it&restart=500 Oops&block=never",
        ] {
            let response = host.get(&script(app, steps));
            assert_eq!((response.status(), response.text().as_str(), response.end), (200, "some of it", End::Aborted));
        }
        let raised = host.log().wait_for("they are in the log", 2, |event| event.text("cause") == "exception");
        assert!(raised.iter().all(|event| event.message().contains("secret reason")));
    });
    let response = raw().get("/raw/exc-info-after");
    assert_eq!(response.text(), "someSome(ProtocolError::HeadersSent)");
    assert_eq!(response.end, End::Aborted);
}

#[test]
fn s4_a_status_is_three_digits_a_space_and_a_reason() {
    each_wsgi_guest(|host, app| {
        for (status, code, reason) in [
            ("200 OK", 200, "OK"),
            ("200 Very well", 200, "Very well"),
            ("799 Odd", 799, "Odd"),
            ("404 not found", 404, "not found"),
        ] {
            let head = host.get(&script(app, &format!("start={status}&block=x"))).head;
            assert_eq!((head.status, head.reason.as_str()), (code, reason));
        }
    });
    check_bad_heads(
        &[
            // It does not expect so little, and fails itself.
            ("start=", "three digits", "IndexError: list index out of range"),
            ("start=200", "three digits", PASSES),
            ("start=200 ", "three digits", PASSES),
            ("start=20 OK", "three digits", "Status codes must be three characters: '20'"),
            ("start=2000 OK", "three digits", "Status codes must be three characters: '2000'"),
            ("start=200OK", "three digits", "Status codes must be three characters: '200OK'"),
            ("start=OK", "three digits", "Status codes must be three characters: 'OK'"),
            ("start=200 O%0D%0AK: x", "control character", PASSES),
            ("start=200 O%00K", "control character", PASSES),
        ],
        &["status", "status-digits", "status-space", "status-reason", "status-control"],
        "BadStatus",
    );
}

#[test]
fn s5_header_names_are_tokens_and_none_is_status() {
    check_bad_heads(
        &[
            ("header=:x&start=200 OK", "not a token", "Bad header name: ''"),
            ("header=a b:x&start=200 OK", "not a token", "Bad header name: 'a b'"),
            ("header=a%0D%0Ab:x&start=200 OK", "not a token", "Header names may not contain ':' or "),
            ("header=%E4:x&start=200 OK", "not a token", "Bad header name: "),
            ("header=Status:200 OK&start=200 OK", "status", "The Status header cannot be used"),
        ],
        &["name-empty", "name", "name-colon", "name-newline", "name-letter", "Status", "sTATUS"],
        "BadHeader",
    );
    each_wsgi_guest(|host, app| {
        let cookies =
            |odd: &str| script(app, &format!("header=Set-Cookie:a=1&{odd}header=Set-Cookie:b=2&start=200 OK&block=x"));
        let target = cookies("header=X!%23$%25%26'*%2B-.^_`|~9:odd&");
        if is_validated(app) {
            // It knows letters, digits, `-` and `_`.
            check_refused(host, &target, "Bad header name: \"X!#$%&'*+-.^_`|~9\"");
            assert_eq!(host.get(&cookies("")).head.all("set-cookie"), ["a=1", "b=2"]);
            return;
        }
        let response = host.get(&target);
        assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"], "repeated headers stay apart");
        assert_eq!(response.header("X!#$%&'*+-.^_`|~9").as_deref(), Some("odd"));
    });
}

#[test]
fn s6_no_control_character_reaches_the_client_in_a_header() {
    check_bad_heads(
        &[
            ("header=X:a%0D%0ASet-Cookie:stolen=1&start=200 OK", "control character", "Bad header value: "),
            ("header=X:a%0ASet-Cookie:stolen=1&start=200 OK", "control character", "Bad header value: "),
            ("header=X:a%0DSet-Cookie:stolen=1&start=200 OK", "control character", "Bad header value: "),
            ("header=X:a%00&start=200 OK", "control character", "Bad header value: "),
            ("header=X:a%09b&start=200 OK", "control character", "Bad header value: "),
            ("header=X:a%7F&start=200 OK", "control character", PASSES),
        ],
        &["splitting", "newline", "nul", "delete"],
        "BadHeader",
    );
}

#[test]
fn s7_text_is_latin1_or_refused() {
    check_bad_heads(&[("header=X:%u20AC&start=200 OK", "U+00FF", PASSES)], &["latin1"], "BadHeader");
    check_bad_heads(&[("start=200 %u20AC", "U+00FF", PASSES)], &["status-latin1"], "BadStatus");
    each_wsgi_guest(|host, app| {
        let mut client = host.connect();
        client.send(&Request::get(&script(app, "header=X:%80%9F%E9%FF&start=200 %E9%80&block=%E9")).to_bytes());
        client.send(&Request::get(&script(app, "start=200 OK")).header("Connection", "close").to_bytes());
        let bytes = client.rest();
        let starts = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        assert!(starts(b"HTTP/1.1 200 \xe9\x80\r\n"), "a byte each: {:?}", String::from_utf8_lossy(&bytes));
        assert!(starts(b"x: \x80\x9f\xe9\xff\r\n"), "a byte each: {:?}", String::from_utf8_lossy(&bytes));
    });
}

#[test]
fn s8_hop_by_hop_headers_are_the_servers() {
    let names = [
        "Connection",
        "keep-alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Trailers",
        "Transfer-Encoding",
        "Upgrade",
    ];
    let steps: Vec<String> = names.iter().map(|name| format!("header={name}:x&start=200 OK")).collect();
    let cases: Vec<(&str, &str, &str)> = steps.iter().map(|steps| (steps.as_str(), "hop-by-hop", PASSES)).collect();
    check_bad_heads(&cases, &names, "BadHeader");
}

#[test]
fn s9_headers_wait_for_the_first_block_that_is_not_empty() {
    let stream = "chunked_bodies = 'stream'";
    each_wsgi_guest_with(
        stream,
        |host| host,
        |host, app| {
            // With the block, and no later: the guest goes on when the client has answered it.
            for steps in [
                "header=X-Seen:yes&start=200 OK&iterate=&block=&block=one&line=",
                "header=X-Seen:yes&start=200 OK&write=&write=one&iterate=&line=",
            ] {
                let mut client = host.connect();
                client.send(&Request::chunked(&script(app, steps)).to_bytes());
                assert_eq!(client.head("POST").header("x-seen").as_deref(), Some("yes"), "{steps}");
                assert_eq!(client.piece().as_deref(), Ok(&b"one"[..]));
                client.chunk(b"answer\n");
                assert_eq!(client.piece().as_deref(), Ok(&b"answer\n"[..]));
            }
            // Not before: else these could not replace them.
            for steps in [
                "start=200 OK&write=&restart=503 Later&block=x",
                "start=200 OK&iterate=&block=&block=&restart=503 Later&block=x",
                "start=200 OK&iterate=&block=&restart=503 Later",
            ] {
                assert_eq!(host.get(&script(app, steps)).status(), 503, "{steps}");
            }
            // At the end, where there is no block.
            for steps in ["start=201 Created", "start=201 Created&iterate=", "start=201 Created&iterate=&block=&block="]
            {
                let response = host.get(&script(app, steps));
                assert_eq!((response.status(), response.body.len(), response.end), (201, 0, End::Whole), "{steps}");
                assert_eq!(response.header("content-length").as_deref(), Some("0"), "{steps}");
            }
        },
    );
}

/// What the validator says of a block that comes before `start_response`.
const NOT_YET: &str = "start_response has not yet been called";

/// Of the same, whoever says it first.
fn too_early(app: &str) -> &'static str {
    if is_validated(app) { NOT_YET } else { "never called start_response" }
}

#[test]
fn s10_start_response_may_be_called_in_the_first_step() {
    each_wsgi_guest(|host, app| {
        for steps in [
            "iterate=&header=X-Late:yes&start=202 Accepted&block=first &block=second",
            "iterate=&block=&header=X-Late:yes&start=202 Accepted&block=first second",
        ] {
            if is_validated(app) && steps.starts_with("iterate=&block=&") {
                // To it, an empty block is one. (A server need not mind, and wasgi does not.)
                check_refused(host, &script(app, steps), NOT_YET);
                continue;
            }
            let response = host.get(&script(app, steps));
            assert_eq!((response.status(), response.text().as_str()), (202, "first second"), "{steps}");
            assert_eq!(response.header("x-late").as_deref(), Some("yes"));
        }
        check_refused(host, &script(app, "iterate=&block=too early&start=200 OK"), too_early(app));
    });
    let late = raw().get("/raw/late-block");
    assert_eq!((late.status(), late.text().as_str()), (203, "late"));
}

#[test]
fn s11_a_response_without_start_response_is_a_500() {
    each_wsgi_guest(|host, app| {
        for steps in ["block=x", "iterate=&block=x"] {
            check_refused(host, &script(app, steps), too_early(app));
        }
        for steps in ["iterate=", "log=nothing"] {
            check_refused(host, &script(app, steps), "never called start_response");
        }
    });
    let host = raw();
    check_refused(&host, "/raw/never", "never called start_response");
    check_refused(&host, "/raw/never-iterator", "never called start_response");
}

#[test]
fn s12_date_and_server_are_added_where_the_app_gave_none() {
    let check = |response: &Response, date: Option<&str>, server: &str| {
        let dates = response.head.all("date");
        assert_eq!(dates.len(), 1, "{dates:?}");
        match date {
            Some(date) => assert_eq!(dates[0], date),
            // RFC 9110 §5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`
            None => assert!(dates[0].len() == 29 && dates[0].ends_with(" GMT"), "{dates:?}"),
        }
        let servers = response.head.all("server");
        assert!(servers.len() == 1 && servers[0].starts_with(server), "{servers:?}");
    };
    each_wsgi_guest(|host, app| {
        check(&host.get(&script(app, "start=200 OK&block=x")), None, "wasgi/");
        check(&host.get(&script(app, "start=200 OK&iterate=&block=x")), None, "wasgi/");
        check(&host.get(&script(app, "raise=x")), None, "wasgi/");
        check(&host.get("/nowhere"), None, "wasgi/");
        let own = "header=date:Sun, 06 Nov 1994 08:49:37 GMT&header=SERVER:own&start=200 OK&block=x";
        check(&host.get(&script(app, own)), Some("Sun, 06 Nov 1994 08:49:37 GMT"), "own");
    });
    let host = Host::start(|host| host.app("raw", guest("raw")));
    check(&host.get("/raw/empty-blocks"), None, "wasgi/");
}
