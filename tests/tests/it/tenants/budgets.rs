//! Budgets: what a tenant uses of the host is bounded over all its apps together, and others do not notice.

use std::time::Duration;

use super::reload;
use tests::{Client, Event, Host, Request, eventually, guest};

/// A call that runs until its client ends it.
fn hold(host: &Host, app: &str) -> Client {
    let mut client = host.connect();
    client.send(&Request::chunked(&format!("/{app}/echo-blocks")).to_bytes());
    client.chunk(b"one");
    assert_eq!(client.head("POST").status, 200);
    assert_eq!(client.piece().as_deref(), Ok(&b"one"[..]));
    client
}

/// Lets it end.
fn release(mut client: Client) {
    client.chunk(b"");
    assert_eq!(client.piece().as_deref(), Ok(&b""[..]));
}

/// Sends a request whose answer is waited for later.
fn send(host: &Host, target: &str) -> Client {
    let mut client = host.connect();
    client.send(&Request::get(target).to_bytes());
    client
}

/// Two apps of a tenant with this budget, and one of another.
fn serving(budget: &str, flags: &[(&str, &str)]) -> Host {
    Host::start(|host| {
        let host = host.config(&format!("[tenant.acme.budget]\n{budget}\n[tenant.hive]\n")).stream_bodies();
        let host = host.app("acme/one", guest("probe")).app("acme/two", guest("probe")).app("hive/one", guest("probe"));
        flags.iter().fold(host, |host, (flag, value)| host.flag(flag, value))
    })
}

fn waiting(host: &Host, tenant: &str) -> f64 {
    host.metric(&format!("wasgi_tenant_waiting{{tenant=\"{tenant}\"}}")).unwrap_or_default()
}

#[test]
fn a_tenants_calls_are_bounded_over_all_its_apps() {
    let host = serving("concurrent_calls = 2\nqueued_calls = 1", &[("--limit", "queue_time=10m")]);
    let (one, two) = (hold(&host, "acme/one"), hold(&host, "acme/two"));
    assert_eq!(host.metric("wasgi_tenant_calls{tenant=\"acme\"}"), Some(2.0));
    let mut third = send(&host, "/acme/one/hello");
    eventually("the third waits", || (waiting(&host, "acme") == 1.0).then_some(()));
    let refused = host.get("/acme/two/hello");
    assert_eq!((refused.status(), refused.header("retry-after").as_deref()), (503, Some("1")));
    let failure = host.failure(&refused);
    assert_eq!(failure.text("cause"), "busy");
    assert!(failure.message().contains("budget.queued_calls"), "{}", failure.message());
    for _ in 0..20 {
        assert_eq!(host.get("/hive/one/hello").text(), "hello", "the neighbour does not notice");
    }
    release(one);
    assert_eq!(third.response("GET").text(), "hello");
    release(two);
}

#[test]
fn a_new_budget_counts_without_a_restart() {
    let host = serving("concurrent_calls = 1\nqueued_calls = 0", &[]);
    let one = hold(&host, "acme/one");
    assert_eq!(host.get("/acme/two/hello").status(), 503);
    reload(&host, "chunked_bodies = 'stream'\n[tenant.acme.budget]\nconcurrent_calls = 2\n");
    eventually("there is room for two", || (host.get("/acme/two/hello").status() == 200).then_some(()));
    release(one);
}

#[test]
fn calls_beyond_the_rate_are_a_429_that_says_when_to_come_back() {
    let host = serving("call_rate = 1", &[("--limit", "queue_time=1ms")]);
    let mut responses = (0..10).map(|_| host.get("/acme/one/hello"));
    let refused = responses.find(|response| response.status() != 200).expect("ten do not come in ten seconds");
    assert_eq!((refused.status(), refused.header("retry-after").as_deref()), (429, Some("1")));
    let failure = host.failure(&refused);
    assert_eq!(failure.text("cause"), "budget");
    assert!(failure.message().contains("budget.call_rate"), "{}", failure.message());
    for _ in 0..20 {
        assert_eq!(host.get("/hive/one/hello").text(), "hello");
    }
    eventually("it may again", || (host.get("/acme/two/hello").status() == 200).then_some(()));
}

