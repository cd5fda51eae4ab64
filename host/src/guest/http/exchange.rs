//! A guest's response on its way to the connection: its head, then its body block by block, while the guest is run.
//!
//! Both are polled from one future, the call's: what the guest does is metered as the call's, and it goes on as fast as the
//! client takes what it says.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;
use wasmtime_wasi_http::Error as HttpError;

use super::Body;
use super::request::Upload;
use crate::body::Block;
use crate::error::Error;
use crate::guest::environ::wants_head_only;
use crate::guest::head::{Head, HeadError, checked_trailers};
use crate::sandbox::task::{Finished, Whole};
use crate::sandbox::{AppContext, CallState};
use crate::telemetry::printable;

/// How long a response waits for a guest that was interrupted, and how much of it.
const LINGER: Duration = Duration::from_millis(20);
const HELD_BYTES: usize = 64 << 10;

/// Where the guest leaves its response, once.
#[derive(Clone, Default)]
pub(super) struct Answer(Arc<Slot>);

#[derive(Default)]
struct Slot {
    said: Mutex<Option<Said>>,
    delivered: AtomicBool,
}

type Said = Result<Response<Body>, HttpError>;

impl Answer {
    pub(super) fn set(&self, said: Said) {
        *self.0.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    }

    fn take(&self) -> Option<Said> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until the whole response has been taken from the guest. Within [`Exchange::run`], which polls this once more when
    /// it has, so no waker is needed.
    pub(super) async fn delivered(&self) {
        poll_fn(|_| if self.is_delivered() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    pub(super) fn is_delivered(&self) -> bool {
        self.0.delivered.load(Ordering::Relaxed)
    }
}

/// For a guest that is run by its call alone.
pub(super) fn alone(_: &mut Context<'_>) -> Poll<Result<(), Error>> {
    Poll::Ready(Ok(()))
}

/// How the guest's side of a call ended.
pub(super) enum End {
    /// The guest has returned: its sandbox is sound, whatever came of the call.
    Sound(Result<Finished, Error>),
    /// It has trapped, was stopped, or must not go on.
    Faulty(Result<Finished, Error>),
}

/// One response under way.
pub(super) struct Exchange<'a> {
    app: &'a AppContext,
    call: &'a CallState,
    answer: &'a Answer,
    upload: &'a Upload,
    head: Option<Head>,
    body: Option<Body>,
    /// What has come while nothing was sent.
    blocks: Vec<Block>,
    trailers: Option<HeaderMap>,
    guest: Guest,
    may_end_soon: bool,
    /// When the head came, and whether the guest was merely interrupted in the poll under way: it goes on at once.
    head_since: Option<Instant>,
    is_interrupted: bool,
    /// A HEAD request's, or one with a status that has no body.
    is_bodiless: bool,
}

/// How far the guest is.
enum Guest {
    Running,
    Returned,
    Failed(Error),
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        app: &'a AppContext,
        call: &'a CallState,
        method: &Method,
        answer: &'a Answer,
        upload: &'a Upload,
    ) -> Self {
        Self {
            app,
            call,
            answer,
            upload,
            head: None,
            body: None,
            blocks: Vec::new(),
            trailers: None,
            guest: Guest::Running,
            may_end_soon: true,
            head_since: None,
            is_interrupted: false,
            is_bodiless: wants_head_only(method),
        }
    }

    /// Runs the guest to its end, and hands over what it says.
    ///
    /// `vouch` is asked at the end of a response: whether it is one, or only what was left by a guest that has failed elsewhere.
    ///
    /// Guest and exchange stay where they are: moved into this future, they would take their room in the call's twice.
    pub(super) async fn run(
        &mut self,
        mut guest: Pin<&mut impl Future<Output = Result<(), Error>>>,
        mut vouch: impl FnMut(&mut Context<'_>) -> Poll<Result<(), Error>>,
    ) -> End {
        let sent = poll_fn(|context| {
            self.poll_guest(guest.as_mut(), context);
            let mut arrived = ready!(self.poll_response(context));
            if arrived.is_ok() {
                arrived = ready!(vouch(context));
            }
            self.upload.close();
            self.answer.0.delivered.store(true, Ordering::Relaxed);
            // Where it has waited for nothing else, it is done.
            self.poll_guest(guest.as_mut(), context);
            Poll::Ready(arrived.map(|()| self.finish()))
        })
        .await;
        match (std::mem::replace(&mut self.guest, Guest::Returned), sent) {
            (Guest::Running, Err(error)) => End::Faulty(Err(error)),
            // The client has, or gets, all of it: only the log is told.
            (Guest::Running, Ok(finished)) => {
                self.call.outbox().ended = true;
                match guest.await {
                    Ok(()) => End::Sound(Ok(finished)),
                    Err(error) => {
                        complain(self.app, self.call, &error);
                        End::Faulty(Ok(finished))
                    }
                }
            }
            (Guest::Returned, sent) => End::Sound(sent),
            (Guest::Failed(error), Ok(finished)) => {
                complain(self.app, self.call, &error);
                End::Faulty(Ok(finished))
            }
            // What went wrong first is what the log should say.
            (Guest::Failed(error), Err(_)) => End::Faulty(Err(error)),
        }
    }

    fn poll_guest(&mut self, guest: Pin<&mut impl Future<Output = Result<(), Error>>>, context: &mut Context<'_>) {
        if !matches!(self.guest, Guest::Running) {
            return;
        }
        // What interrupted it before says nothing about this poll.
        self.call.was_interrupted();
        if let Poll::Ready(returned) = guest.poll(context) {
            self.guest = returned.map_or_else(Guest::Failed, |()| Guest::Returned);
        }
        self.is_interrupted = self.call.was_interrupted();
    }

    /// Whether what the guest has said may wait for the rest of it. A guest that was interrupted has not said all that it was about
    /// to say; but the client does not wait for one that goes on computing.
    fn may_hold(&self) -> bool {
        self.is_interrupted
            && self.head_since.is_some_and(|since| since.elapsed() < LINGER)
            && self.blocks.iter().map(Block::len).sum::<usize>() < HELD_BYTES
    }

    /// Ready when the whole response has been taken from the guest, or when there will never be one.
    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.body.is_none() {
            match self.answer.take() {
                Some(Ok(response)) => self.begin(response)?,
                Some(Err(code)) => return Poll::Ready(Err(declined(self.app, &code))),
                None if matches!(self.guest, Guest::Running) => return Poll::Pending,
                None => {
                    let why = "it returned without a response".to_owned();
                    return Poll::Ready(Err(Error::Protocol(why)));
                }
            }
        }
        self.poll_body(context)
    }

