//! What the gateway knows of the connection that a request came by, and the clocks by which a slow client is found out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::EdgeLimits;
use crate::origin::Origin;

/// A client's connection, as the gateway sees it: one request at a time.
pub struct Connection {
    pub origin: Arc<Origin>,
    pub edge: Arc<EdgeLimits>,
    began: Instant,
    /// When the response under way has to be through, however slowly it is taken: in nanoseconds since `began`, 0 for none.
    end_by: AtomicU64,
    /// Since when the client owes a request head: in nanoseconds since `began`, plus one; 0 while a request is served.
    head_awaited: AtomicU64,
    /// Something waits for the client to take it: then it owes that first, and [`super::client::Client`] has an eye on it.
    write_stalled: AtomicBool,
}

impl Connection {
    pub(super) fn new(origin: Arc<Origin>, edge: Arc<EdgeLimits>) -> Self {
        Self {
            origin,
            edge,
            began: Instant::now(),
            end_by: AtomicU64::new(0),
            head_awaited: AtomicU64::new(1),
            write_stalled: AtomicBool::new(false),
        }
    }

    /// A response that is still being made is on its way. It is cut off at `deadline`.
    pub fn expect_end_by(&self, deadline: Instant) {
        self.end_by.store(self.nanos(deadline).max(1), Ordering::Relaxed);
    }

    /// A request's head is there; the last response is through.
    pub fn request_arrived(&self) {
        self.end_by.store(0, Ordering::Relaxed);
        self.head_awaited.store(0, Ordering::Relaxed);
    }

    /// The response is through: from now on the client owes the next request.
    pub fn response_ended(&self, now: Instant) {
        self.head_awaited.store(self.nanos(now) + 1, Ordering::Relaxed);
    }

    pub(super) fn write_stalls(&self) {
        self.write_stalled.store(true, Ordering::Relaxed);
    }

    pub(super) fn write_goes_on(&self) {
        self.write_stalled.store(false, Ordering::Relaxed);
        if self.head_awaited.load(Ordering::Relaxed) != 0 {
            self.response_ended(Instant::now());
        }
    }

    /// Whether the client has been owing a request head for longer than it may.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        match self.head_awaited.load(Ordering::Relaxed) {
            _ if self.write_stalled.load(Ordering::Relaxed) => false,
            0 => false,
            since => self.nanos(now).saturating_sub(since) > self.edge.header_time.as_nanos() as u64,
        }
    }

    pub(super) fn end_by(&self) -> Option<Instant> {
        match self.end_by.load(Ordering::Relaxed) {
            0 => None,
            nanos => self.began.checked_add(Duration::from_nanos(nanos)),
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX - 1)
    }
}
