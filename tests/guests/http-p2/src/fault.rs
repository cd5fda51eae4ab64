//! Everything that a `wasi:http` guest can do wrong, by name.

use std::hint::black_box;
use std::time::Duration;

use wasi::http::outgoing_handler;
use wasi::http::types::{ErrorCode, Fields, OutgoingBody, OutgoingRequest, ResponseOutparam, Scheme};

use crate::{begin, respond, write};

pub(crate) fn run(kind: &str, number: u16, out: ResponseOutparam) {
    match kind {
        "none" => drop(out),
        "error-code" => ResponseOutparam::set(out, Err(code(number))),
        "panic" => panic!("secret panic"),
        "spin" => {
            eprintln!("spinning");
            spin();
        }
        "sleep" => {
            std::thread::sleep(Duration::from_millis(number.into()));
            respond(out, 200, &[], b"slept");
        }
        "memory" => {
            let mut kept = Vec::new();
            for _ in 0..=number {
                kept.push(black_box(vec![1_u8; 1 << 20]));
            }
            respond(out, 200, &[], format!("{} MiB", kept.len()).as_bytes());
        }
        "many-headers" => {
            let names: Vec<String> = (0..number).map(|index| format!("x-{index}")).collect();
            let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "value")).collect();
            respond(out, 200, &headers, b"");
        }
        "long-header" => respond(out, 200, &[("x-long", &"v".repeat(number.into()))], b""),
        "fields" => {
            let fields = Fields::new();
            for _ in 0..number {
                fields.append("x-more", &[b'v'; 1024]).expect("it is a header");
            }
            respond(out, 200, &[], b"held");
        }
        "handles" => {
            let kept: Vec<Fields> = (0..number).map(|_| Fields::new()).collect();
            respond(out, 200, &[], format!("{} handles", kept.len()).as_bytes());
        }
        "hop-by-hop" => {
            let refused = Fields::from_list(&[("connection".to_owned(), b"close".to_vec())]).is_err();
            respond(out, 200, &[], format!("refused: {refused}").as_bytes());
        }
        kind => after_the_head(kind, number, out),
    }
}

/// What goes wrong when the response has begun.
fn after_the_head(kind: &str, number: u16, out: ResponseOutparam) {
    let length: &[(&str, &str)] = match kind {
        "short" => &[("content-length", "10")],
        "long" => &[("content-length", "3")],
        _ => &[],
    };
    let body = begin(out, 200, length);
    let stream = body.write().expect("a body is written once");
    let _ = write(&stream, b"a block");
    match kind {
        "then-panic" => {
            wait();
            panic!("secret panic");
        }
        "then-spin" => {
            wait();
            spin();
        }
        "then-sleep" => std::thread::sleep(Duration::from_millis(number.into())),
        // Neither finished nor dropped, as far as the guest is concerned.
        "forgotten" => {
            std::mem::forget((stream, body));
            return;
        }
        "dropped" => return,
        _ => {}
    }
    drop(stream);
    let finished = OutgoingBody::finish(body, None);
    match kind {
        "background" => {
            wait();
            eprintln!("in the background");
        }
        "background-spin" => {
            wait();
            spin();
        }
        "finished-panic" => panic!("secret panic"),
        "short" | "long" => assert!(finished.is_err(), "the host should have noticed"),
        _ => {}
    }
}

/// Long enough to be found waiting.
fn wait() {
    std::thread::sleep(Duration::from_millis(50));
}

fn spin() {
    loop {
        black_box(());
    }
}

fn code(number: u16) -> ErrorCode {
    match number {
        504 => ErrorCode::ConnectionTimeout,
        502 => ErrorCode::ConnectionRefused,
        503 => ErrorCode::ConnectionLimitReached,
        413 => ErrorCode::HttpRequestBodySize(None),
        508 => ErrorCode::LoopDetected,
        599 => ErrorCode::InternalError(Some("secret\n2026-01-01T00:00:00Z  INFO wasgi: forged".to_owned())),
        _ => ErrorCode::InternalError(Some("secret reason".to_owned())),
    }
}

/// What a request to elsewhere comes to.
pub(crate) fn outgoing() -> String {
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).expect("it is a scheme");
    request.set_authority(Some("elsewhere.example")).expect("it is an authority");
    request.set_path_with_query(Some("/secret")).expect("it is a path");
    let response = match outgoing_handler::handle(request, None) {
        Ok(response) => response,
        Err(code) => return format!("{code:?}"),
    };
    response.subscribe().block();
    match response.get().expect("it is there").expect("it was not taken") {
        Ok(_) => "answered".to_owned(),
        Err(code) => format!("{code:?}"),
    }
}
