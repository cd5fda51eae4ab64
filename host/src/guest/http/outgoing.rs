//! Requests that guests send: judged, sent on a connection of their own, counted in both directions, and ended when their time is
//! over or their grant is gone. Redirects are the guest's own affair: each request is judged anew.

use std::error::Error as _;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody};

use super::Sending;
use super::counted::Counted;
use crate::config::Protocol;
use crate::outbound::policy::{Denied, Target};
use crate::outbound::{Connection, Counter, Ended, Failure, Lease, TooMuch, Traffic};
use crate::sandbox::AppContext;
use crate::telemetry::RequestId;

/// What a response's head may have.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEAD_FIELDS_MAX: usize = 200;

/// What the guest is given: a response, and what has to be polled for as long as its body is read.
pub(super) type Answered = (Response<WasiBody>, Sending<()>);

/// A guest wants to send a request.
pub(super) struct Outgoing {
    pub(super) app: Arc<AppContext>,
    pub(super) call: Option<RequestId>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) request: Request<WasiBody>,
    pub(super) options: RequestOptions,
}

impl Outgoing {
    pub(super) async fn send(self) -> Result<Answered, HttpError> {
        let Self { app, call, traffic, request, options } = self;
        let shown = shown(&request);
        let notes = Arc::new(Notes { app, call, shown, why: OnceLock::new() });
        let sent = send(&notes, traffic, request, options).await;
        sent.map_err(|error| notes.code(error))
    }
}

/// A request as the log has it: to whom, but not what for. In paths, queries and users stand secrets, in whatever form.
fn shown(request: &Request<WasiBody>) -> String {
    let uri = request.uri();
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority());
    let host = authority.map_or("", |authority| authority.host());
    let port = authority.and_then(|authority| authority.port_u16()).map_or_else(String::new, |port| format!(":{port}"));
    format!("{} {scheme}://{host}{port}", request.method())
}

/// An app without the grant: the guest is told, and the app's log.
pub(super) fn refuse(app: &AppContext, call: Option<RequestId>, request: &Request<WasiBody>) -> HttpError {
    let reason = "the app has not asked for any: name where it may go in `outbound` of its sidecar";
    app.note(call, format!("refused an outgoing request ({}): {reason}", shown(request)));
    HttpError::HttpRequestDenied
}

