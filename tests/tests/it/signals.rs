//! SIGTERM and SIGINT drain, SIGHUP reads the configuration again.

use std::net::TcpStream;
use std::time::Instant;

use rustix::process::Signal;
use tests::{End, Host, Request, eventually, guest};

fn probe() -> Host {
    Host::start(|host| host.app("probe", guest("probe")).stream_bodies())
}

#[test]
fn sigterm_and_sigint_let_running_calls_end_and_take_no_new_ones() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut host = probe();
        let mut idle = host.connect();
        assert_eq!(idle.get("/probe/hello").status(), 200);
        let mut running = host.connect();
        running.send(&Request::chunked("/probe/echo-blocks").to_bytes());
        running.chunk(b"one");
        assert_eq!(running.head("POST").status, 200);
        assert_eq!(running.piece().as_deref(), Ok(&b"one"[..]));
        host.signal(signal);
        eventually("nobody listens any more", || TcpStream::connect(host.address()).is_err().then_some(()));
        idle.expect_end();
        running.chunk(b"two");
        assert_eq!(running.piece().as_deref(), Ok(&b"two"[..]), "the call goes on");
        running.chunk(b"");
        assert_eq!(running.piece().as_deref(), Ok(&b""[..]));
        assert_eq!(host.wait().code(), Some(0));
    }
}

#[test]
fn the_drain_has_a_deadline() {
    let mut host = Host::start(|host| host.app("probe", guest("probe")).edge("drain_time=300ms"));
    let mut running = host.connect();
    running.send(&Request::get("/probe/then?kind=sleep&ms=600000").to_bytes());
    assert_eq!(running.head("GET").status, 200);
    let begin = Instant::now();
    host.signal(Signal::TERM);
    assert_eq!(host.wait().code(), Some(0));
    assert!(begin.elapsed().as_secs() < 15, "{:?}", begin.elapsed());
    host.log_contains("drain_time");
    assert_eq!(running.piece().as_deref(), Ok(&b"a block"[..]));
    assert_eq!(running.piece(), Err(End::Aborted));
}

#[test]
fn an_endless_loop_does_not_hold_up_the_end() {
    let mut host =
        Host::start(|host| host.app("probe", guest("probe")).edge("drain_time=300ms").limit("cpu_time=10m").workers(1));
    let mut running = host.connect();
    running.send(&Request::get("/probe/then?kind=spin").to_bytes());
    assert_eq!(running.head("GET").status, 200);
    host.signal(Signal::TERM);
    assert_eq!(host.wait().code(), Some(0));
}

#[test]
fn sighup_reads_the_configuration_again() {
    let host = probe();
    assert_eq!(host.ask(&Request::post("/probe/count", vec![1; 2000])).status(), 200);
    host.write_config("[limits]\nrequest_body_size = '1KiB'\n");
    host.signal(Signal::HUP);
    eventually("the new limit is in force", || {
        (host.ask(&Request::post("/probe/count", vec![1; 2000])).status() == 413).then_some(())
    });
}

#[test]
fn a_bad_configuration_is_refused_and_the_old_one_stays() {
    let host = Host::start(|host| host.app("probe", guest("probe")).config("[limits]\nrequest_body_size = '1KiB'\n"));
    for (bad, reason) in [
        ("[limits]\nrequest_body_size = '1 parsec'\n", "line 2"),
        ("[limits]\nno_such_limit = 1\n", "no_such_limit"),
        ("this is no TOML", "line 1"),
    ] {
        host.write_config(bad);
        host.signal(Signal::HUP);
        let said = host.log_contains(reason);
        assert_eq!(said.text("level"), "ERROR", "{}", said.message());
        assert_eq!(host.ask(&Request::post("/probe/count", vec![1; 2000])).status(), 413);
        assert_eq!(host.ask(&Request::post("/probe/count", vec![1; 1000])).status(), 200);
    }
}

#[test]
fn calls_that_run_keep_their_limits_through_a_reload() {
    let host = probe();
    let mut running = host.connect();
    running.send(&Request::chunked("/probe/echo-blocks").to_bytes());
    running.chunk(b"one");
    assert_eq!(running.head("POST").status, 200);
    host.write_config("[limits]\nrequest_body_size = '10B'\n");
    host.signal(Signal::HUP);
    eventually("the new limit is in force", || {
        (host.ask(&Request::post("/probe/count", vec![1; 2000])).status() == 413).then_some(())
    });
    running.chunk(&[b'x'; 1000]);
    running.chunk(b"");
    let mut received = 0;
    while let Ok(piece) = running.piece() {
        if piece.is_empty() {
            break;
        }
        received += piece.len();
    }
    assert_eq!(received, 1003);
}
