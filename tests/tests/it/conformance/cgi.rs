//! C: CGI programs, by RFC 3875. Each case runs against a program in both forms: a component, and a core module that the host
//! makes one.

use tests::{Builder, Client, End, Host, Request, Response, core_module, eventually, guest};

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &[];

/// Runs a case against both forms of the program; it is told where the program is mounted (`/component`).
pub(super) fn each_form(case: impl Fn(&Host, &str)) {
    each_form_with(|host| host, case);
}

fn each_form_with(build: impl FnOnce(Builder) -> Builder, case: impl Fn(&Host, &str)) {
    let host = Host::start(|host| {
        let host = host.app("component", guest("cgi-probe")).app("module", core_module("cgi-probe"));
        build(host.app("nph-probe", guest("cgi-probe")))
    });
    for form in ["/component", "/module"] {
        // Shown where the case fails.
        println!("the program is the {form}");
        case(&host, form);
    }
}

/// The target that makes the program say `text`, whatever that is.
pub(super) fn saying(form: &str, what: &str, text: &str) -> String {
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("{form}/{what}?{encoded}")
}

/// What the client gets of a program that says `text`.
#[track_caller]
pub(super) fn say(host: &Host, form: &str, text: &str) -> Response {
    host.get(&saying(form, "say", text))
}

/// The value of a variable in what `/environ` shows.
pub(super) fn variable(shown: &str, name: &str) -> Option<String> {
    let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.map(str::to_owned)
}

