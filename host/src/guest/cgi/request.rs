//! The request as a program finds it: its environment and its arguments (RFC 3875 §4), and the request that a local redirect
//! stands for (§6.2.2).
//!
//! The rules' numbers: C1 and C2 the variables, C3 the arguments, C6 local redirects.

use http::uri::PathAndQuery;
use http::{HeaderName, Method, Uri, header, request};

use crate::guest::environ::EnvironBlock;

/// Header fields that are no program's business: credentials, which the server would check if anybody did (RFC 3875 §4.1.18),
/// and what concerns the connection alone.
const NOT_PASSED: [&str; 8] = [
    "HTTP_AUTHORIZATION",
    "HTTP_CONNECTION",
    "HTTP_KEEP_ALIVE",
    "HTTP_PROXY_AUTHORIZATION",
    "HTTP_PROXY_CONNECTION",
    "HTTP_TE",
    "HTTP_TRAILER",
    "HTTP_UPGRADE",
];

/// The environment of the program.
///
/// WASI's variables are Unicode text. Bytes that are UTF-8 are passed as they are, so that a program in C gets the very bytes;
/// others, which text cannot hold, as latin-1.
pub(super) fn variables(environ: &EnvironBlock, parts: &request::Parts) -> Vec<(String, String)> {
    let named = named_by_connection(parts);
    environ
        .pairs()
        .filter(|(name, _)| !NOT_PASSED.iter().any(|not| not.as_bytes() == *name))
        .filter(|(name, _)| !named.iter().any(|named| named.as_bytes() == *name))
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// The variables of fields that the Connection field names: they are for the next hop only (RFC 9110 §7.6.1).
fn named_by_connection(parts: &request::Parts) -> Vec<String> {
    let options = parts.headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    options
        .flat_map(|value| value.split(','))
        .filter(|option| !option.trim().is_empty())
        .map(|option| format!("HTTP_{}", option.trim().to_ascii_uppercase().replace('-', "_")))
        // What routing and every program needs is not hidden by a client's word.
        .filter(|name| name != "HTTP_HOST")
        .collect()
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

/// The arguments of the program: its name, and the words of a query that is a search (RFC 3875 §4.4): of GET or HEAD, without
/// an unencoded `=`, words between `+`.
///
/// A query whose words cannot be arguments (NUL, not UTF-8) gives none, as the RFC wants it. So does one with a word that looks
/// like an option: visitors shall not pass options to an interpreter that is compiled to WASI (CVE-2012-1823).
pub(crate) fn arguments(app: &str, parts: &request::Parts) -> Vec<String> {
    let mut arguments = vec![app.to_owned()];
    let is_search = matches!(parts.method, Method::GET | Method::HEAD);
    match parts.uri.query() {
        Some(query) if is_search && !query.is_empty() && !query.contains('=') => {
            arguments.extend(words(query).unwrap_or_default());
        }
        _ => {}
    }
    arguments
}

fn words(query: &str) -> Option<Vec<String>> {
    query
        .split('+')
        .map(|word| {
            let word = percent_encoding::percent_decode_str(word).decode_utf8().ok()?;
            (!word.contains('\0') && !word.starts_with('-')).then(|| word.into_owned())
        })
        .collect()
}

/// The request for what a local redirect names: a GET without a body, or a HEAD. None where that is no target.
pub(super) fn redirected(parts: &request::Parts, location: &str) -> Option<request::Parts> {
    let mut again = parts.clone();
    let mut uri = std::mem::take(&mut again.uri).into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(location).ok()?);
    again.uri = Uri::from_parts(uri).ok()?;
    if again.method != Method::HEAD {
        again.method = Method::GET;
    }
    for name in OF_BODIES {
        again.headers.remove(name);
    }
    Some(again)
}

/// Fields that speak of a body.
const OF_BODIES: [HeaderName; 7] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::environ::Constant;
    use crate::guest::environ::Place;
    use crate::origin::Origin;

    fn parts(request: http::request::Builder) -> request::Parts {
        request.body(()).expect("the request is right").into_parts().0
    }

    fn environment(request: http::request::Builder, path_info: &[u8]) -> Vec<(String, String)> {
        let parts = parts(request);
        let origin = Origin::of_connection(Some(([192, 0, 2, 7], 4711).into()), None, false);
        let place = Place { script_name: b"/app", path_info, origin: &origin, spooled_bytes: None };
        let constant = Constant::new([("MY", "own")].into_iter());
        variables(&EnvironBlock::of_request(&constant, &parts, &place), &parts)
    }

    #[test]
    fn credentials_and_hop_by_hop_fields_are_not_passed() {
        let request = http::Request::get("/app?q")
            .header("host", "a.example")
            .header("authorization", "Basic c2VjcmV0")
            .header("proxy-authorization", "Basic c2VjcmV0")
            .header("connection", "close, X-Private,host")
            .header("x-private", "1")
            .header("x-public", "2")
            .header("te", "trailers")
            .header("keep-alive", "5")
            .header("upgrade", "h2c");
        let mut names: Vec<_> = environment(request, b"").into_iter().map(|(name, _)| name).collect();
        names.sort();
        let expected = [
            "GATEWAY_INTERFACE",
            "HTTP_HOST",
            "HTTP_X_PUBLIC",
            "MY",
            "PATH_INFO",
            "QUERY_STRING",
            "REMOTE_ADDR",
            "REMOTE_PORT",
            "REQUEST_METHOD",
            "REQUEST_URI",
            "SCRIPT_NAME",
            "SERVER_NAME",
            "SERVER_PORT",
            "SERVER_PROTOCOL",
            "SERVER_SOFTWARE",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn values_are_utf_8_or_else_latin_1() {
        let path_info = |bytes| {
            let found = environment(http::Request::get("/"), bytes);
            found.into_iter().find(|(name, _)| name == "PATH_INFO").expect("it is set").1
        };
        assert_eq!(path_info("/é".as_bytes()), "/é");
        assert_eq!(path_info(b"/\xe9"), "/é");
    }

    #[test]
    fn a_search_becomes_arguments_and_nothing_else_does() {
        for (method, query, expected) in [
            ("GET", "one+two%20three+caf%C3%A9", &["one", "two three", "café"][..]),
            ("HEAD", "a%3Db", &["a=b"]),
            ("GET", "a++b", &["a", "", "b"]),
            ("POST", "one", &[]),
            ("GET", "a=b", &[]),
            ("GET", "one+a=b", &[]),
            ("GET", "", &[]),
            ("GET", "one+%00", &[]),
            ("GET", "one+%ff", &[]),
            ("GET", "-s", &[]),
            ("GET", "one+%2dd", &[]),
        ] {
            let parts = parts(http::Request::builder().method(method).uri(format!("/app?{query}")));
            let found = arguments("app", &parts);
            assert_eq!(found[0], "app");
            assert_eq!(found[1..], *expected, "{method} {query}");
        }
        assert_eq!(arguments("app", &parts(http::Request::get("/app"))), ["app"]);
    }

    #[test]
    fn a_redirected_request_is_a_get_without_body() {
        let request = |method| {
            let request = http::Request::builder().method(method).uri("http://a.example/app?x=1");
            parts(request.header("content-length", "3").header("content-type", "a/b").header("cookie", "c"))
        };
        let again = redirected(&request("POST"), "/other/path?q=2").expect("it is a target");
        assert_eq!((again.method, again.uri.to_string().as_str()), (Method::GET, "http://a.example/other/path?q=2"));
        assert_eq!(again.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["cookie"]);
        assert_eq!(redirected(&request("HEAD"), "/").expect("it is a target").method, Method::HEAD);
        assert!(redirected(&request("GET"), "/a b").is_none());
    }
}
