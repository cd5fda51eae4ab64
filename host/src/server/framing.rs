//! Pure: where a client's requests begin and end, and whether their heads may be seen by anyone.
//!
//! hyper reads the requests; heads are parsed here with the parser that hyper uses, set as hyper sets it, so that the two can't
//! disagree. What is refused here: what hyper refuses in silence, and what it lets pass that a proxy in front may have read
//! otherwise (RFC 9112 §11.2).

use std::mem::MaybeUninit;

use http::Uri;
use httparse::{Header, Request, Status};

use crate::error::Error;
use crate::limits::EdgeLimits;

/// Follows the bytes of a connection from request to request.
pub(crate) struct Framing {
    within: Within,
    /// Bytes of an unfinished head that need no second look.
    looked_at: usize,
    head_bytes_max: usize,
    headers_max: usize,
}

/// What the next byte belongs to.
enum Within {
    Head,
    /// A body, of which so many bytes are to come.
    Body(u64),
    Chunks(Chunks),
    /// What hyper will refuse: nothing that comes after it is a request.
    Nothing,
}

/// Why a head is refused, and what of its first line could be read.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: Error,
    pub(crate) method: String,
    pub(crate) target: String,
}

/// For a head with no more fields than this, the parser's room is on the stack.
const HEADERS_USUAL: usize = 100;

impl Framing {
    pub(crate) fn new(edge: &EdgeLimits) -> Self {
        Self {
            within: Within::Head,
            looked_at: 0,
            head_bytes_max: usize::try_from(edge.request_head_bytes).unwrap_or(usize::MAX),
            headers_max: edge.request_headers as usize,
        }
    }

    /// Whether the next byte begins a request, or continues the head of one.
    pub(crate) fn is_between_requests(&self) -> bool {
        matches!(self.within, Within::Head)
    }

    /// How many of `bytes` may go on to hyper: a whole head, and what there is of the request's body. None of them while a head
    /// is unfinished: then it is asked again with the same bytes and more. Never bytes of two requests.
    pub(crate) fn admit(&mut self, bytes: &[u8]) -> Result<usize, Box<Refused>> {
        let head = match self.within {
            Within::Head => match self.head(bytes)? {
                Some(head) => head,
                None => return Ok(0),
            },
            _ => 0,
        };
        Ok(head + self.body(&bytes[head..]))
    }

    /// Reads a head, if it is whole: its length.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Box<Refused>> {
        // What comes byte by byte is not parsed byte by byte.
        let is_new = self.looked_at == 0;
        let looked_at = std::mem::replace(&mut self.looked_at, bytes.len());
        if !is_new && !has_end(&bytes[looked_at.saturating_sub(3)..]) {
            return self.check_size(bytes, bytes.len()).map(|()| None);
        }
        let mut usual = [const { MaybeUninit::uninit() }; HEADERS_USUAL];
        let mut many;
        let fields: &mut [MaybeUninit<Header<'_>>] = match self.headers_max {
            max if max <= HEADERS_USUAL => &mut usual[..max],
            max => {
                many = vec![MaybeUninit::uninit(); max];
                &mut many
            }
        };
        let mut request = Request::new(&mut []);
        match httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut request, bytes, fields) {
            Ok(Status::Partial) => self.check_size(bytes, bytes.len()).map(|()| None),
            Ok(Status::Complete(length)) => {
                self.check_size(bytes, length)?;
                self.looked_at = 0;
                self.within = body_of(&request).map_err(|error| refused(error, bytes))?;
                Ok(Some(length))
            }
            Err(httparse::Error::TooManyHeaders) => {
                Err(refused(Error::TooManyFields(u32::try_from(self.headers_max).unwrap_or(u32::MAX)), bytes))
            }
            Err(error) => Err(refused(Error::BadRequest(complaint(error)), bytes)),
        }
    }

    fn check_size(&self, bytes: &[u8], length: usize) -> Result<(), Box<Refused>> {
        if length <= self.head_bytes_max {
            return Ok(());
        }
        // A first line without end is a target without end.
        let error = match bytes.iter().take(self.head_bytes_max).position(|byte| *byte == b'\n') {
            Some(_) => Error::HeadTooLarge(self.head_bytes_max as u64),
            None => Error::TargetTooLong(self.head_bytes_max as u64),
        };
        Err(refused(error, bytes))
    }

    /// How many of `bytes` belong to the body under way.
    fn body(&mut self, bytes: &[u8]) -> usize {
        match &mut self.within {
            Within::Head => 0,
            Within::Nothing => bytes.len(),
            Within::Body(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= length as u64;
                if *left == 0 {
                    self.within = Within::Head;
                }
                length
            }
            Within::Chunks(chunks) => {
                let length = chunks.advance(bytes);
                match chunks {
                    Chunks::Ended => self.within = Within::Head,
                    Chunks::Broken => {
                        self.within = Within::Nothing;
                        return bytes.len();
                    }
                    _ => {}
                }
                length
            }
        }
    }
}