#[test]
fn c1_the_variables_of_every_request_are_there() {
    each_form(|host, form| {
        let mut client = host.connect();
        let target = format!("{form}/environ?a=%20b&c");
        let shown = client.ask(&Request::get(&target).header("Host", "shop.example:81").header("X-Own", "1")).text();
        for (name, value) in [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("QUERY_STRING", "a=%20b&c"),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_NAME", form),
            ("PATH_INFO", "/environ"),
            ("SERVER_NAME", "shop.example"),
            ("SERVER_PORT", "81"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_SOFTWARE", concat!("wasgi/", env!("CARGO_PKG_VERSION"))),
            ("HTTP_X_OWN", "1"),
        ] {
            assert_eq!(variable(&shown, name).as_deref(), Some(value), "{name} in {shown}");
        }
    });
}

#[test]
fn c1_path_translated_is_absent_since_no_url_leads_to_a_file() {
    each_form(|host, form| {
        let shown = host.get(&format!("{form}/environ")).text();
        assert_eq!(variable(&shown, "PATH_TRANSLATED"), None);
        let files = host.get(&format!("{form}/files")).text();
        assert!(!files.is_empty() && files.lines().all(|line| line.ends_with(": not there")), "{files}");
    });
    let host = Host::start(|host| {
        let host = host.app("component", guest("cgi-probe")).sidecar("component", "data = true");
        host.config("[grant]\ndata = ['component']\n")
    });
    assert_eq!(variable(&host.get("/component/environ").text(), "PATH_TRANSLATED"), None, "nor with a directory");
}

#[test]
fn c1_the_apps_own_variables_are_among_them() {
    let build = |host: Builder| host.sidecar("component", "env = { OWN = 'a b' }").sidecar("module", "env.OWN = 'a b'");
    each_form_with(build, |host, form| {
        assert_eq!(variable(&host.get(&format!("{form}/environ")).text(), "OWN").as_deref(), Some("a b"));
    });
}

#[test]
fn c2_content_length_is_there_if_and_only_if_there_is_a_body() {
    each_form(|host, form| {
        let target = format!("{form}/environ");
        let of = |shown: &str| (variable(shown, "CONTENT_LENGTH"), variable(shown, "CONTENT_TYPE"));
        assert_eq!(of(&host.get(&target).text()), (None, None));
        let post = |body: &str| host.ask(&Request::post(&target, body).header("Content-Type", "a/b")).text();
        assert_eq!(of(&post("12345")), (Some("5".into()), Some("a/b".into())));
        assert_eq!(of(&post("")).0, Some("0".into()));

        let mut client = host.connect();
        client.send(&Request::chunked(&target).to_bytes());
        for chunk in [&b"123"[..], b"4567", b""] {
            client.chunk(chunk);
        }
        let shown = client.response("POST").text();
        assert_eq!(of(&shown).0, Some("7".into()), "the length after de-chunking");
        assert_eq!(variable(&shown, "HTTP_TRANSFER_ENCODING"), None);
    });
}

#[test]
fn c2_credentials_and_hop_by_hop_fields_are_not_passed_on() {
    each_form(|host, form| {
        let request = Request::get(&format!("{form}/environ"))
            .header("Authorization", "Basic c2VjcmV0")
            .header("Proxy-Authorization", "Basic c2VjcmV0")
            .header("Proxy", "http://evil.example/")
            .header("Connection", "keep-alive, X-Between")
            .header("Keep-Alive", "300")
            .header("X-Between", "us")
            .header("TE", "trailers")
            .header("Trailer", "X-Last")
            .header("X-Kept", "yes");
        let shown = host.ask(&request).text();
        let headers: Vec<_> = shown.lines().filter(|line| line.starts_with("HTTP_")).collect();
        assert_eq!(headers, ["HTTP_HOST=test.example", "HTTP_X_KEPT=yes"]);
    });
}

#[test]
fn c3_stdin_has_the_body_and_then_ends() {
    each_form(|host, form| {
        let mut client = host.connect();
        let target = format!("{form}/read");
        assert_eq!(client.get(&target).text(), "0 bytes, 00000000, then 0\n");
        for bytes in [1_usize, 4096, 4097, 1_000_000] {
            let body: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            let sum = body.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
            let answer = client.ask(&Request::post(&target, body)).text();
            assert_eq!(answer, format!("{bytes} bytes, {sum:08x}, then 0\n"));
        }
    });
}

#[test]
fn c3_stdin_is_streamed() {
    each_form(|host, form| {
        let mut client = host.connect();
        client.send(&Request::new("POST", &format!("{form}/dialogue")).header("Content-Length", "10").to_bytes());
        assert_eq!(client.head("POST").status, 200, "the head is there before the body has begun");
        for line in ["one\n", "two\n"] {
            client.send(line.as_bytes());
            assert_eq!(client.piece(), Ok(format!("you said {line}").into_bytes()));
        }
        client.send(b"3\n");
        assert_eq!(client.piece(), Ok(b"you said 3\n".to_vec()));
        assert_eq!(client.piece(), Ok(Vec::new()), "the program has seen the end");
    });
}

#[test]
fn c3_a_search_becomes_arguments_and_other_queries_do_not() {
    each_form(|host, form| {
        let name = &form[1..];
        for (method, query, expected) in [
            ("GET", "?one+t%77o", vec![name, "one", "two"]),
            ("GET", "?a%3Db", vec![name, "a=b"]),
            ("GET", "?a=b", vec![name]),
            ("GET", "?one+a=b", vec![name]),
            ("POST", "?one", vec![name]),
            ("GET", "?-s+index", vec![name]),
            ("GET", "", vec![name]),
        ] {
            let shown = host.ask(&Request::new(method, &format!("{form}/arguments{query}"))).text();
            assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "{method} {query}");
        }
    });
}

#[test]
fn c4_lines_end_with_lf_or_crlf() {
    each_form(|host, form| {
        for text in ["Content-Type: a/b\nX-A: 1\n\nbody", "Content-Type: a/b\r\nX-A: 1\r\n\r\nbody"] {
            let response = say(host, form, text);
            assert_eq!((response.status(), response.text().as_str()), (200, "body"), "{text:?}");
            assert_eq!(
                (response.header("content-type"), response.header("x-a")),
                (Some("a/b".into()), Some("1".into()))
            );
        }
    });
}

#[test]
fn c4_a_cgi_field_is_given_once_and_at_least_one_is() {
    each_form(|host, form| {
        for text in [
            "Content-Type: a/b\nContent-Type: a/b\n\nbody",
            "Status: 200 OK\nstatus: 404 Not Found\n\n",
            "Location: http://a/\nLocation: http://b/\n\n",
            "X-Other: 1\n\nbody",
            "\nbody",
        ] {
            let response = say(host, form, text);
            assert_eq!(
                (response.status(), host.failure(&response).text("cause").as_str()),
                (502, "cgi_response"),
                "{text:?}"
            );
        }
    });
}