#[test]
fn static_files_count_as_calls_do_and_are_sent_to_so_many_at_a_time() {
    let public = r#"{"version": 1, "static": {"/static/": "public"}}"#;
    let bundle = || {
        let files = tests::Bundle::default().manifest(public).file("public/a.css", "a {}");
        files.file("public/large", vec![b'x'; 9_000_000]).on(guest("probe"))
    };
    let budget = "[tenant.acme.budget]\ncall_rate = 20\nconcurrent_calls = 2\n[tenant.hive]\n";
    let host = Host::start(|host| {
        let host = host.config(budget).app("acme/one", bundle()).app("acme/two", bundle()).app("hive/one", bundle());
        host.limit("queue_time=10ms")
    });
    // Two of them, of whatever app; calls have places of their own.
    let large = |app: &str| {
        let mut client = send(&host, &format!("/acme/{app}/static/large"));
        let status = client.head("GET").status;
        (client, status)
    };
    let (one, two) = (large("one"), large("two"));
    assert_eq!((one.1, two.1, large("one").1), (200, 200, 503));
    assert!(host.failed("busy").message().contains("budget.concurrent_calls"));
    assert_eq!(host.get("/acme/one/hello").status(), 200);
    assert_eq!(host.get("/acme/one/static/a.css").status(), 200, "what is small waits for no download");
    assert_eq!(host.ask(&Request::new("HEAD", "/acme/one/static/large")).status(), 200, "nothing is sent of it");
    drop((one, two));
    eventually("there is room again", || (large("one").1 == 200).then_some(()));
    let ask = |method: &str| host.ask(&Request::new(method, "/acme/one/static/a.css")).status();
    for method in ["GET", "HEAD"] {
        assert!((0..200).any(|_| ask(method) == 429), "{method} does not count");
    }
    for _ in 0..50 {
        assert_eq!(host.get("/hive/one/static/a.css").status(), 200, "the neighbour does not notice");
    }
}

#[test]
fn processor_time_is_bounded_over_all_apps_and_what_runs_waits() {
    let budget = "cpu_time = '30ms'\ncpu_window = '1h'";
    let host = serving(budget, &[("--limit", "queue_time=1ms"), ("--limit", "cpu_time=10m"), ("--workers", "1")]);
    let mut endless = send(&host, "/acme/one/fault?kind=spin");
    eventually("it has used up its tenant's time", || (host.get("/acme/two/hello").status() == 429).then_some(()));
    let refused = host.get("/acme/two/hello");
    assert_eq!(host.failure(&refused).text("cause"), "budget");
    let seconds: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("it says when");
    assert!(seconds > 1, "an hour has three hundredths of a second: {seconds}");
    // The guest that computes without end computes no more.
    let cpu = || host.metric("wasgi_cpu_seconds_total{app=\"hive/one\"}");
    for _ in 0..50 {
        assert_eq!(host.get("/hive/one/hello").text(), "hello");
    }
    assert!(cpu().is_some());
    reload(&host, "[limits]\nqueue_time = '1ms'\n[tenant.acme]\n");
    eventually("a larger budget lets it go on", || (host.get("/acme/two/hello").status() == 200).then_some(()));
    endless.send(b"");
}

#[test]
fn memory_is_bounded_over_all_sandboxes() {
    let host = serving("memory = '24MiB'", &[("--limit", "queue_time=1ms")]);
    for app in ["one", "two"] {
        host.drop_in(&format!("acme/{app}.toml"), "instances = 'reuse'");
    }
    let has_memory = |app: &str| {
        eventually("it is reused", || {
            let listed = host.listed(&format!("acme/{app}"))?;
            listed.text("instances").starts_with("reuse").then_some(())
        });
    };
    has_memory("one");
    has_memory("two");
    assert_eq!(host.get("/acme/one/fault?kind=memory&bytes=16000000").text(), "survived");
    let held = host.metric("wasgi_tenant_memory_bytes{tenant=\"acme\"}").expect("it is there");
    assert!(held > 16e6, "{held}");
    let refused = host.get("/acme/two/fault?kind=memory&bytes=16000000");
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert!(host.failure(&refused).message().contains("budget.memory"));
    assert_eq!(host.get("/hive/one/fault?kind=memory&bytes=16000000").text(), "survived");
    host.remove("acme/one.wasm");
    eventually("what was held is given back", || {
        (host.get("/acme/two/fault?kind=memory&bytes=16000000").text() == "survived").then_some(())
    });
}

