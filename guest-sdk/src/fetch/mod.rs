//! Requests to elsewhere: what the operator grants the app, and the app's sidecar asks for (`outbound`). With the feature `fetch`.
//!
//! ```
//! use wasgi::{Body, Environ, StartResponse, fetch};
//!
//! fn app(_environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
//!     let weather = fetch::get("https://api.example.com/weather?of=Ulm")?.text()?;
//!     start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
//!     Ok(Body::from(weather))
//! }
//! # wasgi::testing::answer_fetches(|_| Ok(fetch::Response::new(200, &[], "sunny")));
//! # let response = wasgi::testing::call(app, Environ::from_iter([("PATH_INFO", "/")]), b"").unwrap();
//! # assert_eq!(response.body, b"sunny");
//! ```
//!
//! The host speaks HTTP and TLS; redirects are not followed. What is not granted, takes too long or is too large is an [`Error`],
//! whose [`kind`](Error::kind) tells which. Natively a function of the test answers:
//! [`testing::answer_fetches`](crate::testing::answer_fetches).

use std::fmt;
use std::io::{self, Read};
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native;
#[cfg(target_arch = "wasm32")]
mod wasm;

#[cfg(not(target_arch = "wasm32"))]
use native as host;
#[cfg(target_arch = "wasm32")]
use wasm as host;

/// Fetches a URL.
///
/// # Errors
/// See [`Kind`]. A response with a status such as 404 is none.
pub fn get(url: &str) -> Result<Response, Error> {
    Request::get(url).send()
}

/// A request, made step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// "GET"
    pub method: String,
    /// "https://api.example.com/v1"
    pub url: String,
    /// In order; `Host` and `Content-Length` are the host's.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How long to wait for the connection, for the response, and for each further piece of it. The host's limits are the ceiling.
    pub timeout: Option<Duration>,
}

impl Request {
    pub fn new(method: &str, url: &str) -> Self {
        Self { method: method.into(), url: url.into(), headers: Vec::new(), body: Vec::new(), timeout: None }
    }

    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    pub fn post(url: &str) -> Self {
        Self::new("POST", url)
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it, and waits for the head of the response.
    ///
    /// # Errors
    /// See [`Kind`].
    pub fn send(self) -> Result<Response, Error> {
        host::send(self)
    }
}

/// What came back. Its body is read as it arrives: it is a [`Read`].
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: host::Incoming,
}

impl Response {
    /// For tests: what [`testing::answer_fetches`](crate::testing::answer_fetches) answers with.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Self { status, headers, body: host::Incoming::new(body.into()) }
    }

    /// 200
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All of them, as they came; bytes that are not ASCII are the characters U+0080 to U+00FF.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The whole body.
    ///
    /// # Errors
    /// If it breaks off.
    pub fn bytes(mut self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(block) = self.body.next()? {
            bytes.extend_from_slice(&block);
        }
        Ok(bytes)
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// If it breaks off, or is not UTF-8.
    pub fn text(self) -> Result<String, Error> {
        String::from_utf8(self.bytes()?).map_err(|error| Error::new(Kind::Protocol, error.to_string()))
    }
}

impl Read for Response {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer).map_err(io::Error::other)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// Why there is no response, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The request cannot be sent as it is: its URL, its method, a header.
    BadRequest,
    /// It is not granted, or the name leads to an address that is not. The app's log says what to do.
    Denied,
    /// A limit of the host: connections at a time, bytes sent or received.
    Limit,
    /// The name is unknown, nobody answers, or the connection was refused.
    Unreachable,
    /// It took too long.
    Timeout,
    /// The server is not who it should be, or speaks no TLS.
    Tls,
    /// What came back is no HTTP, or broke off.
    Protocol,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            Kind::BadRequest => "the request cannot be sent",
            Kind::Denied => "the host denies the request",
            Kind::Limit => "the request meets a limit of the host",
            Kind::Unreachable => "the server cannot be reached",
            Kind::Timeout => "the request took too long",
            Kind::Tls => "there is no TLS with the server",
            Kind::Protocol => "the response cannot be read",
        };
        write!(f, "{what}: {}", self.message)
    }
}

impl std::error::Error for Error {}

/// A URL in the parts that are sent: scheme, authority, path with query. What follows `#` stays here.
#[cfg_attr(not(any(target_arch = "wasm32", test)), allow(dead_code, reason = "the stand-in takes whole URLs"))]
fn parts(url: &str) -> Result<(&str, &str, String), Error> {
    let bad = |why: &str| Error::new(Kind::BadRequest, std::format!("{url:?} {why}"));
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("is no URL"))?;
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() {
        return Err(bad("names no host"));
    }
    let path = if path.starts_with('/') { path.to_string() } else { std::format!("/{path}") };
    Ok((scheme, authority, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart_where_they_should() {
        let check = |url, expected: (&str, &str, &str)| {
            let (scheme, authority, path) = parts(url).expect(url);
            assert_eq!((scheme, authority, path.as_str()), expected);
        };
        check("https://a.example", ("https", "a.example", "/"));
        check("https://a.example?q=1", ("https", "a.example", "/?q=1"));
        check("http://[::1]:80/a/b?c#d", ("http", "[::1]:80", "/a/b?c"));
        for url in ["", "a.example", "https://", "https:///path"] {
            assert_eq!(parts(url).expect_err(url).kind(), Kind::BadRequest);
        }
    }

    #[test]
    fn a_test_answers_for_the_servers() {
        let refused = get("https://a.example").expect_err("nobody answers");
        assert_eq!(refused.kind(), Kind::Denied);
        crate::testing::answer_fetches(|request| {
            assert_eq!((request.method.as_str(), request.body.as_slice()), ("POST", &b"in"[..]));
            Ok(Response::new(201, &[("X-Made", "yes")], "out"))
        });
        let response = Request::post("https://a.example").header("X", "y").body("in").send().expect("it is answered");
        assert_eq!((response.status(), response.header("x-made")), (201, Some("yes")));
        assert_eq!(response.text().as_deref(), Ok("out"));
    }
}
