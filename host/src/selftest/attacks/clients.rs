//! Clients that say too much, too slowly, or two things at once.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::reach::program;
use super::{Attack, Outcome, PROTECTS_UP_TO};
use crate::selftest::guests::Source;
use crate::selftest::stand::{Judged, PATIENCE, Stand, text};
use crate::selftest::{NEIGHBOUR, wire};

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
            let request = b"POST /neighbour HTTP/1.1\r\nHost: selftest\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx";
            refused(stand, request, &[400])
        }),
        Attack::hand("path-of-dots", "a path that leaves its place, plain and encoded", paths),
        Attack::hand("nul-in-path", "a NUL in the path", |stand| {
            refused(stand, &wire::get("/neighbour/%00.txt"), &[400])
        }),
        Attack::hand("long-target", "an address of a megabyte", |stand| {
            refused(stand, &wire::get(&format!("/{}", "x".repeat(1 << 20))), &[414, 431])
        }),
        Attack::hand("many-fields", "10,000 header fields", |stand| {
            let fields = "X: y\r\n".repeat(10_000);
            refused(stand, format!("GET /neighbour HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes(), &[431])
        }),
        Attack::hand("endless-head", "a head that never ends, as fast as it goes", endless_head),
        Attack::hand("slow-head", "a hundred heads that come a byte at a time", slow_head),
        Attack::hand("announced-body", "a body that says it has a terabyte", |stand| {
            refused(stand, b"POST /neighbour HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000000000\r\n\r\n", &[413])
        }),
        Attack::hand("endless-body", "a chunked body that never ends", endless_body),
        Attack::hand("slow-bodies", "a hundred bodies that come a byte at a time", slow_bodies),
        Attack::hand("ignored-input", "requests in a body that the app does not read", ignored_input),
        Attack::hand("connections", "seven hundred connections of one address that say nothing", connections),
        Attack::hand("pipelined", "two thousand requests at once on one connection", pipelined),
        Attack::hand("not-http", "a megabyte of noise", |stand| {
            let noise: Vec<u8> =
                (0..1 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let reply = stand.talk(&noise)?;
            if reply.status == 200 { Err("it was answered".into()) } else { Ok(format!("{}", reply.status)) }
        }),
    ]
}

fn refused(stand: &Stand, request: &[u8], statuses: &[u16]) -> Outcome {
    let reply = stand.talk(request)?;
    if statuses.contains(&reply.status) {
        Ok(reply.status.to_string())
    } else {
        Err(format!("it got {} {:?}", reply.status, reply.text()))
    }
}

/// A request with another one in what may or may not be its body: only one answer may come, and a refusal.
fn smuggle(stand: &mut Stand, fields: &str) -> Outcome {
    let inner = "GET /smuggled HTTP/1.1\r\nHost: selftest\r\n\r\n";
    let request = format!("POST /neighbour HTTP/1.1\r\nHost: selftest\r\n{fields}\r\n0\r\n\r\n{inner}");
    let reply = stand.talk(request.as_bytes())?;
    if !reply.rest.is_empty() {
        return Err(format!("the smuggled request was answered: {:?}", String::from_utf8_lossy(&reply.rest)));
    }
    match reply.status {
        400 | 501 => Ok(format!("{}, and the connection ends", reply.status)),
        status => Err(format!("it got {status}")),
    }
}

fn paths(stand: &mut Stand) -> Outcome {
    for path in ["/x/../neighbour", "/x/%2e%2e/neighbour", "/x/%2E./neighbour", "/./neighbour", "/x/..%2fneighbour"] {
        let reply = stand.talk(&wire::get(path))?;
        if reply.status == 200 {
            return Err(format!("{path} was served"));
        }
    }
    Ok("none of them is served".into())
}

fn open(stand: &Stand) -> Result<TcpStream, String> {
    wire::open(stand.address).map_err(|error| format!("the host takes no connection: {error}"))
}

/// Sends a beginning and then the same piece without end: a refusal has to come, and the end of the connection. A server
/// may listen on for a while, so that its refusal arrives.
fn endless(stand: &Stand, begin: &[u8], piece: Vec<u8>, statuses: &[u16]) -> Outcome {
    let mut stream = open(stand)?;
    let mut writer = stream.try_clone().map_err(|error| error.to_string())?;
    let begin = begin.to_vec();
    let sender = std::thread::spawn(move || {
        let mut sent = 0;
        let _ = writer.write_all(&begin);
        while writer.write_all(&piece).is_ok() {
            sent += piece.len();
        }
        sent
    });
    let started = Instant::now();
    let reply = wire::parse(&wire::read_until(&mut stream, started + PATIENCE), false);
    let ended = started.elapsed() < PATIENCE;
    // Wakes the sender where the host did not.
    let _ = stream.shutdown(Shutdown::Both);
    let sent = sender.join().map_err(|_| "the client failed")? >> 10;
    if statuses.contains(&reply.status) && ended {
        return Ok(format!("{}, and cut off within {sent} KiB", reply.status));
    }
    Err(format!("it got {}, and {sent} KiB were taken", reply.status))
}

fn endless_head(stand: &mut Stand) -> Outcome {
    let piece = b"X-Endless: and so on and so on and so on\r\n".repeat(256);
    endless(stand, b"GET /neighbour HTTP/1.1\r\nHost: a\r\n", piece, &[431])
}

fn slow_head(stand: &mut Stand) -> Outcome {
    let mut streams = (0..100).map(|_| open(stand)).collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    let patience = stand.config.edge.header_time.min(PROTECTS_UP_TO) + PATIENCE;
    for byte in b"GET /neighbour HTTP/1.1\r\nHost: selftest\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
        streams.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
        if streams.is_empty() {
            return Ok(format!("all cut off after {:.1?}", begin.elapsed()));
        }
        if begin.elapsed() > patience {
            return Err(format!("{} of them are still listened to after {:.0?}", streams.len(), begin.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    unreachable!("the bytes do not end")
}

fn endless_body(stand: &mut Stand) -> Outcome {
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat();
    endless(stand, b"POST /neighbour HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, &[413])
}

/// Reads its input to the end.
fn reading() -> Source {
    let imports = r#"(import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))"#;
    let data = r#"(data (i32.const 1024) "\00\08\00\00\00\04\00\00")"#;
    let reach = "(loop
          (if (i32.eqz (call $read (i32.const 0) (i32.const 1024) (i32.const 1) (i32.const 4096)))
            (then (br_if 1 (i32.load (i32.const 4096))))))
        (i32.const 0)";
    Source::Cgi(program(imports, data, reach))
}

/// They take all calls that their own app has, and nobody else's.
fn slow_bodies(stand: &mut Stand) -> Outcome {
    let name = "selftest-slow/app";
    let wasm = reading().assemble().map_err(|error| format!("{error:#}"))?;
    if let Judged::Refused(reason) = stand.deploy(name, &wasm, "")? {
        return Err(format!("the attack did not take place: {reason}"));
    }
    let mut streams = (0..100).map(|_| open(stand)).collect::<Result<Vec<_>, _>>()?;
    let head = format!("POST /{name} HTTP/1.1\r\nHost: selftest\r\nContent-Length: 100000\r\n\r\n");
    streams.retain_mut(|stream| stream.write_all(head.as_bytes()).is_ok());
    let mut outcome = Ok(format!("beside {} of them others are served", streams.len()));
    for _ in 0..20 {
        streams.retain_mut(|stream| stream.write_all(b"x").is_ok());
        let (reply, cause) = stand.ask(NEIGHBOUR)?;
        if reply.status != 200 {
            outcome = Err(format!("others get {} {cause:?}", reply.status));
        }
    }
    drop(streams);
    stand.remove(name);
    outcome
}

/// The neighbour does not read what it is sent. Nothing of it may be taken for a request.
fn ignored_input(stand: &mut Stand) -> Outcome {
    let smuggled = "GET /selftest-smuggled HTTP/1.1\r\nHost: selftest\r\n\r\n".repeat(10_000);
    let head = format!("POST /{NEIGHBOUR} HTTP/1.1\r\nHost: selftest\r\nContent-Length: {}\r\n\r\n", smuggled.len());
    let reply = stand.talk(&[head.as_bytes(), smuggled.as_bytes(), &wire::get(&format!("/{NEIGHBOUR}"))].concat())?;
    let seen = stand.access.all(0, |line| text(line, "target").contains("smuggled")).len();
    match (reply.status, seen) {
        // A connection that ends before its answer is read is no request either.
        (200 | 0, 0) => Ok("none of it is taken for a request".into()),
        (status, 0) => Err(format!("it got {status}")),
        _ => Err(format!("{seen} requests of the body were answered")),
    }
}

/// Of an address that is not the neighbour's. What is closed at once counts for the attacker: others are to be served all the same.
fn connections(stand: &mut Stand) -> Outcome {
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    let one = || wire::open_from(ELSEWHERE, stand.address).map_err(|error| format!("no connection: {error}"));
    let streams = (0..700).map(|_| one()).collect::<Result<Vec<_>, _>>()?;
    let reply = stand.talk(&wire::get("/neighbour"))?;
    if reply.status == 200 {
        Ok(format!("beside {} of them others are served", streams.len()))
    } else {
        Err(format!("others get {}", reply.status))
    }
}

fn pipelined(stand: &mut Stand) -> Outcome {
    let one = b"GET /neighbour HTTP/1.1\r\nHost: selftest\r\n\r\n";
    let mut stream = open(stand)?;
    let mut writer = stream.try_clone().map_err(|error| error.to_string())?;
    let sender = std::thread::spawn(move || writer.write_all(&one.repeat(2000)));
    std::thread::sleep(Duration::from_millis(500));
    let bytes = wire::read_until(&mut stream, Instant::now() + Duration::from_secs(3));
    let _ = sender.join();
    let answers = bytes.windows(15).filter(|window| window == b"HTTP/1.1 200 OK").count();
    Ok(format!("{answers} answers, one after the other"))
}
