//! I: `wsgi.input` and `wsgi.errors`.

use tests::{Client, Host, Request};

use super::{each_wsgi_guest, each_wsgi_guest_with, script};

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &[];

/// A request whose body goes in these chunks.
#[track_caller]
fn chunked(client: &mut Client, target: &str, chunks: &[&[u8]]) -> tests::Response {
    client.send(&Request::chunked(target).to_bytes());
    for chunk in chunks {
        client.chunk(chunk);
    }
    client.chunk(b"");
    client.response("POST")
}

/// What these operations on the input give, a line each.
#[track_caller]
fn check_reads(body: &[u8], ops: &[&str], expected: &[&str]) {
    let query: Vec<String> = ops.iter().map(|op| format!("op={op}")).collect();
    each_wsgi_guest(|host, app| {
        let target = format!("{app}/read?{}", query.join("&"));
        let response = host.ask(&Request::post(&target, body));
        assert_eq!(response.text().lines().collect::<Vec<_>>(), expected, "{ops:?}");
        let mut client = host.connect();
        // In pieces, it is the same.
        let pieces: Vec<&[u8]> = body.chunks(2).collect();
        assert_eq!(chunked(&mut client, &target, &pieces).text(), response.text(), "{ops:?}");
    });
}

#[test]
fn i1_the_input_is_read_by_size_by_line_by_lines_and_by_iteration() {
    let body = b"one\ntwo\n\nfour\nfive";
    check_reads(body, &["read:3", "read:100"], &[r#""one""#, r#""\ntwo\n\nfour\nfive""#]);
    check_reads(body, &["readline:100", "readline:100", "readline:100"], &[r#""one\n""#, r#""two\n""#, r#""\n""#]);
    check_reads(body, &["readlines:0"], &[r#"["one\n", "two\n", "\n", "four\n", "five"]"#]);
    check_reads(body, &["readlines:5", "readlines:1"], &[r#"["one\n", "two\n"]"#, r#"["\n"]"#]);
    check_reads(body, &["lines:2", "lines:9"], &[r#"["one\n", "two\n"]"#, r#"["\n", "four\n", "five"]"#]);
}

#[test]
fn i1_a_line_may_be_longer_than_any_buffer() {
    each_wsgi_guest(|host, app| {
        let mut body = vec![b'x'; 1_000_000];
        body.extend_from_slice(b"\nrest");
        let response = host.ask(&Request::post(&format!("{app}/read?op=readline:2000000&op=readline:9"), body));
        let lines: Vec<String> = response.text().lines().map(str::to_owned).collect();
        assert_eq!((lines[0].len(), lines[1].as_str()), (1_000_000 + r#""\n""#.len(), r#""rest""#));
    });
}

#[test]
fn i2_after_the_end_there_is_nothing_again_and_again() {
    let nothing = r#""""#;
    let after = ["read:5", "once:5", "readline:5", "readlines:0", "lines:3", "read:1"];
    let expected = [nothing, nothing, nothing, "[]", "[]", nothing];
    check_reads(b"", &after, &expected);
    let ops: Vec<&str> = ["read:100"].into_iter().chain(after).collect();
    check_reads(b"one\n", &ops, &[&[r#""one\n""#][..], &expected].concat());
    // Nor does it wait on a connection that stays open, or read what follows on it.
    each_wsgi_guest(|host, app| {
        let mut client = host.connect();
        let target = format!("{app}/read?op=read:100");
        client
            .send(&[Request::post(&target, "first").to_bytes(), Request::post(&target, "second").to_bytes()].concat());
        assert_eq!(client.response("POST").text(), "\"first\"\n");
        assert_eq!(client.response("POST").text(), "\"second\"\n");
    });
}

#[test]
fn i3_lines_keep_their_end_and_mixed_reads_lose_nothing() {
    check_reads(
        b"one\r\ntwo\nthree\nfour\nfive\nsix",
        &["readline:100", "read:2", "readline:100", "lines:1", "read:3", "readlines:1", "read:100"],
        &[r#""one\r\n""#, r#""tw""#, r#""o\n""#, r#"["three\n"]"#, r#""fou""#, r#"["r\n"]"#, r#""five\nsix""#],
    );
}

#[test]
fn i4_sizes_are_kept_to_and_nothing_is_consumed_by_zero() {
    check_reads(
        b"abcdef\ngh",
        &["once:0", "readline:0", "readline:3", "readline:3", "readline:3", "read:0", "read:1", "readline:5"],
        &[r#""""#, r#""""#, r#""abc""#, r#""def""#, r#""\n""#, r#""""#, r#""g""#, r#""h""#],
    );
}

#[test]
fn i5_a_chunked_body_is_decoded_and_has_its_length() {
    each_wsgi_guest(|host, app| {
        let mut client = host.connect();
        let environ = chunked(&mut client, &format!("{app}/environ"), &[b"hello, ", b"world"]).text();
        let lines: Vec<&str> = environ.lines().collect();
        assert!(lines.contains(&"CONTENT_LENGTH=12"), "{environ}");
        assert!(!environ.contains("HTTP_TRANSFER_ENCODING"), "{environ}");
        let empty = chunked(&mut client, &format!("{app}/environ"), &[]).text();
        assert!(empty.lines().any(|line| line == "CONTENT_LENGTH=0"), "{empty}");
        assert_eq!(chunked(&mut client, &format!("{app}/echo"), &[b"hello, ", b"world"]).text(), "hello, world");
        assert_eq!(host.get(&format!("{app}/hello")).text(), "hello");
    });
}

#[test]
fn i5_a_large_chunked_body_takes_no_memory_of_the_host_and_leaves_no_file() {
    const PIECES: usize = 64;
    let build = |host: tests::Builder| host.limit("request_body_size=1GiB");
    each_wsgi_guest_with("", build, |host, app| {
        assert_eq!(host.get(&format!("{app}/hello")).status(), 200);
        let (before, mut most) = (host.resident_bytes(), 0);
        let mut client = host.connect();
        client.send(&Request::chunked(&format!("{app}/count")).to_bytes());
        for _ in 0..PIECES {
            client.chunk(&vec![1; 1 << 20]);
            most = most.max(host.resident_bytes());
        }
        client.chunk(b"");
        assert_eq!(client.response("POST").text(), format!("{0} bytes, sum {0}", PIECES << 20));
        most = most.max(host.resident_bytes());
        let grown = most.saturating_sub(before);
        assert!(grown < 32 << 20, "the host grew by {} MiB", grown >> 20);
        let left: Vec<_> = std::fs::read_dir(host.state_dir()).expect("it is there").flatten().collect();
        let known = ["admin.sock", "cache", "files", "lock"];
        assert!(left.iter().all(|entry| known.iter().any(|known| entry.file_name() == *known)), "{left:?}");
    });
}

#[test]
fn i5_a_chunked_body_that_is_too_large_or_too_slow_is_refused_before_the_app_is_called() {
    let build = |host: tests::Builder| host.limit("request_body_size=1MiB").limit("idle_time=300ms");
    each_wsgi_guest_with("", build, |host, app| {
        let target = format!("{app}/log");
        let large = vec![b'x'; 600_000];
        let mut client = host.connect();
        client.send(&Request::chunked(&target).to_bytes());
        client.chunk(&large);
        // The host may have seen enough before all of it is sent.
        let mut chunk = format!("{:x}\r\n", large.len()).into_bytes();
        chunk.extend_from_slice(&large);
        client.try_send(&chunk);
        assert_eq!(client.response("POST").status(), 413);
        let mut client = host.connect();
        client.send(&Request::chunked(&target).to_bytes());
        client.chunk(b"some");
        assert_eq!(client.response("POST").status(), 408, "it does not go on");
        assert!(host.log().all(|event| event.message().contains("on stderr")).is_empty(), "the app was not called");
    });
}

#[test]
fn i5_a_client_that_goes_in_the_middle_of_a_chunked_body_frees_what_it_held() {
    let sidecar = "limits = { concurrent_calls = 1 }";
    each_wsgi_guest_with(
        sidecar,
        |host| host.limit("queue_time=30s"),
        |host, app| {
            let mut client = host.connect();
            client.send(&Request::chunked(&format!("{app}/echo")).to_bytes());
            client.chunk(&vec![b'x'; 1 << 20]);
            drop(client);
            assert_eq!(host.get(&format!("{app}/hello")).text(), "hello", "the permit is free");
        },
    );
}

#[test]
fn i5_an_app_may_choose_to_have_chunked_bodies_as_they_arrive() {
    each_wsgi_guest_with(
        "chunked_bodies = 'stream'",
        |host| host,
        |host, app| {
            let mut client = host.connect();
            let environ = chunked(&mut client, &format!("{app}/environ"), &[b"x"]).text();
            assert!(!environ.contains("CONTENT_LENGTH") && !environ.contains("TRANSFER_ENCODING"), "{environ}");
            // The app has not read the body: if its end came late, that connection is over.
            let mut client = host.connect();
            // The validator knows no way to read what is there: it is told how much that is.
            client.send(&Request::chunked(&format!("{app}/echo-blocks?block=3")).to_bytes());
            client.chunk(b"one");
            assert_eq!(client.head("POST").status, 200);
            assert_eq!(client.piece().as_deref(), Ok(&b"one"[..]), "the app runs before the body has ended");
            client.chunk(b"");
            assert_eq!(client.piece().as_deref(), Ok(&b""[..]));
        },
    );
}

fn expecting(target: &str, version: &str) -> Vec<u8> {
    format!("POST {target} {version}\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").into_bytes()
}

#[test]
fn i6_expect_is_answered_when_the_app_reads() {
    let check = |host: &Host, head: &[u8], body: &[u8]| {
        let mut client = host.connect();
        client.send(head);
        assert_eq!(client.head("POST").status, 100);
        client.send(body);
        let response = client.response("POST");
        assert_eq!((response.status(), response.text().as_str()), (200, "hello"));
        client
    };
    each_wsgi_guest(|host, app| {
        let target = format!("{app}/echo");
        let mut client = check(host, &expecting(&target, "HTTP/1.1"), b"hello");
        assert_eq!(client.get(&format!("{app}/hello")).text(), "hello", "the connection goes on");
        let chunked = Request::chunked(&target).header("Expect", "100-continue").to_bytes();
        check(host, &chunked, b"5\r\nhello\r\n0\r\n\r\n");
    });
}

#[test]
fn i6_an_app_that_does_not_read_asks_for_no_body() {
    each_wsgi_guest(|host, app| {
        let mut client = host.connect();
        client.send(&expecting(&format!("{app}/hello"), "HTTP/1.1"));
        let response = client.response("POST");
        assert_eq!((response.status(), response.text().as_str()), (200, "hello"), "no 100 before");
        // The body was never asked for, and nobody can know whether it still comes.
        client.expect_end();
    });
}

#[test]
fn i6_expect_means_nothing_in_http_1_0() {
    each_wsgi_guest(|host, app| {
        let mut client = host.connect();
        client.send(&expecting(&format!("{app}/echo"), "HTTP/1.0"));
        client.send(b"hello");
        let response = client.response("POST");
        assert_eq!((response.status(), response.text().as_str()), (200, "hello"), "no 100 before");
    });
}

#[test]
fn i7_any_text_written_to_errors_is_in_the_apps_log_line_by_line() {
    each_wsgi_guest(|host, app| {
        assert_eq!(host.get(&format!("{app}/errors")).text(), "written");
        for line in ["written é€😀", "first of two", "second of two", "flushed without an end", "left without an end"]
        {
            let event = host.log().wait(line, |event| event.message() == line);
            assert_eq!((event.text("app").as_str(), event.text("stream").as_str()), (&app[1..], "errors"), "{line}");
            assert_eq!(event.text("request").len(), 16, "{line}");
        }
        // Nothing that is written there can look like a line of the host.
        host.get(&script(app, "log=a%0D%1B[2Jb&start=200 OK"));
        assert_eq!(host.log_contains("[2Jb").message(), "a\\r\\u{1b}[2Jb");
    });
}