    fn begin(&mut self, response: Response<Body>) -> Result<(), Error> {
        let (parts, body) = response.into_parts();
        let head = Head::from_http(parts.status, parts.headers, &self.app.limits);
        let head = head.map_err(|error| match error {
            HeadError::TooLarge(why) => Error::ResponseHead(why),
            HeadError::Status(_) | HeadError::Header(_) => Error::Protocol(error.to_string()),
        })?;
        self.is_bodiless |= !head.allows_body();
        self.head = Some(head);
        self.head_since = Some(Instant::now());
        self.body = Some(body);
        Ok(())
    }

    /// Ready at the body's end. What the guest has said while it could not go on is sent.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
            if self.head.is_none() && self.call.outbox().block.is_some() {
                return Poll::Pending;
            }
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => {
                    let why = said(self.app, &error);
                    return Poll::Ready(Err(Error::Protocol(format!("the guest broke its response off: {why}"))));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(block) if block.is_empty() => {}
                    Ok(block) => self.take(Block::new(block, self.call)?),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.trailers = checked_trailers(trailers, &self.app.limits)
                            .map_err(|error| Error::ResponseHead(error.to_string()))?;
                    }
                },
                // Nobody is left who could go on.
                Poll::Pending if !matches!(self.guest, Guest::Running) => {
                    return Poll::Ready(Err(Error::Protocol("it returned without finishing its response".to_owned())));
                }
                Poll::Pending if self.head.is_some() && self.may_hold() => return Poll::Pending,
                // Guests of WASI 0.3 wake themselves on their way to the end: one turn more, and most have said all.
                Poll::Pending if std::mem::take(&mut self.may_end_soon) => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => {
                    self.commit();
                    if !self.is_bodiless {
                        return Poll::Pending;
                    }
                    // Nobody takes more of it. The guest can tell, and goes on with what else it has to do.
                    self.body = Some(Body::default());
                }
            }
        }
    }

    fn take(&mut self, block: Block) {
        if self.head.is_some() {
            self.blocks.push(block);
            return;
        }
        self.call.outbox().block = Some(block);
    }

    /// The head goes out, with what is there of the body.
    fn commit(&mut self) {
        let Some(head) = self.head.take() else { return };
        let block = Block::concat(std::mem::take(&mut self.blocks));
        let mut outbox = self.call.outbox();
        outbox.head = Some(head);
        outbox.committed = true;
        outbox.block = block;
    }

    fn finish(&mut self) -> Finished {
        if self.trailers.is_none()
            && !matches!(self.guest, Guest::Running)
            && let Some(head) = self.head.take()
        {
            return Finished::Whole(Whole { head, blocks: std::mem::take(&mut self.blocks) });
        }
        self.commit();
        self.call.outbox().trailers = self.trailers.take();
        Finished::Streamed
    }
}

fn complain(app: &AppContext, call: &CallState, error: &Error) {
    let (app, request) = (app.name.as_str(), call.id);
    if call.account().may_report(0, Instant::now()) {
        tracing::warn!(target: "wasgi::request", %request, app, cause = error.label(), "after the response: {error}");
    }
    call.failed(error);
}

/// The guest has answered with an error code instead of a response.
fn declined(app: &AppContext, code: &HttpError) -> Error {
    Error::Declined { status: status(code), code: said(app, code) }
}

/// An error code for the log. Some codes hold text of the guest's: nothing of it may look like a line of the host, and it counts
/// as one of the app's.
fn said(app: &AppContext, code: &HttpError) -> String {
    app.log.charged(printable(&code.to_string(), CODE_BYTES_MAX))
}

/// What is logged of an error code.
const CODE_BYTES_MAX: usize = 4 << 10;

/// What an error code means to the client: what is said of the request is the client's matter, what is said of others the app's,
/// as a gateway.
fn status(code: &HttpError) -> StatusCode {
    use HttpError as Code;
    match code {
        Code::DnsTimeout
        | Code::ConnectionTimeout
        | Code::ConnectionReadTimeout
        | Code::ConnectionWriteTimeout
        | Code::HttpResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        Code::ConnectionLimitReached => StatusCode::SERVICE_UNAVAILABLE,
        Code::HttpRequestLengthRequired => StatusCode::LENGTH_REQUIRED,
        Code::HttpRequestBodySize(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Code::HttpRequestMethodInvalid | Code::HttpRequestUriInvalid => StatusCode::BAD_REQUEST,
        Code::HttpRequestUriTooLong => StatusCode::URI_TOO_LONG,
        Code::HttpRequestHeaderSectionSize(_)
        | Code::HttpRequestHeaderSize { .. }
        | Code::HttpRequestTrailerSectionSize(_)
        | Code::HttpRequestTrailerSize { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Code::LoopDetected => StatusCode::LOOP_DETECTED,
        Code::ConfigurationError | Code::InternalError(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_GATEWAY,
    }
}
