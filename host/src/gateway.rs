//! One request end to end: find the app, be admitted, call the guest, answer.
//!
//! [`Gateway::serve`] cannot fail: it is the only place where an [`Error`] becomes a response, and where a call is logged and
//! counted.

mod fault_page;
mod record;
mod refusal;

use record::Record;
pub use record::Reply;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request};
use http_body::Body;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;

use crate::apps::{App, Apps};
use crate::body::ResponseBody;
use crate::capsule::Witness;
use crate::error::Error;
use crate::guest::Call;
use crate::guest::environ::{authority, host_and_port, wants_head_only};
use crate::sandbox::CallState;
use crate::sandbox::task::Started;
use crate::server::Connection;
use crate::telemetry::{AccessLog, RequestId};

const SERVER: HeaderValue = HeaderValue::from_static(concat!("wasgi/", env!("CARGO_PKG_VERSION")));

/// Apps that redirect to each other, or to themselves, are stopped. As many as Apache allows.
const LOCAL_REDIRECTS_MAX: u32 = 10;

/// The way from a request to its response.
pub struct Gateway {
    apps: Arc<Apps>,
    access_log: Arc<AccessLog>,
    faults: Faults,
}

/// Whether clients are told what happened inside an app that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    Hidden,
    /// Development mode: clients on this machine are.
    Shown,
}

impl Gateway {
    pub fn new(apps: Arc<Apps>, access_log: Arc<AccessLog>, faults: Faults) -> Self {
        Self { apps, access_log, faults }
    }

    /// Answers a request.
    pub async fn serve(&self, request: Request<Incoming>, connection: &Arc<Connection>) -> Response<Reply> {
        connection.request_arrived();
        let (parts, body) = request.into_parts();
        // Boxed once: on its way to the guest it is moved from future to future.
        let parts = Box::new(parts);
        let mut record = Record::new(&parts, connection, &self.access_log);
        // A fault's page needs the request, which the guest will have consumed.
        let shown = (self.faults == Faults::Shown).then(|| parts.clone());
        let answered = self.answer(parts, body, connection, &mut record).await;
        connection.others_first().await;
        let mut response = match answered {
            Ok(response) => match shown.and_then(|parts| self.page_of_caught(*parts, &response, &record)) {
                Some(page) => {
                    response.into_body().unwanted();
                    page.map(ResponseBody::one)
                }
                None => response,
            },
            Err(error) => {
                record.report(&error);
                let page = shown.and_then(|parts| self.page_of_fault(*parts, &error, &record));
                let mut page = page.unwrap_or_else(|| error_page(&error, record.id)).map(ResponseBody::one);
                if error.leaves_the_body() && record.version <= Version::HTTP_11 {
                    page.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                page
            }
        };
        response.headers_mut().entry(header::SERVER).or_insert(SERVER);
        if record.version == Version::HTTP_10 && response.body().size_hint().exact().is_none() {
            // Its end is the connection's. hyper promises to keep that where a response does not say that it is HTTP/1.0.
            *response.version_mut() = Version::HTTP_10;
        }
        record.status = response.status();
        if let Some(task) = response.body().task() {
            record.call = Some(Arc::clone(task.call()));
            connection.expect_end_by(task.deadline());
            return response.map(|body| Reply { body, record: Some(Box::new(record)) });
        }
        if let (true, Some(app)) = (response.body().is_file(), &record.app) {
            connection.expect_end_by(record.began + app.spec.limits.wall_time);
            return response.map(|body| Reply { body, record: Some(Box::new(record)) });
        }
        if response.body().falls_short() {
            return response.map(|body| Reply { body, record: Some(Box::new(record)) });
        }
        if let (Some(call), Some(app)) = (&record.call, &record.app) {
            connection.expect_end_by(call.began + app.spec.limits.wall_time);
        }
        // An error's page is what a GET would have got: hyper sends its length only.
        let head_only = wants_head_only(&record.method);
        record.sent = if head_only { 0 } else { response.body().size_hint().exact().unwrap_or(0) };
        record.finish();
        response.map(|body| Reply { body, record: None })
    }

    async fn answer(
        &self,
        mut parts: Box<request::Parts>,
        body: Incoming,
        connection: &Connection,
        record: &mut Record,
    ) -> Result<Response<ResponseBody>, Error> {
        // Before anything can fail: logs, too, name the client that a proxy speaks for.
        record.forwarded = connection.origin().of_request(&mut parts.headers, &connection.trusted)?;
        if parts.method == Method::CONNECT {
            return Err(Error::BadRequest("CONNECT is for proxies"));
        }
        // HTTP/1.1's parser counts the fields itself, HTTP/2's only their bytes.
        let fields_max = connection.edge.request_headers;
        if parts.headers.len() > fields_max as usize {
            return Err(Error::TooManyFields(fields_max));
        }
        check_host(&parts)?;
        check_expectation(&parts)?;
        if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
            return Ok(pong());
        }
        let head_only = wants_head_only(&parts.method);
        let mut started = self.ask(parts, Some(body), connection, record).await?;
        for _ in 0..LOCAL_REDIRECTS_MAX {
            let Started::Redirect(request) = started else { break };
            record.cpu += record.call.take().map(|call| call.cpu()).unwrap_or_default();
            started = self.ask(request, None, connection, record).await?;
        }
        respond(started, head_only)
    }

