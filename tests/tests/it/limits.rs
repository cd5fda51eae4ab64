//! Every limit with a guest or a client that goes beyond it: what the client gets, and under which label the operator reads it.

use std::time::{Duration, Instant};

use tests::{Builder, End, Host, Request, eventually, guest, wat};

/// Far more than any limit here plus what a busy machine adds.
const SOON: Duration = Duration::from_secs(10);

fn probe(build: impl FnOnce(Builder) -> Builder) -> Host {
    Host::start(|host| build(host.app("probe", guest("probe")).stream_bodies()))
}

/// Asks for `target`, which has to fail as said, on the page, in the log and in the access log; and the host goes on.
#[track_caller]
fn check(host: &Host, target: &str, status: u16, cause: &str) {
    let begin = Instant::now();
    let response = host.get(target);
    assert!(begin.elapsed() < SOON, "{target} took {:?}", begin.elapsed());
    assert_eq!(response.status(), status, "{target}: {}", response.text());
    let failure = host.failure(&response);
    assert_eq!(failure.text("cause"), cause, "{target}: {}", failure.message());
    let id = response.request_id();
    let line = host.access().wait("a line in the access log", |event| event.text("request") == id);
    assert_eq!((line.number("status"), line.text("cause").as_str()), (status.into(), cause));
}

/// A guest of text whose `call` is `attack`.
fn attack(attack: &str) -> Vec<u8> {
    wat(&format!("(func (export \"call\") (param i32 i32 i32 i32 i32) (result i32) {attack} (global.get $ok))"))
}

fn serving(wasm: Vec<u8>, build: impl FnOnce(Builder) -> Builder) -> Host {
    Host::start(|host| build(host.app("attack", wasm)))
}

/// The reason for which a host refuses to deploy a guest.
#[track_caller]
fn refusal(wasm: Vec<u8>, build: impl FnOnce(Builder) -> Builder) -> String {
    let host = serving(wasm, build);
    assert_eq!(host.get("/attack").status(), 404);
    host.log_contains("refused").message()
}

#[test]
fn the_harmless_guest_of_text_is_served() {
    let host = serving(attack(""), |host| host);
    assert_eq!(host.get("/attack").text(), "ok", "else the attacks below would prove nothing");
}

#[test]
fn memory_beyond_the_limit_is_refused() {
    let host = probe(|host| host.limit("memory=16MiB"));
    check(&host, "/probe/fault?kind=memory", 500, "memory");
    assert_eq!(host.get("/probe/fault?kind=memory&bytes=8000000").text(), "survived");
}

#[test]
fn an_app_may_have_less_memory_than_others() {
    let host = probe(|host| host.app("small", guest("probe")).sidecar("small", "limits = { memory = '4MiB' }"));
    check(&host, "/small/fault?kind=memory&bytes=8000000", 500, "memory");
    assert_eq!(host.get("/probe/fault?kind=memory&bytes=8000000").text(), "survived");
}

#[test]
fn two_memories_have_one_limit() {
    // Ten megabytes of each: the first are given, the second are refused. Anything else ends in a 200.
    let core = r#"
        (func (export "call") (param i32 i32 i32 i32 i32) (result i32)
          (if (i32.and
                (i32.ne (memory.grow $memory (i32.const 160)) (i32.const -1))
                (i32.eq (call $grow-beside (i32.const 160)) (i32.const -1)))
            (then unreachable))
          (global.get $ok))"#;
    check(&serving(wat(core), |host| host.limit("memory=16MiB")), "/attack", 500, "memory");
}

#[test]
fn a_table_bomb_is_refused() {
    let core = r#"
        (table $table 1 funcref)
        (func (export "call") (param i32 i32 i32 i32 i32) (result i32)
          (if (i32.eq (table.grow $table (ref.null func) (i32.const 90000)) (i32.const -1)) (then unreachable))
          (global.get $ok))"#;
    check(&serving(wat(core), |host| host.limit("table_elements=50000")), "/attack", 500, "memory");
    check(&serving(wat(core), |host| host.limit("memory=512KiB")), "/attack", 500, "memory");
    assert_eq!(serving(wat(core), |host| host).get("/attack").text(), "ok");
}