/// Whether an empty line may be among these bytes: line ends may lack their CR (RFC 9112 §2.2).
fn has_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

fn complaint(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header field's name is not a token, or there is no colon after it",
        httparse::Error::HeaderValue => "a header field's value holds a control character",
        httparse::Error::NewLine => "a line does not end as lines do",
        httparse::Error::Token => "the request line is not method, target and version",
        httparse::Error::Version => "the version is neither HTTP/1.1 nor HTTP/1.0",
        _ => "the head is not HTTP",
    }
}

fn refused(error: Error, head: &[u8]) -> Box<Refused> {
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
    let line = head[start..].split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line[..line.len().min(LINE_BYTES_MAX)].split(|byte| *byte == b' ');
    let mut word = || words.next().map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default();
    Box::new(Refused { error, method: word(), target: word() })
}

/// What is kept of a first line, for the logs.
const LINE_BYTES_MAX: usize = 4 << 10;

/// What follows a head (RFC 9112 §6.3), or why nobody can say that for sure.
fn body_of(request: &Request<'_, '_>) -> Result<Within, Error> {
    check_target(request.path.unwrap_or_default())?;
    let mut length = None;
    let mut codings = Vec::new();
    for field in &*request.headers {
        // Nearly no field is one of the two.
        match field.name.len() {
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                let bytes =
                    content_length(field.value).ok_or(Error::BadRequest("Content-Length is not a number of bytes"))?;
                if bytes > LENGTH_MAX {
                    return Err(Error::BodyTooLarge(LENGTH_MAX));
                }
                if length.replace(bytes).is_some_and(|before| before != bytes) {
                    return Err(Error::BadRequest("Content-Length is there twice, with different values"));
                }
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                codings.extend(field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
            }
            _ => {}
        }
    }
    if codings.is_empty() {
        return Ok(length.filter(|bytes| *bytes > 0).map_or(Within::Head, Within::Body));
    }
    if length.is_some() {
        return Err(Error::BadRequest("Content-Length together with Transfer-Encoding"));
    }
    if request.version == Some(0) {
        return Err(Error::BadRequest("HTTP/1.0 has no Transfer-Encoding"));
    }
    check_codings(&codings)?;
    Ok(Within::Chunks(Chunks::SizeStart))
}

/// hyper would answer without a word what is no URI to it, and drop a fragment, which no client may send.
fn check_target(target: &str) -> Result<(), Error> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/?&=%.-_~+,;:@!$'()*".contains(&byte);
    // What does not begin like a path has a scheme or an authority, with rules of their own.
    if target.starts_with('/') && target.bytes().all(is_plain) {
        return Ok(());
    }
    if target.contains('#') {
        return Err(Error::BadRequest("the target holds a fragment"));
    }
    Uri::try_from(target).map(drop).map_err(|_| Error::BadRequest("the target is not a URI"))
}

