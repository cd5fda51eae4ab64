//! Clients that come too often, say too much without end, or too slowly.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::reach::program;
use super::{Attack, Outcome, Unstopped, no_attack};
use crate::descriptors::Shares;
use crate::selftest::guests::Source;
use crate::selftest::launch::limits;
use crate::selftest::stand::{NEIGHBOUR, PATIENCE, Stand, attacker};
use crate::selftest::terms::{self, BRIEFLY, Clock, ONE_SECOND, PROTECTS_UP_TO, shorter};
use crate::selftest::wire;

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::hand("endless-head", "a head that never ends, as fast as it goes", endless_head),
        Attack::hand("slow-head", "a hundred heads that come a byte at a time", slow_head),
        Attack::hand("endless-body", "a chunked body that never ends", endless_body),
        Attack::hand("slow-bodies", "a hundred bodies that come a byte at a time", slow_bodies),
        Attack::hand("connections", "more connections of one address than it may have, which say nothing", connections),
        Attack::hand("pipelined", "two thousand requests at once on one connection", pipelined),
    ]
}

fn open(stand: &Stand) -> Result<TcpStream, String> {
    wire::open(stand.address).map_err(|error| format!("the host takes no connection: {error}"))
}

/// As many of a hundred as one client may have.
fn open_many(stand: &Stand) -> Result<Vec<TcpStream>, String> {
    (0..terms::connections_at_once(&stand.config, 100)).map(|_| open(stand)).collect()
}