#[test]
fn what_is_too_large_from_the_start_is_refused_at_deploy() {
    let call = "(func (export \"call\") (param i32 i32 i32 i32 i32) (result i32) unreachable)";
    let reason = refusal(wat(&format!("{} {call}", "(memory 1)".repeat(8))), |host| host);
    assert!(reason.contains("memories"), "an app has eight memories: {reason}");
    let reason = refusal(guest("probe"), |host| host.limit("memory=64KiB"));
    assert!(reason.contains("memory"), "{reason}");
    let reason = refusal(wat(&format!("(table 200000 funcref) {call}")), |host| host);
    assert!(reason.contains("table"), "{reason}");
}

#[test]
fn an_endless_loop_is_stopped() {
    let host = probe(|host| host.limit("cpu_time=100ms"));
    check(&host, "/probe/fault?kind=spin", 504, "cpu");
    let response = host.get("/probe/then?kind=spin");
    assert_eq!((response.status(), response.text().as_str(), response.end), (200, "a block", End::Aborted));
}

#[test]
fn an_endless_loop_in_the_start_function_is_stopped() {
    let call = "(func (export \"call\") (param i32 i32 i32 i32 i32) (result i32) unreachable)";
    let wasm = wat(&format!("(func $start (loop (br 0))) (start $start) {call}"));
    check(&serving(wasm, |host| host.limit("cpu_time=100ms")), "/attack", 504, "cpu");
}

#[test]
fn waiting_is_not_charged_as_processor_time() {
    let host = probe(|host| host.limit("cpu_time=100ms"));
    assert_eq!(host.get("/probe/fault?kind=sleep&ms=400").text(), "survived");
}

#[test]
fn empty_blocks_without_end_are_stopped() {
    let host = Host::start(|host| host.app("raw", guest("raw")).limit("cpu_time=200ms"));
    check(&host, "/raw/empty-blocks-for-ever", 504, "cpu");
}

#[test]
fn deep_recursion_is_stopped() {
    let core = r#"
        (func $deep (result i32) (i32.add (call $deep) (i32.const 1)))
        (func (export "call") (param i32 i32 i32 i32 i32) (result i32) (call $deep))"#;
    check(&serving(wat(core), |host| host), "/attack", 500, "stack");
}

#[test]
fn recursion_on_the_guests_own_stack_is_a_trap_with_the_functions_names() {
    let host = probe(|host| host);
    let response = host.get("/probe/fault?kind=recurse");
    assert_eq!(response.status(), 500);
    let failure = host.failure(&response);
    assert!(["trap", "stack"].contains(&&*failure.text("cause")), "{}", failure.text("cause"));
    assert!(failure.message().contains("recurse_without_end"), "{}", failure.message());
}

#[test]
fn a_call_has_a_wall_time() {
    let host = probe(|host| host.limit("wall_time=300ms"));
    check(&host, "/probe/fault?kind=sleep&ms=600000", 504, "wall");
    let response = host.get("/probe/stream?blocks=1000000&pause=50");
    assert_eq!((response.status(), response.end), (200, End::Aborted), "a body that comes and comes has it too");
}

#[test]
fn the_first_byte_has_its_time() {
    let host = probe(|host| host.limit("first_byte_time=200ms"));
    check(&host, "/probe/fault?kind=sleep&ms=600000", 504, "wall");
    assert_eq!(host.get("/probe/then?kind=sleep&ms=500").text(), "a blocksurvived", "after it others count");
}

#[test]
fn a_body_that_stands_still_is_aborted() {
    let host = probe(|host| host.limit("idle_time=200ms"));
    let response = host.get("/probe/then?kind=sleep&ms=600000");
    assert_eq!((response.status(), response.text().as_str(), response.end), (200, "a block", End::Aborted));
    host.failed("wall");
}

#[test]
fn a_client_that_stops_sending_is_told() {
    let host = probe(|host| host.limit("idle_time=200ms"));
    let mut client = host.connect();
    client.send(&Request::chunked("/probe/echo").to_bytes());
    client.chunk(b"some");
    let response = client.response("POST");
    assert_eq!(response.status(), 408);
    host.failed("wall");
}

