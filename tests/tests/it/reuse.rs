//! Instances: fresh ones have no past, reused ones have one until something goes wrong or their time is over.

use tests::{Host, Request, eventually, guest};

const REUSE: &str = "instances = 'reuse'";

fn reusing(sidecar: &str) -> Host {
    Host::start(|host| host.app("probe", guest("probe")).sidecar("probe", sidecar).stream_bodies())
}

#[test]
fn a_fresh_instance_knows_nothing_of_earlier_calls() {
    let host = Host::start(|host| host.app("probe", guest("probe")));
    let mut client = host.connect();
    for _ in 0..200 {
        assert_eq!(client.get("/probe/state?plant=60000").text(), "call 1");
        assert_eq!(client.get("/probe/hunt").text(), "0 dirty, call 1");
    }
}

#[test]
fn a_reused_instance_keeps_its_state() {
    let host = reusing(REUSE);
    for call in 1..=50 {
        assert_eq!(host.get("/probe/state").text(), format!("call {call}"));
    }
}

#[test]
fn an_instance_serves_one_call_at_a_time() {
    let host = reusing(REUSE);
    assert_eq!(host.get("/probe/state").text(), "call 1");
    let mut waiting = host.connect();
    waiting.send(&Request::chunked("/probe/echo-blocks").to_bytes());
    waiting.chunk(b"one");
    assert_eq!(waiting.head("POST").status, 200);
    assert_eq!(host.get("/probe/state").text(), "call 1", "the first instance is in use, this is another");
}

/// Issue 4: 32 connections made 32 instances of an interpreter, which took turns on one worker.
#[test]
fn a_burst_is_served_by_as_many_instances_as_there_are_workers() {
    let host = Host::start(|host| host.app("probe", guest("probe")).sidecar("probe", REUSE).workers(1));
    let mut clients: Vec<_> = (0..8).map(|_| host.connect()).collect();
    let request = Request::get("/probe/state?ms=20").to_bytes();
    clients.iter_mut().for_each(|client| client.send(&request));
    let mut calls: Vec<String> = clients.iter_mut().map(|client| client.response("GET").text()).collect();
    calls.sort_unstable();
    let expected: Vec<String> = (1..=8).map(|call| format!("call {call}")).collect();
    assert_eq!(calls, expected);
}

#[test]
fn an_instance_is_retired_after_its_requests() {
    let host = reusing("instances = 'reuse'\nreuse_requests = 3");
    let calls: Vec<String> = (0..7).map(|_| host.get("/probe/state").text()).collect();
    assert_eq!(calls, ["call 1", "call 2", "call 3", "call 1", "call 2", "call 3", "call 1"]);
}

#[test]
fn an_idle_instance_is_retired() {
    let host = reusing("instances = 'reuse'\nreuse_idle_time = '100ms'");
    assert_eq!(host.get("/probe/state").text(), "call 1");
    eventually("a new instance serves", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        (host.get("/probe/state").text() == "call 1").then_some(())
    });
}

/// After `disturb` the instance that has served one call is never used again.
#[track_caller]
fn never_again(build: &str, disturb: impl FnOnce(&Host)) {
    let host = Host::start(|host| {
        let host = host.app("probe", guest("probe")).sidecar("probe", &format!("{REUSE}\n{build}"));
        host.app("raw", guest("raw")).sidecar("raw", REUSE)
    });
    assert_eq!(host.get("/probe/state").text(), "call 1");
    disturb(&host);
    assert_eq!(host.get("/probe/state").text(), "call 1");
}

#[test]
fn an_instance_that_trapped_is_not_reused() {
    never_again("", |host| assert_eq!(host.get("/probe/fault?kind=panic").status(), 500));
    never_again("", |host| drop(host.get("/probe/then?kind=panic")));
}

#[test]
fn an_instance_that_ran_out_of_time_is_not_reused() {
    never_again("limits = { cpu_time = '100ms' }", |host| {
        assert_eq!(host.get("/probe/fault?kind=spin").status(), 504);
    });
    never_again("limits = { wall_time = '200ms' }", |host| {
        assert_eq!(host.get("/probe/fault?kind=sleep&ms=600000").status(), 504);
    });
}

#[test]
fn an_instance_whose_client_left_is_not_reused() {
    never_again("limits = { concurrent_calls = 1 }", |host| {
        let mut client = host.connect();
        client.send(&Request::get("/probe/stream?blocks=1000000&bytes=65536").to_bytes());
        assert_eq!(client.head("GET").status, 200);
    });
}

#[test]
fn an_instance_that_raised_is_reused() {
    let host = reusing(REUSE);
    assert_eq!(host.get("/probe/state").text(), "call 1");
    assert_eq!(host.get("/probe/fault?kind=raise").status(), 500);
    assert_eq!(host.get("/probe/state").text(), "call 2", "an exception is no fault of the sandbox");
}

#[test]
fn handles_of_an_earlier_call_reach_nothing() {
    let host = Host::start(|host| host.app("raw", guest("raw")).sidecar("raw", REUSE));
    assert_eq!(host.get("/raw/keep").text(), "kept");
    let response = host.ask(&Request::post("/raw/use-kept", "a body"));
    assert_eq!(response.status(), 200, "{}", response.text());
    assert_eq!(
        response.text(),
        "Some(ProtocolError::CallOver) Some(StreamError::CallOver) Some(StreamError::CallOver)"
    );
    assert!(host.log().all(|event| event.message().contains("through a kept handle")).is_empty());
}

#[test]
fn idle_instances_make_room_when_all_sandboxes_are_in_use() {
    let host = Host::start(|host| {
        host.app("probe", guest("probe"))
            .sidecar("probe", REUSE)
            .app("other", guest("probe"))
            .sidecar("other", REUSE)
            .flag("--sandboxes", "1")
    });
    for _ in 0..3 {
        assert_eq!(host.get("/probe/state").text(), "call 1");
        assert_eq!(host.get("/other/state").text(), "call 1", "the idle instance has gone");
    }
}
