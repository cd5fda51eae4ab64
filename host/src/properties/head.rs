//! A guest's head: what passes is HTTP that no client could misread, whatever the guest said.

use http::header;
use proptest::prelude::*;

use super::text_like;
use crate::guest::head::{Head, HeadError};
use crate::limits::Limits;

const STATUS: &[&str] = &["200", " ", "OK", "4", "0", "\r\n", "\t", "é", "€", "Not Found", "599", "101", "\0"];
const NAME: &[&str] =
    &["x", "-", "content-length", "Set-Cookie", "connection", "te", "status", ":", " ", "é", "\n", "_"];
const VALUE: &[&str] =
    &["a", " ", "1", "0", "\r", "\n", "\t", "é", "€", "\0", "\u{7f}", "Set-Cookie: a=b", "chunked", ","];

fn name() -> impl Strategy<Value = String> {
    prop_oneof![1 => text_like(NAME, 3), 4 => "[a-zA-Z][a-zA-Z-]{0,6}"]
}

proptest! {
    #[test]
    fn a_head_that_passes_cannot_be_misread(
        status in prop_oneof![1 => text_like(STATUS, 5), 4 => "[2-5][0-9]{2} [a-zA-Z ]{1,8}"],
        headers in prop::collection::vec((name(), text_like(VALUE, 3)), 0..4),
        limits in (1_u32..6, 16_u64..200),
    ) {
        let limits = Limits { response_headers: limits.0, response_header_bytes: limits.1, ..Limits::default() };
        let given = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let head = match Head::new(&status, given, &limits) {
            Ok(head) => head,
            Err(error) => {
                // What the log says of it stands on one line.
                prop_assert!(!error.to_string().chars().any(char::is_control), "{error}");
                return Ok(());
            }
        };
        prop_assert!(headers.len() <= limits.response_headers as usize && bytes as u64 <= limits.response_header_bytes);
        prop_assert!(head.status.as_u16() >= 200 && status.starts_with(head.status.as_str()));
        // Beyond ASCII it is obs-text (RFC 9110 §5.5), whatever Unicode says of the code point.
        prop_assert!(status[3..].starts_with(' ') && !status.bytes().any(|byte| byte.is_ascii_control()));
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::CONTENT_LENGTH] {
            prop_assert!(!head.headers.contains_key(&name), "{} passed", name);
        }
        prop_assert!(!head.headers.contains_key("status"));
        for value in head.headers.values() {
            prop_assert!(!value.as_bytes().iter().any(u8::is_ascii_control), "{value:?}");
        }
        // Nothing is lost: each field is there with its value, a byte for each code point.
        for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("content-length")) {
            let latin1: Vec<u8> = value.chars().map(|char| char as u32 as u8).collect();
            let found = head.headers.get_all(name.as_str()).iter().any(|found| found.as_bytes() == latin1);
            prop_assert!(found, "{}: {}", name, value);
        }
    }

    #[test]
    fn a_length_is_a_number_or_refused(value in text_like(&["1", "0", "9", "+", "-", " ", ",", "x", "٣", "99999999"], 3)) {
        let head = Head::new("200 OK", [("Content-Length", value.as_str())].into_iter(), &Limits::default());
        match head {
            Ok(head) => {
                prop_assert!(!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()));
                prop_assert_eq!(head.content_length.map(u128::from), value.parse().ok());
            }
            Err(error) => prop_assert!(matches!(error, HeadError::Header(_))),
        }
    }
}
