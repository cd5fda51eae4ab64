//! One error for the request path: cause → status, public text, metric label. What happened inside goes to the log alone;
//! `gateway` is the only place that turns an [`Error`] into a response.

use std::time::Duration;

use http::StatusCode;

use crate::account::Spent;

/// Why a request was not answered by its app, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no app is mounted at {0}")]
    NoRoute(String),
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    #[error("the request target is longer than {0} bytes")]
    TargetTooLong(u64),
    #[error("the request has more than {0} header fields")]
    TooManyFields(u32),
    #[error("the request head is larger than {0} bytes")]
    HeadTooLarge(u64),
    #[error("no request head within header_time = {0:?}")]
    HeadTooSlow(Duration),
    #[error("the transfer coding {0:?} is not known")]
    TransferCoding(String),
    #[error("the expectation {0:?} cannot be met")]
    Expectation(String),
    #[error("the request body is larger than {0} bytes")]
    BodyTooLarge(u64),
    #[error("busy: {0}")]
    Busy(Busy),
    #[error("the tenant has used up its {what}")]
    Budget { what: Spent, retry_after: Duration },
    #[error("it keeps failing, and is left alone for another {0:?}")]
    Throttled(Duration),
    #[error("the guest ran for more than cpu_time = {0:?}")]
    Cpu(Duration),
    #[error("{0}")]
    Wall(Wall),
    #[error("the guest was refused memory and trapped: {0}")]
    Memory(String),
    #[error("the guest overflowed its stack: {0}")]
    Stack(String),
    #[error("the guest trapped: {0}")]
    Trap(String),
    #[error("another call ended the instance that it shared: {0}")]
    Shared(String),
    #[error("the app raised {0}")]
    Exception(String),
    #[error("the app broke the protocol: {0}")]
    Protocol(String),
    #[error("the app answered with an error: {code}")]
    Declined { status: StatusCode, code: String },
    #[error("the program gave no CGI response: {0}")]
    CgiResponse(String),
    #[error("the response head is too large: {0}")]
    ResponseHead(String),
    #[error("the guest holds more than {0} handles")]
    Handles(u32),
    #[error("the guest passed more than {0} bytes in one call")]
    HostCall(u64),
    #[error("the guest asked for {0}, which it was not granted")]
    Grant(&'static str),
    #[error("the client is gone: {0}")]
    ClientGone(String),
    #[error("the host failed: {0}")]
    Host(String),
}

/// Which bound of admission was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    #[error("the app's queue is full")]
    QueueFull,
    #[error("no call of the app ended within queue_time")]
    QueueTime,
    #[error("too many requests of its tenant wait: more than budget.queued_calls")]
    TenantsQueueFull,
    #[error("no call of its tenant ended within queue_time: there are budget.concurrent_calls")]
    TenantsQueueTime,
    #[error("its tenant has the memory in use that it may: budget.memory, or its part of sandbox_memory")]
    TenantsMemory,
    #[error(
        "its tenant has as many files and connections open as it may: budget.descriptors, or its part of LimitNOFILE"
    )]
    TenantsDescriptors,
    #[error("no call of this host ended within queue_time: there are as many as `sandboxes`")]
    Host,
    #[error("all sandboxes of this host are in use")]
    Pool,
    #[error("it was asleep, and its code was not loaded within first_byte_time")]
    Asleep,
    #[error("another call, or `wasgi manage`, had the app's data for longer than queue_time")]
    Data,
}

/// Which clock ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wall {
    #[error("the call took longer than wall_time = {0:?}")]
    Total(Duration),
    #[error("no response head within first_byte_time = {0:?}")]
    FirstByte(Duration),
    #[error("no block within idle_time = {0:?}")]
    Idle(Duration),
    /// The client's fault: the guest was waiting for the request body.
    #[error("the client sent nothing of the request body within idle_time = {0:?}")]
    Input(Duration),
}

