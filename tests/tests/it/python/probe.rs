//! One app with every fault: what Python raises, and what an instance must not share with another.

use tests::{Builder, End, Host, Request, guest};

fn host(sidecar: &str, build: impl FnOnce(Builder) -> Builder) -> Host {
    Host::start(|host| build(host.app("probe", guest("probe-python")).sidecar("probe", sidecar)))
}

const REUSE: &str = "instances = 'reuse'\n";

#[test]
fn nothing_that_is_raised_takes_the_instance_with_it() {
    let host = host(REUSE, |host| host);
    let raised = [
        ("raise", "faults.ProbeError: secret reason"),
        ("panic", "faults.PanicError: secret panic"),
        ("exit", "SystemExit: secret exit"),
        ("interrupt", "KeyboardInterrupt"),
        ("generator-exit", "GeneratorExit"),
        ("unprintable", "its __str__ failed"),
        ("recurse", "RecursionError"),
        ("thread", "can't start new thread"),
    ];
    for (call, (kind, words)) in (1..).zip(raised) {
        let before = host.get(&format!("/probe/fault?kind={kind}"));
        assert_eq!(before.status(), 500, "{kind}");
        assert!(!before.text().contains("secret"), "{}", before.text());
        let failure = host.failure(&before);
        assert_eq!(failure.text("cause"), "exception", "{kind}");
        assert!(failure.message().contains(words), "{kind}: {}", failure.message());
        assert!(kind == "recurse" || failure.message().contains("faults.py"), "where: {}", failure.message());
        let during = host.get(&format!("/probe/then?kind={kind}"));
        assert_eq!((during.status(), during.text().as_str(), during.end), (200, "a block", End::Aborted), "{kind}");
        assert_eq!(host.get("/probe/state").text(), format!("call {call}"), "the same instance goes on after {kind}");
    }
    assert!(host.log().all(|event| event.text("cause") == "trap").is_empty());
}

#[test]
fn memory_that_is_used_up_is_an_exception_and_an_endless_loop_is_ended() {
    let limits = "limits = { memory = '64MiB', cpu_time = '2s' }";
    let host = host(&format!("{REUSE}{limits}"), |host| host);
    let response = host.get("/probe/fault?kind=memory");
    assert_eq!(response.status(), 500);
    assert!(host.failure(&response).message().contains("MemoryError"));
    assert_eq!(host.get("/probe/hello").text(), "hello");
    for target in
        ["/probe/fault?kind=spin", "/probe/script?start=200 OK&iterate=&block=x&spin=".replace(' ', "%20").as_str()]
    {
        host.get(target);
        assert_eq!(host.get("/probe/state").text(), "call 1", "whoever looped is never used again");
    }
}

#[test]
fn instances_share_neither_chance_nor_time() {
    let host = host("instances = 'fresh'", |host| host);
    let mut answers: Vec<String> = (0..4).map(|_| host.get("/probe/chance").text()).collect();
    for part in 0..3 {
        let mut values: Vec<&str> = answers.iter().filter_map(|answer| answer.split(' ').nth(part)).collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), 4, "{answers:?}");
    }
    // Not those of the build, either.
    answers.push(host.restart().get("/probe/chance").text());
    answers.sort_unstable();
    answers.dedup();
    assert_eq!(answers.len(), 5);
}

#[test]
fn the_environment_is_that_of_the_app() {
    let sidecar = format!("{REUSE}[env]\nGREETING = 'hello'\n");
    let host = host(&sidecar, |host| host);
    assert_eq!(host.get("/probe/variable?name=GREETING").text(), "hello");
    // What the build gave is gone.
    assert_eq!(host.get("/probe/variable?name=PYTHONHOME").text(), "None");
    assert_eq!(host.get("/probe/variable?name=BUILT").text(), "None");
    assert_eq!(host.get("/probe/built").text(), "yes", "but an import could read it");
}

/// `wsgiref.validate` between server and app looks at every argument of every call, in both directions.
#[test]
fn the_validator_of_the_standard_library_finds_nothing() {
    let host = host(REUSE, |host| host.stream_bodies());
    let mut client = host.connect();
    for target in ["/hello", "/environ?a=%C3%A9", "/stream?blocks=3", "/write?write=a&block=b", "/"] {
        let response = client.get(&format!("/probe/validated{target}"));
        assert_eq!((response.status(), response.end), (200, End::Whole), "{target}: {}", response.text());
    }
    for (target, expected) in [
        ("/echo-lines", "one\ntwo\n"),
        ("/count", "8 bytes, sum 688"),
        ("/read?op=read:3&op=readline:9&op=readlines:9", "\"one\"\n\"\\n\"\n[\"two\\n\"]\n"),
    ] {
        let response = client.ask(&Request::post(&format!("/probe/validated{target}"), "one\ntwo\n"));
        assert_eq!(response.text(), expected, "{target}");
    }
    assert_eq!(client.ask(&Request::new("HEAD", "/probe/validated/hello")).status(), 200);
    assert!(host.log().all(|event| event.message().contains("AssertionError")).is_empty());
    // It does look.
    let response = host.get("/probe/validated/write?block=x&status=nonsense");
    assert!(host.failure(&response).message().contains("AssertionError"));
}
