//! One app with every fault: what Python raises, and what an instance must not share with another.

use rustix::process::Signal;
use tests::{Builder, End, Host, guest};

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
    assert_eq!(host.get("/probe/state").text(), "call 1");
    let response = host.get("/probe/fault?kind=memory");
    assert_eq!(response.status(), 500);
    assert!(host.failure(&response).message().contains("MemoryError"));
    assert_eq!(host.get("/probe/state").text(), "call 1", "whose memory was used up is retired");
    for target in
        ["/probe/fault?kind=spin", "/probe/script?start=200 OK&iterate=&block=x&spin=".replace(' ', "%20").as_str()]
    {
        host.get(target);
        assert_eq!(host.get("/probe/state").text(), "call 1", "whoever looped is never used again");
    }
}

/// This app was built with `--warm /chance`: that very request was answered, many times, when it was built.
#[test]
fn instances_share_neither_chance_nor_time() {
    for policy in ["fresh", "rewind"] {
        let host = host(&format!("instances = '{policy}'"), |host| host);
        let mut answers: Vec<String> = (0..4).map(|_| host.get("/probe/chance").text()).collect();
        answers.push(host.restart().get("/probe/chance").text());
        for part in 0..answers[0].split(' ').count() {
            let mut values: Vec<&str> = answers.iter().filter_map(|answer| answer.split(' ').nth(part)).collect();
            values.sort_unstable();
            values.dedup();
            assert_eq!(values.len(), 5, "{policy}: {answers:?}");
        }
    }
}

