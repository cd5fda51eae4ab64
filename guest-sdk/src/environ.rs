//! `environ`: the variables of one request.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::io::{Errors, Input};

/// `wsgi.url_scheme`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlScheme {
    Http,
    Https,
}

impl UrlScheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            UrlScheme::Http => "http",
            UrlScheme::Https => "https",
        }
    }
}

/// PEP 3333's `environ`: the CGI variables of a request, its `HTTP_…` header fields, and the environment variables that
/// the operator set for the application.
///
/// Values are the bytes that came over the wire. [`get`](Environ::get) reads them as UTF-8, and a value that is not UTF-8
/// as latin-1, so that it never fails; [`bytes`](Environ::bytes) has them as they are. (PEP 3333 reads all of them as
/// latin-1 because Python's `str` has no room for bytes; `/é` would come out as `/Ã©`.)
///
/// A look-up scans the block that the host handed over and copies nothing that is ASCII or UTF-8.
#[derive(Clone, Debug)]
pub struct Environ {
    /// Name, NUL, value, NUL, and so on.
    block: Vec<u8>,
    url_scheme: UrlScheme,
    multiprocess: bool,
    run_once: bool,
}

impl Environ {
    /// An environ from a packed block: for each variable its name, a NUL, its value, a NUL.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn new(block: Vec<u8>, url_scheme: UrlScheme, multiprocess: bool, run_once: bool) -> Environ {
        Environ { block, url_scheme, multiprocess, run_once }
    }

    /// An environ for a test: `Environ::from_iter([("REQUEST_METHOD", "GET")])`, plain HTTP, a fresh instance.
    fn from_variables<'a>(variables: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Environ {
        let mut block = Vec::new();
        for (name, value) in variables {
            block.extend_from_slice(name);
            block.push(0);
            block.extend_from_slice(value);
            block.push(0);
        }
        Environ { block, url_scheme: UrlScheme::Http, multiprocess: false, run_once: true }
    }

    /// The variable as text (see the type for how bytes are read), or `None` if it is not set.
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes(name).map(text)
    }

    /// The variable's bytes, as they came over the wire.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let name = name.as_bytes();
        self.variables().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// A request header field by its own name: `header("User-Agent")` is `HTTP_USER_AGENT`. Case does not matter.
    ///
    /// A field that was sent several times comes joined with commas (`Cookie` with semicolons).
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.header_bytes(name).map(text)
    }

    /// Like [`header`](Environ::header), the bytes.
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        // These two have no HTTP_ prefix (PEP 3333, environ Variables).
        let bare = name.eq_ignore_ascii_case("content-type") || name.eq_ignore_ascii_case("content-length");
        self.variables()
            .find(|(known, _)| {
                let known = if bare { Some(*known) } else { known.strip_prefix(b"HTTP_") };
                known.is_some_and(|known| same_field(known, name.as_bytes()))
            })
            .map(|(_, value)| value)
    }

    /// All variables as text, in the host's order.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.variables().map(|(name, value)| (text(name), text(value)))
    }

    /// All variables as bytes, in the host's order.
    pub fn variables(&self) -> Variables<'_> {
        Variables { rest: &self.block }
    }

    /// Sets a variable, or replaces it: PEP 3333 lets an application change its environ as it likes, for what it passes it on
    /// to. A NUL ends name and value. Each call moves the variables behind it, so this is for a few.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        for field in [name.as_bytes(), value.as_ref()] {
            self.block.extend(field.iter().take_while(|byte| **byte != 0));
            self.block.push(0);
        }
    }

    /// Removes a variable; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let mut at = 0;
        for (known, value) in self.variables() {
            let end = at + known.len() + value.len() + 2;
            if known == name.as_bytes() {
                self.block.drain(at..end);
                return true;
            }
            at = end;
        }
        false
    }

    /// `REQUEST_METHOD`: `GET`.
    pub fn method(&self) -> &str {
        // A method is a token, and tokens are ASCII; the host lets nothing else through.
        self.bytes("REQUEST_METHOD").and_then(|method| core::str::from_utf8(method).ok()).unwrap_or("")
    }

    /// `SCRIPT_NAME`: where the application is, "" or a path without a trailing slash.
    pub fn script_name(&self) -> Cow<'_, str> {
        self.get("SCRIPT_NAME").unwrap_or_default()
    }

    /// `PATH_INFO`: the rest of the path, percent-decoded; "" or a path that begins with a slash.
    pub fn path_info(&self) -> Cow<'_, str> {
        self.get("PATH_INFO").unwrap_or_default()
    }

    /// `QUERY_STRING`: as it was sent, without the question mark; "" if there was none.
    pub fn query_string(&self) -> Cow<'_, str> {
        self.get("QUERY_STRING").unwrap_or_default()
    }

    /// `CONTENT_TYPE`, where the client sent one.
    pub fn content_type(&self) -> Option<Cow<'_, str>> {
        self.get("CONTENT_TYPE")
    }

    /// `CONTENT_LENGTH` in bytes, where the request has a body of known length. (The host gives a chunked body its length,
    /// unless the sidecar says `chunked_bodies = "stream"`.)
    pub fn content_length(&self) -> Option<u64> {
        core::str::from_utf8(self.bytes("CONTENT_LENGTH")?).ok()?.parse().ok()
    }

    /// `wsgi.url_scheme`
    pub fn url_scheme(&self) -> UrlScheme {
        self.url_scheme
    }

    /// `wsgi.input`: the request body, decoded from any transfer coding.
    pub fn input(&self) -> Input {
        Input::current()
    }

    /// `wsgi.input_terminated`: reading the input to its end is always safe.
    pub fn input_terminated(&self) -> bool {
        true
    }

    /// `wsgi.errors`: text for the application's log.
    pub fn errors(&self) -> Errors {
        Errors::current()
    }

    /// `wsgi.multiprocess`: another instance of the application may be serving another request right now.
    pub fn multiprocess(&self) -> bool {
        self.multiprocess
    }

    /// `wsgi.run_once`: this instance serves this request and no other.
    pub fn run_once(&self) -> bool {
        self.run_once
    }
}

