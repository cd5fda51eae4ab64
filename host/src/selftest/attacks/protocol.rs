//! Programs that break the protocol: responses that would harm the client or whoever shares its connection.

use super::{Attack, Cause, Expected, Outcome, no_attack};
use crate::config::Config;
use crate::selftest::guests::{Source, part};
use crate::selftest::stand::{NEIGHBOUR, Stand};
use crate::selftest::terms;
use crate::selftest::wire;

const CALL: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32)"#;
const BROKEN: Expected = Expected::Fails(&[(500, "protocol")]);
const HEAD_TOO_LARGE: &[Cause] = &[(502, "response_head")];
const NOT_CGI: &[Cause] = &[(502, "cgi_response")];

pub(super) fn attacks(config: &Config) -> Vec<Attack> {
    let answers = |name, tries, status, headers: &[(&str, &str)]| {
        Attack::app(name, tries, Source::wsgi(answer(Some((status, headers)), "x")), BROKEN)
    };
    vec![
        answers(
            "header-splitting",
            "a header with a line break in its value",
            "200 OK",
            &[("X", "a\r\nSet-Cookie: stolen=1")],
        ),
        answers(
            "header-name-splitting",
            "a header with a line break in its name",
            "200 OK",
            &[("X: a\r\nSet-Cookie", "stolen=1")],
        ),
        answers("status-splitting", "a status with a line break", "200 OK\r\nSet-Cookie: stolen=1", &[]),
        answers("bare-newline", "a header with a bare newline", "200 OK", &[("X", "a\nSet-Cookie: stolen=1")]),
        answers("header-nul", "a header with a NUL", "200 OK", &[("X", "a\0b")]),
        answers("transfer-encoding", "a transfer coding of its own", "200 OK", &[("Transfer-Encoding", "chunked")]),
        answers("connection-close", "the connection's own header", "200 OK", &[("Connection", "close")]),
        answers("upgrade", "a switch to another protocol", "101 Switching Protocols", &[("Upgrade", "websocket")]),
        answers(
            "two-lengths",
            "two lengths for one body",
            "200 OK",
            &[("Content-Length", "1"), ("Content-Length", "200")],
        ),
        answers("negative-length", "a length below zero", "200 OK", &[("Content-Length", "-1")]),
        answers("no-status", "a status that is none", "OK", &[]),
        answers("status-header", "a header that CGI would take for the status", "200 OK", &[("Status", "500 Oops")]),
        Attack::app("no-head", "a body without a head", Source::wsgi(answer(None, "a body")), BROKEN),
        Attack::app(
            "two-heads",
            "two heads for one response",
            Source::wsgi(format!(
                r#"{} {} {CALL} (global.get $first)) (func (export "next") (result i32) (global.get $second))"#,
                part("first", 2048, Some(("200 OK", &[])), "", true),
                part("second", 3072, Some(("200 OK", &[])), "", false)
            )),
            BROKEN,
        ),
        Attack::app(
            "head-after-a-block",
            "a second head when the first is with the client, and a block",
            Source::wsgi(format!(
                r#"{} {} {CALL} (global.get $first)) (func (export "next") (result i32) (global.get $second))"#,
                part("first", 2048, Some(("200 OK", &[])), "a block", true),
                part("second", 3072, Some(("302 Found", &[("Location", "https://forged.example/")])), "more", true)
            )),
            Expected::CutOff(&["protocol"]),
        ),
        Attack::app(
            "head-at-the-end",
            "a second head with the last part",
            Source::wsgi(format!(
                r#"{} {} {CALL} (global.get $first)) (func (export "next") (result i32) (global.get $second))"#,
                part("first", 2048, Some(("200 OK", &[])), "a block", true),
                part("second", 3072, Some(("200 OK", &[("Set-Cookie", "forged=1")])), "", false)
            )),
            Expected::CutOff(&["protocol"]),
        ),
        Attack::app(
            "head-by-call-after-a-block",
            "start_response, called as the contract's function when a block is with the client",
            Source::wsgi(format!(
                r#"(import "wasgi:gateway/gateway@0.1.0" "[static]start-response.current" (func $current (result i32)))
                (import "wasgi:gateway/gateway@0.1.0" "[method]start-response.call" (func $start (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
                ;; IMPORTS END
                (data (i32.const 4096) "302 forged") (data (i32.const 4128) "X-Forged") (data (i32.const 4144) "forged")
                (data (i32.const 4160) "\20\10\00\00\08\00\00\00" "\30\10\00\00\06\00\00\00")
                {} {} {CALL} (global.get $first))
                (func (export "next") (result i32)
                  (call $start (call $current) (i32.const 4096) (i32.const 10) (i32.const 4160) (i32.const 1)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4224))
                  (global.get $second))"#,
                part("first", 2048, Some(("200 OK", &[])), "a block", true),
                part("second", 3072, None, "the last", false)
            )),
            Expected::Judged(first_head_stays),
        ),
        Attack::app(
            "longer-than-said",
            "a body that is longer than its length: the rest would be the next client's answer",
            Source::wsgi(answer(
                Some(("200 OK", &[("Content-Length", "5")])),
                "12345HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
            )),
            Expected::Judged(rest_is_not_sent),
        ),
        Attack::app(
            "shorter-than-said",
            "a body that is shorter than its length: the next answer would fill it up",
            Source::wsgi(answer(Some(("200 OK", &[("Content-Length", "100")])), "short")),
            Expected::Judged(connection_ends),
        ),
        Attack::fitted(
            "thousands-of-headers",
            "an answer with 9,000 header fields",
            has_room(config, 9000 * 16).map(|()| Source::wsgi(many_headers())),
            Expected::Fails(HEAD_TOO_LARGE),
        ),
        Attack::fitted(
            "giant-header",
            "a header of a megabyte",
            has_room(config, 1_000_000).map(|()| {
                Source::wsgi(format!(
                    r#"(memory $memory (export "memory") 20) {} {CALL}
                    (memory.fill (i32.const 131072) (i32.const 120) (i32.const 1000000))
                    (i32.store (i32.const 2136) (i32.const 131072)) (i32.store (i32.const 2140) (i32.const 1000000)) (global.get $bad))"#,
                    part("bad", 2048, Some(("200 OK", &[("X", "y")])), "x", false)
                ))
            }),
            Expected::Fails(HEAD_TOO_LARGE),
        ),
        Attack::app(
            "trap-in-the-body",
            "a fault in the middle of a response, to pass off half of it as all",
            Source::wsgi(format!(
                r#"{} {CALL} (global.get $first)) (func (export "next") (result i32) unreachable)"#,
                part("first", 2048, Some(("200 OK", &[])), "half of it", true)
            )),
            Expected::CutOff(&["trap"]),
        ),
        Attack::app(
            "cgi-splitting",
            "a CGI program whose head is not one",
            Source::Cgi(cgi("Content-Type: text/plain\\0d\\0aX: a\\00b\\0a\\0abody", 42)),
            Expected::Fails(NOT_CGI),
        ),
        Attack::app(
            "cgi-nothing",
            "a CGI program that ends without a word",
            Source::Cgi(cgi("", 0)),
            Expected::Fails(NOT_CGI),
        ),
        Attack::app(
            "cgi-redirect-loop",
            "a CGI program that sends the host in circles",
            Source::Cgi(cgi("Location: /selftest-cgi-redirect-loop/app\\0a\\0a", 43)),
            Expected::Fails(NOT_CGI),
        ),
    ]
}

