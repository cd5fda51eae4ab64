//! What a program printed before its document → a head for the client, or a local redirect (RFC 3875 §6).
//!
//! Pure: bytes in, a verdict out. The rules' numbers: C4 the grammar, C5 to C8 the kinds of responses, C9 NPH.

use http::header;
use percent_encoding::AsciiSet;

use crate::guest::head::{HOP_BY_HOP, Head, HeadError};
use crate::limits::Limits;

/// How a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Header fields with the CGI fields among them (RFC 3875 §6).
    Parsed,
    /// "Non-parsed header" (RFC 3875 §5): a status line and HTTP's own header fields.
    Nph,
}

impl Form {
    /// A program whose file name begins with `nph-` speaks HTTP itself (RFC 3875 §5.1 leaves the way of telling to the server;
    /// this one is as old as CGI).
    pub(crate) fn of(app: &str) -> Self {
        let file = app.rsplit('/').next().unwrap_or(app);
        if file.starts_with("nph-") { Self::Nph } else { Self::Parsed }
    }
}

/// What a head asks for.
#[derive(Debug)]
pub(crate) enum Response {
    /// A document, or a redirect that the client is to follow.
    Document(Head),
    /// The path and query of another resource of this server, whose response is wanted. ASCII.
    LocalRedirect(String),
}

/// Where a head ends in `bytes`: after its first empty line. Lines end with LF or CRLF.
///
/// `from` is where to go on looking: what an earlier call returned as its error, 0 at first.
pub(crate) fn head_end(bytes: &[u8], from: usize) -> Result<usize, usize> {
    let mut line = from;
    while let Some(length) = bytes[line..].iter().position(|byte| *byte == b'\n') {
        let end = line + length + 1;
        if matches!(&bytes[line..end], b"\n" | b"\r\n") {
            return Ok(end);
        }
        line = end;
    }
    Err(line)
}

/// Reads a head, up to its empty line.
///
/// # Errors
/// Says which rule it breaks, or which limit it exceeds.
pub(crate) fn parse(bytes: &[u8], form: Form, limits: &Limits) -> Result<Response, HeadError> {
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut lines = lines.take_while(|line| !line.is_empty()).map(latin1);
    match form {
        Form::Parsed => parsed(&fields(lines)?, limits),
        Form::Nph => {
            let line = lines.next().ok_or_else(|| HeadError::Status("there is no status line".to_owned()))?;
            let status = nph_status(&line)?;
            let fields = kept(&fields(lines)?)?;
            Head::new(status, fields.iter().map(pair), limits).map(Response::Document)
        }
    }
}

type Field = (String, String);

fn pair((name, value): &Field) -> (&str, &str) {
    (name, value)
}

/// A code point for each byte, which is what [`Head`] takes.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The fields of a head. There are no continuation lines (RFC 3875 §6.3), and no blanks before a colon.
fn fields(lines: impl Iterator<Item = String>) -> Result<Vec<Field>, HeadError> {
    lines
        .map(|line| {
            let refused = |why: &str| HeadError::Header(format!("line {:?}: {why}", shortened(&line)));
            let (name, value) = line.split_once(':').ok_or_else(|| refused("it is no header field"))?;
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(refused("its name is not a token"));
            }
            Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        })
        .collect()
}

fn shortened(line: &str) -> String {
    const CHARS_MAX: usize = 80;
    line.chars().take(CHARS_MAX).collect()
}

/// Those that go to the client. A program has no say about the connection: such fields are removed (RFC 3875 §6.3.4), but for
/// the one that says how the body is coded, without which the body would be another.
fn kept(fields: &[Field]) -> Result<Vec<Field>, HeadError> {
    let is = |name: &str, other: &header::HeaderName| name.eq_ignore_ascii_case(other.as_str());
    if fields.iter().any(|(name, _)| is(name, &header::TRANSFER_ENCODING)) {
        return Err(HeadError::Header("\"Transfer-Encoding\": the server frames the body".to_owned()));
    }
    let hop_by_hop =
        |name: &str| name.eq_ignore_ascii_case("proxy-connection") || HOP_BY_HOP.iter().any(|hop| is(name, hop));
    Ok(fields.iter().filter(|(name, _)| !hop_by_hop(name)).cloned().collect())
}

