//! The request as an environ block: CGI's variables (RFC 3875 §4.1, PEP 3333 "environ Variables"), packed.
//!
//! The rules' numbers: E3 what is always there, E5 decoding, E6 CONTENT_*, E7 headers, E8 names that would alias others.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, Method, Version, header, request};

use zeroize::Zeroizing;

use crate::origin::Origin;

/// A variable per line of this would be: name, NUL, value, NUL.
#[derive(Debug, Default)]
pub(crate) struct EnvironBlock {
    bytes: Vec<u8>,
}

/// Variables that are the same for all requests of an app, packed once. There may be secrets among them: it is
/// overwritten when it is dropped.
#[derive(Default)]
pub(crate) struct Constant(Zeroizing<Vec<u8>>);

impl Constant {
    pub(crate) fn new<'a>(variables: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let own = [("SERVER_SOFTWARE", concat!("wasgi/", env!("CARGO_PKG_VERSION"))), ("GATEWAY_INTERFACE", "CGI/1.1")];
        let all = variables.chain(own);
        // Room for all of it, so that nothing is left behind where it grew.
        let bytes = all.clone().map(|(name, value)| name.len() + value.len() + 2).sum();
        let mut block = EnvironBlock { bytes: Vec::with_capacity(bytes) };
        all.for_each(|(name, value)| block.push(name.as_bytes(), value.as_bytes()));
        Self(Zeroizing::new(block.bytes))
    }
}

/// What environ needs to know beside the request's head.
pub(crate) struct Place<'a> {
    pub(crate) script_name: &'a [u8],
    /// Decoded, once.
    pub(crate) path_info: &'a [u8],
    pub(crate) origin: &'a Origin,
    /// How long the body is, where the client did not say and it has been spooled.
    pub(crate) spooled_bytes: Option<u64>,
}

impl EnvironBlock {
    /// The block of one request.
    pub(crate) fn of_request(constant: &Constant, parts: &request::Parts, place: &Place<'_>) -> Self {
        let Constant(constant) = constant;
        let mut block = Self { bytes: Vec::with_capacity(constant.len() + 1024) };
        block.bytes.extend_from_slice(constant);
        block.push_request_line(parts, place);
        block.push_addresses(parts, place);
        block.push_headers(parts);
        if let Some(bytes) = place.spooled_bytes {
            block.push_display("CONTENT_LENGTH", bytes);
        }
        block
    }

    /// Names and values.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut fields = self.bytes.split(|byte| *byte == 0);
        std::iter::from_fn(move || Some((fields.next()?, fields.next()?)))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.bytes.extend_from_slice(value);
        self.bytes.push(0);
    }

    pub(crate) fn push_display(&mut self, name: &str, value: impl std::fmt::Display) {
        write!(self.bytes, "{name}\0{value}\0").expect("writing to memory does not fail");
    }

    fn push_request_line(&mut self, parts: &request::Parts, place: &Place<'_>) {
        self.push(b"REQUEST_METHOD", parts.method.as_str().as_bytes());
        self.push(b"SCRIPT_NAME", place.script_name);
        self.push(b"PATH_INFO", place.path_info);
        self.push(b"QUERY_STRING", parts.uri.query().unwrap_or("").as_bytes());
        let target = parts.uri.path_and_query().map_or("*", http::uri::PathAndQuery::as_str);
        self.push(b"REQUEST_URI", target.as_bytes());
        self.push(b"SERVER_PROTOCOL", protocol(parts.version).as_bytes());
    }

    fn push_addresses(&mut self, parts: &request::Parts, place: &Place<'_>) {
        self.bytes.extend_from_slice(&place.origin.environ);
        match authority(parts) {
            Some((host, port)) => {
                self.push(b"SERVER_NAME", host.as_bytes());
                match port {
                    Some(port) => self.push(b"SERVER_PORT", port.as_bytes()),
                    None => self.push_display("SERVER_PORT", place.origin.port),
                }
            }
            None => {
                match place.origin.local {
                    Some(local) => self.push_display("SERVER_NAME", local.ip()),
                    None => self.push(b"SERVER_NAME", b"localhost"),
                }
                self.push_display("SERVER_PORT", place.origin.port);
            }
        }
    }

    /// One variable for each field name; repeated fields are joined (RFC 9110 §5.3; Cookie: RFC 6265 §5.4).
    fn push_headers(&mut self, parts: &request::Parts) {
        let headers = &parts.headers;
        // What an absolute-form target names goes before the Host field (RFC 9112 §3.2.2), for the guest as for routing.
        if let Some(named) = parts.uri.authority() {
            self.push(b"HTTP_HOST", named.as_str().as_bytes());
        }
        for name in headers.keys() {
            if !is_passed(name) || (*name == header::HOST && parts.uri.authority().is_some()) {
                continue;
            }
            match *name {
                header::CONTENT_TYPE => self.bytes.extend_from_slice(b"CONTENT_TYPE"),
                header::CONTENT_LENGTH => self.bytes.extend_from_slice(b"CONTENT_LENGTH"),
                _ => {
                    self.bytes.extend_from_slice(b"HTTP_");
                    let upper =
                        name.as_str().bytes().map(|byte| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() });
                    self.bytes.extend(upper);
                }
            }
            self.bytes.push(0);
            self.push_joined(headers, name);
            self.bytes.push(0);
        }
    }

    fn push_joined(&mut self, headers: &HeaderMap, name: &HeaderName) {
        let separator: &[u8] = if name == header::COOKIE { b"; " } else { b"," };
        for (index, value) in headers.get_all(name).iter().enumerate() {
            if index > 0 {
                self.bytes.extend_from_slice(separator);
            }
            self.bytes.extend_from_slice(value.as_bytes());
        }
    }
}

