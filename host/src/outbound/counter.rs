//! What goes over connections: counted for the calls and for their tenant, and held up while that is more than the tenant's rate.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Sleep;

use super::Outbound;

/// What the calls of an instance have sent and got.
#[derive(Default)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// A call begins, and is alone: what went before counts no more.
    pub(crate) fn begin(&self) {
        self.sent.store(0, Relaxed);
        self.received.store(0, Relaxed);
    }
}

/// More than a call may send, or get.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum TooMuch {
    #[error("the call sends more than limits.outbound_sent_size = {0} bytes")]
    Sent(u64),
    #[error("the call gets more than limits.outbound_received_size = {0} bytes")]
    Received(u64),
}

/// Counts what goes over one connection, or in one direction of it.
pub(crate) struct Counter {
    outbound: Arc<Outbound>,
    traffic: Arc<Traffic>,
    /// Until more may go, or come.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Counter {
    pub(crate) fn new(outbound: &Arc<Outbound>, traffic: &Arc<Traffic>) -> Self {
        Self { outbound: Arc::clone(outbound), traffic: Arc::clone(traffic), pause: None }
    }

    /// Whether nothing may move at this moment, since the tenant has had more than its rate.
    pub(crate) fn is_held_up(&self) -> bool {
        self.outbound.pause().is_some()
    }

    /// Ready when something may move.
    pub(crate) fn poll_free(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let Some(time) = self.outbound.pause() else { return Poll::Ready(()) };
            self.pause = Some(Box::pin(tokio::time::sleep(time)));
        }
    }

    /// How many of so many bytes may be sent: they count as sent, until [`Counter::sent`] says how many were.
    pub(crate) fn send(&self, bytes: usize) -> Result<usize, TooMuch> {
        let bytes_max = self.outbound.sent_bytes_max;
        let mut taken = 0;
        let _ = self.traffic.sent.fetch_update(Relaxed, Relaxed, |sent| {
            taken = bytes.min(usize::try_from(bytes_max.saturating_sub(sent)).unwrap_or(usize::MAX));
            Some(sent + taken as u64)
        });
        if taken == 0 && bytes > 0 { Err(TooMuch::Sent(bytes_max)) } else { Ok(taken) }
    }

    /// Of so many that might be sent, so many were.
    pub(crate) fn sent(&self, taken: usize, bytes: usize) {
        if taken > bytes {
            // Another call may have begun meanwhile, for which nothing of it counts.
            let less = |sent: u64| Some(sent.saturating_sub((taken - bytes) as u64));
            let _ = self.traffic.sent.fetch_update(Relaxed, Relaxed, less);
        }
        if bytes > 0 {
            self.outbound.account.count_outbound(bytes, Instant::now());
        }
    }

    /// All of so many bytes are sent, or none.
    pub(crate) fn send_all(&self, bytes: usize) -> Result<(), TooMuch> {
        let taken = self.send(bytes)?;
        let sent = if taken == bytes { bytes } else { 0 };
        self.sent(taken, sent);
        if taken == bytes { Ok(()) } else { Err(TooMuch::Sent(self.outbound.sent_bytes_max)) }
    }

    /// So many bytes have come.
    pub(crate) fn receive(&self, bytes: usize) -> Result<(), TooMuch> {
        if bytes == 0 {
            return Ok(());
        }
        self.outbound.account.count_outbound(bytes, Instant::now());
        let bytes_max = self.outbound.received_bytes_max;
        let received = self.traffic.received.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        if received <= bytes_max { Ok(()) } else { Err(TooMuch::Received(bytes_max)) }
    }
}