impl Error {
    /// What the client gets while nothing has been sent.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute(_) => StatusCode::NOT_FOUND,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::TargetTooLong(_) => StatusCode::URI_TOO_LONG,
            Self::TooManyFields(_) | Self::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadTooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TransferCoding(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation(_) => StatusCode::EXPECTATION_FAILED,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy(_) | Self::Throttled(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Budget { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::ClientGone(_) | Self::Wall(Wall::Input(_)) => StatusCode::REQUEST_TIMEOUT,
            Self::Cpu(_) | Self::Wall(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Declined { status, .. } => *status,
            Self::CgiResponse(_) | Self::ResponseHead(_) | Self::Handles(_) | Self::HostCall(_) => {
                StatusCode::BAD_GATEWAY
            }
            Self::Memory(_)
            | Self::Stack(_)
            | Self::Trap(_)
            | Self::Shared(_)
            | Self::Exception(_)
            | Self::Protocol(_)
            | Self::Grant(_)
            | Self::Host(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether what follows on the connection may be the rest of a body that nobody reads.
    pub fn leaves_the_body(&self) -> bool {
        matches!(
            self,
            Self::BodyTooLarge(_)
                | Self::ClientGone(_)
                | Self::Wall(Wall::Input(_))
                | Self::BadRequest(_)
                | Self::Expectation(_)
        )
    }

    /// What the client is told, beside the status: nothing of what happened inside.
    pub fn public_text(&self) -> &'static str {
        match self {
            Self::NoRoute(_) => "There is no app at this address.",
            Self::BadRequest(_) => "The request could not be understood.",
            Self::TargetTooLong(_) => "The address is too long.",
            Self::TooManyFields(_) => "The request has too many header fields.",
            Self::HeadTooLarge(_) => "The request's header fields are too large.",
            Self::HeadTooSlow(_) => "The request did not arrive in time.",
            Self::TransferCoding(_) => "The request's transfer coding is not known here.",
            Self::Expectation(_) => "What the request expects cannot be met.",
            Self::BodyTooLarge(_) => "The request body is too large.",
            Self::Busy(_) | Self::Budget { .. } | Self::Throttled(_) => {
                "The app is busy. Please try again in a moment."
            }
            Self::ClientGone(_) | Self::Wall(Wall::Input(_)) => "The request did not arrive in time.",
            Self::Cpu(_) | Self::Wall(_) => "The app took too long to answer.",
            _ => "The app failed to answer.",
        }
    }

    /// The name of the cause in logs and metrics: one of [`Error::LABELS`].
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoRoute(_) => "no_route",
            Self::BadRequest(_) => "bad_request",
            Self::TargetTooLong(_) => "target",
            Self::TooManyFields(_) | Self::HeadTooLarge(_) => "request_head",
            Self::HeadTooSlow(_) => "slow_head",
            Self::TransferCoding(_) => "transfer_coding",
            Self::Expectation(_) => "expectation",
            Self::BodyTooLarge(_) => "body",
            Self::Busy(_) => "busy",
            Self::Budget { .. } => "budget",
            Self::Throttled(_) => "throttled",
            Self::Cpu(_) => "cpu",
            Self::Wall(_) => "wall",
            Self::Memory(_) => "memory",
            Self::Stack(_) => "stack",
            Self::Trap(_) => "trap",
            Self::Shared(_) => "shared",
            Self::Exception(_) => "exception",
            Self::Protocol(_) => "protocol",
            Self::Declined { .. } => "declined",
            Self::CgiResponse(_) => "cgi_response",
            Self::ResponseHead(_) => "response_head",
            Self::Handles(_) => "handles",
            Self::HostCall(_) => "host_call",
            Self::Grant(_) => "grant",
            Self::ClientGone(_) => "client_gone",
            Self::Host(_) => "host",
        }
    }

    /// Every label there is.
    pub const LABELS: &'static [&'static str] = &[
        "no_route",
        "bad_request",
        "target",
        "request_head",
        "slow_head",
        "transfer_coding",
        "expectation",
        "body",
        "busy",
        "budget",
        "throttled",
        "cpu",
        "wall",
        "memory",
        "stack",
        "trap",
        "shared",
        "exception",
        "protocol",
        "declined",
        "cgi_response",
        "response_head",
        "handles",
        "host_call",
        "grant",
        "client_gone",
        "host",
    ];

    /// When to ask again, where that helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy(_) => Some(Duration::from_secs(1)),
            Self::Budget { retry_after: time, .. } | Self::Throttled(time) => Some(*time),
            _ => None,
        }
    }

    /// Whether the app's program failed, by itself: it trapped, or had to be stopped.
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Cpu(_)
                | Self::Memory(_)
                | Self::Stack(_)
                | Self::Trap(_)
                | Self::Handles(_)
                | Self::HostCall(_)
                | Self::Grant(_)
        )
    }

    /// Whether the app has failed its call, by itself or by its program: it was neither the client, nor the host, nor a matter of how
    /// much there is for whom.
    pub fn is_apps(&self) -> bool {
        let is_hosts = matches!(self, Self::Busy(_) | Self::Budget { .. } | Self::Throttled(_) | Self::Host(_));
        !is_hosts && !self.is_clients()
    }

    /// Whether the fault lies with the client or its timing: such errors are not warnings in an operator's log.
    pub fn is_clients(&self) -> bool {
        matches!(
            self,
            Self::NoRoute(_)
                | Self::BadRequest(_)
                | Self::TargetTooLong(_)
                | Self::TooManyFields(_)
                | Self::HeadTooLarge(_)
                | Self::HeadTooSlow(_)
                | Self::TransferCoding(_)
                | Self::Expectation(_)
                | Self::BodyTooLarge(_)
                | Self::ClientGone(_)
                | Self::Wall(Wall::Input(_))
        )
    }
}