#[test]
fn c5_a_document_is_a_200_unless_status_says_otherwise() {
    each_form(|host, form| {
        let response = say(host, form, "Content-Type: text/html\n\n<p>");
        assert_eq!((response.status(), response.text().as_str()), (200, "<p>"));
        assert_eq!(response.header("content-length").as_deref(), Some("3"), "the whole of it was there");
        let response = say(host, form, "Status: 404 Nothing Here\nContent-Type: text/html\n\n<p>");
        assert_eq!((response.status(), response.head.reason.as_str()), (404, "Nothing Here"));
        assert_eq!(response.header("status"), None, "it is in the status line");
        assert_eq!(say(host, form, "Status: 204\n\n").body.len(), 0);
    });
}

#[test]
fn c9_a_program_called_nph_speaks_http_itself() {
    let host =
        Host::start(|host| host.app("nph-probe", guest("cgi-probe")).app("a/nph-core", core_module("cgi-probe")));
    for form in ["/nph-probe", "/a/nph-core"] {
        let body = "bytes \0 of\r\n\r\nany kind\n";
        let response =
            say(&host, form, &format!("HTTP/1.0 203 As It Is\r\nX-A: 1\r\nX-A: 2\r\nLocation: /x\r\n\r\n{body}"));
        assert_eq!((response.status(), response.head.reason.as_str()), (203, "As It Is"));
        assert_eq!(
            (response.head.all("x-a"), response.header("location")),
            (vec!["1".into(), "2".into()], Some("/x".into()))
        );
        assert_eq!((response.text().as_str(), response.end), (body, End::Whole));

        let mut client = host.connect();
        let kept = client.ask(&Request::get(&saying(form, "say", "HTTP/1.1 200 OK\nConnection: close\n\nkept")));
        assert_eq!(kept.text(), "kept");
        assert_eq!(
            client.get(&saying(form, "say", "HTTP/1.1 200 OK\n\nalive")).text(),
            "alive",
            "the connection is the host's"
        );

        for text in [
            "Content-Type: a/b\n\nbody",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n4\nbody\n0\n\n",
            "HTTP/1.1 200 OK\nX: a\rSet-Cookie: b\n\n",
            "HTTP/1.1 101 Switching Protocols\n\n",
        ] {
            assert_eq!(say(&host, form, text).status(), 502, "{text:?}");
        }
    }
}

#[test]
fn c10_no_header_or_garbage_is_a_502_and_stderr_is_logged() {
    each_form(|host, form| {
        for text in [
            "",
            "Hello, world\n",
            "Hello: world\n\n",
            "\u{0}\u{1}\n\n",
            "Content-Type: a/b\n",
            "Content-Type: a/b\n folded\n\n",
        ] {
            let response = say(host, form, text);
            let failure = host.failure(&response);
            assert_eq!((response.status(), failure.text("cause").as_str()), (502, "cgi_response"), "{text:?}");
            assert!(!response.text().contains("Hello"), "the client is shown nothing of it");
        }
        let response = host.get(&saying(form, "say-and-fail", "garbage\n\n"));
        let id = response.request_id();
        host.log().wait("what it said on stderr", |event| {
            event.text("request") == id && event.message() == "it failed" && event.text("stream") == "stderr"
        });
    });
}

#[test]
fn c10_a_failure_before_the_headers_is_a_502_and_after_them_for_the_log() {
    each_form(|host, form| {
        for text in ["", "Content-Type: a/b\n"] {
            let response = host.get(&saying(form, "say-and-fail", text));
            let failure = host.failure(&response);
            assert_eq!((response.status(), failure.text("cause").as_str()), (502, "cgi_response"));
            assert!(failure.message().contains("exit status"), "{}", failure.message());
        }
        let response = host.get(&saying(form, "say-and-fail", "Content-Type: a/b\n\nall of it"));
        assert_eq!((response.status(), response.text().as_str(), response.end), (200, "all of it", End::Whole));
        host.log().wait("the failure", |event| {
            event.text("app") == form[1..] && event.message().contains("after its response head")
        });
    });
}