#[test]
fn a_log_flood_of_one_tenant_drops_no_line_of_another() {
    let host = serving("log_rate = '1KiB'", &[("--limit", "log_rate=1GiB")]);
    for app in ["acme/one", "acme/two"] {
        assert_eq!(host.get(&format!("/{app}/log?lines=2000&bytes=100")).status(), 200);
    }
    assert_eq!(host.get("/hive/one/log?lines=2000&bytes=100").status(), 200);
    let lines = |app: &str| host.log().all(|event| event.text("app") == app && event.message().ends_with("xxx")).len();
    eventually("all lines of the neighbour are there", || (lines("hive/one") == 2000).then_some(()));
    let flood = lines("acme/one") + lines("acme/two");
    assert!(flood < 1000, "{flood} lines of four thousand");
}

#[test]
fn what_the_host_says_of_a_tenants_requests_is_within_its_log_budget_and_what_is_left_out_is_counted() {
    let host = serving("log_rate = '4KiB'\ncall_rate = 1", &[("--limit", "queue_time=1ms")]);
    let long = "x".repeat(4000);
    let mut client = host.connect();
    let refused = (0..1000).filter(|_| client.get(&format!("/acme/one/{long}")).status() == 429).count();
    assert!(refused > 900, "{refused} of a thousand");
    let left_out = host.log_contains("lines about its requests were left out: more than budget.log_rate");
    assert_eq!(left_out.text("tenant"), "acme");
    let said = host.log().all(|event| event.text("cause") == "budget");
    assert!((1..200).contains(&said.len()), "{} lines of a thousand", said.len());
    assert!(said.iter().all(|event| event.text("path").len() < 300), "paths are cut");
    for _ in 0..50 {
        assert_eq!(host.get("/hive/one/fault?kind=raise").status(), 500);
    }
    let neighbours = || host.log().all(|event| event.text("app") == "hive/one" && event.text("cause") == "exception");
    eventually("the neighbour's are all there", || (neighbours().len() == 50).then_some(()));
}

#[test]
fn who_waits_alone_is_served_before_the_second_of_a_crowd() {
    let host = serving("", &[("--sandboxes", "4"), ("--limit", "queue_time=10m")]);
    // Instances that are made in advance would take the few places of the pool.
    for app in ["acme/one", "hive/one"] {
        host.drop_in(&format!("{app}.toml"), "instances = 'reuse'");
        let is_reused = || host.listed(app).filter(|listed| listed.text("instances").starts_with("reuse"));
        eventually("it is reused", || is_reused().map(drop));
    }
    // All places are taken by a third tenant.
    host.drop_in("bear/one.wasm", guest("probe"));
    host.until("/bear/one/hello", 200, "hello");
    let mut held: Vec<_> = (0..4).map(|_| hold(&host, "bear/one")).collect();
    let crowd: Vec<_> = (0..40).map(|_| send(&host, "/acme/one/hello")).collect();
    eventually("the crowd waits", || (waiting(&host, "acme") == 40.0).then_some(()));
    let alone = send(&host, "/hive/one/hello");
    eventually("it waits as well", || (waiting(&host, "hive") == 1.0).then_some(()));
    release(held.pop().expect("there are four"));
    for mut client in crowd.into_iter().chain([alone]) {
        assert_eq!(client.response("GET").text(), "hello");
    }
    // With one place calls run one after the other, and are in the log after the one that was held; in that order, but for those that two workers write at
    // the same moment.
    let fits = |event: &Event| event.text("target") != "/bear/one/hello" && !event.text("app").is_empty();
    let served = host.access().wait_for("all are answered", 42, fits);
    let turn = served.iter().position(|event| event.text("app") == "hive/one").expect("it was answered");
    assert!(turn <= 4, "after the call that was held, it was the {turn}th");
}