/// `chunked`, once and alone, is the coding that there is.
fn check_codings(codings: &[&[u8]]) -> Result<(), Error> {
    let is_token = |coding: &[u8]| {
        !coding.is_empty()
            && coding.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
    };
    let name =
        |coding: &[u8]| coding.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let names: Vec<Vec<u8>> = codings.iter().map(|coding| name(coding)).collect();
    if !names.iter().all(|name| is_token(name)) {
        return Err(Error::BadRequest("Transfer-Encoding is not a list of codings"));
    }
    if let Some(unknown) = names.iter().find(|name| !matches!(name.as_slice(), b"chunked" | b"identity")) {
        return Err(Error::TransferCoding(String::from_utf8_lossy(unknown).into_owned()));
    }
    // With a parameter hyper would not know it for what it is.
    if codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    Err(Error::BadRequest("Transfer-Encoding is not \"chunked\", once"))
}

/// hyper has the two lengths above for bodies whose length is not known.
const LENGTH_MAX: u64 = u64::MAX - 2;

fn content_length(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// Where in a chunked body the next byte stands (RFC 9112 §7.1). What is wrong with it hyper says, to whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunks {
    SizeStart,
    Size(u64),
    /// The rest of the line with the size.
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    DataEndLf,
    /// The beginning of a trailer line, or of the last one.
    Trailer,
    TrailerRest,
    TrailerEnd,
    LastEnd,
    Ended,
    Broken,
}