/// Pages with objects that many refer to would be written to in every call.
#[test]
fn references_are_counted_to_what_somebody_waits_for_and_to_what_is_new() {
    let expected = "[True, True, True, True, True, True, True] [True, True, True] ['ended']";
    for policy in ["fresh", "reuse"] {
        assert_eq!(
            host(&format!("instances = '{policy}'"), |host| host).get("/probe/settled").text(),
            expected,
            "{policy}"
        );
    }
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

/// The lines of the guide's table that the standard library can show (`tests/guests/python/probe/promises.py`); those about packages are
/// shown by `frameworks`, `django` and `outbound`.
#[test]
fn the_guides_table_is_true() {
    let host =
        host(&format!("{REUSE}data = true\n"), |host| host.config("[grant]\ndata = ['probe']\n").limit("cpu_time=60s"));
    let mut untrue = Vec::new();
    for (of, expected) in [
        ("database", "kept, delete"),
        ("zones", "2:00:00 True"),
        ("encodings", r"'\xe4\xe9n'"),
        ("files", "pydoc True True True /0"),
        ("read-only", "PermissionError: "),
        ("temporary-files", "100 100"),
        ("named-temporary-files", "/data/tmp 1 True"),
        ("executor", "[0, 2, 4] ValueError"),
        ("event-loop", "PermissionError: "),
        ("thread", "RuntimeError: can't start new thread"),
        ("process", "OSError: "),
        ("processes", "AttributeError: module 'os' has no attribute 'pipe'"),
        ("fork", "AttributeError: "),
        ("handler", "it is set"),
        ("listening", "PermissionError: "),
        ("datagram", "PermissionError: "),
        ("time-zone", "AttributeError: module 'time' has no attribute 'tzset'"),
        ("local-time", "UTC 0"),
        ("request", "URLError: <urlopen error [Errno 2] the host denies the request"),
        ("absent:ssl", "ModuleNotFoundError: No module named '_ssl'"),
        ("absent:ctypes", "ModuleNotFoundError: No module named '_ctypes'"),
        ("absent:bz2", "ModuleNotFoundError: No module named '_bz2'"),
        ("absent:lzma", "ModuleNotFoundError: No module named '_lzma'"),
        ("absent:readline", "ModuleNotFoundError: No module named 'readline'"),
        ("absent:curses", "ModuleNotFoundError: No module named '_curses'"),
        ("absent:fcntl", "ModuleNotFoundError: No module named 'fcntl'"),
        ("absent:pwd", "ModuleNotFoundError: No module named 'pwd'"),
        ("absent:grp", "ModuleNotFoundError: No module named 'grp'"),
        ("absent:mmap", "ModuleNotFoundError: No module named 'mmap'"),
        ("absent:resource", "ModuleNotFoundError: No module named 'resource'"),
        ("absent:termios", "ModuleNotFoundError: No module named 'termios'"),
    ] {
        let said = host.get(&format!("/probe/promise?of={of}")).text();
        if !said.starts_with(expected) {
            untrue.push(format!("{of}: {said}"));
        }
    }
    assert!(untrue.is_empty(), "{untrue:#?}");
}

/// The vectors of RFC 6070 (SHA-1), RFC 7914 (SHA-256 and scrypt), and of hashlib elsewhere.
#[test]
fn keys_are_derived_from_passwords_as_the_standards_say() {
    let host = host(REUSE, |host| host.limit("cpu_time=60s"));
    for (target, key) in [
        ("pbkdf2?hash=sha1&password=password&salt=salt&rounds=1", "0c60c80f961f0e71f3a9b524af6012062fe037a6"),
        ("pbkdf2?hash=sha1&password=password&salt=salt&rounds=4096", "4b007901b765489abead49d926f721d065a429c1"),
        (
            "pbkdf2?hash=sha1&password=passwordPASSWORDpassword&salt=saltSALTsaltSALTsaltSALTsaltSALTsalt&rounds=4096&length=25",
            "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038",
        ),
        (
            "pbkdf2?hash=sha1&password=pass%00word&salt=sa%00lt&rounds=4096&length=16",
            "56fa6aa75548099dcc37d7f03425e0c3",
        ),
        (
            "pbkdf2?hash=sha256&password=passwd&salt=salt&rounds=1&length=64",
            "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc49ca9cccf179b645991664b39d77ef317c\
             71b845b1e30bd509112041d3a19783",
        ),
        // More of a password than a block of the hash; a hash that only Python knows; one that is written otherwise.
        ("pbkdf2?hash=SHA512&password=LONG&salt=salt&rounds=3&length=20", "7e06f7557aae6057f38260ec33f67b9675bebccb"),
        ("pbkdf2?hash=md5&password=password&salt=salt&rounds=2", "042407b552be345ad6eee2cf2f7ed01d"),
        (
            "scrypt?password=&salt=&n=16&r=1&p=1",
            "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442fcd0069ded0948f8326a753a0fc81f17\
             e8d3e0fb2e0d3628cf35e20c38d18906",
        ),
        (
            "scrypt?password=password&salt=NaCl&n=1024&r=8&p=16",
            "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830da\
             c727afb94a83ee6d8360cbdfa2cc0640",
        ),
    ] {
        let target = format!("/probe/{}", target.replace("LONG", &"x".repeat(200)));
        assert_eq!(host.get(&target).text(), key, "{target}");
    }
    for target in
        ["pbkdf2?hash=sha256&rounds=0", "pbkdf2?hash=none&rounds=1", "scrypt?n=15&r=1&p=1", "scrypt?n=65536&r=8&p=1"]
    {
        let refused = host.get(&format!("/probe/{target}"));
        assert!(host.failure(&refused).message().contains("ValueError"), "{target}");
    }
}

#[test]
fn time_and_chance_are_the_operators_to_give() {
    let host = host("", |host| host.config("[grant]\nwall_clock = false\n"));
    let chance = || host.get("/probe/chance");
    assert_eq!(chance().text().split(' ').nth(2), Some("946684800.0"), "{}", chance().text());
    host.write_config("[grant]\nrandomness = false\n");
    host.signal(Signal::HUP);
    host.until("/probe/chance", 500, "The app failed to answer.");
    assert_eq!(host.failure(&chance()).text("cause"), "grant");
}
