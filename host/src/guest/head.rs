//! The head of a response, as a guest gave it: checked against PEP 3333's rules and the app's limits, then HTTP's own types.
//!
//! The host trusts no guest: these checks protect the client and the connection, whatever the guest's SDK has checked.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::limits::Limits;

/// Status and header fields, checked.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    /// Where it is not the usual one: bytes on the wire.
    pub(crate) reason: Option<Vec<u8>>,
    /// Without Content-Length.
    pub(crate) headers: HeaderMap,
    /// What the guest gave as Content-Length.
    pub(crate) content_length: Option<u64>,
}

/// Why a head is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("status {0}")]
    Status(String),
    #[error("header {0}")]
    Header(String),
    #[error("{0}")]
    TooLarge(String),
}

/// Header fields that belong to the connection, not to the message, and so to the server alone (PEP 3333 "Other HTTP
/// Features", RFC 2616 §13.5.1).
pub(super) const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    // RFC 2616 calls it so; `wsgiref` refuses it.
    HeaderName::from_static("trailers"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

impl Head {
    /// Checks what `start_response` was called with.
    pub(crate) fn new<'a>(
        status: &str,
        headers: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        limits: &Limits,
    ) -> Result<Self, HeadError> {
        if headers.len() > limits.response_headers as usize {
            return Err(HeadError::TooLarge(format!("more than response_headers = {}", limits.response_headers)));
        }
        if status.len() as u64 > limits.response_header_bytes {
            return Err(HeadError::TooLarge(format!("the status is longer than {}", limits.response_header_bytes)));
        }
        let (status, reason) = parse_status(status)?;
        let mut head =
            Self { status, reason, headers: HeaderMap::with_capacity(headers.len() + 2), content_length: None };
        let mut bytes = 0;
        for (name, value) in headers {
            bytes += (name.len() + value.len()) as u64;
            if bytes > limits.response_header_bytes {
                let max = limits.response_header_bytes;
                return Err(HeadError::TooLarge(format!("more than response_header_size = {max} bytes")));
            }
            head.append(name, value)?;
        }
        Ok(head)
    }

    /// Checks what a guest has given as HTTP's own types. The names and values are HTTP's already.
    pub(crate) fn from_http(status: StatusCode, mut headers: HeaderMap, limits: &Limits) -> Result<Self, HeadError> {
        if status.is_informational() {
            return Err(HeadError::Status(format!("{status}: an informational status is not a response")));
        }
        check_size(&headers, limits)?;
        let refused = |name: &HeaderName, why: &str| Err(HeadError::Header(format!("\"{name}\": {why}")));
        // Which trailers follow may be said, and is for the client (RFC 9110 §6.6.2).
        let allowed = |name: &HeaderName| *name == header::TE || *name == header::TRAILER;
        if let Some(name) = headers.keys().find(|name| HOP_BY_HOP.contains(name) && !allowed(name)) {
            return refused(name, "it is hop-by-hop, the server's alone");
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter().map(|value| content_length(value.as_bytes()));
        let content_length = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(Some(length)), None) => Some(length),
            _ => return refused(&header::CONTENT_LENGTH, "not one number of bytes"),
        };
        headers.remove(header::CONTENT_LENGTH);
        Ok(Self { status, reason: None, headers, content_length })
    }

    /// Whether a response with this status has a body (RFC 9110 §6.4.1).
    pub(crate) fn allows_body(&self) -> bool {
        !matches!(self.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
    }

    fn append(&mut self, name: &str, value: &str) -> Result<(), HeadError> {
        let refused = |why: &str| HeadError::Header(format!("{:?}: {why}", shown(name)));
        let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused("the name is not a token"))?;
        if HOP_BY_HOP.contains(&field) {
            return Err(refused("it is hop-by-hop, the server's alone"));
        }
        if field == "status" {
            return Err(refused("the status is given as the status, not as a header"));
        }
        let value = latin1(value).ok_or_else(|| refused("the value holds a code point above U+00FF"))?;
        if value.iter().any(u8::is_ascii_control) {
            return Err(refused("the value holds a control character"));
        }
        if field == header::CONTENT_LENGTH {
            let length = content_length(&value).ok_or_else(|| refused("not a number of bytes"))?;
            if self.content_length.replace(length).is_some_and(|first| first != length) {
                return Err(refused("given twice, with different values"));
            }
            return Ok(());
        }
        let value = HeaderValue::from_bytes(&value).map_err(|_| refused("the value holds a control character"))?;
        self.headers.append(field, value);
        Ok(())
    }
}

