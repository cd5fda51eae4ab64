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

/// Calls that wait are in one instance with the next: it counts them.
#[track_caller]
fn is_call(host: &Host, number: usize) {
    check(&host.get("/app/calls"), 200, &format!("call {number}"));
}

#[test]
fn calls_of_one_instance_are_under_way_together() {
    let host = sharing(|host| host);
    let mut clients: Vec<Client> = (0..5).map(|_| waiting(&host)).collect();
    is_call(&host, 6);
    clients.iter_mut().rev().for_each(goes_on);
    is_call(&host, 7);
    let host = serving("http-p3", |host| host);
    let _client = waiting(&host);
    is_call(&host, 1);
}

#[test]
fn an_instance_takes_so_many_calls_at_once_and_then_another_serves() {
    let host = sharing(|host| host);
    let mut clients: Vec<Client> = (0..16).map(|_| waiting(&host)).collect();
    is_call(&host, 1);
    clients.iter_mut().for_each(goes_on);
}

#[test]
fn an_instance_is_retired_after_its_requests_and_its_calls_end_in_it() {
    let host = serving("http-p3", |host| host.sidecar("app", "instances = 'reuse'\nreuse_requests = 3"));
    let mut first = waiting(&host);
    is_call(&host, 2);
    is_call(&host, 3);
    is_call(&host, 1);
    goes_on(&mut first);
    is_call(&host, 2);
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
    let host = sharing(|host| host);
    let (mut first, mut second) = (waiting(&host), waiting(&host));
    assert_eq!(host.get("/app/panic").status(), 500);
    for client in [&mut first, &mut second] {
        assert_eq!(client.piece(), Err(End::Aborted));
    }
    host.log().wait_for("why", 2, |event| event.text("cause") == "shared");
    is_call(&host, 1);
}

#[test]
fn who_computes_for_too_long_pays_and_who_waits_does_not() {
    let host = sharing(|host| host.limit("cpu_time=300ms"));
    let mut first = waiting(&host);
    for _ in 0..3 {
        let response = host.get("/app/spin");
        assert_eq!(response.status(), 504);
        assert_eq!(host.failure(&response).text("cause"), "cpu");
    }
    // The first of them has ended the instance, and the call that waited in it.
    assert_eq!(first.piece(), Err(End::Aborted));
    let told = host.log().wait("why", |event| event.text("cause") == "shared");
    assert!(told.message().contains("cpu_time"), "{}", told.message());
    is_call(&host, 1);
}

#[test]
fn many_short_calls_beside_one_that_waits_are_not_charged_to_it() {
    let host = sharing(|host| host.limit("cpu_time=200ms"));
    let mut first = waiting(&host);
    let mut client = host.connect();
    for _ in 0..2000 {
        assert_eq!(client.get("/app/hello").status(), 200);
    }
    goes_on(&mut first);
}

#[test]
fn a_client_that_leaves_takes_nobody_along() {
    let host = sharing(|host| host.limit("concurrent_calls=2").limit("queued_calls=0"));
    let (mut first, second) = (waiting(&host), waiting(&host));
    assert_eq!(host.get("/app/hello").status(), 503);
    drop(second);
    eventually("its place is free", || (host.get("/app/calls").text() == "call 1").then_some(()));
    goes_on(&mut first);
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
fn an_idle_instance_gives_way_when_all_sandboxes_are_in_use() {
    let host = sharing(|host| {
        let host = host.app("other", guest("http-p3")).sidecar("other", "instances = 'reuse'");
        host.flag("--sandboxes", "1")
    });
    for _ in 0..3 {
        is_call(&host, 1);
        check(&host.get("/other/calls"), 200, "call 1");
    }
    let _client = waiting(&host);
    assert_eq!(host.get("/other/calls").status(), 503);
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
    let _client = waiting(&host);
    check(&host.get("/app/log"), 200, "logged");
    let lines = host.log().wait_for("both", 2, |event| event.message() == "to standard error");
    assert_eq!(lines[1].text("request"), "");
}