    /// Has an app answer a request: the client's, or the one that another app redirected it to (RFC 3875 §6.2.2).
    async fn ask(
        &self,
        parts: Box<request::Parts>,
        body: Option<Incoming>,
        connection: &Connection,
        record: &mut Record,
    ) -> Result<Started, Error> {
        let path = target_path(&parts.uri, connection.edge.request_target_bytes).map_err(|error| match &body {
            Some(_) => error,
            // The program has asked for it, not the client.
            None => Error::CgiResponse(format!("its local redirect cannot be followed: {error}")),
        })?;
        let (app, script_name_len) = self.resolve(&parts, &path)?;
        record.app = Some(Arc::clone(&app));
        if body.as_ref().is_some_and(|body| body.size_hint().lower() > app.spec.limits.request_body_bytes) {
            return Err(Error::BodyTooLarge(app.spec.limits.request_body_bytes));
        }
        // Another app's redirect is asked for when it is there.
        let asked = if body.is_some() { record.began } else { Instant::now() };
        if let Some(asset) = app.assets.as_ref().and_then(|assets| assets.find(&path[script_name_len..])) {
            return asset.answer(&parts, asked).await.map(|response| Started::Ready(Box::new(response)));
        }
        if let Some(pause) = app.throttle.pause() {
            return Err(Error::Throttled(pause));
        }
        let permit = app.admission.admit(asked).await?;

        // A request that did not have to wait was admitted when it arrived, as far as its clocks can tell.
        let admitted = if permit.waited() { Instant::now() } else { record.began };
        // One request has one `cpu_time`, however often it is redirected.
        let cpu_time = app.spec.limits.cpu_time.saturating_sub(record.cpu);
        let mut state = CallState::new(record.id, admitted, cpu_time, app.admission.account());
        state.witness = Witness::new(&app.recorder, record.origin().https, script_name_len);
        if body.is_none() {
            state.begins_later();
        }
        let state = Arc::new(state);
        record.call = Some(Arc::clone(&state));
        let (script_name, path_info) = (path[..script_name_len].to_vec(), path[script_name_len..].to_vec());
        let call = Call { state, script_name, path_info, origin: Arc::clone(record.origin()), parts, body, permit };
        let mut started = app.guest.call(call).await?.start().await?;
        if let Started::Streaming(_, task) = &mut started {
            task.end_if_silent().await?;
        }
        Ok(started)
    }

    fn resolve(&self, parts: &request::Parts, path: &[u8]) -> Result<(Arc<App>, usize), Error> {
        let host = authority(parts).map(|(host, _)| host);
        let table = self.apps.snapshot();
        match table.router.resolve(host, path) {
            Some(found) => Ok((Arc::clone(found.target), found.script_name.len())),
            None => Err(Error::NoRoute(format!("{}{}", host.unwrap_or(""), parts.uri.path()))),
        }
    }
}