/// A name with `_` would be the same variable as one with `-` (E8), HTTP_PROXY would be taken for a setting (httpoxy), and
/// Transfer-Encoding is undone by the server before the guest reads.
fn is_passed(name: &HeaderName) -> bool {
    !(*name == "proxy" || *name == header::TRANSFER_ENCODING || name.as_str().contains('_'))
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Host and port as the client named them: from an absolute-form target, else from the Host field.
pub(crate) fn authority(parts: &request::Parts) -> Option<(&str, Option<&str>)> {
    match parts.uri.authority() {
        Some(authority) => host_and_port(authority.as_str()),
        None => host_and_port(parts.headers.get(header::HOST)?.to_str().ok()?),
    }
}

/// The grammar of what a request may name (RFC 9112 §3.2, RFC 3986 §3.2.2): a name, an IPv4 address or an IPv6 address in
/// brackets, and perhaps a port. None for whatever else, be it credentials (RFC 9110 §4.2.4), since routing, the guest and a
/// proxy in front could each read another host in it.
pub(crate) fn host_and_port(text: &str) -> Option<(&str, Option<&str>)> {
    let host_len = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, _) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            address.len() + "[]".len()
        }
        None => name_len(text.as_bytes())?,
    };
    let (host, rest) = text.split_at(host_len);
    if host.is_empty() {
        return None;
    }
    match rest.strip_prefix(':') {
        None => rest.is_empty().then_some((host, None)),
        // `example.com:` names no port.
        Some("") => Some((host, None)),
        Some(port) => is_port(port).then_some((host, Some(port))),
    }
}

/// How long the name is that ends with the text or before a colon.
fn name_len(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b':' => break,
            b'%' if text.get(at + 1..at + 3)?.iter().all(u8::is_ascii_hexdigit) => at += 3,
            byte if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => at += 1,
            _ => return None,
        }
    }
    Some(at)
}

