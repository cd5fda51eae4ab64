//! What goes over connections: counted for the calls and for their tenant, and held up while that is more than the
//! tenant's rate.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Sleep;

use super::Outbound;

/// What the calls of an instance have sent and got: together, since nobody can tell whose it is. Each of them brings
/// what it may along, and the next call to begin takes away what those that are over had, used or not: never is there
/// more than the calls have that were under way when the last one began.
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    /// Under way.
    calls: AtomicU32,
}

impl Traffic {
    pub(crate) fn of(calls: u32) -> Self {
        Self { sent: AtomicU64::new(0), received: AtomicU64::new(0), calls: AtomicU32::new(calls) }
    }

    /// A call begins, and is alone: what went before counts no more.
    pub(crate) fn begin(&self) {
        self.calls.store(1, Relaxed);
        self.sent.store(0, Relaxed);
        self.received.store(0, Relaxed);
    }

    /// A call begins beside others. With it so many are under way: who was here and is gone counts no more.
    pub(crate) fn join(&self, calls: u32, outbound: &Outbound) {
        let before = self.calls.swap(calls, Relaxed);
        let gone = u64::from(before.saturating_add(1).saturating_sub(calls));
        for (count, bytes_max) in [(&self.sent, outbound.sent_bytes_max), (&self.received, outbound.received_bytes_max)]
        {
            let less = |bytes: u64| Some(bytes.saturating_sub(bytes_max.saturating_mul(gone)));
            let _ = count.fetch_update(Relaxed, Relaxed, less);
        }
    }

    /// What all calls under way may, if one may so much.
    fn of_all(&self, bytes_max: u64) -> u64 {
        bytes_max.saturating_mul(u64::from(self.calls.load(Relaxed)).max(1))
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
        let all_max = self.traffic.of_all(bytes_max);
        let mut taken = 0;
        let _ = self.traffic.sent.fetch_update(Relaxed, Relaxed, |sent| {
            taken = bytes.min(usize::try_from(all_max.saturating_sub(sent)).unwrap_or(usize::MAX));
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
        if received <= self.traffic.of_all(bytes_max) { Ok(()) } else { Err(TooMuch::Received(bytes_max)) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with_limits;
    use super::*;

    #[test]
    fn calls_of_one_instance_have_what_they_may_together_and_take_it_with_them() {
        let outbound = with_limits(|limits| {
            limits.outbound_sent_bytes = 100;
            limits.outbound_received_bytes = 10;
        });
        let traffic = Arc::new(Traffic::of(1));
        let counter = Counter::new(&outbound, &traffic);
        assert!(counter.send_all(80).is_ok() && counter.send_all(21).is_err());
        assert_eq!(counter.send(30).ok(), Some(20), "no more is left");
        counter.sent(20, 5);
        // 85 of 200.
        traffic.join(2, &outbound);
        assert!(counter.send_all(115).is_ok() && counter.send(1).is_err());
        // One has come and one has gone: 100 of 200; another one, and both others are gone: none of 100.
        traffic.join(2, &outbound);
        assert!(counter.send_all(100).is_ok() && counter.send(1).is_err());
        traffic.join(1, &outbound);
        assert!(counter.send_all(100).is_ok() && counter.send(1).is_err());
        // A thousand calls that sent nothing leave nothing to those after them.
        for _ in 0..1000 {
            traffic.join(2, &outbound);
        }
        assert!(counter.send_all(201).is_err() && counter.receive(21).is_err());
        traffic.begin();
        assert!(counter.send_all(100).is_ok() && counter.send(1).is_err());
        assert!(counter.receive(10).is_ok() && counter.receive(1).is_err());
    }
}