/// RFC 9112 §3.2: a request names its host once; else routing, the guest and a proxy in front may each read another one. With
/// HTTP/2 the pseudo-field `:authority` names it, and Host may only repeat that (RFC 9113 §8.3.1).
fn check_host(parts: &request::Parts) -> Result<(), Error> {
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let (host, further) = (fields.next(), fields.next());
    let missing = match parts.version {
        Version::HTTP_11 => host.is_none(),
        Version::HTTP_2 => host.is_none() && parts.uri.authority().is_none(),
        _ => false,
    };
    if missing || further.is_some() {
        return Err(Error::BadRequest("the Host field is missing or repeated"));
    }
    // An empty field says that the target has no host.
    let is_host = |host: &HeaderValue| host.is_empty() || host.to_str().is_ok_and(|host| host_and_port(host).is_some());
    if !host.is_none_or(is_host) {
        return Err(Error::BadRequest("the Host field is not a host and a port"));
    }
    if parts.uri.authority().is_some_and(|authority| host_and_port(authority.as_str()).is_none()) {
        return Err(Error::BadRequest("the target names something else than a host and a port"));
    }
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Error::BadRequest("the target's scheme is neither http nor https"));
    }
    if parts.version == Version::HTTP_2
        && let (Some(authority), Some(host)) = (parts.uri.authority(), host)
        && !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
    {
        return Err(Error::BadRequest("the Host field and :authority name different hosts"));
    }
    Ok(())
}

/// There is one expectation that can be met: hyper answers it when the body is read.
fn check_expectation(parts: &request::Parts) -> Result<(), Error> {
    let is_met = |expected: &&HeaderValue| expected.as_bytes().eq_ignore_ascii_case(b"100-continue");
    match parts.headers.get_all(header::EXPECT).iter().find(|expected| !is_met(expected)) {
        Some(expected) => Err(Error::Expectation(String::from_utf8_lossy(expected.as_bytes()).into_owned())),
        None => Ok(()),
    }
}

/// `OPTIONS *` asks the server, not an app: whether it is there (RFC 9110 §9.3.7).
fn pong() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The path of a target that is not too long.
fn target_path(uri: &Uri, target_bytes_max: u64) -> Result<Cow<'_, [u8]>, Error> {
    let bytes = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if bytes as u64 > target_bytes_max {
        return Err(Error::TargetTooLong(target_bytes_max));
    }
    decode_path(uri.path())
}

/// The path, percent-decoded once (PEP 3333 through CGI). What is routed is what the guest sees: a path that means something
/// else after decoding or joining (NUL, dot segments) is refused rather than guessed at.
pub(crate) fn decode_path(path: &str) -> Result<Cow<'_, [u8]>, Error> {
    if !path.starts_with('/') {
        return Err(Error::BadRequest("the target has no path"));
    }
    let decoded: Cow<'_, [u8]> = match path.as_bytes().contains(&b'%') {
        true => percent_encoding::percent_decode_str(path).into(),
        false => path.as_bytes().into(),
    };
    if decoded.contains(&0) {
        return Err(Error::BadRequest("the path holds a NUL"));
    }
    if decoded.contains(&b'.') && decoded.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..")
    {
        return Err(Error::BadRequest("the path holds a dot segment"));
    }
    Ok(decoded)
}

