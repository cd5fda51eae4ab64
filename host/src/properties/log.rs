//! Logs: one line stays one line, whatever clients and guests put into it.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::{bytes_like, text_like};
use crate::telemetry::{AccessRecord, RequestId, access_lines, printable};

const HOSTILE: &[u8] = b"\"\\\n\r\x00\x1b\x7f\xe9\xc3 {},:x";

proptest! {
    #[test]
    fn a_line_of_the_access_log_is_one_line_with_its_fields(
        method in "[A-Z!#$%&'*+.^_`|~-]{1,10}",
        target in "/[!-~]{0,40}",
        referer in prop::option::of(bytes_like(HOSTILE, 40)),
        user_agent in prop::option::of(bytes_like(HOSTILE, 40)),
        host in prop::option::of(bytes_like(HOSTILE, 40)),
        remote in prop::option::of(any::<IpAddr>()),
        status in 0_u16..600,
        bytes in any::<u64>(),
    ) {
        let record = AccessRecord {
            remote,
            request_id: RequestId::next(),
            method: &method,
            target: &target,
            version: http::Version::HTTP_11,
            status,
            bytes,
            duration: Duration::from_micros(1),
            cpu: Duration::ZERO,
            app: Some("hello"),
            cause: None,
            host: host.as_deref(),
            referer: referer.as_deref(),
            user_agent: user_agent.as_deref(),
        };
        let (combined, json) = access_lines(&record);

        prop_assert!(combined.ends_with('\n') && !combined[..combined.len() - 1].chars().any(char::is_control));
        prop_assert!(combined.is_ascii());
        let fields = quoted(&combined);
        prop_assert_eq!(fields.len(), 3, "{}", combined);
        prop_assert_eq!(&fields[0], &format!("{method} {target} HTTP/1.1").into_bytes());
        prop_assert_eq!(&fields[1], &referer.clone().unwrap_or(b"-".to_vec()));
        prop_assert_eq!(&fields[2], &user_agent.clone().unwrap_or(b"-".to_vec()));

        prop_assert!(json.ends_with('\n') && !json[..json.len() - 1].chars().any(char::is_control));
        let object: serde_json::Value = serde_json::from_str(&json).map_err(|error| TestCaseError::fail(format!("{error}: {json}")))?;
        prop_assert_eq!(object["target"].as_str(), Some(target.as_str()));
        prop_assert_eq!(object["bytes"].as_u64(), Some(bytes));
        let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        prop_assert_eq!(object["user_agent"].as_str().map(str::to_owned), text(&user_agent));
        prop_assert_eq!(object["host"].as_str().map(str::to_owned), text(&host));
    }

    #[test]
    fn a_guests_text_moves_no_cursor_and_turns_no_letters_round(
        text in text_like(&["\n", "\r", "\t", "\u{1b}[31m", "\u{202e}", "\u{2028}", "\u{85}", "INFO wasgi", "x"], 60),
        bytes_max in 0_usize..80,
    ) {
        let shown = printable(&text, bytes_max);
        prop_assert!(shown.lines().skip(1).all(|line| line.starts_with("  ")), "{shown:?}");
        let harmless = |char: char| char == '\n' || char == '\t' || !(char.is_control() || "\u{2028}\u{2029}\u{202e}".contains(char));
        prop_assert!(shown.chars().all(harmless), "{shown:?}");
    }
}

/// The quoted fields of a line, with what was escaped undone.
fn quoted(line: &str) -> Vec<Vec<u8>> {
    let mut fields = Vec::new();
    let mut bytes = line.bytes();
    while bytes.by_ref().any(|byte| byte == b'"') {
        let mut field = Vec::new();
        loop {
            match bytes.next() {
                None => return fields,
                Some(b'"') => break,
                Some(b'\\') => match bytes.next() {
                    Some(b'x') => {
                        let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                        field.extend(u8::from_str_radix(&digits, 16));
                    }
                    escaped => field.extend(escaped),
                },
                Some(byte) => field.push(byte),
            }
        }
        fields.push(field);
    }
    fields
}
