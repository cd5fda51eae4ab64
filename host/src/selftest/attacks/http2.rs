//! Clients that flood the host with frames of HTTP/2, without TLS by prior knowledge. Frames are written by hand: no client would send
//! these (RFC 9113, and RFC 7541 for heads).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::{Attack, Outcome, no_attack};
use crate::selftest::stand::{NEIGHBOUR, PATIENCE, Stand};
use crate::selftest::wire;

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::hand("rapid-reset", "requests of HTTP/2 that are given up at once, thousands of them", rapid_reset),
        Attack::hand(
            "endless-continuation",
            "a head of HTTP/2 that goes on in frame after frame",
            endless_continuation,
        ),
        Attack::hand(
            "settings-flood",
            "settings of HTTP/2 to be acknowledged, by somebody who does not listen",
            |stand| unheard(stand, &frame(SETTINGS, 0, 0, &[])),
        ),
        Attack::hand("ping-flood", "pings of HTTP/2 to be answered, by somebody who does not listen", |stand| {
            unheard(stand, &frame(PING, 0, 0, &[7; 8]))
        }),
    ]
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The fields of a GET of the neighbour: `:method` and `:scheme` by their numbers, `:path` and `:authority` as they are.
fn head() -> Vec<u8> {
    let path = format!("/{NEIGHBOUR}");
    let mut fields = vec![0x82, 0x86];
    for (number, value) in [(4, path.as_str()), (1, "selftest")] {
        fields.extend([number, u8::try_from(value.len()).expect("it is short")]);
        fields.extend(value.as_bytes());
    }
    fields
}

/// A connection that has said that it speaks HTTP/2, and was heard.
fn open(stand: &Stand) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("the attack did not take place: {error}");
    let mut stream = wire::open(stand.address).map_err(failed)?;
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).map_err(failed)?;
    let mut begin = [0; 9];
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.read_exact(&mut begin).map_err(failed)?;
    match begin[3] {
        SETTINGS => Ok(stream),
        kind => Err(format!("the attack did not take place: the host begins with a frame of kind {kind}")),
    }
}

/// Sends pieces until the host has had enough; how many it took, and what it said at the end, if it ended the connection.
fn flood(
    stand: &Stand,
    count: u32,
    piece: impl Fn(u32) -> Vec<u8> + Send + 'static,
) -> Result<(u32, Option<Vec<u8>>), String> {
    let mut stream = open(stand)?;
    let mut writer = stream.try_clone().map_err(|error| error.to_string())?;
    let sender = std::thread::spawn(move || {
        // One at a time: of those that lie behind the end nobody knows whether they were read.
        (0..count).take_while(|number| writer.write_all(&piece(*number)).is_ok()).count()
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    let said = wire::read_until(&mut stream, deadline);
    let has_ended = Instant::now() < deadline;
    let _ = stream.shutdown(Shutdown::Both);
    let sent = sender.join().map_err(|_| "the client failed")?;
    Ok((u32::try_from(sent).unwrap_or(u32::MAX), has_ended.then_some(said)))
}

/// The code in the host's last word (RFC 9113 §6.8). What was read began with the payload of its settings.
fn last_word(said: &[u8]) -> Option<u32> {
    let tail = said.len().checked_sub(17)?;
    (0..=tail)
        .rev()
        .find(|at| said[at + 3] == GOAWAY && said[*at..at + 3] <= [0, 1, 0][..] && said[at + 5..at + 9] == [0; 4])
        .map(|at| u32::from_be_bytes([said[at + 13], said[at + 14], said[at + 15], said[at + 16]]))
}

const ENHANCE_YOUR_CALM: u32 = 11;

fn rapid_reset(stand: &mut Stand) -> Outcome {
    const COUNT: u32 = 20_000;
    let head = head();
    let (sent, said) = flood(stand, COUNT, move |number| {
        let stream = 2 * number + 1;
        [frame(HEADERS, END_STREAM | END_HEADERS, stream, &head), frame(RST_STREAM, 0, stream, &CANCEL)].concat()
    })?;
    match said.as_deref().map(last_word) {
        Some(Some(ENHANCE_YOUR_CALM)) => Ok("the connection ends, and it is told to calm down".into()),
        Some(_) if sent < COUNT => Ok("the connection ends".into()),
        _ => Err(format!("all of {COUNT} were taken").into()),
    }
}

fn endless_continuation(stand: &mut Stand) -> Outcome {
    const COUNT: u32 = 10_000;
    let head = head();
    let (sent, said) = flood(stand, COUNT, move |number| match number {
        0 => frame(HEADERS, 0, 1, &head),
        // A field that is not to be remembered, of 8 KiB.
        _ => frame(CONTINUATION, 0, 1, &[&[0, 1, b'x', 0x7f, 0x81, 0x3f], &[b'y'; 8192][..]].concat()),
    })?;
    match said {
        Some(_) if sent < COUNT => Ok("the connection ends".into()),
        _ => Err(format!("{sent} frames of 8 KiB were taken").into()),
    }
}

/// Whatever the host does with such a client: what it owes it has a bound, in memory and in time.
fn unheard(stand: &mut Stand, one: &[u8]) -> Outcome {
    const COUNT: usize = 2_000_000;
    const MORE_MAX: u64 = 64 << 20;
    let mut stream = open(stand)?;
    let before = stand.resident_bytes();
    stream.set_write_timeout(Some(Duration::from_secs(1))).map_err(no_attack)?;
    let (many, mut sent) = (one.repeat(1000), 0);
    while sent < COUNT && stream.write_all(&many).is_ok() {
        sent += 1000;
    }
    let more = stand.most_resident_bytes().saturating_sub(before);
    match (sent, more) {
        (0, _) => Err(no_attack("the host takes nothing")),
        (_, MORE_MAX..) => Err(format!("the host took {} MiB for what it owes", more >> 20).into()),
        (COUNT, _) => Err(format!("all of {COUNT} were taken").into()),
        (sent, _) => Ok(format!("it is not read on after about {sent}; the host took {} MiB for it", more >> 20)),
    }
}
