//! Requests that say two things at once, or too much.

use std::time::Instant;

use super::{Attack, Outcome, Unstopped, no_attack};
use crate::selftest::stand::{NEIGHBOUR, PATIENCE, Stand, text};
use crate::selftest::wire;

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::hand("two-lengths-of-a-request", "two lengths in one request, to smuggle another in", |stand| {
            smuggle(stand, "Content-Length: 0\r\nContent-Length: 44\r\n")
        }),
        Attack::hand("length-and-chunks", "a length and chunks in one request, to smuggle another in", |stand| {
            smuggle(stand, "Content-Length: 44\r\nTransfer-Encoding: chunked\r\n")
        }),
        Attack::hand("disguised-chunks", "a transfer coding that only some servers see", |stand| {
            smuggle(stand, "Transfer-Encoding: xchunked\r\n")
        }),
        Attack::hand("space-before-colon", "a field name that ends in a space", |stand| {
            smuggle(stand, "Content-Length : 44\r\n")
        }),
        Attack::hand("folded-field", "a field that goes on in the next line", |stand| {
            smuggle(stand, "X: a\r\n Content-Length: 44\r\n")
        }),
        Attack::hand("overflowing-chunk", "a chunk of 2^64 bytes and one", |stand| {
            let request = format!(
                "POST /{NEIGHBOUR} HTTP/1.1\r\nHost: selftest\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx"
            );
            refused(stand, request.as_bytes(), &[400])
        }),
        Attack::hand("path-of-dots", "a path that leaves its place, plain and encoded", paths),
        Attack::hand("nul-in-path", "a NUL in the path", |stand| {
            refused(stand, &wire::get(&format!("/{NEIGHBOUR}/%00.txt")), &[400])
        }),
        Attack::hand("long-target", "an address of 900,000 bytes", |stand| {
            refused(stand, &wire::get(&format!("/{}", "x".repeat(900_000))), &[414, 431])
        }),
        Attack::hand("many-fields", "10,000 header fields", |stand| {
            let fields = "X: y\r\n".repeat(10_000);
            refused(stand, format!("GET /{NEIGHBOUR} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes(), &[431])
        }),
        Attack::hand("announced-body", "a body that says it has a terabyte", |stand| {
            let request = format!("POST /{NEIGHBOUR} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n");
            refused(stand, request.as_bytes(), &[413])
        }),
        Attack::hand("ignored-input", "requests in a body that the app does not read", ignored_input),
        Attack::hand("not-http", "a megabyte of noise", noise),
    ]
}

fn refused(stand: &Stand, request: &[u8], statuses: &[u16]) -> Outcome {
    let reply = stand.talk(request)?;
    if statuses.contains(&reply.status) {
        Ok(reply.status.to_string())
    } else {
        Err(format!("it got {} {:?}", reply.status, reply.text()).into())
    }
}

/// A request with another one in what may or may not be its body: only one answer may come, and a refusal.
fn smuggle(stand: &mut Stand, fields: &str) -> Outcome {
    let inner = "GET /smuggled HTTP/1.1\r\nHost: selftest\r\n\r\n";
    let request = format!("POST /{NEIGHBOUR} HTTP/1.1\r\nHost: selftest\r\n{fields}\r\n0\r\n\r\n{inner}");
    let reply = stand.talk(request.as_bytes())?;
    if !reply.rest.is_empty() {
        return Err(format!("the smuggled request was answered: {:?}", String::from_utf8_lossy(&reply.rest)).into());
    }
    match reply.status {
        400 | 501 => Ok(format!("{}, and the connection ends", reply.status)),
        status => Err(format!("it got {status}").into()),
    }
}

fn paths(stand: &mut Stand) -> Outcome {
    for dots in ["/x/../", "/x/%2e%2e/", "/x/%2E./", "/./", "/x/..%2f"] {
        let path = format!("{dots}{NEIGHBOUR}");
        let reply = stand.talk(&wire::get(&path))?;
        if !matches!(reply.status, 400 | 404) {
            return Err(format!("{path} got {}", reply.status).into());
        }
    }
    Ok("none of them is served".into())
}

/// The neighbour does not read what it is sent. Nothing of it may be taken for a request.
fn ignored_input(stand: &mut Stand) -> Outcome {
    const SMUGGLED: &str = "GET /selftest-smuggled HTTP/1.1\r\nHost: selftest\r\n\r\n";
    let room = stand.config.limits.request_body_bytes / SMUGGLED.len() as u64;
    if room == 0 {
        return Err(Unstopped::NotTried("limits.request_body_size is too small for a request in a body".into()));
    }
    let body = SMUGGLED.repeat(usize::try_from(room.min(10_000)).unwrap_or(1));
    let head = format!("POST /{NEIGHBOUR} HTTP/1.1\r\nHost: selftest\r\nContent-Length: {}\r\n\r\n", body.len());
    let request = [head.as_bytes(), body.as_bytes(), &wire::get(&format!("/{NEIGHBOUR}"))].concat();
    // A connection that ends before its answer is read says nothing of it.
    let mut status = 0;
    for _ in 0..10 {
        status = stand.talk(&request)?.status;
        if status != 0 {
            break;
        }
    }
    let seen = stand.access.all(0, |line| text(line, "target").contains("smuggled")).len();
    match (status, seen) {
        (200, 0) => Ok("none of it is taken for a request".into()),
        (status, 0) => Err(no_attack(format!("it got {status}"))),
        _ => Err(format!("{seen} requests of the body were answered").into()),
    }
}

fn noise(stand: &mut Stand) -> Outcome {
    let noise: Vec<u8> = (0..1 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let began = Instant::now();
    let reply = stand.talk(&noise)?;
    match reply.status {
        0 if began.elapsed() < PATIENCE => Ok("the connection ends".into()),
        400 | 431 => Ok(reply.status.to_string()),
        status => Err(format!("it got {status} after {:.1?}", began.elapsed()).into()),
    }
}
