//! WASI 0.3 with reuse: calls that are under way together in one instance.

use std::time::Duration;

use tests::{Builder, Client, End, Host, Request, eventually, guest};

use super::{check, serving};

fn sharing(build: impl FnOnce(Builder) -> Builder) -> Host {
    serving("http-p3", |host| build(host.sidecar("app", "instances = 'reuse'")))
}

/// A call that is under way: it echoes what it is sent.
#[track_caller]
fn waiting(host: &Host) -> Client {
    let mut client = host.connect();
    client.send(&Request::chunked("/app/echo").to_bytes());
    assert_eq!(client.head("POST").status, 200);
    client
}

/// It goes on, to its end.
#[track_caller]
fn goes_on(client: &mut Client) {
    client.chunk(b"more");
    assert_eq!(client.piece().as_deref(), Ok(&b"more"[..]));
    client.chunk(b"");
    assert_eq!(client.piece().as_deref(), Ok(&b""[..]));
}

/// Which call of its instance the next one is.
#[track_caller]
fn number(host: &Host) -> usize {
    let text = host.get("/app/calls").text();
    text.strip_prefix("call ").and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// What is answered. An instance is idle a moment after the answer of its last call has arrived: until then it has its place.
#[track_caller]
fn when_there_is_room(host: &Host, target: &str) -> String {
    let ask = || Some(host.get(target)).filter(|response| response.status() != 503);
    let response = eventually("there is room", ask);
    response.text()
}

#[track_caller]
fn is_call(host: &Host, expected: usize) {
    assert_eq!(number(host), expected);
}

/// A host with so many calls under way in one instance. An instance that is just computing takes no call, so that it may need
/// another try.
fn together(count: usize, build: impl Fn(Builder) -> Builder) -> (Host, Vec<Client>) {
    for _ in 0..20 {
        let host = sharing(&build);
        let clients = (0..count).map(|_| waiting(&host)).collect();
        if number(&host) == count + 1 {
            return (host, clients);
        }
    }
    panic!("calls never share an instance");
}

#[test]
fn calls_of_one_instance_are_under_way_together() {
    let (_host, mut clients) = together(5, |host| host);
    clients.iter_mut().rev().for_each(goes_on);
    let host = serving("http-p3", |host| host);
    let _client = waiting(&host);
    is_call(&host, 1);
}

#[test]
fn an_instance_takes_so_many_calls_at_once_and_then_another_serves() {
    let host = sharing(|host| host);
    let mut clients: Vec<Client> = (0..20).map(|_| waiting(&host)).collect();
    assert!(number(&host) <= 16, "those that wait are its first fifteen at most");
    clients.iter_mut().for_each(goes_on);
}

#[test]
fn an_instance_is_retired_after_its_requests_and_its_calls_end_in_it() {
    let host = serving("http-p3", |host| host.sidecar("app", "instances = 'reuse'\nreuse_requests = 3"));
    let mut first = waiting(&host);
    let numbers: Vec<_> = (0..10).map(|_| number(&host)).collect();
    assert!(numbers.iter().all(|number| *number <= 3) && numbers.contains(&1), "{numbers:?}");
    goes_on(&mut first);
}

#[test]
fn an_idle_instance_is_retired() {
    let host = serving("http-p3", |host| host.sidecar("app", "instances = 'reuse'\nreuse_idle_time = '100ms'"));
    is_call(&host, 1);
    eventually("a new instance serves", || {
        std::thread::sleep(Duration::from_millis(300));
        (host.get("/app/calls").text() == "call 1").then_some(())
    });
}

#[test]
fn a_trap_ends_the_calls_that_shared_the_instance() {
    let (host, mut clients) = together(2, |host| host);
    assert_eq!(host.get("/app/panic").status(), 500);
    for client in &mut clients {
        assert_eq!(client.piece(), Err(End::Aborted), "an end would look like a whole body");
    }
    host.log().wait_for("why", 2, |event| event.text("cause") == "shared");
    is_call(&host, 1);
}

#[test]
fn who_computes_for_too_long_pays_and_who_waits_does_not() {
    let (host, mut clients) = together(1, |host| host.limit("cpu_time=300ms"));
    for _ in 0..3 {
        let response = host.get("/app/spin");
        let failure = host.failure(&response);
        assert_eq!((response.status(), failure.text("cause").as_str()), (504, "cpu"), "{}", failure.message());
    }
    // The first of them has ended the instance, and the call that waited in it.
    assert_eq!(clients[0].piece(), Err(End::Aborted));
    let told = host.log().wait("why", |event| event.text("cause") == "shared");
    assert!(told.message().contains("cpu_time"), "{}", told.message());
    is_call(&host, 1);
}

#[test]
fn many_short_calls_beside_one_that_waits_are_not_charged_to_it() {
    let (host, mut clients) = together(1, |host| host.limit("cpu_time=200ms"));
    let mut client = host.connect();
    for _ in 0..900 {
        assert_eq!(client.get("/app/memory?1").status(), 200);
    }
    goes_on(&mut clients[0]);
}

#[test]
fn a_client_that_leaves_takes_nobody_along() {
    let (host, mut clients) = together(1, |host| host.limit("concurrent_calls=2").limit("queued_calls=0"));
    let second = waiting(&host);
    assert_eq!(host.get("/app/hello").status(), 503);
    drop(second);
    eventually("its place is free", || (host.get("/app/calls").status() == 200).then_some(()));
    goes_on(&mut clients[0]);
}

#[test]
fn an_abandoned_loop_is_not_gone_on_with() {
    let host = sharing(|host| host.limit("cpu_time=60s").workers(1));
    let mut client = host.connect();
    client.send(&Request::get("/app/spin").to_bytes());
    host.log_contains("spinning");
    drop(client);
    is_call(&host, 1);
}

#[test]
fn instances_that_go_on_after_their_calls_do_not_pile_up() {
    let host = sharing(|host| {
        let host = host.app("other", guest("http-p3")).limit("concurrent_calls=1").limit("cpu_time=20s");
        host.flag("--sandboxes", "4")
    });
    for _ in 0..8 {
        check(&host.get("/app/background-spin"), 200, "a block");
    }
    check(&host.get("/other/hello"), 200, "hello from wasi:http");
}

#[test]
fn an_idle_instance_gives_way_when_all_sandboxes_are_in_use() {
    let host = sharing(|host| {
        let host = host.app("other", guest("http-p3")).sidecar("other", "instances = 'reuse'");
        host.flag("--sandboxes", "1")
    });
    for _ in 0..3 {
        assert_eq!(when_there_is_room(&host, "/app/calls"), "call 1");
        assert_eq!(when_there_is_room(&host, "/other/calls"), "call 1");
    }
    assert_eq!(when_there_is_room(&host, "/app/calls"), "call 1");
    let _client = waiting(&host);
    assert_eq!(host.get("/other/calls").status(), 503);
}

#[test]
fn room_is_made_among_instances_of_the_same_wasi() {
    let host = sharing(|host| {
        let of_0_2 = |host: Builder, name| host.app(name, guest("http-p2")).sidecar(name, "instances = 'reuse'");
        of_0_2(of_0_2(host, "one"), "other").flag("--sandboxes", "1")
    });
    for calls in 1..=3 {
        is_call(&host, calls);
        for name in ["one", "other"] {
            assert_eq!(when_there_is_room(&host, &format!("/{name}/calls")), "call 1");
        }
    }
}

#[test]
fn a_replaced_release_ends_with_its_last_call() {
    let host = sharing(|host| host);
    let mut first = waiting(&host);
    host.drop_in("app.wasm", guest("hello"));
    host.until("/app", 200, "This is a sample WSGI Application");
    goes_on(&mut first);
}

#[test]
fn lines_of_calls_that_share_an_instance_are_nobodys_in_particular() {
    let host = sharing(|host| host);
    check(&host.get("/app/log"), 200, "logged");
    assert_eq!(host.log_contains("to standard error").text("request").len(), 16);
    let (host, _clients) = together(1, |host| host);
    for _ in 0..2 {
        check(&host.get("/app/log"), 200, "logged");
    }
    let lines = host.log().wait_for("both", 2, |event| event.message() == "to standard error");
    assert!(lines.iter().any(|line| line.text("request").is_empty()), "{lines:?}");
}

#[test]
fn lines_of_what_a_call_has_left_behind_do_not_bear_the_next_ones_id() {
    let host = sharing(|host| host);
    for round in 1..=20 {
        let before = host.log().all(|event| event.message() == "in the background").len();
        check(&host.get("/app/background"), 200, "a block");
        check(&host.get("/app/log"), 200, "logged");
        let asked = host.access().wait_for("its line", round, |event| event.text("target") == "/app/log");
        let next = asked.last().expect("it is there").text("request");
        let late = host.log().wait_for("it goes on", before + 1, |event| event.message() == "in the background");
        let late = late.last().expect("it is there").text("request");
        assert_ne!(late, next);
        let lines = host.log().all(|event| event.message() == "to standard error");
        if lines.last().expect("it is there").text("request").is_empty() {
            assert!(late.is_empty(), "two calls were in the instance by then");
            return;
        }
    }
    panic!("calls never share an instance");
}
