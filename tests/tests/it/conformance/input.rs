//! I: `wsgi.input` and `wsgi.errors`.

use tests::{Client, Host, Request};

use super::{each_wsgi_guest, each_wsgi_guest_with};

/// Rules whose tests are still to be written.
pub(super) const MISSING: &[&str] = &["I1", "I2", "I3", "I4", "I7"];

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
        assert!(grown < 16 << 20, "the host grew by {} MiB", grown >> 20);
        let left: Vec<_> = std::fs::read_dir(host.state_dir()).expect("it is there").flatten().collect();
        let known = ["admin.sock", "cache", "lock"];
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
            client.send(&Request::chunked(&format!("{app}/echo-blocks")).to_bytes());
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