#[test]
fn beyond_the_concurrent_calls_there_is_a_queue_and_beyond_that_a_503() {
    let host = probe(|host| host.sidecar("probe", "limits = { concurrent_calls = 1, queued_calls = 0 }"));
    let mut first = host.connect();
    first.send(&Request::chunked("/probe/echo-blocks").to_bytes());
    first.chunk(b"one");
    assert_eq!(first.head("POST").status, 200);
    let refused = host.get("/probe/hello");
    assert_eq!((refused.status(), refused.header("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(host.failure(&refused).text("cause"), "busy");
    first.chunk(b"");
    eventually("the place is free", || (host.get("/probe/hello").status() == 200).then_some(()));
}

#[test]
fn the_queue_has_a_time() {
    let host = probe(|host| {
        host.sidecar("probe", "limits = { concurrent_calls = 1, queued_calls = 10 }").limit("queue_time=200ms")
    });
    let mut first = host.connect();
    first.send(&Request::chunked("/probe/echo-blocks").to_bytes());
    first.chunk(b"one");
    assert_eq!(first.head("POST").status, 200);
    let refused = host.get("/probe/hello");
    assert_eq!((refused.status(), refused.header("retry-after").as_deref()), (503, Some("1")));
    assert!(host.failure(&refused).message().contains("queue_time"));
}

#[test]
fn no_app_takes_more_sandboxes_than_there_are() {
    let host = probe(|host| host.app("other", guest("probe")).flag("--sandboxes", "1"));
    let mut first = host.connect();
    first.send(&Request::chunked("/probe/echo-blocks").to_bytes());
    first.chunk(b"one");
    assert_eq!(first.head("POST").status, 200);
    check(&host, "/other/hello", 503, "busy");
}

#[test]
fn a_long_target_is_a_414() {
    let host = probe(|host| host.edge("request_target_size=256B"));
    assert_eq!(host.get(&format!("/probe/hello?{}", "x".repeat(200))).status(), 200);
    let response = host.get(&format!("/probe/hello?{}", "x".repeat(300)));
    assert_eq!(response.status(), 414);
    let id = response.request_id();
    let line = host.access().wait("a line in the access log", |event| event.text("request") == id);
    assert_eq!(line.text("cause"), "target");
}

#[test]
fn too_many_or_too_large_headers_are_a_431() {
    let host = probe(|host| host.edge("request_head_size=8KiB").edge("request_headers=20"));
    let fields = |count: usize, bytes: usize| {
        (0..count).fold(Request::get("/probe/hello"), |request, index| {
            request.header(&format!("X-{index}"), "v".repeat(bytes))
        })
    };
    assert_eq!(host.ask(&fields(15, 100)).status(), 200);
    assert_eq!(host.ask(&fields(30, 1)).status(), 431);
    assert_eq!(host.ask(&fields(10, 2000)).status(), 431);
}

#[test]
fn a_slow_head_is_not_waited_for() {
    let host = probe(|host| host.edge("header_time=300ms"));
    let mut client = host.connect();
    client.send(b"GET /probe/hello HTTP/1.1\r\nHost:");
    let rest = client.rest();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&rest));
}

#[test]
fn a_large_body_is_a_413() {
    let host = probe(|host| host.limit("request_body_size=1KiB"));
    assert_eq!(host.ask(&Request::post("/probe/count", vec![1; 1024])).text(), "1024 bytes, sum 1024");
    let declared = host.ask(&Request::post("/probe/count", vec![1; 1025]));
    assert_eq!(declared.status(), 413);
    let mut client = host.connect();
    client.send(&Request::chunked("/probe/count").to_bytes());
    client.chunk(&[1; 1000]);
    client.chunk(&[1; 1000]);
    assert_eq!(client.response("POST").status(), 413);
    let lines = host.access().wait_for("both in the access log", 2, |event| event.text("cause") == "body");
    assert!(lines.iter().all(|line| line.number("status") == 413));
}

#[test]
fn too_many_or_too_large_response_headers_are_a_502() {
    let host = Host::start(|host| {
        let host = host.app("probe", guest("probe")).app("raw", guest("raw"));
        host.limit("response_headers=10").limit("response_header_size=4KiB")
    });
    assert_eq!(host.get("/probe/many-headers?count=10").status(), 200);
    check(&host, "/probe/many-headers?count=11", 502, "response_head");
    check(&host, "/probe/many-headers?count=5&bytes=1000", 502, "response_head");
    check(&host, "/raw/head-returned?status-long", 502, "response_head");
    assert_eq!(host.get("/raw/payload-headers?11").text(), "Some(ProtocolError::TooLarge)", "the app is told too");
}

#[test]
fn long_log_lines_are_cut() {
    let host = probe(|host| host.limit("log_line_size=100B"));
    host.get("/probe/log?bytes=1000");
    let line = host.log_contains("(cut: longer than limits.log_line_size)");
    assert!(line.message().len() < 200, "{}", line.message());
    assert_eq!((line.text("app").as_str(), line.text("stream").as_str()), ("probe", "stdout"));
}

#[test]
fn a_log_flood_is_dropped_and_counted() {
    let host = probe(|host| host.limit("log_rate=2KiB"));
    host.get("/probe/log?lines=1000&bytes=100");
    let passed = host.log().all(|event| event.text("stream") == "stdout").len();
    assert!(passed < 100, "{passed} lines got through");
    eventually("what was dropped is told", || {
        host.get("/probe/log?lines=1&bytes=10");
        let told = host.log().all(|event| event.message().contains("lines of the app were dropped"));
        (!told.is_empty()).then_some(())
    });
}

#[test]
fn what_exceptions_and_traps_say_counts_as_logged() {
    let host = probe(|host| host.limit("log_rate=2KiB"));
    let text = "x".repeat(500);
    let mut client = host.connect();
    for _ in 0..20 {
        assert_eq!(client.get(&format!("/probe/script?raise={text}")).status(), 500);
        assert_eq!(client.get("/probe/fault?kind=panic").status(), 500);
    }
    let failures = host.log().wait_for("all failures are in the log", 40, |event| !event.text("cause").is_empty());
    let dropped =
        failures.iter().filter(|event| event.message().contains("dropped: more than limits.log_rate")).count();
    assert!((1..40).contains(&dropped), "{dropped} of 40 say nothing");
    assert!(failures[0].message().contains(&text));
}

#[test]
fn what_an_app_prints_is_logged_with_its_name() {
    let host = Host::start(|host| host.app("probe", guest("probe")).app("raw", guest("raw")));
    host.get("/probe/log");
    for (words, stream) in [
        ("0 xxxxxxxxxx", "stdout"),
        ("on stderr", "stderr"),
        ("on wsgi.errors", "errors"),
        ("without an end", "errors"),
    ] {
        let line = host.log_contains(words);
        assert_eq!((line.text("app").as_str(), line.text("stream").as_str()), ("probe", stream), "{words}");
        assert_eq!(line.text("request").len(), 16, "{words}");
    }
    host.get("/raw/forged-log");
    assert_eq!(host.log_contains("a\\u{1b}").message(), "a\\u{1b}[2J\\rb");
    assert!(!host.failed("exception").message().contains('\u{1b}'), "an exception's text is the guest's too");
}

#[test]
fn a_handle_bomb_is_refused() {
    let host = Host::start(|host| host.app("raw", guest("raw")).limit("handles=64"));
    assert_eq!(host.get("/raw/handle-bomb?32").status(), 200);
    check(&host, "/raw/handle-bomb?1000", 502, "handles");
}

#[test]
fn giant_payloads_are_refused() {
    let host = Host::start(|host| host.app("raw", guest("raw")).limit("host_call_size=64KiB"));
    assert_eq!(host.get("/raw/payload-block?30000").body.len(), 30000);
    for target in ["/raw/payload-block", "/raw/payload-errors", "/raw/payload-exception", "/raw/payload-headers"] {
        check(&host, &format!("{target}?100000"), 502, "host_call");
    }
    check(&host, "/raw/payload-write?100000", 502, "host_call");
}

#[test]
fn a_large_module_is_refused() {
    let reason = refusal(guest("probe"), |host| host.limit("module_size=64KiB"));
    assert!(reason.contains("64"), "{reason}");
}

/// Components whose compilation takes long: many functions that do something different each. Each calls the next, since what nobody
/// can call is left out.
fn slow_to_compile() -> Vec<u8> {
    use std::fmt::Write;
    let mut core = String::from(
        "(func (export \"call\") (param i32 i32 i32 i32 i32) (result i32) (call $f0 (i32.const 1)))
        (func $f3000 (param i32) (result i32) unreachable)",
    );
    for index in 0..3000 {
        write!(core, "(func $f{index} (param i32) (result i32) local.get 0").expect("a text grows");
        for step in 0..60 {
            write!(core, " local.get 0 i32.const {} i32.mul i32.add", index * 60 + step).expect("a text grows");
        }
        write!(core, " call $f{})", index + 1).expect("a text grows");
    }
    wat(&core)
}

#[test]
fn a_module_that_compiles_too_long_is_refused() {
    let reason = refusal(slow_to_compile(), |host| host.limit("compile_time=100ms"));
    assert!(reason.contains("compile_time"), "{reason}");
}

#[test]
fn a_module_that_takes_too_much_memory_to_compile_is_refused() {
    let reason = refusal(slow_to_compile(), |host| host.limit("compile_memory=64MiB"));
    assert!(reason.contains("compile_memory"), "{reason}");
}
