//! `wasi:http` guests, made with others' tools: what they are given, what reaches the client, and where they are stopped.

mod exchange;
mod faults;
mod foreign;
mod p3;

use tests::{Builder, Client, Host, Request, Response, guest};

/// Of WASI 0.2 and 0.3, with the same paths.
const GUESTS: [&str; 2] = ["http-p2", "http-p3"];

/// A host with one of them as `app`.
fn serving(name: &str, build: impl FnOnce(Builder) -> Builder) -> Host {
    Host::start(|host| build(host.app("app", guest(name))))
}

/// Tests each of them in a host of its own.
fn each(build: impl Fn(Builder) -> Builder, test: impl Fn(&Host)) {
    for name in GUESTS {
        println!("{name}:");
        test(&serving(name, &build));
    }
}

/// A request for which the client takes trailers.
fn with_trailers(request: Request) -> Request {
    request.header("TE", "trailers").header("Connection", "TE")
}

/// All that the connection still holds: a chunked body, with what follows it.
fn rest(client: &mut Client) -> String {
    String::from_utf8(client.rest()).expect("it is text")
}

#[track_caller]
fn check(response: &Response, status: u16, text: &str) {
    assert_eq!((response.status(), response.text().as_str()), (status, text));
}