fn check_size(headers: &HeaderMap, limits: &Limits) -> Result<(), HeadError> {
    if headers.len() > limits.response_headers as usize {
        return Err(HeadError::TooLarge(format!("more than response_headers = {}", limits.response_headers)));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes as u64 > limits.response_header_bytes {
        let max = limits.response_header_bytes;
        return Err(HeadError::TooLarge(format!("more than response_header_size = {max} bytes")));
    }
    Ok(())
}

/// What may follow a body: fields that do not belong before it (RFC 9110 §6.5.1), within the limits of a head. None if nothing
/// is left.
pub(crate) fn checked_trailers(mut trailers: HeaderMap, limits: &Limits) -> Result<Option<HeaderMap>, HeadError> {
    check_size(&trailers, limits)?;
    for name in HOP_BY_HOP.into_iter().chain(NOT_IN_TRAILERS) {
        trailers.remove(name);
    }
    Ok((!trailers.is_empty()).then_some(trailers))
}

/// Framing, routing, and how the body is to be understood.
const NOT_IN_TRAILERS: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::HOST,
    header::SET_COOKIE,
];

/// "200 OK" → 200 and its reason, where that is not the usual one (PEP 3333: three digits, a space, a reason).
fn parse_status(text: &str) -> Result<(StatusCode, Option<Vec<u8>>), HeadError> {
    let refused = |why: &str| HeadError::Status(format!("{:?}: {why}", shown(text)));
    let (code, reason) = text.split_once(' ').ok_or_else(|| refused("not three digits, a space and a reason"))?;
    if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_digit()) || reason.is_empty() {
        return Err(refused("not three digits, a space and a reason"));
    }
    let given = reason;
    let reason = latin1(given).ok_or_else(|| refused("the reason holds a code point above U+00FF"))?;
    if reason.iter().any(u8::is_ascii_control) {
        return Err(refused("the reason holds a control character"));
    }
    let status = StatusCode::from_bytes(code.as_bytes()).map_err(|_| refused("no such status"))?;
    if status.is_informational() {
        return Err(refused("an informational status is no response, and none can be sent before it"));
    }
    let is_usual = status.canonical_reason() == Some(given);
    Ok((status, (!is_usual).then(|| reason.into_owned())))
}

/// What is shown of a guest's text in a message.
fn shown(text: &str) -> &str {
    const BYTES_MAX: usize = 100;
    &text[..text.floor_char_boundary(BYTES_MAX)]
}