fn is_port(text: &str) -> bool {
    text.len() <= "65535".len() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// The variables of an [`Origin`], packed.
///
/// A client that came by a Unix socket has no address: REMOTE_ADDR is then empty, as gunicorn has it. RFC 3875 §4.1.8 wants the
/// variable, and frameworks look it up without asking whether it is there.
pub(crate) fn client_environ(remote: Option<IpAddr>, port: Option<u16>, https: bool) -> Box<[u8]> {
    let mut block = EnvironBlock::default();
    match remote {
        Some(remote) => block.push_display("REMOTE_ADDR", remote),
        None => block.push(b"REMOTE_ADDR", b""),
    }
    if let Some(port) = port {
        block.push_display("REMOTE_PORT", port);
    }
    if https {
        block.push(b"HTTPS", b"on");
    }
    block.bytes.into()
}

/// Whether a response to this method carries no body.
pub(crate) fn wants_head_only(method: &Method) -> bool {
    method == Method::HEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn environ(request: http::Request<()>) -> BTreeMap<String, Vec<u8>> {
        let (parts, ()) = request.into_parts();
        let place = Place {
            script_name: b"/app",
            path_info: b"/x",
            origin: &Origin::of_connection(
                Some("192.0.2.7:4711".parse().unwrap()),
                Some("127.0.0.1:8000".parse().unwrap()),
                false,
            ),
            spooled_bytes: None,
        };
        let constant = Constant::new([("GREETING", "hi")].into_iter());
        let bytes = EnvironBlock::of_request(&constant, &parts, &place).into_bytes();
        let mut fields = bytes.split(|byte| *byte == 0);
        let mut variables = BTreeMap::new();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            let name = String::from_utf8(name.to_vec()).unwrap();
            assert!(variables.insert(name.clone(), value.to_vec()).is_none(), "{name} twice");
        }
        variables
    }

    #[test]
    fn what_must_be_there_is_there() {
        let environ = environ(http::Request::get("/app/x?a=%20b").header("Host", "shop.example:81").body(()).unwrap());
        for (name, value) in [
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_NAME", "/app"),
            ("PATH_INFO", "/x"),
            ("QUERY_STRING", "a=%20b"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_NAME", "shop.example"),
            ("SERVER_PORT", "81"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "4711"),
            ("REQUEST_URI", "/app/x?a=%20b"),
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("HTTP_HOST", "shop.example:81"),
            ("GREETING", "hi"),
        ] {
            assert_eq!(
                environ.get(name).map(|value| String::from_utf8_lossy(value).into_owned()).as_deref(),
                Some(value),
                "{name}"
            );
        }
        assert!(!environ.contains_key("CONTENT_TYPE"));
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let environ = environ(http::Request::get("http://b.example:81/x").header("host", "a").body(()).unwrap());
        assert_eq!(environ["HTTP_HOST"], b"b.example:81");
        assert_eq!(environ["SERVER_NAME"], b"b.example");
    }

    #[test]
    fn headers_become_variables() {
        let environ = environ(
            http::Request::post("/")
                .header("content-type", "a/b")
                .header("content-length", "3")
                .header("x-list", "a")
                .header("x-list", "b")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .header("x-latin", http::HeaderValue::from_bytes(b"caf\xe9").unwrap())
                .header("x_alias", "evil")
                .header("proxy", "evil")
                .header("transfer-encoding", "chunked")
                .body(())
                .unwrap(),
        );
        assert_eq!(environ["CONTENT_TYPE"], b"a/b");
        assert_eq!(environ["CONTENT_LENGTH"], b"3");
        assert_eq!(environ["HTTP_X_LIST"], b"a,b");
        assert_eq!(environ["HTTP_COOKIE"], b"a=1; b=2");
        assert_eq!(environ["HTTP_X_LATIN"], b"caf\xe9");
        for name in ["HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_X_ALIAS", "HTTP_PROXY", "HTTP_TRANSFER_ENCODING"]
        {
            assert!(!environ.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_request_names_a_host_and_perhaps_a_port() {
        for (text, expected) in [
            ("a.example", Some(("a.example", None))),
            ("a.example:80", Some(("a.example", Some("80")))),
            ("a.example:65535", Some(("a.example", Some("65535")))),
            ("a.example:", Some(("a.example", None))),
            ("a_b~!$&'()*+,;=", Some(("a_b~!$&'()*+,;=", None))),
            ("caf%C3%a9.example:1", Some(("caf%C3%a9.example", Some("1")))),
            ("127.0.0.1:80", Some(("127.0.0.1", Some("80")))),
            ("[::1]:80", Some(("[::1]", Some("80")))),
            ("[::1]", Some(("[::1]", None))),
            ("[::ffff:10.0.0.1]:", Some(("[::ffff:10.0.0.1]", None))),
            ("", None),
            (":80", None),
            ("a:b", None),
            ("a:b:c", None),
            ("a:1:2", None),
            ("a:80:", None),
            ("a:65536", None),
            ("a:999999999", None),
            ("a:+80", None),
            ("a:-1", None),
            ("a: 80", None),
            ("%zz,][", None),
            ("a%", None),
            ("a%4", None),
            ("a%4g", None),
            ("u@a", None),
            ("u:p@a", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]80", None),
            ("[::1]:b", None),
            ("[]", None),
            ("[a]", None),
            ("[10.0.0.1]", None),
            ("[fe80::1%25eth0]", None),
            ("[v1.x]", None),
            ("a[::1]", None),
            ("a/b", None),
            ("a b", None),
            ("a\\b", None),
            ("a\u{e9}", None),
        ] {
            assert_eq!(host_and_port(text), expected, "{text}");
        }
    }
}