impl<'a, N: AsRef<[u8]> + ?Sized + 'a, V: AsRef<[u8]> + ?Sized + 'a> FromIterator<(&'a N, &'a V)> for Environ {
    /// An environ for tests; `wsgi.url_scheme` is http, `wsgi.run_once` true.
    fn from_iter<I: IntoIterator<Item = (&'a N, &'a V)>>(variables: I) -> Environ {
        Environ::from_variables(variables.into_iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
    }
}

/// The variables of an [`Environ`], as bytes.
#[derive(Clone, Debug)]
pub struct Variables<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Variables<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.field()?;
        let value = self.field()?;
        Some((name, value))
    }
}

impl<'a> Variables<'a> {
    fn field(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let (field, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Some(field)
    }
}

/// `USER_AGENT` is `User-Agent`.
fn same_field(known: &[u8], name: &[u8]) -> bool {
    known.len() == name.len()
        && known
            .iter()
            .zip(name)
            .all(|(known, name)| *known == if *name == b'-' { b'_' } else { name.to_ascii_uppercase() })
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    match core::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Environ {
        Environ::from_iter::<[(&[u8], &[u8]); 7]>([
            (b"REQUEST_METHOD", b"POST"),
            (b"SCRIPT_NAME", b""),
            (b"PATH_INFO", "/é".as_bytes()),
            (b"CONTENT_LENGTH", b"12"),
            (b"HTTP_USER_AGENT", b"curl/8"),
            (b"HTTP_X_ODD", b"caf\xe9"),
            (b"EMPTY", b""),
        ])
    }

    #[test]
    fn look_ups_find_the_whole_name_and_nothing_else() {
        let environ = sample();
        assert_eq!(environ.get("REQUEST_METHOD").as_deref(), Some("POST"));
        assert_eq!(environ.get("EMPTY").as_deref(), Some(""));
        assert_eq!(environ.get("REQUEST"), None);
        assert_eq!(environ.get("POST"), None);
        assert_eq!(environ.get(""), None);
        assert_eq!(environ.variables().count(), 7);
    }

    #[test]
    fn values_are_utf8_or_else_latin1() {
        let environ = sample();
        assert_eq!(environ.path_info(), "/é");
        assert_eq!(environ.header("x-odd").as_deref(), Some("café"));
        assert_eq!(environ.header_bytes("x-odd"), Some(&b"caf\xe9"[..]));
    }

    #[test]
    fn headers_are_found_by_their_own_name_in_any_case() {
        let environ = sample();
        assert_eq!(environ.header("user-agent").as_deref(), Some("curl/8"));
        assert_eq!(environ.header("USER-AGENT").as_deref(), Some("curl/8"));
        assert_eq!(environ.header("Content-Length").as_deref(), Some("12"));
        assert_eq!(environ.header("request-method"), None);
    }

    #[test]
    fn a_content_length_that_is_no_number_is_none() {
        assert_eq!(sample().content_length(), Some(12));
        assert_eq!(Environ::from_iter([("CONTENT_LENGTH", "x")]).content_length(), None);
        assert_eq!(Environ::from_iter([("A", "b")]).content_length(), None);
    }

    #[test]
    fn variables_are_set_replaced_and_removed() {
        let mut environ = sample();
        environ.set("PATH_INFO", "/new");
        environ.set("REMOTE_USER", b"joe\0HTTPS=on");
        assert!(environ.remove("EMPTY") && !environ.remove("EMPTY") && !environ.remove("CURL"));
        assert_eq!((environ.path_info(), environ.get("REMOTE_USER").as_deref()), ("/new".into(), Some("joe")));
        assert_eq!((environ.get("EMPTY"), environ.variables().count()), (None, 7));
    }

    #[test]
    fn a_block_that_breaks_off_ends_the_iteration() {
        let environ = Environ { block: b"A\0b\0C".to_vec(), ..sample() };
        assert_eq!(environ.variables().collect::<Vec<_>>(), [(&b"A"[..], &b"b"[..])]);
    }
}