fn parsed(fields: &[Field], limits: &Limits) -> Result<Response, HeadError> {
    let content_type = cgi_field(fields, "Content-Type")?;
    let location = cgi_field(fields, "Location")?;
    let status = cgi_field(fields, "Status")?;
    if content_type.is_none() && location.is_none() && status.is_none() {
        let why = if fields.is_empty() { "there are none" } else { "none is Content-Type, Location or Status" };
        return Err(HeadError::Header(format!("fields: {why}")));
    }
    if let (Some(location), 1) = (location, fields.len())
        && is_local(location)
    {
        return Ok(Response::LocalRedirect(target(location)));
    }
    let status = match status {
        Some(status) => status_text(status),
        None if location.is_some() => "302 Found".to_owned(),
        None => "200 OK".to_owned(),
    };
    let fields: Vec<_> = kept(fields)?.into_iter().filter(|(name, _)| !is_for_the_server(name)).collect();
    Head::new(&status, fields.iter().map(pair), limits).map(Response::Document)
}

/// The value of a CGI field: at most one of each (RFC 3875 §6.3).
fn cgi_field<'a>(fields: &'a [Field], name: &str) -> Result<Option<&'a str>, HeadError> {
    let mut found = fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
    let first = found.next();
    if found.next().is_some() {
        return Err(HeadError::Header(format!("{name:?}: given twice")));
    }
    Ok(first.map(|(_, value)| value.as_str()))
}

/// An absolute path on this server (RFC 3875 §6.3.2). `//host/path` names another, and a fragment is the client's.
fn is_local(location: &str) -> bool {
    location.starts_with('/') && !location.starts_with("//") && !location.contains('#')
}

/// A path as clients send it: they encode the bytes that are not ASCII.
fn target(location: &str) -> String {
    let bytes: Vec<u8> = location.chars().filter_map(|char| u8::try_from(char).ok()).collect();
    percent_encoding::percent_encode(&bytes, &AsciiSet::EMPTY).to_string()
}

/// Status is said in the status line; what begins with X-CGI- is an extension of CGI for servers that know it (RFC 3875
/// §6.3.5).
fn is_for_the_server(name: &str) -> bool {
    let begins_with = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    name.eq_ignore_ascii_case("status") || begins_with("x-cgi-")
}

/// Many programs print the code alone.
fn status_text(status: &str) -> String {
    let is_code = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    if !is_code {
        return status.to_owned();
    }
    let known = http::StatusCode::from_bytes(status.as_bytes()).ok().and_then(|status| status.canonical_reason());
    format!("{status} {}", known.unwrap_or("Unknown"))
}

