//! CGI programs beyond the rules of RFC 3875: any language, the limits, starting afresh, and what is refused.

use tests::{Builder, End, Host, Request, core_module, guest, parse, wasgi};

/// The same program in several languages, as the examples have it.
fn languages() -> [(&'static str, &'static str, Vec<u8>); 4] {
    [
        ("cgi-rust", "Rust", guest("cgi-rust")),
        ("cgi-rust-wasip1", "Rust", core_module("cgi-rust")),
        ("cgi-c", "C", guest("cgi-c")),
        ("cgi-zig", "Zig", guest("cgi-zig")),
    ]
}

fn all(build: impl FnOnce(Builder) -> Builder) -> Host {
    Host::start(|host| build(languages().into_iter().fold(host, |host, (app, _, wasm)| host.app(app, wasm))))
}

#[test]
fn programs_in_rust_c_and_zig_are_served() {
    let host = all(|host| host);
    for (app, language, _) in languages() {
        let response = host.get(&format!("/{app}/a%20path?and=query"));
        assert_eq!(response.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
        let shown = "REQUEST_METHOD=GET\nPATH_INFO=/a path\nQUERY_STRING=and=query\nCONTENT_LENGTH=\n";
        assert_eq!((response.status(), response.text()), (200, format!("Hello from {language}.\n{shown}")), "{app}");
        let response = host.ask(&Request::post(&format!("/{app}"), "what is posted"));
        let shown = "REQUEST_METHOD=POST\nPATH_INFO=\nQUERY_STRING=\nCONTENT_LENGTH=14\nwhat is posted";
        assert_eq!(response.text(), format!("Hello from {language}.\n{shown}"), "{app}");
    }
}

#[test]
fn large_bodies_stream_through_programs_in_every_language() {
    const BYTES: usize = 64 << 20;
    let host = all(|host| host.limit("request_body_size=1GiB").limit("cpu_time=1m"));
    for (app, _, _) in languages() {
        let before = host.resident_bytes();
        let mut client = host.connect();
        let mut sender = client.sender();
        let head = Request::new("POST", &format!("/{app}")).header("Content-Length", BYTES.to_string());
        let sending = std::thread::spawn(move || {
            use std::io::Write;
            sender.write_all(&head.to_bytes())?;
            let block = vec![b'b'; 1 << 20];
            (0..BYTES >> 20).try_for_each(|_| sender.write_all(&block))
        });
        assert_eq!(client.head("POST").status, 200);
        let (mut received, mut most) = (0, 0);
        loop {
            let piece = client.piece().expect("the body is whole");
            if piece.is_empty() {
                break;
            }
            received += piece.iter().filter(|byte| **byte == b'b').count();
            most = most.max(host.resident_bytes());
        }
        sending.join().expect("it sends").expect("the host takes all of it");
        assert!(received >= BYTES, "{app}: {received} bytes came back");
        let grown = most.saturating_sub(before);
        assert!(grown < 32 << 20, "{app}: the host grew by {} MiB", grown >> 20);
    }
}

#[test]
fn the_limits_hold_for_programs() {
    let host = Host::start(|host| {
        host.app("probe", guest("cgi-probe"))
            .app("stack", parse(ENDLESS_RECURSION))
            .sidecar("probe", "limits = { cpu_time = '200ms', memory = '16MiB' }")
            // Of its own: on a busy machine a program that computes may wait longer than it computes.
            .app("slow", guest("cgi-probe"))
            .sidecar("slow", "limits = { first_byte_time = '500ms' }")
    });
    for (target, status, cause) in [
        ("/probe/spin", 504, "cpu"),
        ("/probe/garbage-for-ever", 504, "cpu"),
        ("/probe/log-for-ever", 504, "cpu"),
        ("/probe/memory", 500, "memory"),
        ("/slow/sleep?3600000", 504, "wall"),
        ("/stack", 500, "stack"),
    ] {
        let response = host.get(target);
        let failure = host.failure(&response);
        assert_eq!(
            (response.status(), failure.text("cause").as_str()),
            (status, cause),
            "{target}: {}",
            failure.message()
        );
    }
    let response = host.get("/probe/blocks-and-spin?100");
    assert_eq!((response.status(), response.end, response.body.len()), (200, End::Aborted, 100 * 4096));
    assert_eq!(host.get("/probe/environ").status(), 200, "and the next run is well");
}

const ENDLESS_RECURSION: &str =
    r#"(module (memory (export "memory") 1) (func $f (export "_start") (call $f) (call $f)))"#;

#[test]
fn a_head_that_is_too_large_is_a_502() {
    let host = Host::start(|host| {
        host.app("probe", guest("cgi-probe")).limit("response_header_size=1KiB").limit("response_headers=10")
    });
    let field = |bytes: usize| format!("X:{}", "x".repeat(bytes));
    let check = |text: String, status: u16| {
        let encoded = text.replace('\n', "%0a").replace(' ', "%20");
        let response = host.get(&format!("/probe/say?{encoded}%0a%0a"));
        assert_eq!(response.status(), status, "{}", text.len());
        if status == 502 {
            assert_eq!(host.failure(&response).text("cause"), "response_head");
        }
    };
    check(format!("Content-Type:a/b\n{}", field(900)), 200);
    check(format!("Content-Type:a/b\n{}", field(1100)), 502);
    check(format!("Content-Type:a/b\n{}", field(4000)), 502);
    check(format!("Content-Type:a/b{}", "\nX:1".repeat(9)), 200);
    check(format!("Content-Type:a/b{}", "\nX:1".repeat(10)), 502);
}

#[test]
fn each_request_starts_the_program_anew_whatever_the_operators_default() {
    let host = Host::start(|host| {
        host.app("probe", guest("cgi-probe"))
            .app("eager", guest("cgi-probe"))
            .sidecar("eager", "instances = 'reuse'")
            .flag("--instances", "reuse")
    });
    let mut client = host.connect();
    for _ in 0..100 {
        assert_eq!(client.get("/probe/say-and-exit?Status:%20204%0a%0a").status(), 204);
    }
    assert_eq!(host.listed("probe").expect("it is live").text("instances"), "fresh");
    host.listed_problem("eager", "is not for CGI programs");
    assert_eq!(host.get("/eager").status(), 404);
}

#[test]
fn a_head_request_gets_the_head_alone() {
    let host = Host::start(|host| host.app("probe", guest("cgi-probe")));
    let mut client = host.connect();
    for (target, length) in [("/probe/say?Content-Type:a/b%0a%0aeight...", Some("8")), ("/probe/blocks?100000", None)] {
        let response = client.ask(&Request::new("HEAD", target));
        assert_eq!((response.status(), response.header("content-length").as_deref()), (200, length), "{target}");
    }
    assert_eq!(client.get("/probe/say?Status:204%0a%0a").status(), 204, "nothing came in between");
}

#[test]
fn what_a_program_does_after_a_head_alone_is_done() {
    let host = Host::start(|host| host.app("probe", guest("cgi-probe")));
    let mut client = host.connect();
    assert_eq!(client.ask(&Request::new("HEAD", "/probe/head-then-sleep?50")).status(), 200);
    host.log_contains("it has slept");
    // Nor does one go on for ever that waits for the rest of a request which has been answered.
    let host = Host::start(|host| host.app("probe", guest("cgi-probe")).limit("concurrent_calls=1"));
    let mut client = host.connect();
    client.send(&Request::new("HEAD", "/probe/dialogue").header("Content-Length", "10").to_bytes());
    assert_eq!(client.response("HEAD").status(), 200);
    assert_eq!(host.get("/probe/environ").status(), 200);
}

/// A guest that does not ask how much it may write would fill the host's memory.
#[test]
fn to_write_more_than_was_allowed_is_a_trap() {
    let writing = |bytes: u32| {
        parse(&format!(
            r#"(component
                (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
                (alias export $error "error" (type $error-type))
                (import "wasi:io/streams@0.2.0" (instance $streams
                    (export "output-stream" (type $stream (sub resource)))
                    (alias outer 1 $error-type (type $outer-error))
                    (export "error" (type $failure (eq $outer-error)))
                    (type $stream-error' (variant (case "last-operation-failed" (own $failure)) (case "closed")))
                    (export "stream-error" (type $stream-error (eq $stream-error')))
                    (export "[method]output-stream.write" (func
                        (param "self" (borrow $stream)) (param "contents" (list u8))
                        (result (result (error $stream-error)))))))
                (alias export $streams "output-stream" (type $stream))
                (import "wasi:cli/stdout@0.2.0" (instance $stdout
                    (alias outer 1 $stream (type $outer-stream))
                    (export "output-stream" (type $stream (eq $outer-stream)))
                    (export "get-stdout" (func (result (own $stream))))))
                (core module $memory (memory (export "memory") 16)
                    (data (i32.const 16) "Content-Type: text/plain\0a\0awritten"))
                (core instance $memory (instantiate $memory))
                (core func $get-stdout (canon lower (func $stdout "get-stdout")))
                (core func $write (canon lower (func $streams "[method]output-stream.write")
                    (memory $memory "memory")))
                (core module $m
                    (import "" "get-stdout" (func $get-stdout (result i32)))
                    (import "" "write" (func $write (param i32 i32 i32 i32)))
                    (func (export "run") (result i32)
                        (call $write (call $get-stdout) (i32.const 16) (i32.const {bytes}) (i32.const 0))
                        (i32.const 0)))
                (core instance $i (instantiate $m (with "" (instance
                    (export "get-stdout" (func $get-stdout)) (export "write" (func $write))))))
                (func $run (result (result)) (canon lift (core func $i "run")))
                (instance $exported (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $exported)))"#
        ))
    };
    let host = Host::start(|host| host.app("fits", writing(33)).app("exceeds", writing(900_000)));
    assert_eq!(host.get("/fits").text(), "written");
    let response = host.get("/exceeds");
    let failure = host.failure(&response);
    assert_eq!((response.status(), failure.text("cause").as_str()), (500, "trap"));
    assert!(failure.message().contains("more was written to stdout than check-write allowed"), "{}", failure.message());
    assert_eq!(host.get("/fits").text(), "written", "nobody else is concerned");
}

#[test]
fn wasgi_check_says_what_a_core_module_is() {
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    let check = |name: &str, wasm: Vec<u8>| {
        let path = folder.path().join(format!("{name}.wasm"));
        std::fs::write(&path, wasm).expect("the directory is ours");
        let output = wasgi().arg("check").arg(&path).output().expect("the binary can be run");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let (fits, said) = check("program", core_module("cgi-rust"));
    assert!(fits && said.contains("cgi app, core module, adapted, speaks wasi_snapshot_preview1"), "{said}");
    let (fits, said) = check("component", guest("cgi-rust"));
    assert!(fits && said.contains("cgi app, speaks wasi:cli/run@0.2"), "{said}");
    let (fits, said) = check("library", parse(r#"(module (import "env" "f" (func)) (func (export "add")))"#));
    assert!(!fits && said.contains("core module that exports add and imports env.f"), "{said}");
    std::fs::write(folder.path().join("program.toml"), "instances = 'reuse'").expect("the directory is ours");
    let (fits, said) = check("program", core_module("cgi-rust"));
    assert!(!fits && said.contains("is not for CGI programs"), "{said}");
}