/// Whether the host still listens: it has neither closed nor answered.
fn is_listened_to(stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let peeked = stream.peek(&mut [0]);
    let _ = stream.set_nonblocking(false);
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Sends a beginning and then the same piece without end: a refusal has to come, and the end of the connection. A server
/// may listen on for a while, so that its refusal arrives.
fn endless(stand: &Stand, begin: &[u8], piece: Vec<u8>, status: u16) -> Outcome {
    let mut stream = open(stand)?;
    let mut writer = stream.try_clone().map_err(no_attack)?;
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
    let patience = match stand.config.limits.request_body_bytes {
        operators if operators > BODY_PROTECTS_UP_TO => BRIEFLY,
        _ => PATIENCE,
    };
    let reply = wire::parse(&wire::read_until(&mut stream, started + patience), false);
    let ended = started.elapsed() < patience;
    // Wakes the sender where the host did not.
    let _ = stream.shutdown(Shutdown::Both);
    let sent = sender.join().map_err(|_| "the client failed")? >> 10;
    if reply.status == status && ended {
        return Ok(format!("{status}, and cut off within {sent} KiB"));
    }
    Err(format!("it got {}, and {sent} KiB were taken", reply.status).into())
}

fn endless_head(stand: &mut Stand) -> Outcome {
    let piece = b"X-Endless: and so on and so on and so on\r\n".repeat(256);
    endless(stand, format!("GET /{NEIGHBOUR} HTTP/1.1\r\nHost: a\r\n").as_bytes(), piece, 431)
}

fn slow_head(stand: &mut Stand) -> Outcome {
    let mut streams = open_many(stand)?;
    let count = streams.len();
    let begin = Instant::now();
    let patience = match stand.config.edge.header_time {
        operators if operators > PROTECTS_UP_TO => BRIEFLY,
        operators => operators + PATIENCE,
    };
    let head = format!("GET /{NEIGHBOUR} HTTP/1.1\r\nHost: selftest\r\nX: ");
    for byte in head.bytes().chain(std::iter::repeat(b'x')) {
        streams.retain_mut(|stream| stream.write_all(&[byte]).is_ok() && is_listened_to(stream));
        if streams.is_empty() {
            return Ok(format!("all {count} cut off after {:.1?}", begin.elapsed()));
        }
        if begin.elapsed() > patience {
            let what = format!("{} of them are still listened to after {:.0?}", streams.len(), begin.elapsed());
            return Err(what.into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    unreachable!("the bytes do not end")
}

/// A body of more is not at its end within any patience.
const BODY_PROTECTS_UP_TO: u64 = 4 << 30;

fn endless_body(stand: &mut Stand) -> Outcome {
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat();
    let head = format!("POST /{NEIGHBOUR} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    endless(stand, head.as_bytes(), chunk, 413)
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

/// They take all calls that their own app has, and nobody else's, and each has its time.
fn slow_bodies(stand: &mut Stand) -> Outcome {
    const BYTES: u64 = 100_000;
    if stand.config.limits.request_body_bytes < BYTES {
        return Err(Unstopped::NotTried("limits.request_body_size is too small for a body that lasts".into()));
    }
    let name = attacker("slow-bodies");
    let own = shorter(&stand.config, Clock::Wall);
    stand.serve(&name, &reading(), &limits(&own.lines))?;
    let mut streams = open_many(stand)?;
    let count = streams.len();
    let head = format!("POST /{name} HTTP/1.1\r\nHost: selftest\r\nContent-Length: {BYTES}\r\n\r\n");
    streams.retain_mut(|stream| stream.write_all(head.as_bytes()).is_ok());
    let begin = Instant::now();
    // Who waits for a call has time for that as well.
    let patience = own.patience + stand.config.limits.queue_time.min(ONE_SECOND * 30);
    let outcome = loop {
        streams.retain_mut(|stream| stream.write_all(b"x").is_ok() && is_listened_to(stream));
        let (reply, cause) = stand.ask(NEIGHBOUR)?;
        if reply.status != 200 {
            break Err(format!("others get {} {cause:?}", reply.status).into());
        }
        if streams.is_empty() {
            break Ok(format!("others are served, and all {count} cut off after {:.1?}", begin.elapsed()));
        }
        if begin.elapsed() > patience {
            break Err(format!("{} of them are still read after {:.1?}", streams.len(), begin.elapsed()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(streams);
    stand.remove(&name);
    outcome
}

/// Beyond this, a client may have more connections than any needs.
const CONNECTIONS_MAX: u32 = 5000;

/// Of an address that is not the neighbour's. What is beyond its part is closed at once, and others are served.
fn connections(stand: &mut Stand) -> Outcome {
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const MORE: usize = 100;
    let edge = &stand.config.edge;
    let part = edge.connections_per_address.min(Shares::of_host(edge.connections).clients / 2).max(1);
    if part > CONNECTIONS_MAX {
        return Err(format!("one address may have {part} connections").into());
    }
    if edge.header_time < ONE_SECOND {
        let why = "edge.header_time closes connections that say nothing before they are many";
        return Err(Unstopped::NotTried(why.into()));
    }
    // Ours count as well.
    if let Some(all) = getrlimit(Resource::Nofile).maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(all), maximum: Some(all) });
        if all < u64::from(part) + MORE as u64 + 100 {
            return Err(Unstopped::NotTried(format!("this command may have no more than {all} descriptors")));
        }
    }
    let one =
        |_| wire::open_from(ELSEWHERE, stand.address).map_err(|error| no_attack(format!("no connection: {error}")));
    let streams = (0..part as usize + MORE).map(one).collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    let mut closed = 0;
    while closed < MORE && begin.elapsed() < edge.header_time / 2 {
        std::thread::sleep(Duration::from_millis(20));
        closed = streams.iter().filter(|stream| !is_listened_to(stream)).count();
    }
    let reply = stand.talk(&wire::get(&format!("/{NEIGHBOUR}")))?;
    match (reply.status, closed) {
        (200, 0) => Err(format!("all {} of them are kept", streams.len()).into()),
        (200, _) => Ok(format!("of {} of them {closed} are closed, and others are served", streams.len())),
        (status, _) => Err(format!("others get {status}").into()),
    }
}

fn pipelined(stand: &mut Stand) -> Outcome {
    const COUNT: usize = 2000;
    let one = format!("GET /{NEIGHBOUR} HTTP/1.1\r\nHost: selftest\r\n\r\n");
    let mut stream = open(stand)?;
    let mut writer = stream.try_clone().map_err(no_attack)?;
    let sender = std::thread::spawn(move || writer.write_all(one.repeat(COUNT).as_bytes()));
    let bytes = wire::read_until(&mut stream, Instant::now() + Duration::from_secs(3));
    let _ = stream.shutdown(Shutdown::Both);
    let _ = sender.join();
    let answers = bytes.windows(15).filter(|window| window == b"HTTP/1.1 200 OK").count();
    match answers {
        0 => Err(no_attack("none is answered")),
        1..=COUNT => Ok(format!("{answers} answers, one after the other")),
        _ => Err(format!("{answers} answers to {COUNT} requests").into()),
    }
}
