//! `wasi:http/outgoing-handler` as the component imports it: only programs that fetch do.

use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
    http_error_code,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use super::{Error, Kind, Request, Response, parts};

/// What is asked for at once, and what WASI takes at once in the form that waits.
const READ_BYTES: u64 = 64 << 10;
const WRITE_BYTES: usize = 4 << 10;

pub(super) fn send(request: Request) -> Result<Response, Error> {
    let (scheme, authority, path) = parts(&request.url)?;
    let outgoing = OutgoingRequest::new(fields(&request)?);
    let bad = |what: &str| Error::new(Kind::BadRequest, std::format!("{what} of {} {}", request.method, request.url));
    outgoing.set_method(&method(&request.method)).map_err(|()| bad("the method"))?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_string()),
    };
    outgoing.set_scheme(Some(&scheme)).map_err(|()| bad("the scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| bad("the host"))?;
    outgoing.set_path_with_query(Some(&path)).map_err(|()| bad("the path"))?;
    let body = outgoing.body().map_err(|()| bad("the body"))?;
    let answered = outgoing_handler::handle(outgoing, options(request.timeout)).map_err(said)?;
    // Where the host does not take it, it says why with the response.
    let _ = upload(body, &request.body);
    answered.subscribe().block();
    let response = answered.get().ok_or_else(|| Error::new(Kind::Protocol, "there is no response"))?;
    let response = response.map_err(|()| Error::new(Kind::Protocol, "there is no response"))?.map_err(said)?;
    let headers = response.headers().entries();
    let text = |value: Vec<u8>| value.into_iter().map(char::from).collect::<String>();
    let headers = headers.into_iter().map(|(name, value)| (name, text(value))).collect();
    Ok(Response { status: response.status(), headers, body: Incoming::open(response)? })
}

fn fields(request: &Request) -> Result<Fields, Error> {
    let fields = Fields::new();
    let append = |name: &str, value: &[u8]| {
        let refused = |error| Error::new(Kind::BadRequest, std::format!("the header {name}: {error:?}"));
        fields.append(name, value).map_err(refused)
    };
    for (name, value) in &request.headers {
        // The host names the server that it has judged.
        if !["host", "content-length"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
            append(name, value.as_bytes())?;
        }
    }
    if !request.body.is_empty() || ["POST", "PUT", "PATCH"].contains(&request.method.as_str()) {
        append("content-length", request.body.len().to_string().as_bytes())?;
    }
    Ok(fields)
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_string()),
    }
}

fn options(timeout: Option<Duration>) -> Option<RequestOptions> {
    let nanoseconds = Some(u64::try_from(timeout?.as_nanos()).unwrap_or(u64::MAX));
    let options = RequestOptions::new();
    // A host that knows no such time has its own.
    let _ = options.set_connect_timeout(nanoseconds);
    let _ = options.set_first_byte_timeout(nanoseconds);
    let _ = options.set_between_bytes_timeout(nanoseconds);
    Some(options)
}

fn upload(body: OutgoingBody, bytes: &[u8]) -> Result<(), StreamError> {
    let stream: OutputStream = body.write().map_err(|()| StreamError::Closed)?;
    bytes.chunks(WRITE_BYTES).try_for_each(|piece| stream.blocking_write_and_flush(piece))?;
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
    Ok(())
}

/// A body as it arrives. The parts go in the order in which they stand.
pub(super) struct Incoming {
    rest: Vec<u8>,
    stream: Option<InputStream>,
    _body: IncomingBody,
    _response: IncomingResponse,
}

impl Incoming {
    fn open(response: IncomingResponse) -> Result<Self, Error> {
        let taken = |()| Error::new(Kind::Protocol, "the body is taken");
        let body = response.consume().map_err(taken)?;
        let stream = body.stream().map_err(taken)?;
        Ok(Self { rest: Vec::new(), stream: Some(stream), _body: body, _response: response })
    }

    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let Some(stream) = &self.stream else { return Ok(None) };
        match stream.blocking_read(READ_BYTES) {
            Ok(block) => Ok(Some(block)),
            Err(StreamError::Closed) => {
                self.stream = None;
                Ok(None)
            }
            Err(StreamError::LastOperationFailed(error)) => Err(match http_error_code(&error) {
                Some(code) => said(code),
                None => Error::new(Kind::Protocol, error.to_debug_string()),
            }),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        while self.rest.is_empty() {
            match self.next()? {
                Some(block) => self.rest = block,
                None => return Ok(0),
            }
        }
        let bytes = buffer.len().min(self.rest.len());
        buffer[..bytes].copy_from_slice(&self.rest[..bytes]);
        self.rest.drain(..bytes);
        Ok(bytes)
    }
}

/// What the host says, as one of a few kinds.
fn said(code: ErrorCode) -> Error {
    use ErrorCode as Code;
    let kind = match &code {
        Code::HttpRequestDenied | Code::DestinationIpProhibited => Kind::Denied,
        Code::ConnectionLimitReached | Code::HttpRequestBodySize(_) | Code::HttpResponseBodySize(_) => Kind::Limit,
        Code::DnsTimeout
        | Code::ConnectionTimeout
        | Code::ConnectionReadTimeout
        | Code::ConnectionWriteTimeout
        | Code::HttpResponseTimeout => Kind::Timeout,
        Code::DnsError(_)
        | Code::DestinationNotFound
        | Code::DestinationUnavailable
        | Code::DestinationIpUnroutable
        | Code::ConnectionRefused => Kind::Unreachable,
        Code::TlsProtocolError | Code::TlsCertificateError | Code::TlsAlertReceived(_) => Kind::Tls,
        Code::HttpRequestMethodInvalid
        | Code::HttpRequestUriInvalid
        | Code::HttpRequestUriTooLong
        | Code::HttpRequestLengthRequired
        | Code::HttpRequestHeaderSectionSize(_)
        | Code::HttpRequestHeaderSize(_) => Kind::BadRequest,
        _ => Kind::Protocol,
    };
    Error::new(kind, std::format!("{code:?}"))
}
