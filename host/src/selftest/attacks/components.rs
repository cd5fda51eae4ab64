//! Programs that speak `wasi:http` 0.2 rather than the contract: the same attacks, by other doors of the host.

use super::protocol::{connection_ends, rest_is_not_sent};
use super::{Attack, Expected};
use crate::config::Config;
use crate::selftest::guests::Source;
use crate::selftest::terms::{Clock, shorter};

pub(super) fn attacks(config: &Config) -> Vec<Attack> {
    let soon = || shorter(config, Clock::Cpu);
    // So much that the host has passed on the beginning.
    let begins = "(local $count i32) (call $begin (local.get 1) (call $fields))
        (loop (call $say (i32.const 4096) (i32.const 4096)) (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $count) (i32.const 64))))";
    let appends = |name, tries, fields: &[(&str, &str)]| {
        Attack::app(name, tries, Source::Http(appending(fields)), Expected::GetsNothing)
    };
    vec![
        Attack::app(
            "http-loop",
            "an endless loop before there is a response",
            Source::http("(loop (br 0))"),
            Expected::Fails(&[(504, "cpu")]),
        )
        .shortened(soon()),
        Attack::app(
            "http-loop-in-the-body",
            "an endless loop in the middle of a response",
            Source::http(&format!("{begins} (loop (br 0))")),
            Expected::CutOff(&["cpu"]),
        )
        .shortened(soon()),
        Attack::app(
            "http-loop-afterwards",
            "an endless loop when the response is over",
            Source::http(&format!("{begins} (call $end) (loop (br 0))")),
            Expected::FailsAfterwards(&["cpu"]),
        )
        .shortened(soon()),
        Attack::app(
            "http-no-response",
            "a program that returns without a response",
            Source::http(""),
            Expected::Fails(&[(500, "protocol")]),
        ),
        Attack::app(
            "http-two-responses",
            "a second response in the place of the first",
            Source::http(&format!("{begins} (call $begin (local.get 1) (call $fields))")),
            Expected::CutOff(&["trap"]),
        ),
        Attack::app(
            "http-trap-in-the-body",
            "a fault in the middle of a response, to pass off half of it as all",
            Source::http(&format!("{begins} unreachable")),
            Expected::CutOff(&["trap"]),
        ),
        Attack::app(
            "http-longer-than-said",
            "a body that is longer than its length",
            Source::Http(with_length("5", "12345HTTP/1.1 200 OK - forged")),
            Expected::Judged(rest_is_not_sent),
        ),
        Attack::app(
            "http-shorter-than-said",
            "a body that is shorter than its length",
            Source::Http(with_length("100", "short")),
            Expected::Judged(connection_ends),
        ),
        appends(
            "http-header-splitting",
            "fields with line breaks and NULs in them",
            &[("x", "a\\0d\\0aset-cookie: stolen=1"), ("x\\0d\\0ay", "z"), ("x", "a\\0ab"), ("x", "a\\00b")],
        ),
        appends(
            "http-hop-by-hop",
            "the connection's own fields, and a transfer coding",
            &[
                ("connection", "close"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "websocket"),
                ("keep-alive", "timeout=1000"),
                ("proxy-connection", "close"),
            ],
        ),
        Attack::app(
            "http-fields-for-ever",
            "a hundred thousand fields for one head",
            Source::http(
                "(local $it i32) (local $count i32) (local.set $it (call $fields))
                (loop
                  (call $append (local.get $it) (i32.const 1024) (i32.const 2) (i32.const 4096) (i32.const 16) (i32.const 2048))
                  (if (i32.load8_u (i32.const 2048)) (then (call $answer (local.get 1) (i32.const 0)) (return)))
                  (local.set $count (i32.add (local.get $count) (i32.const 1)))
                  (br_if 0 (i32.lt_u (local.get $count) (i32.const 100000))))
                (call $answer (local.get 1) (i32.const 1))",
            ),
            Expected::GetsNothing,
        ),
        Attack::app(
            "http-handles",
            "900,000 handles, all kept",
            Source::http(
                "(local $count i32)
                (loop (drop (call $fields)) (local.set $count (i32.add (local.get $count) (i32.const 1)))
                  (br_if 0 (i32.lt_u (local.get $count) (i32.const 900000))))
                (call $answer (local.get 1) (i32.const 1))",
            ),
            Expected::Fails(&[(502, "handles")]),
        ),
        Attack::app(
            "http-memory",
            "memory, a megabyte at a time, up to 2 GiB",
            Source::http(
                "(loop
                  (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
                  (br_if 0 (i32.lt_u (memory.size) (i32.const 32768))))
                (call $answer (local.get 1) (i32.const 1))",
            ),
            Expected::Fails(&[(500, "memory")]),
        ),
    ]
}

/// Appends each field in turn, and says "nothing" if every one is refused and a harmless one is not.
fn appending(fields: &[(&str, &str)]) -> String {
    let (mut data, mut tries) = (String::new(), String::new());
    for (index, (name, value)) in fields.iter().enumerate() {
        let at = 4096 + 256 * index;
        data.push_str(&format!("(data (i32.const {at}) \"{name}\") (data (i32.const {}) \"{value}\")\n", at + 128));
        tries.push_str(&format!(
            "(call $append (local.get $it) (i32.const {at}) (i32.const {}) (i32.const {}) (i32.const {}) (i32.const 2048))
            (if (i32.eqz (i32.load8_u (i32.const 2048))) (then (local.set $got (i32.const 1))))\n",
            length(name),
            at + 128,
            length(value)
        ));
    }
    format!(
        r#"{data}(func (export "wasi:http/incoming-handler@0.2.0#handle") (param i32 i32) (local $it i32) (local $got i32)
        (local.set $it (call $fields))
        (call $append (local.get $it) (i32.const 1024) (i32.const 2) (i32.const 1024) (i32.const 2) (i32.const 2048))
        (if (i32.load8_u (i32.const 2048)) (then unreachable))
        {tries}
        (call $answer (local.get 1) (local.get $got)))"#
    )
}

/// Of a text in WAT, in which `\0d` is a byte.
fn length(text: &str) -> usize {
    text.len() - 2 * text.matches('\\').count()
}

/// A response with this length in its head, and this body.
fn with_length(said: &str, body: &str) -> String {
    format!(
        r#"(data (i32.const 4096) "content-length") (data (i32.const 4128) "{said}") (data (i32.const 4160) "{body}")
        (func (export "wasi:http/incoming-handler@0.2.0#handle") (param i32 i32) (local $it i32)
        (local.set $it (call $fields))
        (call $append (local.get $it) (i32.const 4096) (i32.const 14) (i32.const 4128) (i32.const {}) (i32.const 2048))
        (if (i32.load8_u (i32.const 2048)) (then unreachable))
        (call $begin (local.get 1) (local.get $it))
        (call $say (i32.const 4160) (i32.const {}))
        (call $end))"#,
        said.len(),
        body.len()
    )
}
