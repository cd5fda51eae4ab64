//! Applications against the crate `http`: a [`Request`] in, a [`Response`] out.
//!
//! ```
//! use wasgi::{Input, http::{Request, Response}};
//!
//! #[wasgi::application]
//! fn app(request: Request<Input>) -> wasgi::Result<Response<String>> {
//!     Ok(Response::new(format!("You asked for {}", request.uri())))
//! }
//! ```
//!
//! The URI is the whole one, with what PEP 3333 calls `SCRIPT_NAME` in front (PEP 3333, URL Reconstruction); the
//! [`Environ`] is among the request's extensions for the rest.

pub use ::http::header;
pub use ::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use crate::body::Body;
use crate::environ::Environ;
use crate::error::{Error, Result};
use crate::io::Input;
use crate::start_response::StartResponse;

/// Answers a call with a function on [`Request`] and [`Response`]; `#[wasgi::application]` does it by itself for a
/// function with one parameter.
pub fn serve<B: Into<Body>, E: Into<Error>>(
    environ: Environ,
    start_response: StartResponse,
    app: impl FnOnce(Request<Input>) -> Result<Response<B>, E>,
) -> Result<Body> {
    let (head, body) = app(request(environ)?).map_err(Into::into)?.into_parts();
    let status = format!("{} {}", head.status.as_str(), head.status.canonical_reason().unwrap_or("Unknown"));
    // A header value is bytes here, and text of U+0000 to U+00FF there.
    let headers: Vec<(&str, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes().iter().map(|byte| char::from(*byte)).collect()))
        .collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    start_response.call(&status, &headers)?;
    Ok(body.into())
}

/// The call as a request; its body is `wsgi.input`.
pub fn request(environ: Environ) -> Result<Request<Input>> {
    let mut request = Request::new(environ.input());
    *request.method_mut() = environ.method().parse()?;
    *request.uri_mut() = uri(&environ)?;
    *request.version_mut() = match environ.bytes("SERVER_PROTOCOL") {
        Some(b"HTTP/1.0") => Version::HTTP_10,
        Some(b"HTTP/2" | b"HTTP/2.0") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    for (name, value) in environ.variables() {
        let field = match name {
            b"CONTENT_TYPE" | b"CONTENT_LENGTH" => name,
            _ => match name.strip_prefix(b"HTTP_") {
                Some(field) => field,
                None => continue,
            },
        };
        let field: Vec<u8> = field.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
        request.headers_mut().append(HeaderName::from_bytes(&field)?, HeaderValue::from_bytes(value)?);
    }
    request.extensions_mut().insert(environ);
    Ok(request)
}

/// PEP 3333, URL Reconstruction.
fn uri(environ: &Environ) -> Result<Uri> {
    let authority = match environ.bytes("HTTP_HOST") {
        Some(host) if !host.is_empty() => String::from_utf8_lossy(host).into_owned(),
        _ => {
            let name = environ.get("SERVER_NAME").unwrap_or_default();
            let port = environ.get("SERVER_PORT").unwrap_or_default();
            match (environ.url_scheme().as_str(), &*port) {
                ("http", "80") | ("https", "443") | (_, "") => name.into_owned(),
                _ => format!("{name}:{port}"),
            }
        }
    };
    let mut target = String::new();
    for name in ["SCRIPT_NAME", "PATH_INFO"] {
        escape_path(environ.bytes(name).unwrap_or_default(), &mut target);
    }
    if target.is_empty() {
        target.push('/');
    }
    match &*environ.query_string() {
        "" => {}
        query => {
            target.push('?');
            target.push_str(query);
        }
    }
    let uri = Uri::builder().scheme(environ.url_scheme().as_str()).authority(authority).path_and_query(target);
    Ok(uri.build()?)
}

/// Undoes the decoding of `PATH_INFO`: whatever may not stand in a path (RFC 3986 §3.3) is escaped.
fn escape_path(path: &[u8], target: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(byte) {
            target.push(char::from(*byte));
        } else {
            let digits = [byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)]));
            target.extend(['%', digits[0], digits[1]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn sample() -> Environ {
        Environ::from_iter([
            ("REQUEST_METHOD", "POST"),
            ("SCRIPT_NAME", "/shop"),
            ("PATH_INFO", "/a b/é%"),
            ("QUERY_STRING", "q=1"),
            ("SERVER_NAME", "localhost"),
            ("SERVER_PORT", "8000"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("CONTENT_TYPE", "text/plain"),
            ("HTTP_X_ONE", "1"),
        ])
    }

    #[test]
    fn a_request_has_the_whole_uri_and_the_headers_by_their_names() {
        let request = request(sample()).unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "http://localhost:8000/shop/a%20b/%C3%A9%25?q=1");
        assert_eq!(request.headers()["content-type"], "text/plain");
        assert_eq!(request.headers()["x-one"], "1");
        assert_eq!(request.headers().len(), 2);
        assert_eq!(request.extensions().get::<Environ>().unwrap().path_info(), "/a b/é%");
    }

    #[test]
    fn a_response_keeps_status_repeated_headers_and_body() {
        fn app(request: Request<Input>) -> Result<Response<String>> {
            let text = std::io::read_to_string(request.into_body())?;
            let response = Response::builder().status(404).header("Set-Cookie", "a=1").header("Set-Cookie", "b=2");
            Ok(response.body(text)?)
        }
        let response = testing::call(|environ, start| serve(environ, start, app), sample(), b"echo").unwrap();
        assert_eq!(response.status, "404 Not Found");
        let cookies = [("set-cookie", "a=1"), ("set-cookie", "b=2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(response.headers, cookies);
        assert_eq!(response.body, b"echo");
    }
}