/// "HTTP/1.1 200 OK" → "200 OK". The version is that of the connection, whatever the program believes.
fn nph_status(line: &str) -> Result<&str, HeadError> {
    let refused = || HeadError::Status(format!("{:?} is no status line", shortened(line)));
    let (version, status) = line.split_once(' ').ok_or_else(refused)?;
    let is_http = version.strip_prefix("HTTP/1.").is_some_and(|minor| matches!(minor, "0" | "1"));
    if is_http { Ok(status) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, form: Form) -> Result<Response, HeadError> {
        let end = head_end(text.as_bytes(), 0).expect("the test's head ends");
        parse(&text.as_bytes()[..end], form, &Limits::default())
    }

    /// Status, reason where it is unusual, fields in order.
    fn document(text: &str, form: Form) -> String {
        match read(text, form) {
            Ok(Response::Document(head)) => {
                let mut shown = head.status.as_str().to_owned();
                shown.extend(head.reason.map(|reason| format!(" {}", String::from_utf8_lossy(&reason))));
                for (name, value) in &head.headers {
                    shown.push_str(&format!(", {name}: {}", latin1(value.as_bytes())));
                }
                shown.extend(head.content_length.map(|length| format!(", length {length}")));
                shown
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_first_empty_line_ends_the_head() {
        for (text, expected) in [
            ("A: b\n\nrest", Ok(6)),
            ("A: b\r\n\r\nrest", Ok(8)),
            ("A: b\n\r\nrest", Ok(7)),
            ("\nrest", Ok(1)),
            ("A: b\nB", Err(5)),
            ("A: b\r", Err(0)),
            ("", Err(0)),
        ] {
            assert_eq!(head_end(text.as_bytes(), 0), expected, "{text:?}");
        }
        assert_eq!(head_end(b"A: b\n\n", 5), Ok(6), "it goes on where it stopped");
    }

    #[test]
    fn documents_and_redirects_for_the_client() {
        for (text, expected) in [
            ("Content-Type: text/html\n\n", "200, content-type: text/html"),
            ("content-type:text/html\r\n\r\n", "200, content-type: text/html"),
            ("Status: 404 Nothing here\nContent-Type: a/b\n\n", "404 Nothing here, content-type: a/b"),
            ("Status: 404\n\n", "404"),
            ("Status: 299\n\n", "299 Unknown"),
            ("Status: 204 No Content\n\n", "204"),
            ("Location: https://b.example/\n\n", "302, location: https://b.example/"),
            ("Location: //b.example/\n\n", "302, location: //b.example/"),
            ("Location: /a#there\n\n", "302, location: /a#there"),
            ("Location: other\n\n", "302, location: other"),
            ("Location: /a\nStatus: 303 See Other\n\n", "303, location: /a"),
            ("Location: /a\nSet-Cookie: c=1\n\n", "302, location: /a, set-cookie: c=1"),
            (
                "Status: 301 Moved Permanently\nLocation: http://b/\nContent-Type: a/b\n\n",
                "301, location: http://b/, content-type: a/b",
            ),
            (
                "Content-Type: a/b\nSet-Cookie: c=1\nSet-Cookie: d=2\n\n",
                "200, content-type: a/b, set-cookie: c=1, set-cookie: d=2",
            ),
            ("Content-Type: a/b\nConnection: close\nKeep-Alive: 5\n\n", "200, content-type: a/b"),
            ("Content-Type: a/b\nX-CGI-Own: 1\n\n", "200, content-type: a/b"),
            ("Content-Type: a/b\nContent-Length: 12\n\n", "200, content-type: a/b, length 12"),
            ("Content-Type: a/b\nX-Latin: caf\u{e9}\n\n", "200, content-type: a/b, x-latin: caf\u{c3}\u{a9}"),
        ] {
            assert_eq!(document(text, Form::Parsed), expected, "{text:?}");
        }
    }

    #[test]
    fn a_path_alone_is_a_local_redirect() {
        for text in ["Location: /a/b?c=d\n\n", "location:/a/b?c=d\r\n\r\n"] {
            let Ok(Response::LocalRedirect(target)) = read(text, Form::Parsed) else { panic!("{text:?}") };
            assert_eq!(target, "/a/b?c=d");
        }
        let Ok(Response::LocalRedirect(target)) = read("Location: /caf\u{e9} %e9\n\n", Form::Parsed) else { panic!() };
        assert_eq!(target, "/caf%C3%A9 %e9", "encoded once, whatever of it is encoded already");
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "\n",
            "Hello, world\n\n",
            "X-Other: 1\n\n",
            "Content-Type: a/b\nContent-Type: a/b\n\n",
            "Status: 200 OK\nstatus: 200 OK\n\n",
            "Location: /a\nLocation: /b\n\n",
            "Content-Type : a/b\n\n",
            "Content-Type: a/b\n folded\n\n",
            "Content-Type: a/b\n: no name\n\n",
            "Content-Type: a/b\0\n\n",
            "Content-Type: a/b\rX: y\n\n",
            "Content-Type: a/b\nTransfer-Encoding: chunked\n\n",
            "Content-Type: a/b\nContent-Length: 1\nContent-Length: 2\n\n",
            "Status: 101 Switching Protocols\n\n",
            "Status: OK\n\n",
            "HTTP/1.1 200 OK\nContent-Type: a/b\n\n",
        ] {
            assert!(read(text, Form::Parsed).is_err(), "{text:?}");
        }
    }

    #[test]
    fn nph_programs_speak_http() {
        for (text, expected) in [
            ("HTTP/1.0 200 Fine\r\nX-A: 1\r\nX-A: 2\r\n\r\n", "200 Fine, x-a: 1, x-a: 2"),
            ("HTTP/1.1 302 Found\nLocation: /a\n\n", "302, location: /a"),
            ("HTTP/1.1 404 Not Found\nConnection: close\n\n", "404"),
        ] {
            assert_eq!(document(text, Form::Nph), expected, "{text:?}");
        }
        for text in [
            "\n",
            "Content-Type: a/b\n\n",
            "HTTP/1.1 200\n\n",
            "HTTP/2 200 OK\n\n",
            "HTTP/1.1 200 OK\nStatus: 404 Not Found\n\n",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n",
            "HTTP/1.1 101 Switching Protocols\n\n",
        ] {
            assert!(read(text, Form::Nph).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_says_who_speaks_http_itself() {
        for (app, form) in [
            ("nph-clock", Form::Nph),
            ("tools/nph-clock", Form::Nph),
            ("clock", Form::Parsed),
            ("nph-tools/clock", Form::Parsed),
            ("my-nph-clock", Form::Parsed),
        ] {
            assert_eq!(Form::of(app), form, "{app}");
        }
    }
}
