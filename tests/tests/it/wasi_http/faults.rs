//! Limits and rules hold for `wasi:http` guests as they do for others.

use std::time::{Duration, Instant};

use tests::{Builder, End, Host, Request, eventually, guest};

use super::check as answers;
use super::{GUESTS, each, serving};

/// Asks for `target`, which has to fail as said, on the page, in the log and in the access log.
#[track_caller]
fn check(host: &Host, target: &str, status: u16, cause: &str) -> String {
    let response = host.get(target);
    assert_eq!(response.status(), status, "{target}: {}", response.text());
    assert!(!response.text().contains("secret"), "{}", response.text());
    let failure = host.failure(&response);
    assert_eq!(failure.text("cause"), cause, "{target}: {}", failure.message());
    let id = response.request_id();
    let line = host.access().wait("a line in the access log", |event| event.text("request") == id);
    assert_eq!((line.number("status"), line.text("cause").as_str()), (status.into(), cause));
    failure.message()
}

/// A response that breaks off after its first block.
#[track_caller]
fn breaks_off(host: &Host, target: &str, cause: &str) {
    let response = host.get(target);
    assert_eq!((response.status(), response.text().as_str(), response.end), (200, "a block", End::Aborted), "{target}");
    host.failed(cause);
}

#[test]
fn a_guest_that_never_answers_is_a_500_that_says_so_in_the_log() {
    let host = serving("http-p2", |host| host);
    assert!(check(&host, "/app/none", 500, "protocol").contains("returned without a response"));
}

#[test]
fn an_error_code_becomes_the_status_that_it_means() {
    each(
        |host| host,
        |host| {
            for status in [502, 503, 504, 413, 508] {
                check(host, &format!("/app/error-code?{status}"), status, "declined");
            }
            assert!(check(host, "/app/error-code?500", 500, "declined").contains("secret reason"), "the log has it");
            let forging = check(host, "/app/error-code?599", 500, "declined");
            let mut further = forging.lines().skip(1);
            assert!(forging.contains("forged") && further.all(|line| line.starts_with("  ")), "{forging:?}");
        },
    );
}

#[test]
fn what_error_codes_say_counts_as_lines_of_the_app() {
    each(
        |host| host.limit("log_rate=1KiB"),
        |host| {
            let mut client = host.connect();
            for _ in 0..200 {
                assert_eq!(client.get("/app/error-code?500").status(), 500);
            }
            let failures = host.log().wait_for("all of them", 200, |event| event.text("cause") == "declined");
            let count = |words| failures.iter().filter(|event| event.message().contains(words)).count();
            let (told, dropped) = (count("secret reason"), count("more than limits.log_rate"));
            assert!(told > 0 && dropped > 0 && told + dropped == 200, "{told} are told, {dropped} dropped");
        },
    );
}

#[test]
fn a_panic_is_a_500_with_the_functions_names() {
    each(
        |host| host,
        |host| {
            let message = check(host, "/app/panic", 500, "trap");
            assert!(message.contains("#handle"), "{message}");
            host.log_contains("secret panic");
        },
    );
}

#[test]
fn an_endless_loop_is_stopped() {
    each(
        |host| host.limit("cpu_time=100ms"),
        |host| {
            check(host, "/app/spin", 504, "cpu");
            breaks_off(host, "/app/then-spin", "cpu");
        },
    );
}

#[test]
fn an_endless_loop_delays_nobody_with_one_worker() {
    for name in GUESTS {
        let host = serving(name, |host| host.app("other", guest(name)).workers(1).limit("cpu_time=2s"));
        let mut spinning = host.connect();
        spinning.send(&Request::get("/app/spin").to_bytes());
        let mut other = host.connect();
        let begin = Instant::now();
        for _ in 0..20 {
            answers(&other.get("/other/hello"), 200, "hello from wasi:http");
        }
        let took = begin.elapsed();
        assert_eq!(spinning.response("GET").status(), 504);
        assert!(took < Duration::from_secs(1), "the others {name}: the others took {took:?}");
    }
}

#[test]
fn memory_beyond_the_limit_is_refused() {
    each(
        |host| host.limit("memory=16MiB"),
        |host| {
            check(host, "/app/memory?100", 500, "memory");
            answers(&host.get("/app/memory?3"), 200, "4 MiB");
        },
    );
}

#[test]
fn the_clocks_run() {
    each(
        |host| host.limit("first_byte_time=200ms"),
        |host| {
            check(host, "/app/sleep?60000", 504, "wall");
            answers(&host.get("/app/sleep?20"), 200, "slept");
        },
    );
    each(
        |host| host.limit("idle_time=200ms"),
        |host| {
            breaks_off(host, "/app/then-sleep?60000", "wall");
            let mut client = host.connect();
            client.send(&Request::chunked("/app/trailers").to_bytes());
            client.chunk(b"some");
            assert_eq!(client.response("POST").status(), 408, "the client's own fault");
        },
    );
}