fn answer(head: Option<(&str, &[(&str, &str)])>, block: &str) -> String {
    format!("{} {CALL} (global.get $bad))", part("bad", 2048, head, block, false))
}

/// 9,000 times the same field, whose name is one letter and whose value is empty: few bytes.
fn many_headers() -> String {
    format!(
        r#"(memory $memory (export "memory") 5) {} {CALL} (local $at i32)
        (i32.store (i32.const 2064) (i32.const 131072)) (i32.store (i32.const 2068) (i32.const 9000))
        (local.set $at (i32.const 131072))
        (loop
          (i32.store (local.get $at) (i32.const 1120)) (i32.store offset=4 (local.get $at) (i32.const 1))
          (i32.store offset=8 (local.get $at) (i32.const 1120)) (i32.store offset=12 (local.get $at) (i32.const 0))
          (local.set $at (i32.add (local.get $at) (i32.const 16)))
          (br_if 0 (i32.lt_u (local.get $at) (i32.const 275072))))
        (global.get $many))"#,
        part("many", 2048, Some(("200 OK", &[])), "x", false)
    )
}

/// Whether a guest has room for so many bytes.
fn has_room(config: &Config, bytes: u64) -> Result<(), String> {
    match terms::memory_of_guest(config) >= bytes + (512 << 10) {
        true => Ok(()),
        false => Err(format!("limits.memory is too small for a guest with {bytes} bytes of header fields")),
    }
}

fn cgi(output: &str, length: u32) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (data (i32.const 64) "{output}")
        (func (export "_start")
          (i32.store (i32.const 16) (i32.const 64)) (i32.store (i32.const 20) (i32.const {length}))
          (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8)))))"#
    )
}

/// Two requests on one connection: the second answer is the neighbour's own.
fn two_in_a_row(stand: &Stand, app: &str) -> Result<(wire::Reply, wire::Reply), String> {
    let both = format!("GET /{app} HTTP/1.1\r\nHost: selftest\r\n\r\n").into_bytes();
    let both = [both, wire::get(&format!("/{NEIGHBOUR}"))].concat();
    let first = stand.talk(&both)?;
    let second = wire::parse(&first.rest, false);
    Ok((first, second))
}

pub(super) fn rest_is_not_sent(stand: &mut Stand, app: &str) -> Outcome {
    let (first, second) = two_in_a_row(stand, app)?;
    if second.text().contains("forged")
        || first.text().contains("forged")
        || (first.status == 200 && first.text().len() > 5)
    {
        return Err(format!("the client got {:?} and then {:?}", first.text(), second.text()).into());
    }
    match first.status {
        200 | 500 => Ok(format!("{} with {} bytes; what is too much is not sent", first.status, first.body.len())),
        status => Err(no_attack(format!("it got {status}"))),
    }
}

pub(super) fn connection_ends(stand: &mut Stand, app: &str) -> Outcome {
    let (first, second) = two_in_a_row(stand, app)?;
    if first.whole && first.status == 200 {
        return Err(format!("the client took {:?} for the whole body", first.text()).into());
    }
    if second.status != 0 && first.status == 200 {
        return Err("the connection was used for another response".into());
    }
    match first.status {
        200 | 500 => Ok(format!("{}; the client sees that it is not whole", first.status)),
        status => Err(no_attack(format!("it got {status}"))),
    }
}

/// The guest is told; whatever it makes of that, the client has one head, the first.
fn first_head_stays(stand: &mut Stand, app: &str) -> Outcome {
    let (reply, cause) = stand.ask(app)?;
    let text = reply.text();
    match (reply.status, text.contains("a block")) {
        _ if format!("{}{text}", reply.head).contains("forged") => {
            Err(format!("it got {} {text:?}", reply.head).into())
        }
        (200, true) => {
            Ok(format!("200 with its first head, {}", if reply.whole { "and the guest is told" } else { &cause }))
        }
        (status, _) => Err(no_attack(format!("it got {status} {text:?}"))),
    }
}
