//! What is known of a request while it is answered, for the logs, the counters and the throttle; and the body that ends
//! it.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, Version, header, request};
use http_body::{Body, Frame, SizeHint};

use crate::apps::App;
use crate::body::{Block, ResponseBody};
use crate::error::Error;
use crate::origin::Origin;
use crate::sandbox::CallState;
use crate::server::Connection;
use crate::telemetry::{AccessLog, AccessRecord, RequestId};

/// What is known of a request while it is answered, for the logs and the counters.
pub(super) struct Record {
    pub(super) id: RequestId,
    pub(super) began: Instant,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) host: Option<HeaderValue>,
    pub(super) referer: Option<HeaderValue>,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) connection: Arc<Connection>,
    /// What a trusted proxy says of the client.
    pub(super) forwarded: Option<Arc<Origin>>,
    pub(super) status: StatusCode,
    pub(super) app: Option<Arc<App>>,
    pub(super) call: Option<Arc<CallState>>,
    pub(super) cause: Option<&'static str>,
    /// The app's program failed.
    pub(super) is_fault: bool,
    /// Processor time of calls that ended in a redirect to the one under way.
    pub(super) cpu: Duration,
    pub(super) sent: u64,
    pub(super) access_log: Arc<AccessLog>,
}

impl Record {
    pub(super) fn new(parts: &request::Parts, connection: &Arc<Connection>, access_log: &Arc<AccessLog>) -> Self {
        // Without an access log nobody reads the fields.
        let field = |name| access_log.is_on().then(|| parts.headers.get(name).cloned()).flatten();
        Self {
            id: RequestId::next(),
            began: Instant::now(),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            host: field(header::HOST),
            referer: field(header::REFERER),
            user_agent: field(header::USER_AGENT),
            connection: Arc::clone(connection),
            forwarded: None,
            status: StatusCode::OK,
            app: None,
            call: None,
            cause: None,
            is_fault: false,
            cpu: Duration::ZERO,
            sent: 0,
            access_log: Arc::clone(access_log),
        }
    }

    pub(super) fn origin(&self) -> &Arc<Origin> {
        self.forwarded.as_ref().unwrap_or_else(|| self.connection.origin())
    }

    /// Says in the log what went wrong, and remembers it for the counters.
    pub(super) fn report(&mut self, error: &Error) {
        let cause = error.label();
        self.cause = Some(cause);
        self.is_fault = error.is_fault();
        if let Some(call) = &self.call {
            call.failed(error);
        }
        let app = self.app.as_ref().map_or("", |app| app.spec.name.as_str());
        let request = self.id;
        let (method, path) = (cut(self.method.as_str()), cut(self.uri.path()));
        if error.is_clients() {
            tracing::debug!(target: "wasgi::request", %request, app, cause, %method, path = &*path, "{error}");
        } else if self.app.as_ref().is_none_or(|app| may_report(app, method.len() + path.len())) {
            tracing::warn!(target: "wasgi::request", %request, app, cause, %method, path = &*path, "{error}");
        }
    }

    /// The app has failed once more: if it does nothing else, it is left alone for a while.
    fn throttle(&self, app: &App) {
        let (faults, pause_max) = {
            let terms = app.admission.account().terms();
            (terms.budget.faults, terms.budget.fault_pause)
        };
        if let Some(pause) = app.throttle.failed(faults, pause_max)
            && may_report(app, 0)
        {
            let (app, pause) = (app.spec.name.as_str(), humantime::format_duration(pause));
            tracing::warn!(app, "its last {faults} calls or more have failed: it is left alone for {pause}");
        }
    }

    /// The response is through, as far as the guest and this host are concerned.
    pub(super) fn finish(&self) {
        let now = Instant::now();
        self.connection.response_ended(now);
        let cpu = self.cpu + self.call.as_ref().map(|call| call.cpu()).unwrap_or_default();
        if let Some(app) = &self.app {
            app.stats.record(self.status.as_u16(), self.cause, cpu, self.sent);
            match self.cause {
                // A file that the host serves by itself says nothing of the app's program.
                None if self.call.is_some() => app.throttle.answered(),
                None => {}
                Some(_) if self.is_fault => self.throttle(app),
                Some(_) => {}
            }
        }
        self.access_log.record(&AccessRecord {
            remote: self.origin().remote,
            request_id: self.id,
            method: self.method.as_str(),
            target: self.uri.path_and_query().map_or("*", http::uri::PathAndQuery::as_str),
            version: self.version,
            status: self.status.as_u16(),
            bytes: self.sent,
            duration: now - self.began,
            cpu,
            app: self.app.as_ref().map(|app| app.spec.name.as_str()),
            cause: self.cause,
            host: self.host.as_ref().map(HeaderValue::as_bytes),
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
        });
    }
}

/// Whether the log has room for a line about a request to an app, with so many bytes that the client has chosen.
fn may_report(app: &App, bytes: usize) -> bool {
    app.admission.account().may_report(bytes, Instant::now())
}

/// What a client has written, as the log has it: the access log has all of it.
fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= CUT_BYTES {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(CUT_BYTES)]))
}

const CUT_BYTES: usize = 256;

/// A response body that is logged and counted when it ends.
pub struct Reply {
    pub(super) body: ResponseBody,
    /// None where the response was whole, and has been logged.
    pub(super) record: Option<Box<Record>>,
}

impl Reply {
    /// The next frame, for a client that is ready to take it.
    pub(crate) fn poll_block(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Block>, Error>>> {
        let polled = self.body.poll_block(context);
        if let (Poll::Ready(frame), Some(record)) = (&polled, &mut self.record) {
            match frame {
                Some(Ok(frame)) => record.sent += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(error)) => {
                    record.report(error);
                    record.finish();
                    self.record = None;
                }
                None => {
                    record.finish();
                    self.record = None;
                }
            }
        }
        polled
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_block(context).map_ok(|frame| frame.map_data(Block::into_bytes))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        // A body with a promised length is dropped when its last byte is taken; else its client went away.
        if self.body.size_hint().exact() != Some(0) {
            record.report(&Error::ClientGone("it left before the end of the response".into()));
        }
        record.finish();
    }
}
