//! Rewound instances: whatever a call leaves behind is gone when the next begins, though it has the same instance. A guest that
//! plants canaries wherever it can hunts for those of earlier calls; where something could stay, the instance does not.

use tests::{Host, Request, component_text, eventually, guest, parse, wasgi, wat};

const REWIND: &str = "instances = 'rewind'";

/// In each call it looks for the canaries of others, then plants its own, in:
///
/// | what | said as |
/// | --- | --- |
/// | all of its memory, and what that has grown by | 1 |
/// | the length of its memory | 2 |
/// | mutable globals that nobody exports, of each type | 4 |
/// | a mutable global of another module | 8 |
/// | the memory of another module, and its length | 16 |
/// | the app's own data, where it has so much that it is mapped | 32 |
///
/// `trap` or `spin` in the request's environ is what it does after that.
fn hunter(pages: u32) -> Vec<u8> {
    let text = component_text(&HUNTER.replace("PAGES", &pages.to_string()).replace("DATA", ""));
    parse(&text.replace("(export \"memory\") 1)", &format!("(export \"memory\") {pages})")))
}

/// The same with data of its own, which has to be there again in each call.
fn with_data(pages: u32) -> Vec<u8> {
    let text = component_text(&HUNTER.replace("PAGES", &pages.to_string()).replace("DATA", DATA));
    let data = format!("(data (i32.const 131072) \"{}\")", "canary! ".repeat(10_000));
    parse(&text.replace("(export \"memory\") 1)", &format!("(export \"memory\") {pages}) {data}")))
}