#[test]
fn an_app_that_only_fails_is_left_alone_and_asked_again_later() {
    let host = serving("faults = 3\nfault_pause = '1s'", &[]);
    for _ in 0..3 {
        assert_eq!(host.get("/acme/one/fault?kind=panic").status(), 500);
    }
    let refused = host.get("/acme/one/hello");
    assert_eq!((refused.status(), refused.header("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(host.failure(&refused).text("cause"), "throttled");
    host.log_contains("its last 3 calls or more have failed: it is left alone for 1s");
    let listed = host.listed("acme/one").expect("it is listed");
    assert_eq!(listed.text("state"), "live-throttled");
    assert_eq!(host.get("/acme/two/hello").text(), "hello", "other apps of the tenant are not");
    eventually("it is asked again", || (host.get("/acme/one/hello").status() == 200).then_some(()));
    assert_eq!(host.listed("acme/one").expect("it is listed").text("state"), "live");
    // One that answers in between may fail as often as it likes.
    for _ in 0..4 {
        assert_eq!(host.get("/acme/one/fault?kind=panic").status(), 500);
        assert_eq!(host.get("/acme/one/hello").status(), 200);
    }
    // Another file is given another chance.
    for _ in 0..3 {
        assert_eq!(host.get("/acme/one/fault?kind=panic").status(), 500);
    }
    host.drop_in("acme/one.wasm", guest("site"));
    eventually("the new release is asked", || (host.get("/acme/one").status() == 200).then_some(()));
}

#[test]
fn only_what_its_program_answers_ends_an_apps_pause() {
    let public = r#"{"version": 1, "static": {"/static/": "public"}}"#;
    let bundle = tests::Bundle::default().manifest(public).file("public/a.css", "a {}");
    let host = Host::start(|host| {
        let host = host.config("[tenant.acme.budget]\nfaults = 3\nfault_pause = '1m'\n");
        host.app("acme/one", bundle.on(guest("probe")))
    });
    let crash = || host.get("/acme/one/fault?kind=panic").status();
    let file = || {
        assert_eq!(host.get("/acme/one/static/a.css").status(), 200);
        assert_eq!(host.ask(&Request::post("/acme/one/static/a.css", "x")).status(), 405);
    };
    for _ in 0..3 {
        file();
        assert_eq!(crash(), 500);
    }
    assert_eq!(crash(), 503);
    file();
    assert_eq!(crash(), 503, "the host has answered, and not the app");
}

#[test]
fn all_of_a_neighbours_requests_are_answered_while_a_tenant_floods() {
    let budget = "concurrent_calls = 20\nqueued_calls = 20\nmemory = '64MiB'\ncpu_time = '500ms'\ncpu_window = '2s'\nlog_rate = '1KiB'";
    let host = serving(budget, &[("--sandboxes", "24"), ("--workers", "1"), ("--limit", "cpu_time=10m")]);
    let attacks = [
        "/acme/one/fault?kind=spin",
        "/acme/two/fault?kind=memory",
        "/acme/one/log?lines=100000&bytes=100",
        "/acme/two/fault?kind=sleep&ms=600000",
    ];
    let mut flood: Vec<_> = (0..60).map(|number| send(&host, attacks[number % attacks.len()])).collect();
    flood.extend((0..20).map(|_| {
        let mut slow = host.connect();
        slow.send(&Request::new("POST", "/acme/one/echo").header("Content-Length", "1000").to_bytes());
        slow.send(b"a");
        slow
    }));
    eventually("the flood has its tenant busy", || (waiting(&host, "acme") > 0.0).then_some(()));
    let mut neighbour = host.connect();
    for count in 0..200 {
        let response = neighbour.get("/hive/one/hello");
        assert_eq!((response.status(), response.text().as_str()), (200, "hello"), "request {count}");
    }
    drop(flood);
    let left = || host.metric("wasgi_tenant_calls{tenant=\"acme\"}");
    eventually("clients that are gone leave nothing behind", || (left() == Some(0.0)).then_some(()));
    eventually("nor does the memory", || {
        std::thread::sleep(Duration::from_millis(100));
        let held = host.metric("wasgi_tenant_memory_bytes{tenant=\"acme\"}").unwrap_or_default();
        (held < 8e6).then_some(())
    });
}

#[test]
fn of_the_hosts_memory_one_tenant_leaves_something_to_others() {
    let host = serving("", &[("--limit", "queue_time=1ms"), ("--sandbox-memory", "40MiB")]);
    for app in ["one", "two"] {
        host.drop_in(&format!("acme/{app}.toml"), "instances = 'reuse'");
        eventually("it is reused", || {
            let listed = host.listed(&format!("acme/{app}"))?;
            listed.text("instances").starts_with("reuse").then_some(())
        });
    }
    assert_eq!(host.get("/acme/one/fault?kind=memory&bytes=16000000").text(), "survived");
    // No budget bounds it but the host's memory, of which it has two fifths.
    let refused = host.get("/acme/two/fault?kind=memory&bytes=16000000");
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert!(host.failure(&refused).message().contains("sandbox_memory"), "{}", host.failure(&refused).message());
    assert_eq!(host.get("/hive/one/fault?kind=memory&bytes=16000000").text(), "survived", "another has as much");
    host.remove("acme/one.wasm");
    eventually("what was held is given back", || {
        (host.get("/acme/two/fault?kind=memory&bytes=16000000").text() == "survived").then_some(())
    });
}