/// A guest's head and blocks as HTTP: what has which length, and what carries no body at all (RFC 9110 §6.4, §8.6).
fn respond(started: Started, head_only: bool) -> Result<Response<ResponseBody>, Error> {
    let (mut head, blocks, task) = match started {
        Started::Whole(whole) => (whole.head, Some(whole.blocks), None),
        Started::Streaming(head, task) => (head, None, Some(task)),
        Started::Ready(response) => return Ok(*response),
        Started::Redirect(_) => {
            return Err(Error::CgiResponse(format!("more than {LOCAL_REDIRECTS_MAX} local redirects")));
        }
    };
    let ready = blocks.as_ref().map(|blocks| blocks.iter().map(|block| block.len() as u64).sum());
    let length = head.content_length.or(ready);
    let body = if head_only || !head.allows_body() {
        // The length of what a GET would have got stays, where the status allows one.
        if let (true, Some(length)) = (head_only && head.allows_body(), length) {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        if let Some(task) = task {
            task.outlive();
        }
        ResponseBody::empty()
    } else if let Some(task) = task {
        ResponseBody::streaming(task, length)
    } else {
        ResponseBody::ready(blocks.unwrap_or_default(), length.unwrap_or(0))
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    let reason = head.reason.and_then(|reason| ReasonPhrase::try_from(reason).ok());
    // hyper would write `<none>`; a phrase may be empty (RFC 9112 §4).
    let unknown = || head.status.canonical_reason().is_none().then(|| ReasonPhrase::from_static(b""));
    if let Some(reason) = reason.or_else(unknown) {
        response.extensions_mut().insert(reason);
    }
    Ok(response)
}

/// A short page: what a visitor may know, and the id under which the log has the rest.
fn error_page(error: &Error, id: RequestId) -> Response<Bytes> {
    let mut response = short_page(error.status(), error.public_text(), id);
    if let Some(time) = error.retry_after() {
        // In whole seconds (RFC 9110 §10.2.3).
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(time.as_secs() + u64::from(time.subsec_nanos() > 0)));
    }
    response
}

fn short_page(status: StatusCode, words: &str, id: RequestId) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{status}\n\n{words}\n\nRequest id: {id}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::SERVER, SERVER);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host_once() {
        let check = |version, hosts: &[&str]| {
            let request = Request::get("/").version(version);
            let request = hosts.iter().fold(request, |request, host| request.header(header::HOST, *host));
            check_host(&request.body(()).unwrap().into_parts().0).is_ok()
        };
        assert!(check(Version::HTTP_11, &["a"]));
        assert!(check(Version::HTTP_10, &[]));
        assert!(!check(Version::HTTP_11, &[]));
        assert!(!check(Version::HTTP_11, &["a", "b"]));
        assert!(!check(Version::HTTP_10, &["a", "a"]));
        assert!(!check(Version::HTTP_2, &[]));
        let check_authority = |host| {
            let request = Request::get("https://A.example:81/").version(Version::HTTP_2).header(header::HOST, host);
            check_host(&request.body(()).unwrap().into_parts().0).is_ok()
        };
        assert!(check_authority("a.example:81"));
        assert!(!check_authority("b.example:81"));
        assert!(!check(Version::HTTP_2, &["a:b:c"]));
    }

    #[test]
    fn what_a_target_names_is_a_host_and_a_port() {
        let check = |version, target: &str| {
            let request = Request::get(target).version(version);
            let request = if version == Version::HTTP_2 { request } else { request.header(header::HOST, "a") };
            check_host(&request.body(()).unwrap().into_parts().0).is_ok()
        };
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            for target in ["http://b.example:65535/", "http://b.example:/", "http://[::1]:80/"] {
                assert!(check(version, target), "{version:?} {target}");
            }
            for target in ["http://u:p@b/", "http://u@b/", "http://b:65536/"] {
                assert!(!check(version, target), "{version:?} {target}");
            }
        }
    }

    #[test]
    fn paths_are_decoded_once() {
        for (path, expected) in [
            ("/", Some("/")),
            ("/a%20b", Some("/a b")),
            ("/%2541", Some("/%41")),
            ("/%zz", Some("/%zz")),
            ("/a/..b/.c", Some("/a/..b/.c")),
            ("/a%2Fb", Some("/a/b")),
            ("/%00", None),
            ("/a/../b", None),
            ("/a/%2e%2e/b", None),
            ("/.", None),
            ("*", None),
            ("", None),
        ] {
            let decoded = decode_path(path).ok();
            assert_eq!(decoded.as_deref().map(String::from_utf8_lossy).as_deref(), expected, "{path}");
        }
    }
}