#[test]
fn c10_to_exit_with_success_is_no_fault() {
    each_form(|host, form| {
        let response = host.get(&saying(form, "say-and-exit", "Content-Type: a/b\n\nall of it"));
        assert_eq!((response.status(), response.text().as_str(), response.end), (200, "all of it", End::Whole));
        let line = host.access().wait("its line", |event| event.text("target").contains("/say-and-exit"));
        assert_eq!(line.text("cause"), "");
    });
}

#[test]
fn c10_a_crash_is_a_500_and_breaks_off_what_has_begun() {
    each_form(|host, form| {
        let response = host.get(&saying(form, "say-and-panic", "Content-Type: a/b\n\nhalf of it"));
        assert_eq!(response.status(), 500);
        let failure = host.failure(&response);
        assert_eq!(failure.text("cause"), "trap");
        assert!(failure.message().contains("cgi_probe::main"), "function names: {}", failure.message());
        host.log_contains("it panics");
        let response = host.get(&format!("{form}/blocks-and-panic?100"));
        assert_eq!((response.status(), response.end, response.body.len()), (200, End::Aborted, 100 * 4096));
    });
}

#[test]
fn c10_a_client_that_leaves_ends_the_program() {
    for target in ["/blocks?1000000000", "/head-then-sleep?3600000", "/sleep?3600000"] {
        each_form_with(
            |host| {
                host.limit("concurrent_calls=1").limit("first_byte_time=1h").limit("idle_time=1h").limit("wall_time=1h")
            },
            |host, form| {
                let mut client = host.connect();
                client.send(&Request::get(&format!("{form}{target}")).to_bytes());
                if target != "/sleep?3600000" {
                    assert_eq!(client.head("GET").status, 200);
                }
                drop(client);
                // Its place is free again; until then this one waits in the queue.
                eventually("another run is let in", || {
                    (host.get(&format!("{form}/environ")).status() == 200).then_some(())
                });
            },
        );
    }
}

#[test]
fn c11_stdout_is_streamed() {
    each_form(|host, form| {
        // c3_stdin_is_streamed shows that each answer is there before the next question; here nothing is held back at the end.
        let response = host.get(&format!("{form}/blocks?2000"));
        assert_eq!((response.body.len(), response.end), (2000 * 4096, End::Whole));
        assert_eq!(response.header("transfer-encoding").as_deref(), Some("chunked"));
    });
}

#[test]
fn c11_a_slow_client_holds_the_program_back() {
    each_form(|host, form| {
        let before = host.resident_bytes();
        let mut clients: Vec<Client> = (0..8).map(|_| host.connect()).collect();
        for client in &mut clients {
            client.send(&Request::get(&format!("{form}/blocks?100000")).to_bytes());
            assert_eq!(client.head("GET").status, 200);
        }
        // 8 times 400 MB; nobody reads.
        let grown = host.resident_bytes().saturating_sub(before);
        assert!(grown < 100 << 20, "{grown} bytes");
    });
}

#[test]
fn c11_repeated_fields_survive() {
    each_form(|host, form| {
        let response = say(host, form, "Content-Type: a/b\nSet-Cookie: a=1\nSet-Cookie: b=2\n\n");
        assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
    });
}

#[test]
fn c11_small_writes_become_large_blocks() {
    each_form(|host, form| {
        let text = format!("Content-Type: a/b\n\n{}", "byte by byte ".repeat(50));
        let mut client = host.connect();
        client.send(&Request::get(&saying(form, "say-bytes", &text)).to_bytes());
        assert_eq!(client.head("GET").status, 200);
        let (mut body, mut pieces) = (Vec::new(), 0);
        while let Some(piece) = client.piece().ok().filter(|piece| !piece.is_empty()) {
            body.extend_from_slice(&piece);
            pieces += 1;
        }
        assert_eq!(String::from_utf8_lossy(&body), text[19..]);
        assert!(pieces < 50, "650 writes came in {pieces} pieces");
    });
}