#[test]
fn a_request_body_beyond_the_limit_is_a_413() {
    each(
        |host| host.limit("request_body_size=1KiB"),
        |host| {
            assert_eq!(host.ask(&Request::post("/app/trailers", vec![1; 1024])).status(), 200);
            assert_eq!(host.ask(&Request::post("/app/trailers", vec![1; 1025])).status(), 413);
            let mut client = host.connect();
            client.send(&Request::chunked("/app/trailers").to_bytes());
            client.chunk(&[1; 1000]);
            client.chunk(&[1; 1000]);
            assert_eq!(client.response("POST").status(), 413);
        },
    );
}

#[test]
fn heads_beyond_the_limits_are_a_502() {
    each(
        |host| host.limit("response_headers=10").limit("response_header_size=4KiB"),
        |host| {
            assert_eq!(host.get("/app/many-headers?10").status(), 200);
            check(host, "/app/many-headers?11", 502, "response_head");
            check(host, "/app/long-header?5000", 502, "response_head");
        },
    );
}

#[test]
fn what_a_guest_puts_together_as_a_head_is_bounded() {
    let host = serving("http-p2", |host| host.limit("response_header_size=4KiB"));
    check(&host, "/app/fields?60000", 502, "response_head");
}

#[test]
fn handles_beyond_the_limit_are_a_502() {
    each(
        |host| host.limit("handles=64"),
        |host| {
            answers(&host.get("/app/handles?32"), 200, "32 handles");
            check(host, "/app/handles?1000", 502, "handles");
        },
    );
}

#[test]
fn heads_that_break_a_rule_never_reach_the_client() {
    each(
        |host| host,
        |host| {
            check(host, "/app/status?101", 500, "protocol");
            answers(&host.get("/app/hop-by-hop"), 200, "refused: true");
        },
    );
}

#[test]
fn a_response_that_is_not_finished_is_told_from_one_that_is() {
    let host = serving("http-p2", |host| host);
    for target in ["/app/forgotten", "/app/dropped", "/app/short"] {
        check(&host, target, 500, "protocol");
    }
    let host = serving("http-p3", |host| host.limit("idle_time=200ms"));
    check(&host, "/app/declared-broken", 500, "protocol");
    check(&host, "/app/short", 500, "protocol");
    breaks_off(&host, "/app/forgotten", "wall");
    each(|host| host, |host| breaks_off(host, "/app/then-panic", "trap"));
}

#[test]
fn a_guest_that_fails_when_all_is_said_has_answered() {
    each(
        |host| host,
        |host| {
            answers(&host.get("/app/finished-panic"), 200, "a block");
            assert!(host.failed("trap").message().contains("after the response"));
        },
    );
}

#[test]
fn an_outgoing_request_is_refused_and_both_sides_are_told() {
    each(
        |host| host,
        |host| {
            answers(&host.get("/app/outgoing"), 200, "ErrorCode::HttpRequestDenied");
            let line = host.log_contains("refused an outgoing request (GET http://elsewhere.example)");
            assert!(
                line.message().contains("has not asked for any: name where it may go in `outbound`"),
                "{}",
                line.message()
            );
            assert_eq!((line.text("app").as_str(), line.text("request").len()), ("app", 16));
        },
    );
}

#[test]
fn a_client_that_leaves_frees_the_place() {
    let one = |host: Builder| host.limit("concurrent_calls=1").limit("queued_calls=0").limit("cpu_time=60s");
    each(one, |host| {
        for target in ["/app/spin", "/app/then-spin", "/app/then-sleep?60000"] {
            let mut client = host.connect();
            client.send(&Request::get(target).to_bytes());
            if target == "/app/spin" {
                host.log_contains("spinning");
            } else {
                assert_eq!(client.head("GET").status, 200);
            }
            assert_eq!(host.get("/app/hello").status(), 503);
            drop(client);
            eventually("the place is free", || (host.get("/app/hello").status() == 200).then_some(()));
        }
    });
}

#[test]
fn what_misbehaved_is_not_reused() {
    each(
        |host| host.sidecar("app", "instances = 'reuse'").limit("cpu_time=100ms"),
        |host| {
            for target in ["/app/panic", "/app/spin", "/app/then-panic", "/app/finished-panic"] {
                answers(&host.get("/app/calls"), 200, "call 1");
                host.get(target);
            }
        },
    );
}

#[test]
fn what_has_only_failed_is_reused() {
    let host = serving("http-p2", |host| host.sidecar("app", "instances = 'reuse'"));
    for (target, call) in [("/app/none", 1), ("/app/short", 3), ("/app/error-code?502", 5)] {
        answers(&host.get("/app/calls"), 200, &format!("call {call}"));
        host.get(target);
    }
    answers(&host.get("/app/calls"), 200, "call 7");
}
