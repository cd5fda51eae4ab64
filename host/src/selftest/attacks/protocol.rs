//! Programs that break the protocol: responses that would harm the client or whoever shares its connection.

use super::{Attack, Expected, Outcome};
use crate::selftest::guests::{Source, part};
use crate::selftest::stand::Stand;
use crate::selftest::wire;

const CALL: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32)"#;
const BROKEN: Expected = Expected::Fails(500, &["protocol"]);

pub(super) fn attacks() -> Vec<Attack> {
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
        Attack::app(
            "thousands-of-headers",
            "an answer with 20,000 header fields",
            Source::wsgi(many_headers()),
            Expected::Fails(502, &["response_head", "host_call"]),
        ),
        Attack::app(
            "giant-header",
            "a header of a megabyte",
            Source::wsgi(format!(
                r#"(memory $memory (export "memory") 20) {} {CALL}
                (memory.fill (i32.const 131072) (i32.const 120) (i32.const 1000000))
                (i32.store (i32.const 2136) (i32.const 131072)) (i32.store (i32.const 2140) (i32.const 1000000)) (global.get $bad))"#,
                part("bad", 2048, Some(("200 OK", &[("X", "y")])), "x", false)
            )),
            Expected::Fails(502, &["response_head"]),
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
            Expected::Fails(502, &["cgi_response", "protocol"]),
        ),
        Attack::app(
            "cgi-nothing",
            "a CGI program that ends without a word",
            Source::Cgi(cgi("", 0)),
            Expected::Fails(502, &["cgi_response"]),
        ),
        Attack::app(
            "cgi-redirect-loop",
            "a CGI program that sends the host in circles",
            Source::Cgi(cgi("Location: /cgi-redirect-loop\\0a\\0a", 30)),
            Expected::Fails(502, &["cgi_response", "protocol"]),
        ),
    ]
}

fn answer(head: Option<(&str, &[(&str, &str)])>, block: &str) -> String {
    format!("{} {CALL} (global.get $bad))", part("bad", 2048, head, block, false))
}

/// 20,000 times the same field.
fn many_headers() -> String {
    format!(
        r#"(memory $memory (export "memory") 20) {} {CALL} (local $at i32)
        (i32.store (i32.const 2064) (i32.const 131072)) (i32.store (i32.const 2068) (i32.const 20000))
        (local.set $at (i32.const 131072))
        (loop
          (i32.store (local.get $at) (i32.const 1120)) (i32.store (i32.add (local.get $at) (i32.const 4)) (i32.const 2))
          (i32.store (i32.add (local.get $at) (i32.const 8)) (i32.const 1120)) (i32.store (i32.add (local.get $at) (i32.const 12)) (i32.const 2))
          (local.set $at (i32.add (local.get $at) (i32.const 16)))
          (br_if 0 (i32.lt_u (local.get $at) (i32.const 451072))))
        (global.get $many))"#,
        part("many", 2048, Some(("200 OK", &[])), "x", false)
    )
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
    let both = [both, wire::get("/neighbour")].concat();
    let first = stand.talk(&both)?;
    let second = wire::parse(&first.rest, false);
    Ok((first, second))
}

fn rest_is_not_sent(stand: &mut Stand, app: &str) -> Outcome {
    let (first, second) = two_in_a_row(stand, app)?;
    if second.text().contains("forged") || first.text().len() > 5 {
        return Err(format!("the client got {:?} and then {:?}", first.text(), second.text()));
    }
    Ok(format!("{} with {} bytes; what is too much is not sent", first.status, first.body.len()))
}

fn connection_ends(stand: &mut Stand, app: &str) -> Outcome {
    let (first, second) = two_in_a_row(stand, app)?;
    if first.whole && first.status == 200 {
        return Err(format!("the client took {:?} for the whole body", first.text()));
    }
    if second.status != 0 && first.status == 200 {
        return Err("the connection was used for another response".into());
    }
    Ok(format!("{}; the client sees that it is not whole", first.status))
}