impl Chunks {
    /// How many of `bytes` belong to the body.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if let Self::Data(left @ 2..) = self {
                let skipped = usize::try_from(*left - 1).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= skipped as u64;
                at += skipped;
                continue;
            }
            at += 1;
            if !self.goes_on_after(bytes[at - 1]) {
                break;
            }
        }
        at
    }

    /// Takes a byte; false if it was the last one of the body, or there is no sense in it.
    fn goes_on_after(&mut self, byte: u8) -> bool {
        *self = match (*self, byte) {
            (Self::SizeStart, _) => digit(byte).map_or(Self::Broken, Self::Size),
            (Self::Size(size), b';' | b' ' | b'\t') => Self::Extension(size),
            (Self::Size(size) | Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (Self::Size(size), _) => {
                let size = digit(byte).and_then(|digit| size.checked_mul(16)?.checked_add(digit));
                size.map_or(Self::Broken, Self::Size)
            }
            (Self::Extension(_), b'\n') => Self::Broken,
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::SizeEnd(0), b'\n') => Self::Trailer,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::Data(1), _) => Self::DataEnd,
            (Self::Data(left), _) => Self::Data(left - 1),
            (Self::DataEnd, b'\r') => Self::DataEndLf,
            (Self::DataEndLf, b'\n') => Self::SizeStart,
            (Self::Trailer, b'\r') => Self::LastEnd,
            (Self::TrailerRest, b'\r') => Self::TrailerEnd,
            (Self::Trailer | Self::TrailerRest, _) => Self::TrailerRest,
            (Self::TrailerEnd, b'\n') => Self::Trailer,
            (Self::LastEnd, b'\n') => Self::Ended,
            _ => Self::Broken,
        };
        !matches!(self, Self::Ended | Self::Broken)
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing() -> Framing {
        Framing::new(&EdgeLimits::default())
    }

    /// The lengths of the requests in `bytes`, given whole; then the rest.
    fn requests(bytes: &[u8]) -> Result<(Vec<usize>, usize), Box<Refused>> {
        let (mut framing, mut left, mut lengths) = (framing(), bytes, Vec::new());
        loop {
            match framing.admit(left)? {
                0 => return Ok((lengths, left.len())),
                length => lengths.push(length),
            }
            left = &left[lengths[lengths.len() - 1]..];
        }
    }

    #[track_caller]
    fn check_refused(head: &str, status: u16) {
        match requests(head.as_bytes()) {
            Ok(found) => panic!("{head:?} was let through: {found:?}"),
            Err(refused) => assert_eq!(refused.error.status().as_u16(), status, "{head:?}: {}", refused.error),
        }
    }

    #[test]
    fn requests_are_told_apart() {
        let plain = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        let body = "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /";
        let chunked = "POST /c HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nGET /\r\n00\r\nA: b\r\n\r\n";
        let bare = "GET /d HTTP/1.0\n\n";
        let all = [plain, body, chunked, bare].concat();
        let (lengths, rest) = requests(format!("{all}GET /unfinished HTTP/1.1\r\n").as_bytes()).unwrap();
        assert_eq!(lengths, [plain, body, chunked, bare].map(str::len));
        assert_eq!(rest, 26);
    }

    #[test]
    fn a_head_in_pieces_is_admitted_when_it_is_whole() {
        let head = b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut framing = framing();
        for end in 1..head.len() {
            assert_eq!(framing.admit(&head[..end]).unwrap(), 0, "{end}");
        }
        assert_eq!(framing.admit(head).unwrap(), head.len());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n");
        for fields in [
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: ",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: ",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding : chunked",
            "Content-Length\x00: 1",
            "X: a\r\n b",
            "X: a\rb",
            "X: a\0b",
            "X",
            ": x",
        ] {
            check_refused(&post(fields), 400);
        }
        for fields in ["Transfer-Encoding: gzip, chunked", "Transfer-Encoding: xchunked"] {
            check_refused(&post(fields), 501);
        }
        check_refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    }

    #[test]
    fn lengths_beyond_what_hyper_takes_are_too_large() {
        let post = |length: u64| format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        check_refused(&post(u64::MAX), 413);
        check_refused(&post(u64::MAX - 1), 413);
        assert!(requests(post(u64::MAX - 2).as_bytes()).is_ok());
    }

    #[test]
    fn first_lines_that_are_none_are_refused() {
        for line in [
            "GET /\r\n",
            "GET / http/1.1\r\n",
            "GET / HTTP/1.2\r\n",
            "GET / HTTP/2.0\r\n",
            "G@T / HTTP/1.1\r\n",
            "GET / x HTTP/1.1\r\n",
            "GET /a#b HTTP/1.1\r\n\r\n",
            "GET /a<b> HTTP/1.1\r\n\r\n",
            "GET http:// HTTP/1.1\r\n\r\n",
            "GET a:b:c HTTP/1.1\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            check_refused(line, 400);
        }
    }

    #[test]
    fn heads_have_a_size_however_they_come() {
        let edge = EdgeLimits { request_head_bytes: 100, request_headers: 3, ..EdgeLimits::default() };
        let check = |head: &str, status: Option<u16>| {
            let whole = Framing::new(&edge).admit(head.as_bytes());
            let mut framing = Framing::new(&edge);
            let pieces = (1..=head.len())
                .map(|end| framing.admit(&head.as_bytes()[..end]))
                .find(|found| !matches!(found, Ok(0)));
            for found in [whole, pieces.unwrap_or(Ok(0))] {
                assert_eq!(found.err().map(|refused| refused.error.status().as_u16()), status, "{head:?}");
            }
        };
        let head = |x: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(x));
        check(&head(100 - 23), None);
        check(&head(100 - 22), Some(431));
        check(&head(1000)[..200], Some(431));
        check(&format!("GET /{}", "x".repeat(200)), Some(414));
        check("GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n", None);
        check("GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n", Some(431));
    }

    #[test]
    fn after_a_broken_chunk_nothing_is_a_request() {
        for chunk in ["x\r\n", "\r\n", "-1\r\n", "1 1\n", "fffffffffffffffff\r\n", "1\r\nab", "1\n", "0\r\nA: b\nC"] {
            let bytes =
                format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}\r\n\r\nGET / HTTP/1.1\r\n\r\n");
            let admitted = framing().admit(bytes.as_bytes()).unwrap();
            assert!(
                admitted == bytes.len() || chunk.starts_with("0\r\nA") || chunk.starts_with("1 1"),
                "{chunk:?}: {admitted}"
            );
        }
    }
}
