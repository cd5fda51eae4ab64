//! A request as a `wasi:http` guest is given it: head and body.
//!
//! The guest sees the whole path, undecoded, as under `wasmtime serve`: where the app is mounted is not taken off.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri, header, request};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use wasmtime_wasi_http::Error as HttpError;

use crate::body::ReadError;
use crate::error::Error;
use crate::guest::environ::authority;
use crate::origin::Origin;
use crate::sandbox::CallState;

/// The request that the call's witness has the head of, and the handle by which its body is taken away from the guest again. The
/// fields are the guest's from now on.
///
/// # Errors
/// If the call has no head: it was opened before.
pub(super) fn open(
    body: Option<Incoming>,
    origin: &Origin,
    call: &Arc<CallState>,
    bytes_max: u64,
) -> Result<(Request<RequestBody>, Upload), Error> {
    let Some(mut parts) = call.witness.take_head() else { return Err(Error::Host("a request has no head".to_owned())) };
    name_authority(&mut parts, origin.local);
    // CGI programs inside a guest would take it for a setting (httpoxy), and nothing else knows it.
    parts.headers.remove(PROXY);
    let upload = Upload::new(body, call, bytes_max);
    let mut request = Request::new(RequestBody(upload.0.clone()));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.version_mut() = parts.version;
    *request.headers_mut() = std::mem::take(&mut parts.headers);
    call.witness.keep_head(parts);
    Ok((request, upload))
}

const PROXY: HeaderName = HeaderName::from_static("proxy");

/// Leaves one name for the server: in the Host field, the target in origin form. An absolute-form target goes before the field
/// (RFC 9112 §3.2.2); a client that names none (HTTP/1.0) means the address that it has reached.
fn name_authority(parts: &mut request::Parts, local: Option<SocketAddr>) {
    if parts.uri.authority().is_none() && authority(parts).is_some() {
        return;
    }
    let named = match authority(parts) {
        Some((host, Some(port))) => HeaderValue::try_from(format!("{host}:{port}")),
        Some((host, None)) => HeaderValue::try_from(host),
        None => HeaderValue::try_from(local.map_or_else(|| "localhost".to_owned(), |local| local.to_string())),
    };
    let named = named.unwrap_or_else(|_| HeaderValue::from_static("localhost"));
    parts.headers.insert(header::HOST, named);
    if let Some(target) = parts.uri.path_and_query().cloned() {
        parts.uri = Uri::from(target);
    }
}

/// The body, where there is one. It belongs to the connection: whatever a guest still holds of it, it ends with the response.
pub(super) struct Upload(Option<Arc<Mutex<Source>>>);

struct Source {
    incoming: Option<Incoming>,
    received: u64,
    bytes_max: u64,
    /// The guest waits for more, and the call knows.
    awaited: bool,
    /// It is the guest's no longer.
    closed: bool,
    call: Arc<CallState>,
}

impl Upload {
    fn new(incoming: Option<Incoming>, call: &Arc<CallState>, bytes_max: u64) -> Self {
        let Some(incoming) = incoming.filter(|incoming| !incoming.is_end_stream()) else { return Self(None) };
        let call = Arc::clone(call);
        let source = Source { incoming: Some(incoming), received: 0, bytes_max, awaited: false, closed: false, call };
        Self(Some(Arc::new(Mutex::new(source))))
    }

    /// The guest is about to run: if it still waits for the body, it will say so again.
    pub(super) fn look_away(&self) {
        if let Some(source) = &self.0 {
            lock(source).call.input_unwatched();
        }
    }

    /// Takes it away from the guest, for which it has broken off.
    pub(super) fn close(&self) {
        if let Some(source) = &self.0 {
            let mut source = lock(source);
            source.incoming = None;
            source.closed = true;
            source.call.input_unwatched();
        }
    }
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    // Nothing that holds the lock can panic halfway through a change.
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The guest's side of it: capped, and with the call's clocks.
pub(super) struct RequestBody(Option<Arc<Mutex<Source>>>);

impl Source {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(context);
        if polled.is_pending() {
            // A look without a waker is no wait: the guest has other things to do.
            if !context.waker().will_wake(Waker::noop()) {
                if !std::mem::replace(&mut self.awaited, true) {
                    self.call.input_awaited();
                }
                self.call.input_watched();
            }
            return Poll::Pending;
        }
        self.awaited = false;
        self.call.input_arrived();
        let frame = match ready!(polled) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            self.call.witness.input(data);
            self.received += data.len() as u64;
        }
        if self.received > self.bytes_max {
            return Poll::Ready(Some(Err(ReadError::TooLarge(self.bytes_max))));
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Some(source) = &self.0 else { return Poll::Ready(None) };
        let mut source = lock(source);
        if source.closed {
            return Poll::Ready(Some(Err(HttpError::ConnectionTerminated)));
        }
        let frame = ready!(source.poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                // It cannot be gone on with; the next look finds the end.
                source.incoming = None;
                source.call.input_failed(&error);
                match error {
                    ReadError::TooLarge(_) => HttpError::HttpRequestBodySize(Some(source.received)),
                    ReadError::Broken(_) | ReadError::Malformed(_) | ReadError::Spool(_) | ReadError::Busy(_) => {
                        HttpError::ConnectionTerminated
                    }
                }
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            None => true,
            Some(source) => lock(source).incoming.as_ref().is_some_and(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some(source) => lock(source).incoming.as_ref().map(Body::size_hint).unwrap_or_default(),
        }
    }
}
