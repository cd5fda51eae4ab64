//! One line of the access log, in either form.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

#[cfg(test)]
use super::COMBINED;
use super::{AccessRecord, JSON};

/// What is kept of one text that a client sent. Request heads may be larger.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// What a thread keeps from line to line.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) line: Vec<u8>,
    /// The second that the two texts are for.
    second: u64,
    /// `22/Nov/2026:09:55:49 +0000`
    clf_time: String,
    /// `2026-11-22T09:55:49`
    iso_time: String,
    /// The last client's address, and its text: clients come back.
    remote: Option<IpAddr>,
    remote_text: String,
}

impl Scratch {
    /// Fills `line`.
    pub(super) fn format(&mut self, mode: u8, record: &AccessRecord<'_>, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second != since.as_secs() || self.iso_time.is_empty() {
            self.set_second(since.as_secs());
        }
        self.line.clear();
        // A `Vec` takes every write.
        let _ = if mode == JSON { self.json(record, since.subsec_millis()) } else { self.combined(record) };
    }

    fn set_second(&mut self, second: u64) {
        let time = time::OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second);
        let text =
            |format: &[time::format_description::BorrowedFormatItem<'_>]| time.format(format).unwrap_or_default();
        self.second = second;
        self.clf_time =
            text(time::macros::format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000"));
        self.iso_time = text(time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]"));
    }

    /// Apache's combined log format.
    fn combined(&mut self, record: &AccessRecord<'_>) -> io::Result<()> {
        if self.remote != record.remote {
            self.remote = record.remote;
            self.remote_text = record.remote.map_or_else(String::new, |remote| remote.to_string());
        }
        let line = &mut self.line;
        let mut number = itoa::Buffer::new();
        line.extend_from_slice(if self.remote.is_some() { self.remote_text.as_bytes() } else { b"-" });
        line.extend_from_slice(b" - - [");
        line.extend_from_slice(self.clf_time.as_bytes());
        line.extend_from_slice(b"] \"");
        escape_clf(line, record.method.as_bytes());
        line.push(b' ');
        escape_clf(line, record.target.as_bytes());
        line.push(b' ');
        line.extend_from_slice(version_text(record.version).as_bytes());
        line.extend_from_slice(b"\" ");
        line.extend_from_slice(number.format(record.status).as_bytes());
        line.push(b' ');
        line.extend_from_slice(number.format(record.bytes).as_bytes());
        line.extend_from_slice(b" \"");
        escape_clf(line, record.referer.unwrap_or(b"-"));
        line.extend_from_slice(b"\" \"");
        escape_clf(line, record.user_agent.unwrap_or(b"-"));
        line.extend_from_slice(b"\"\n");
        Ok(())
    }

    /// One object; what is not known is left out.
    fn json(&mut self, record: &AccessRecord<'_>, millis: u32) -> io::Result<()> {
        let line = &mut self.line;
        write!(line, "{{\"time\":\"{}.{millis:03}Z\"", self.iso_time)?;
        if let Some(remote) = record.remote {
            write!(line, ",\"remote\":\"{remote}\"")?;
        }
        write!(
            line,
            ",\"request\":\"{}\",\"version\":\"{:?}\",\"status\":{},\
             \"bytes\":{},\"duration_us\":{},\"cpu_us\":{}",
            record.request_id,
            record.version,
            record.status,
            record.bytes,
            record.duration.as_micros(),
            record.cpu.as_micros(),
        )?;
        let texts = [
            ("method", Some(record.method.as_bytes())),
            ("target", Some(record.target.as_bytes())),
            ("app", record.app.map(str::as_bytes)),
            ("cause", record.cause.map(str::as_bytes)),
            ("host", record.host),
            ("referer", record.referer),
            ("user_agent", record.user_agent),
        ];
        for (key, text) in texts {
            let Some(text) = text else { continue };
            write!(line, ",\"{key}\":\"")?;
            escape_json(line, text);
            line.push(b'"');
        }
        line.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// Both forms of a line, for the claims about all of them.
#[cfg(test)]
pub(crate) fn access_lines(record: &AccessRecord<'_>) -> (String, String) {
    let line = |mode| {
        let mut scratch = Scratch::default();
        scratch.format(mode, record, SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_341_349_007));
        String::from_utf8(scratch.line).expect("lines are text")
    };
    (line(COMBINED), line(JSON))
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn version_text(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        http::Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// As Apache does it: what is not printable ASCII becomes `\xHH`, so that nobody can write a line of their own.
fn escape_clf(line: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(TEXT_BYTES_MAX)];
    // Nearly all texts are plain, and this is done for each request.
    if text.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'"' && *byte != b'\\') {
        line.extend_from_slice(text);
        return;
    }
    for byte in text {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', *byte]),
            b' '..=b'~' => line.push(*byte),
            _ => line.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

/// Bytes that are not UTF-8 become U+FFFD. Control characters are escaped, also those above ASCII, which JSON would allow: a
/// terminal obeys them.
fn escape_json(line: &mut Vec<u8>, text: &[u8]) {
    for chunk in text[..text.len().min(TEXT_BYTES_MAX)].utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\\' => line.extend_from_slice(&[b'\\', char as u8]),
                _ if char.is_control() => {
                    let byte = char as u8;
                    line.extend_from_slice(b"\\u00");
                    line.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
                _ => line.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            line.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    fn line(mode: u8, record: &AccessRecord<'_>) -> String {
        let mut scratch = Scratch::default();
        scratch.format(mode, record, SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_341_349_007));
        String::from_utf8(scratch.line).expect("lines are text")
    }

    #[test]
    fn combined_is_apaches_format() {
        assert_eq!(
            line(COMBINED, &record()),
            "127.0.0.1 - - [22/Nov/2026:09:55:49 +0000] \"GET /hello?x=1 HTTP/1.1\" 200 33 \"-\" \"curl/8.5.0\"\n"
        );
    }

    #[test]
    fn combined_escapes_what_could_forge_a_line() {
        let record =
            AccessRecord { target: "/a\"b\\c", user_agent: Some(b"x\" 200\n127.0.0.1 \x1b[31m\xe9\x7f"), ..record() };
        let line = line(COMBINED, &record);
        assert!(line.contains(r#""GET /a\"b\\c HTTP/1.1""#), "{line}");
        assert!(line.ends_with("\"x\\\" 200\\x0a127.0.0.1 \\x1b[31m\\xe9\\x7f\"\n"), "{line}");
    }

    #[test]
    fn json_is_json_whatever_clients_send() {
        let record = AccessRecord {
            cause: Some("cpu"),
            referer: Some(b"\"},{\"\x00\n\\\xff\xc3\xa9\x7f"),
            target: "/\u{2028}",
            ..record()
        };
        let line = line(JSON, &record);
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).expect("the line is JSON");
        assert_eq!(value["time"], "2026-11-22T09:55:49.007Z");
        assert_eq!(value["referer"], "\"},{\"\0\n\\\u{fffd}é\u{7f}");
        assert_eq!(value["target"], "/\u{2028}");
        assert_eq!(
            (&value["status"], &value["duration_us"], &value["cpu_us"]),
            (&200.into(), &1234.into(), &56.into())
        );
        assert_eq!(value["request"], record.request_id.to_string());
        assert_eq!((&value["app"], &value["cause"]), (&"hello".into(), &"cpu".into()));
    }

    #[test]
    fn a_long_text_is_cut() {
        let agent = vec![b'\x01'; 1 << 20];
        let record = AccessRecord { user_agent: Some(&agent), ..record() };
        assert!(line(COMBINED, &record).len() < 5 * TEXT_BYTES_MAX);
        assert!(line(JSON, &record).len() < 7 * TEXT_BYTES_MAX);
    }
}
