//! What `start_response` may be told: the rules of PEP 3333 for a status and for headers, as pure checks.
//!
//! Nothing here allocates or needs `std`; the host checks what guests hand over with these very functions. What depends
//! on more than one header (limits on their number, a second Content-Length) is not here.
//!
//! | rule | source | check |
//! | --- | --- | --- |
//! | S4: three digits, a space, a reason; no control characters | PEP 3333, The start_response() Callable | [`check_status`] |
//! | S5: names are tokens, none is `Status` | RFC 9110 §5.6.2; `wsgiref.validate` | [`check_header`] |
//! | S6: values hold no control characters | PEP 3333; without it: response splitting | [`check_header`] |
//! | S7: code points are U+0000 to U+00FF, a byte each | PEP 3333, Unicode Issues | both |
//! | S8: no hop-by-hop header | PEP 3333, Other HTTP Features; RFC 2616 §13.5.1 | [`check_header`] |

use core::error::Error;
use core::fmt;

/// What is wrong with a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatusError {
    /// It does not begin with three digits and a space, or the number is below 100 (S4).
    Malformed,
    /// It holds a control character (S4).
    ControlCharacter,
    /// It holds a code point above U+00FF (S7).
    NotLatin1,
    /// It is 1xx: that is no response, and the host can send none before the response (B9).
    Informational,
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StatusError::Malformed => "it must be three digits, a space and a reason, like \"200 OK\"",
            StatusError::ControlCharacter => "it holds a control character",
            StatusError::NotLatin1 => "it holds a code point above U+00FF",
            StatusError::Informational => "it is informational, which is no response, and none can be sent before it",
        })
    }
}

impl Error for StatusError {}

/// What is wrong with a response header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The name is empty or not a token (S5).
    NameNotToken,
    /// The name is `Status`, which belongs to CGI: pass it as the status (S5).
    NamedStatus,
    /// The header is about one connection, which is the server's to manage (S8).
    HopByHop,
    /// The value holds a control character (S6).
    ControlCharacter,
    /// The value holds a code point above U+00FF (S7).
    NotLatin1,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeaderError::NameNotToken => "its name is not a token (letters, digits, !#$%&'*+-.^_`|~)",
            HeaderError::NamedStatus => "the status is an argument of its own",
            HeaderError::HopByHop => "it is hop-by-hop, which only the server may set",
            HeaderError::ControlCharacter => "its value holds a control character",
            HeaderError::NotLatin1 => "its value holds a code point above U+00FF; encode it, by RFC 8187 for example",
        })
    }
}

impl Error for HeaderError {}

/// Checks a status line's text such as `404 Not Found`; the number is the status code, 200 to 999.
pub fn check_status(status: &str) -> Result<u16, StatusError> {
    check_text(status).map_err(|fault| match fault {
        TextFault::ControlCharacter => StatusError::ControlCharacter,
        TextFault::NotLatin1 => StatusError::NotLatin1,
    })?;
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', _, ..] = status.as_bytes() else {
        return Err(StatusError::Malformed);
    };
    if *a == b'1' {
        return Err(StatusError::Informational);
    }
    Ok(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
}

/// Checks one response header.
pub fn check_header(name: &str, value: &str) -> Result<(), HeaderError> {
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(HeaderError::NameNotToken);
    }
    if name.eq_ignore_ascii_case("status") {
        return Err(HeaderError::NamedStatus);
    }
    if is_hop_by_hop(name) {
        return Err(HeaderError::HopByHop);
    }
    check_text(value).map_err(|fault| match fault {
        TextFault::ControlCharacter => HeaderError::ControlCharacter,
        TextFault::NotLatin1 => HeaderError::NotLatin1,
    })
}

/// Whether a header is about one connection rather than the message: RFC 2616 §13.5.1, whose "Trailers" is taken as
/// the `Trailer` header too. `wsgiref.util.is_hop_by_hop` knows the same ones.
pub fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

enum TextFault {
    ControlCharacter,
    NotLatin1,
}