/// Why a request was not sent, or its response breaks off.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("its target is not {0}")]
    Target(&'static str),
    #[error("a CONNECT request makes a tunnel, which no destination names")]
    Tunnel,
    #[error(transparent)]
    Failure(#[from] Failure),
    #[error(transparent)]
    Ended(#[from] Ended),
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    #[error("nothing of the response within the time that the guest gives it")]
    Slow,
    #[error("{0}")]
    Hyper(hyper::Error),
}

/// What both directions of a request know of it.
pub(super) struct Notes {
    app: Arc<AppContext>,
    call: Option<RequestId>,
    shown: String,
    /// What ended it first: what comes later is what that brings about.
    why: OnceLock<Why>,
}

#[derive(Clone, Copy)]
pub(super) enum Why {
    Ended(Ended),
    TooMuch(TooMuch),
}

impl Notes {
    pub(super) fn stop(&self, why: Why) {
        let _ = self.why.set(why);
    }

    /// What the guest is told; the app's log learns of what a limit or a grant has ended.
    fn code(&self, fault: Fault) -> HttpError {
        let fault = match (fault, self.why.get()) {
            (Fault::Hyper(_) | Fault::Failure(Failure::Tls(_)), Some(Why::Ended(ended))) => Fault::Ended(*ended),
            (Fault::Hyper(_) | Fault::Failure(Failure::Tls(_)), Some(Why::TooMuch(why))) => Fault::TooMuch(*why),
            (fault, _) => fault,
        };
        let (verb, code) = match &fault {
            Fault::Target(_) => ("refused", HttpError::HttpRequestUriInvalid),
            Fault::Tunnel => ("refused", HttpError::HttpRequestMethodInvalid),
            Fault::Failure(Failure::Denied(Denied::Prohibited(..))) => ("refused", HttpError::DestinationIpProhibited),
            Fault::Failure(Failure::Denied(_)) => ("refused", HttpError::HttpRequestDenied),
            Fault::Failure(Failure::Busy(_) | Failure::TenantBusy(_) | Failure::Descriptors) => {
                ("refused", HttpError::ConnectionLimitReached)
            }
            Fault::Ended(Ended::Time(_)) => ("ended", HttpError::HttpResponseTimeout),
            Fault::Ended(Ended::Revoked) => ("ended", HttpError::HttpRequestDenied),
            Fault::TooMuch(TooMuch::Sent(bytes_max)) => ("ended", HttpError::HttpRequestBodySize(Some(*bytes_max))),
            Fault::TooMuch(TooMuch::Received(bytes_max)) => {
                ("ended", HttpError::HttpResponseBodySize(Some(*bytes_max)))
            }
            // What others do is between the guest and them.
            Fault::Failure(failure) => return failure_code(failure),
            Fault::Slow => return HttpError::HttpResponseTimeout,
            Fault::Hyper(error) => return hyper_code(error),
        };
        self.app.note(self.call, format!("{verb} an outgoing request ({}): {fault}", self.shown));
        code
    }
}

fn failure_code(failure: &Failure) -> HttpError {
    match failure {
        Failure::LookUp(_) => HttpError::DnsError { rcode: None, info_code: None },
        Failure::ConnectTime(_) => HttpError::ConnectionTimeout,
        Failure::Connect(error) => match error.kind() {
            ErrorKind::ConnectionRefused => HttpError::ConnectionRefused,
            ErrorKind::TimedOut => HttpError::ConnectionTimeout,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => HttpError::DestinationIpUnroutable,
            _ => HttpError::DestinationUnavailable,
        },
        Failure::Tls(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => HttpError::TlsCertificateError,
            _ => HttpError::TlsProtocolError,
        },
        Failure::Denied(_) | Failure::Busy(_) | Failure::TenantBusy(_) | Failure::Descriptors => {
            HttpError::HttpRequestDenied
        }
    }
}

fn hyper_code(error: &hyper::Error) -> HttpError {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    if error.is_incomplete_message() || cause.is_some_and(|cause| cause.kind() == ErrorKind::UnexpectedEof) {
        HttpError::HttpResponseIncomplete
    } else if error.is_parse() {
        HttpError::HttpProtocolError
    } else {
        HttpError::ConnectionTerminated
    }
}

/// What a guest of WASI 0.2 is told of a body that broke off. None where that was no matter of HTTP.
pub(super) fn error_code(error: &wasmtime::Error) -> Option<ErrorCode> {
    if let Some(code) = error.downcast_ref::<ErrorCode>() {
        return Some(code.clone());
    }
    Some(match error.downcast_ref::<HttpError>()? {
        HttpError::HttpRequestDenied => ErrorCode::HttpRequestDenied,
        HttpError::HttpRequestBodySize(bytes_max) => ErrorCode::HttpRequestBodySize(*bytes_max),
        HttpError::HttpResponseBodySize(bytes_max) => ErrorCode::HttpResponseBodySize(*bytes_max),
        HttpError::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        HttpError::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        HttpError::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        _ => ErrorCode::HttpProtocolError,
    })
}

async fn send(
    notes: &Arc<Notes>,
    traffic: Arc<Traffic>,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Answered, Fault> {
    let Some(outbound) = &notes.app.outbound else { return Err(Fault::Target("granted")) };
    let target = target(&request)?;
    let time = options.connect_timeout.map_or(outbound.connect_time(), |time| time.min(outbound.connect_time()));
    let began = Instant::now();
    let Connection { stream, lease } = outbound.connect(target.clone(), Some(time)).await?;
    let stream = Counted::new(stream, Counter::new(outbound, &traffic), Arc::clone(notes));
    let stream: Box<dyn Stream> = match target.protocol {
        Protocol::Https => Box::new(outbound.encrypt(stream, &target, time.saturating_sub(began.elapsed())).await?),
        Protocol::Http | Protocol::Tcp => Box::new(stream),
    };
    let mut builder = http1::Builder::new();
    builder.max_headers(HEAD_FIELDS_MAX).max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Fault::Hyper)?;
    let request = prepared(request, &target)?;
    // None once the connection is over.
    let mut driver = Some(Box::pin(drive(connection, lease, Arc::clone(notes))));
    let response = {
        let mut sending = pin!(sender.send_request(request));
        let answered = std::future::poll_fn(|context| {
            // Only while it is polled does anything move.
            driver.take_if(|driver| driver.as_mut().poll(context).is_ready());
            sending.as_mut().poll(context)
        });
        match options.first_byte_timeout {
            Some(time) => tokio::time::timeout(time, answered).await.map_err(|_| Fault::Slow)?,
            None => answered.await,
        }
    };
    let response = response.map_err(Fault::Hyper)?;
    let response = response.map(|incoming| {
        let pause = options.between_bytes_timeout.map(|time| (time, Box::pin(tokio::time::sleep(time))));
        Download { incoming: Some(incoming), notes: Arc::clone(notes), pause }.boxed_unsync()
    });
    Ok((response, Box::new(ended(driver))))
}

/// What there is to say of its end the body has said.
async fn ended(driver: Option<impl Future<Output = ()>>) -> Result<(), HttpError> {
    if let Some(driver) = driver {
        driver.await;
    }
    Ok(())
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Moves what goes over the connection, until it is over or has to be.
async fn drive(connection: http1::Connection<TokioIo<Box<dyn Stream>>, WasiBody>, lease: Lease, notes: Arc<Notes>) {
    let Lease { bounds, slot: _slot } = lease;
    tokio::select! {
        _ = connection => {}
        // Noted before the connection goes, with which both bodies break off.
        () = async { notes.stop(Why::Ended(bounds.ended().await)) } => {}
    }
}

fn target(request: &Request<WasiBody>) -> Result<Target, Fault> {
    if request.method() == Method::CONNECT {
        return Err(Fault::Tunnel);
    }
    let uri = request.uri();
    let protocol = match uri.scheme_str() {
        Some("http") => Protocol::Http,
        Some("https") => Protocol::Https,
        _ => return Err(Fault::Target("one of http or https")),
    };
    let authority = uri.authority().ok_or(Fault::Target("at any host"))?;
    if authority.as_str().contains('@') {
        return Err(Fault::Target("a host and a port alone: no user or password stands there"));
    }
    let port = match (authority.port(), authority.port_u16(), protocol.default_port()) {
        (Some(_), Some(port), _) | (None, _, Some(port)) if port != 0 => port,
        _ => return Err(Fault::Target("at any port")),
    };
    Target::new(protocol, authority.host(), port).ok_or(Fault::Target("at any host"))
}

/// As it goes out: in origin form, for the very server that it was judged by. A guest that could name another one in the Host field
/// would reach whatever else is served at the same address.
fn prepared(mut request: Request<WasiBody>, target: &Target) -> Result<Request<WasiBody>, Fault> {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    let host = HeaderValue::try_from(target.authority()).map_err(|_| Fault::Target("a host that can be named"))?;
    request.headers_mut().insert(header::HOST, host);
    *request.version_mut() = http::Version::HTTP_11;
    Ok(request)
}

/// What the guest gets.
struct Download {
    /// None once it has failed.
    incoming: Option<Incoming>,
    notes: Arc<Notes>,
    /// How long the guest waits for a piece, if it says so.
    pause: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Body for Download {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let fault = match Pin::new(incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some((time, pause)) = &mut this.pause {
                    pause.as_mut().reset(Instant::now() + *time);
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(Some(Err(error))) => Fault::Hyper(error),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let Some((_, pause)) = &mut this.pause else { return Poll::Pending };
                ready!(pause.as_mut().poll(context));
                Fault::Slow
            }
        };
        // With it the connection ends.
        this.incoming = None;
        Poll::Ready(Some(Err(this.notes.code(fault))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
