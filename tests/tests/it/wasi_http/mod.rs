//! `wasi:http` guests, made with others' tools: what they are given, what reaches the client, and where they are stopped.

mod faults;
mod p2;

use tests::{Builder, Client, Host, Request, Response, guest};

fn serving(build: impl FnOnce(Builder) -> Builder) -> Host {
    Host::start(|host| build(host.app("app", guest("http-p2"))))
}

/// A request for which the client takes trailers.
fn with_trailers(request: Request) -> Request {
    request.header("TE", "trailers").header("Connection", "TE")
}

/// The trailer fields after a chunked body: what the connection still holds when the response is whole.
fn trailers(client: &mut Client) -> String {
    String::from_utf8(client.rest()).expect("they are text")
}

#[track_caller]
fn check(response: &Response, status: u16, text: &str) {
    assert_eq!((response.status(), response.text().as_str()), (status, text));
}