/// U+0080 to U+009F pass although Unicode calls them controls: on the wire they are bytes like any other (obs-text).
fn check_text(text: &str) -> Result<(), TextFault> {
    for byte in text.bytes() {
        if byte < 0x20 || byte == 0x7f {
            return Err(TextFault::ControlCharacter);
        }
        // U+00FF ends with the lead byte C3 in UTF-8; every greater lead byte begins a greater code point.
        if byte > 0xc3 {
            return Err(TextFault::NotLatin1);
        }
    }
    Ok(())
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_statuses(cases: &[(&str, Result<u16, StatusError>)]) {
        for (status, expected) in cases {
            assert_eq!(check_status(status), *expected, "{status:?}");
        }
    }

    fn check_headers(cases: &[(&str, &str, Result<(), HeaderError>)]) {
        for (name, value, expected) in cases {
            assert_eq!(check_header(name, value), *expected, "{name:?}: {value:?}");
        }
    }

    #[test]
    fn a_status_is_three_digits_a_space_and_a_reason() {
        use StatusError::*;
        check_statuses(&[
            ("200 OK", Ok(200)),
            ("404 Not Found", Ok(404)),
            ("999 Odd", Ok(999)),
            ("200 Tr\u{e8}s bien", Ok(200)),
            ("", Err(Malformed)),
            ("200", Err(Malformed)),
            ("200 ", Err(Malformed)),
            ("200OK", Err(Malformed)),
            ("100 Continue", Err(Informational)),
            ("103 Early Hints", Err(Informational)),
            ("20 OK", Err(Malformed)),
            ("2000 OK", Err(Malformed)),
            ("099 Low", Err(Malformed)),
            (" 200 OK", Err(Malformed)),
            ("HTTP/1.1 200 OK", Err(Malformed)),
            ("\u{662}00 OK", Err(NotLatin1)),
            ("200 OK\r\nX: y", Err(ControlCharacter)),
            ("200 \u{7f}", Err(ControlCharacter)),
            ("200 \u{100}", Err(NotLatin1)),
        ]);
    }

    #[test]
    fn header_names_are_tokens_and_not_status() {
        use HeaderError::*;
        check_headers(&[
            ("Content-Type", "text/plain", Ok(())),
            ("x!#$%&'*+-.^_`|~9", "", Ok(())),
            ("", "x", Err(NameNotToken)),
            ("A B", "x", Err(NameNotToken)),
            ("A:", "x", Err(NameNotToken)),
            ("A\n", "x", Err(NameNotToken)),
            ("\u{c4}", "x", Err(NameNotToken)),
            ("Status", "200 OK", Err(NamedStatus)),
            ("sTATUS", "200 OK", Err(NamedStatus)),
        ]);
    }

    #[test]
    fn header_values_hold_neither_control_characters_nor_code_points_above_255() {
        use HeaderError::*;
        check_headers(&[
            ("X", "a b", Ok(())),
            ("X", "\u{80}\u{9f}\u{ff}", Ok(())),
            ("X", "a\r\nSet-Cookie: b", Err(ControlCharacter)),
            ("X", "a\n", Err(ControlCharacter)),
            ("X", "a\tb", Err(ControlCharacter)),
            ("X", "\0", Err(ControlCharacter)),
            ("X", "\u{7f}", Err(ControlCharacter)),
            ("X", "\u{100}", Err(NotLatin1)),
            ("X", "\u{20ac}", Err(NotLatin1)),
            ("X", "\u{1f600}", Err(NotLatin1)),
        ]);
    }

    #[test]
    fn hop_by_hop_headers_are_the_servers() {
        use HeaderError::*;
        check_headers(&[
            ("Connection", "close", Err(HopByHop)),
            ("TRANSFER-encoding", "chunked", Err(HopByHop)),
            ("TE", "trailers", Err(HopByHop)),
            ("Keep-Alive", "5", Err(HopByHop)),
            ("Upgrade", "h2c", Err(HopByHop)),
            ("Trailer", "X", Err(HopByHop)),
            ("Proxy-Authenticate", "Basic", Err(HopByHop)),
            ("Content-Length", "5", Ok(())),
        ]);
    }
}