/// RFC 9110 §8.6: digits, nothing else.
fn content_length(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Text whose code points are bytes on the wire, as those bytes.
fn latin1(text: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
    if text.is_ascii() {
        return Some(text.as_bytes().into());
    }
    text.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect::<Option<Vec<u8>>>().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: &str, headers: &[(&str, &str)]) -> Result<Head, HeadError> {
        Head::new(status, headers.iter().copied(), &Limits::default())
    }

    #[test]
    fn a_usual_head_is_taken() {
        let head =
            check("200 OK", &[("Content-Type", "text/plain"), ("content-length", "12"), ("X-Name", "caf\u{e9}")])
                .unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(head.reason, None);
        assert_eq!(head.content_length, Some(12));
        assert_eq!(head.headers["x-name"].as_bytes(), b"caf\xe9");
    }

    #[test]
    fn an_unusual_reason_is_kept() {
        assert_eq!(check("200 Fine", &[]).unwrap().reason.as_deref(), Some(&b"Fine"[..]));
        assert_eq!(check("200 Tr\u{e8}s", &[]).unwrap().reason.as_deref(), Some(&b"Tr\xe8s"[..]), "a byte each");
        // No control character of HTTP's: bytes of UTF-8 are such.
        assert_eq!(check("200 \u{80}", &[]).unwrap().reason.as_deref(), Some(&b"\x80"[..]));
    }

    #[test]
    fn repeated_headers_stay_apart() {
        let head = check("200 OK", &[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]).unwrap();
        assert_eq!(head.headers.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn bad_statuses_are_refused() {
        for status in [
            "",
            "200",
            "200 ",
            "20 OK",
            "2000 OK",
            "2x0 OK",
            "200\tOK",
            "200 O\nK",
            "200 \u{100}",
            "101 Switching Protocols",
            "+20 OK",
        ] {
            assert!(matches!(check(status, &[]), Err(HeadError::Status(_))), "{status:?}");
        }
    }

    #[test]
    fn bad_headers_are_refused() {
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a:", "x"),
            ("caf\u{e9}", "x"),
            ("Status", "200 OK"),
            ("Connection", "close"),
            ("transfer-encoding", "chunked"),
            ("Keep-Alive", "1"),
            ("Trailers", "X"),
            ("X", "a\r\nSet-Cookie: b"),
            ("X", "a\0"),
            ("X", "a\tb"),
            ("X", "\u{7f}"),
            ("X", "\u{20ac}"),
            ("Content-Length", "-1"),
            ("Content-Length", "1, 1"),
            ("Content-Length", "+1"),
            ("Content-Length", ""),
            ("Content-Length", "99999999999999999999"),
        ] {
            assert!(matches!(check("200 OK", &[(name, value)]), Err(HeadError::Header(_))), "{name:?}: {value:?}");
        }
        assert!(check("200 OK", &[("Content-Length", "1"), ("Content-Length", "2")]).is_err());
    }

    #[test]
    fn a_head_of_http_types_is_checked_too() {
        let check = |status: u16, fields: &[(&'static str, &str)]| {
            let fields = fields
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value")));
            Head::from_http(StatusCode::from_u16(status).unwrap(), fields.collect(), &Limits::default())
        };
        let head = check(404, &[("content-length", "7"), ("trailer", "x-sum"), ("x-tab", "a\tb")]).unwrap();
        assert_eq!((head.status.as_u16(), head.content_length), (404, Some(7)));
        assert_eq!(head.headers.len(), 2);
        for (status, name, value) in [
            (103, "link", "x"),
            (101, "x", "x"),
            (200, "connection", "close"),
            (200, "transfer-encoding", "chunked"),
            (200, "content-length", "+1"),
            (200, "content-length", "1, 1"),
        ] {
            assert!(check(status, &[(name, value)]).is_err(), "{status} {name}: {value}");
        }
        let mut twice = HeaderMap::new();
        twice.append(header::CONTENT_LENGTH, 1.into());
        twice.append(header::CONTENT_LENGTH, 1.into());
        assert!(Head::from_http(StatusCode::OK, twice, &Limits::default()).is_err());
        let long = "y".repeat(40_000);
        assert!(matches!(check(200, &[("x", &long)]), Err(HeadError::TooLarge(_))));
    }

    #[test]
    fn trailers_lose_what_belongs_before_the_body() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        trailers.insert(header::CONTENT_LENGTH, 1.into());
        trailers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let kept = checked_trailers(trailers, &Limits::default()).unwrap().unwrap();
        assert_eq!(kept.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
        assert!(checked_trailers(HeaderMap::new(), &Limits::default()).unwrap().is_none());
    }

    #[test]
    fn large_heads_are_refused() {
        let many = vec![("X", "y"); 101];
        assert!(matches!(check("200 OK", &many), Err(HeadError::TooLarge(_))));
        let long = "y".repeat(40_000);
        assert!(matches!(check("200 OK", &[("X", &long)]), Err(HeadError::TooLarge(_))));
    }
}