/// Looks whether the data is there.
const DATA: &str = r#"
      (local.set $at (i32.const 131072))
      (loop $again
        (if (i64.ne (i64.load (local.get $at)) (i64.const 0x20217972616e6163))
          (then (local.set $found (i32.or (local.get $found) (i32.const 32)))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $again (i32.lt_u (local.get $at) (i32.const 211072))))"#;

const HUNTER: &str = r#"
    (global $i32 (mut i32) (i32.const 0))
    (global $i64 (mut i64) (i64.const 0))
    (global $f32 (mut f32) (f32.const 0))
    (global $f64 (mut f64) (f64.const 0))
    (global $v128 (mut v128) (v128.const i64x2 0 0))
    (global $reference (mut funcref) (ref.null func))
    (func $target)
    (elem declare func $target)

    (func $hunt (result i32) (local $at i32) (local $found i32)
      (if (i32.ne (memory.size) (i32.const PAGES)) (then (local.set $found (i32.const 2))))
      (if (i32.ne (memory.grow (i32.const 3)) (i32.const PAGES)) (then (local.set $found (i32.const 2))))
      (loop $next
        (if (i64.eq (i64.load (local.get $at)) (i64.const 0x7972616e61632121))
          (then (local.set $found (i32.or (local.get $found) (i32.const 1)))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
      (if (i32.or
            (i32.or (global.get $i32) (i64.ne (global.get $i64) (i64.const 0)))
            (i32.or
              (i32.or (f32.ne (global.get $f32) (f32.const 0)) (f64.ne (global.get $f64) (f64.const 0)))
              (i32.or (v128.any_true (global.get $v128)) (i32.eqz (ref.is_null (global.get $reference))))))
        (then (local.set $found (i32.or (local.get $found) (i32.const 4)))))
      (if (call $seen-beside) (then (local.set $found (i32.or (local.get $found) (i32.const 8)))))
      (if (call $grow-beside (i32.const 1)) (then (local.set $found (i32.or (local.get $found) (i32.const 16)))))
      (if (i64.ne (call $load-beside (i32.const 4096)) (i64.const 0))
        (then (local.set $found (i32.or (local.get $found) (i32.const 16)))))
      DATA
      (local.get $found))

    (func $plant (local $at i32)
      (local.set $at (i32.const 1128))
      (loop $next
        (if (i32.or (i32.lt_u (local.get $at) (i32.const 4096)) (i32.ge_u (local.get $at) (i32.const 16384)))
          (then (i64.store (local.get $at) (i64.const 0x7972616e61632121))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
      (global.set $i32 (i32.const 1))
      (global.set $i64 (i64.const 1))
      (global.set $f32 (f32.const 1))
      (global.set $f64 (f64.const 1))
      (global.set $v128 (v128.const i64x2 0 1))
      (global.set $reference (ref.func $target))
      (call $see-beside (i32.const 1))
      (call $store-beside (i32.const 4096) (i64.const 0x7972616e61632121)))

    (func $is-asked (param $at i32) (param $length i32) (param $word i32) (result i32)
      (local.set $length (i32.sub (i32.add (local.get $at) (local.get $length)) (i32.const 4)))
      (loop $next
        (if (i32.eq (i32.load (local.get $at)) (local.get $word)) (then (return (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $next (i32.le_u (local.get $at) (local.get $length))))
      (i32.const 0))

    (func (export "call") (param i32 i32 i32 i32 i32) (result i32)
      ;; As two characters: "@@" is nothing.
      (i32.store16 (i32.const 1120) (i32.const 0x4040))
      (local.set 2 (call $hunt))
      (i32.store8 (i32.const 1120) (i32.or (i32.const 64) (i32.and (local.get 2) (i32.const 15))))
      (i32.store8 (i32.const 1121) (i32.or (i32.const 64) (i32.shr_u (local.get 2) (i32.const 4))))
      (call $plant)
      (if (call $is-asked (local.get 0) (local.get 1) (i32.const 0x70617274)) (then unreachable))
      (if (call $is-asked (local.get 0) (local.get 1) (i32.const 0x6e697073)) (then (loop $ever (br $ever))))
      (global.get $ok))
"#;

const NOTHING: &str = "@@";

/// The memory that an instance of these guests has is a private mapping of this.
const IMAGE: &str = "/memfd:wasgi-image";

/// Calls of a hunt: `HUNT_CALLS=100000` for a long one.
fn calls() -> usize {
    std::env::var("HUNT_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(300)
}

/// No instance was made anew because something could not be put back.
#[track_caller]
fn assert_rewound(host: &Host) {
    assert!(host.writable_mappings(IMAGE) > 0, "an instance waits for its next call");
    let complaints = host.log().all(|event| event.message().contains("rewound"));
    assert!(complaints.is_empty(), "{:?}", complaints.iter().map(tests::Event::message).collect::<Vec<_>>());
}

fn hunt(policy: &str) {
    let host = Host::start(|host| {
        let short = "limits = { cpu_time = '300ms' }";
        let apps = [("a", 1, ""), ("b", 1, ""), ("large", 40, ""), ("over", 1, ""), ("short", 2, short)];
        let host = apps.into_iter().fold(host, |host, (name, pages, limits)| {
            host.app(name, hunter(pages)).sidecar(name, &format!("instances = '{policy}'\n{limits}"))
        });
        // One small enough to be put back with others, one that is put back at once.
        let host = [("data", 5), ("much", 70)].into_iter().fold(host, |host, (name, pages)| {
            host.app(name, with_data(pages)).sidecar(name, &format!("instances = '{policy}'"))
        });
        host.edge("half_closed_time=100ms").flag("--sandboxes", "6")
    });
    let mut client = host.connect();
    for call in 0..calls() {
        // Of 100 calls four end badly.
        match call % 100 {
            7 => assert_eq!(client.get("/a?trap").status(), 500),
            27 => assert_eq!(client.get("/short?spin").status(), 504),
            47 => {
                let mut leaving = host.connect();
                leaving.send(&Request::get("/b?spin").to_bytes());
                leaving.reset();
            }
            67 => host.drop_in("over.wasm", hunter(1 + u32::try_from(call / 100 % 20).expect("it is small"))),
            87 => host.drop_in("data.wasm", with_data(5 + u32::try_from(call / 100 % 3).expect("it is small"))),
            _ => {}
        }
        for app in ["a", "b", "large", "data", "over", "much", "short"] {
            assert_eq!(client.get(&format!("/{app}")).text(), NOTHING, "/{app}, call {call}");
        }
    }
    // What others have taken its slot for is long gone, so it has to be called once more.
    assert_eq!(client.get("/data").text(), NOTHING);
    eventually("a memory lies over what is behind the code", || (host.writable_mappings(".cwasm") > 0).then_some(()));
    if policy == "rewind" {
        assert_rewound(&host);
    }
}

#[test]
fn nobody_finds_a_canary_in_a_rewound_instance() {
    hunt("rewind");
}

#[test]
fn nobody_finds_a_canary_in_a_fresh_instance() {
    hunt("fresh");
}

#[test]
fn whoever_reuses_instances_finds_every_canary() {
    let host = Host::start(|host| host.app("a", hunter(1)).sidecar("a", "instances = 'reuse'"));
    assert_eq!(host.get("/a").text(), NOTHING);
    assert_eq!(host.get("/a").text(), "OA", "all of them");
}

#[test]
fn a_guest_with_a_language_runtime_is_put_back() {
    let host = Host::start(|host| host.app("probe", guest("probe")).sidecar("probe", REWIND).stream_bodies());
    let mut client = host.connect();
    for call in 0..calls() {
        assert_eq!(client.get("/probe/state?plant=60000").text(), "call 1");
        assert_eq!(client.get("/probe/hunt").text(), "0 dirty, call 1");
        if call % 10 == 0 {
            assert_eq!(client.ask(&Request::post("/probe/echo", vec![b'x'; 100_000])).text().len(), 100_000);
            assert_eq!(client.get("/probe/fault?kind=raise").status(), 500, "an exception is no fault of the sandbox");
        }
    }
    assert_rewound(&host);
}

#[test]
fn a_guest_that_is_rewound_is_told_that_it_runs_once() {
    let host = Host::start(|host| host.app("probe", guest("probe")).sidecar("probe", REWIND));
    for _ in 0..3 {
        let said = host.get("/probe/gateway").text();
        assert!(said.contains("run_once=true"), "{said}");
    }
    assert_rewound(&host);
}

fn raw() -> Host {
    Host::start(|host| host.app("raw", guest("raw")).sidecar("raw", &format!("{REWIND}\nenv = {{ COLOUR = 'red' }}")))
}

#[test]
fn an_instance_that_keeps_handles_is_not_used_again() {
    let host = raw();
    for _ in 0..3 {
        assert_eq!(host.get("/raw/keep").text(), "kept");
        assert_eq!(host.get("/raw/use-kept").text(), "nothing was kept");
    }
    assert_eq!(host.get("/raw/handle-bomb?10").status(), 200);
    assert_eq!(host.get("/raw/use-kept").text(), "nothing was kept");
    host.log_contains("not rewound but made anew");
}

#[test]
fn an_app_that_can_never_be_rewound_has_fresh_instances_before_long_and_it_is_said() {
    let host = raw();
    for _ in 0..20 {
        assert_eq!(host.get("/raw/keep").text(), "kept");
        assert_eq!(host.get("/raw/keep").text(), "kept");
    }
    host.log_contains("from now on each call gets a fresh one");
    assert_eq!(host.listed("raw").expect("it is live").text("instances"), "fresh (none could be rewound)");
    for _ in 0..3 {
        assert_eq!(host.get("/raw/use-kept").text(), "nothing was kept");
        assert_eq!(host.get("/raw/handle-numbers").text(), "1 2");
    }
}

#[test]
fn the_numbers_of_handles_tell_nothing_of_earlier_calls() {
    let host = raw();
    for _ in 0..3 {
        assert_eq!(host.get("/raw/handle-numbers").text(), "1 2");
    }
    assert_rewound(&host);
    for _ in 0..3 {
        assert_eq!(host.get("/raw/handle-order").text(), "1 2");
    }
    host.log_contains("not rewound but made anew");
}

#[test]
fn what_the_host_keeps_for_a_guest_is_new_for_each_call() {
    let host = raw();
    let seeds: std::collections::BTreeSet<_> = (0..20).map(|_| host.get("/raw/random").text()).collect();
    assert_eq!(seeds.len(), 20, "randomness does not repeat");
    for _ in 0..3 {
        assert_eq!(host.get("/raw/environment").text(), "[(\"COLOUR\", \"red\")]");
    }
    assert_rewound(&host);
    for _ in 0..3 {
        assert_eq!(host.get("/raw/print").text(), "printed");
    }
    host.log_contains("not rewound but made anew");
}

#[test]
fn what_misbehaved_is_not_used_again() {
    for fault in ["?trap", "?spin"] {
        let host = Host::start(|host| host.app("a", hunter(1)).sidecar("a", REWIND).limit("cpu_time=300ms"));
        assert_eq!(host.get("/a").text(), NOTHING);
        assert_rewound(&host);
        assert!(host.get(&format!("/a{fault}")).status() >= 500);
        eventually("the instance has gone", || (host.writable_mappings(IMAGE) == 0).then_some(()));
        assert_eq!(host.get("/a").text(), NOTHING);
    }
}

/// A guest whose code changes a table.
const TABLE: &str = r#"
    (table $table 1 funcref)
    (func $target)
    (elem declare func $target)
    (func (export "call") (param i32 i32 i32 i32 i32) (result i32)
      (i32.store16 (i32.const 1120) (i32.const 0x6b6f))
      (if (ref.is_null (table.get $table (i32.const 0))) (then (i32.store16 (i32.const 1120) (i32.const 0x4040))))
      (table.set $table (i32.const 0) (ref.func $target))
      (global.get $ok))
"#;

#[test]
fn an_app_that_cannot_be_rewound_is_served_by_fresh_instances_and_it_is_said_why() {
    let host = Host::start(|host| host.app("table", wat(TABLE)).sidecar("table", REWIND));
    for _ in 0..3 {
        assert_eq!(host.get("/table").text(), NOTHING);
    }
    host.log_contains("table.set");
    let listed = host.listed("table").expect("it is live");
    assert_eq!(listed.text("instances"), "fresh (cannot be rewound)");
    // What is known of it does not get lost.
    let host = host.restart();
    assert_eq!(host.get("/table").text(), NOTHING);
    host.log_contains("table.set");
}

#[test]
fn check_says_whether_an_app_can_be_rewound() {
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    let write = |file: &str, bytes: &[u8]| std::fs::write(folder.path().join(file), bytes).expect("it is ours");
    write("good.wasm", &guest("probe"));
    write("table.wasm", &wat(TABLE));
    let check = |arguments: &[&str]| {
        let ran = wasgi().current_dir(&folder).arg("check").args(arguments).output().expect("the binary can be run");
        String::from_utf8(ran.stdout).expect("it is text")
    };
    assert!(!check(&["good.wasm"]).contains("rewound"), "nobody has asked");
    assert!(check(&["-v", "good.wasm"]).contains("its instances can be rewound"));
    assert!(
        check(&["-v", "table.wasm"])
            .contains("cannot be rewound, each call would have a fresh one: it has the instruction table.set")
    );
    write("table.toml", REWIND.as_bytes());
    assert!(check(&["table.wasm"]).contains("cannot be rewound"), "its sidecar asks for it");
    assert!(check(&["--config"]).contains("# Memories of sandboxes: "));
}

#[test]
fn a_function_of_that_name_is_not_believed() {
    // The same again, with a function that pretends to put things back.
    let text = TABLE.to_owned() + "(func (export \"wasgi-rewind\"))";
    let component = component_text(&text).replace(
        "(alias core export $instance \"memory\"",
        "(func $pretended (canon lift (core func $instance \"wasgi-rewind\")))
         (export \"wasgi-rewind\" (func $pretended))
         (alias core export $instance \"memory\"",
    );
    let host = Host::start(|host| host.app("liar", parse(&component)).sidecar("liar", REWIND));
    for _ in 0..3 {
        assert_eq!(host.get("/liar").text(), NOTHING);
    }
    assert_eq!(host.listed("liar").expect("it is live").text("instances"), "fresh (cannot be rewound)");
}

#[test]
fn limits_hold_for_rewound_instances() {
    let limited = format!("{REWIND}\nlimits = {{ memory = '14MiB', cpu_time = '2s' }}");
    let host = Host::start(|host| {
        let host = host.app("probe", guest("probe")).sidecar("probe", &limited);
        host.app("a", hunter(200)).sidecar("a", &limited)
    });
    // It takes some more in each call: what was given back does not count any more.
    for _ in 0..50 {
        assert_eq!(host.get("/a").text(), NOTHING);
    }
    assert_rewound(&host);
    for _ in 0..3 {
        assert_eq!(host.get("/probe/fault?kind=memory").status(), 500);
    }
    assert_eq!(host.get("/probe/fault?kind=spin").status(), 504);
    host.failed("memory");
    host.failed("cpu");
}

#[test]
fn idle_instances_make_room_when_all_sandboxes_are_in_use() {
    let host = Host::start(|host| {
        let host = host.app("a", hunter(1)).sidecar("a", REWIND).app("b", hunter(1)).sidecar("b", REWIND);
        host.flag("--sandboxes", "1")
    });
    for _ in 0..3 {
        assert_eq!(host.get("/a").text(), NOTHING);
        assert_eq!(host.writable_mappings(IMAGE), 1);
        assert_eq!(host.get("/b").text(), NOTHING, "the idle instance has gone");
        assert_eq!(host.writable_mappings(IMAGE), 1);
    }
}

#[test]
fn idle_instances_make_room_for_fresh_ones_of_other_apps() {
    let host = Host::start(|host| {
        let host =
            host.app("a", hunter(1)).sidecar("a", REWIND).app("b", hunter(1)).sidecar("b", "instances = 'fresh'");
        host.flag("--sandboxes", "1")
    });
    for _ in 0..3 {
        assert_eq!(host.get("/a").text(), NOTHING);
        assert_eq!(host.get("/b").text(), NOTHING, "the idle instance of the other engine has gone");
    }
}

#[test]
fn programs_and_wasi_http_cannot_choose_it() {
    for app in ["cgi-rust", "http-p2"] {
        let host = Host::start(|host| host.app("app", guest(app)).sidecar("app", REWIND));
        host.listed_problem("app", "instances = \"rewind\" is for apps that speak WSGI");
        // As the operator's default it does not concern them.
        let host = Host::start(|host| host.app("app", guest(app)).flag("--instances", "rewind"));
        assert_eq!(host.listed("app").expect("it is live").text("instances"), "fresh");
    }
}
