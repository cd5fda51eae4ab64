//! What the gateway knows of the connection that a request came by, and the clocks by which a slow client is found out.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Policy;
use crate::config::TrustedPeers;
use crate::limits::EdgeLimits;
use crate::origin::Origin;
use crate::sandbox::pace;

/// A client's connection, as the gateway sees it: one request at a time. With HTTP/2, where a connection carries many at once,
/// each stream has one of its own, and the connection itself one more, whose clocks run while it has no streams.
pub struct Connection {
    origin: Arc<Origin>,
    /// What a proxy said at the beginning of the connection.
    introduced: OnceLock<Arc<Origin>>,
    pub edge: Arc<EdgeLimits>,
    pub trusted: Arc<TrustedPeers>,
    began: Instant,
    /// When the response under way has to be through, however slowly it is taken: in nanoseconds since `began`, 0 for none.
    end_by: AtomicU64,
    /// Since when the client owes a request head: in nanoseconds since `began`, plus one; 0 while a request is served.
    head_awaited: AtomicU64,
    /// Something waits for the client to take it: then it owes that first, and [`super::client::Client`] has an eye on it.
    write_stalled: AtomicBool,
    heads: Heads,
    streams: Streams,
}

/// The heads of a connection that speaks HTTP/1, as [`super::gate`] lets them through.
#[derive(Default)]
struct Heads {
    /// Those that hyper has been given, and the requests that came of them: where the two differ, one is on its way.
    given: AtomicU64,
    arrived: AtomicU64,
    /// Something waits for the end of the response under way: the end of the client's bytes, or a head that is refused.
    end_held: AtomicBool,
    /// The roll has found the client overdue.
    overdue: AtomicBool,
    /// Of the task that serves the connection. It does not change.
    waker: OnceLock<Waker>,
}

/// The streams of a connection that speaks HTTP/2.
#[derive(Default)]
struct Streams {
    open: AtomicU32,
    /// Those of which something is queued for the client, open or not.
    queued: AtomicU32,
    /// Whether there has been one.
    any: AtomicBool,
    /// Those that the client gave up before they were answered, less those that were answered.
    given_up: AtomicU32,
    /// The connection has to end: [`LEAVE`] or [`CUT`].
    order: AtomicU8,
    ordered: Notify,
}

/// To take no further requests.
const LEAVE: u8 = 1;
/// To end at once.
const CUT: u8 = 2;

/// A client may give up so many times as many streams as it may have open, without having waited for any answer.
const GIVEN_UP_FACTOR: u32 = 4;

/// For the last words to a client that is overdue.
const TELLING_NANOS: u64 = 5_000_000_000;

/// What [`super::roll`] has to do about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stay,
    /// Whoever speaks HTTP/1 is told that it was too slow.
    Tell,
    /// Whoever speaks HTTP/2 can be told, so that no request is lost that crosses the end of the connection.
    Leave,
    Cut,
}

impl Connection {
    pub(super) fn new(origin: Arc<Origin>, policy: &Policy) -> Self {
        Self::with(origin, Arc::clone(&policy.limits), Arc::clone(&policy.trusted))
    }

    /// What one stream of this connection is to the gateway.
    pub(super) fn stream(&self) -> Self {
        Self::with(Arc::clone(self.origin()), Arc::clone(&self.edge), Arc::clone(&self.trusted))
    }

    fn with(origin: Arc<Origin>, edge: Arc<EdgeLimits>, trusted: Arc<TrustedPeers>) -> Self {
        Self {
            origin,
            introduced: OnceLock::new(),
            edge,
            trusted,
            began: Instant::now(),
            end_by: AtomicU64::new(0),
            head_awaited: AtomicU64::new(1),
            write_stalled: AtomicBool::new(false),
            streams: Streams::default(),
            heads: Heads::default(),
        }
    }

    /// Where the connection comes from: the client, as far as is known.
    pub fn origin(&self) -> &Arc<Origin> {
        self.introduced.get().unwrap_or(&self.origin)
    }

    /// The peer is a proxy, and speaks for the client with the first of these addresses, which reached it at the second. Where
    /// it names none, there may be a client all the same.
    pub(super) fn introduce(&self, addresses: Option<(SocketAddr, SocketAddr)>) {
        let origin = match addresses {
            Some((remote, local)) => Origin::of_connection(Some(remote), Some(local), self.origin.https),
            None => self.origin.unnamed(),
        };
        // Said once, before the first request.
        let _ = self.introduced.set(origin);
    }

    /// Before a response is written, requests that have arrived with it are answered, so that the responses go out one after another.
    /// A write wakes whoever waits for it: one peer with many connections (a proxy, most often) is then woken once for all of them,
    /// and not for each, which costs more than a small response itself. Where guests compute for long, nobody waits for them.
    ///
    /// To be awaited before [`Connection::response_ended`]: a client that has stopped sending is let go after that.
    pub async fn others_first(&self) {
        let mut waits = !pace::is_crowded();
        std::future::poll_fn(|context| {
            if std::mem::take(&mut waits) {
                // To the end of this worker's queue.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// A response that is still being made is on its way. It is cut off at `deadline`.
    pub fn expect_end_by(&self, deadline: Instant) {
        self.end_by.store(self.nanos(deadline).max(1), Ordering::Relaxed);
    }

    /// A request's head is there; the last response is through.
    pub fn request_arrived(&self) {
        self.end_by.store(0, Ordering::Relaxed);
        self.head_awaited.store(0, Ordering::Relaxed);
        self.heads.arrived.fetch_add(1, Ordering::Relaxed);
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

    pub(super) fn head_given(&self) {
        self.heads.overdue.store(false, Ordering::Relaxed);
        self.heads.given.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the client has got all that it asked for.
    pub(super) fn owes_nothing(&self) -> bool {
        self.head_awaited.load(Ordering::Relaxed) != 0
            && !self.write_stalled.load(Ordering::Relaxed)
            && self.heads.given.load(Ordering::Relaxed) == self.heads.arrived.load(Ordering::Relaxed)
    }

    /// Whether the client has sent no request yet.
    pub(super) fn is_new(&self) -> bool {
        self.heads.given.load(Ordering::Relaxed) == 0
    }

    /// Asks for another look at what the client sent, once [`Connection::owes_nothing`].
    pub(super) fn hold_end(&self) {
        self.heads.end_held.store(true, Ordering::Relaxed);
    }

    /// Whether it is time for that look.
    pub(super) fn take_held_end(&self) -> bool {
        let held = &self.heads.end_held;
        held.load(Ordering::Relaxed) && self.owes_nothing() && held.swap(false, Ordering::Relaxed)
    }

    /// From now on the task that serves this connection can be woken, and is told what becomes of its client.
    pub(super) async fn is_served_by_this_task(&self) {
        std::future::poll_fn(|context| {
            let _ = self.heads.waker.set(context.waker().clone());
            Poll::Ready(())
        })
        .await;
    }

    /// The client owes a head for too long: the connection's task is to end it.
    pub(super) fn tell_overdue(&self) {
        self.heads.overdue.store(true, Ordering::Relaxed);
        if let Some(waker) = self.heads.waker.get() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn was_told_overdue(&self) -> bool {
        self.heads.overdue.load(Ordering::Relaxed)
    }

    /// A stream of this connection begins.
    pub(super) fn stream_opens(&self) {
        self.streams.any.store(true, Ordering::Relaxed);
        self.streams.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A stream of this connection is over; after the last one, the client owes the next. Clients that open streams and give
    /// them up at once (CVE-2023-44487) make work for nothing: those that do little else are cut off.
    pub(super) fn stream_closes(&self, answered: bool) {
        let streams = &self.streams;
        // Before the count: whoever sees no stream open sees this moment.
        self.response_ended(Instant::now());
        streams.open.fetch_sub(1, Ordering::Release);
        let count =
            |given_up: u32| Some(if answered { given_up.saturating_sub(1) } else { given_up.saturating_add(1) });
        let before = streams.given_up.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).unwrap_or_default();
        if !answered && before >= self.edge.streams.saturating_mul(GIVEN_UP_FACTOR) {
            self.order(CUT);
        }
    }

    /// Something of a stream's response waits to be written, of which nothing did.
    pub(super) fn queue_fills(&self) {
        self.streams.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// All of a stream's response that was queued is written, or given up.
    pub(super) fn queue_empties(&self) {
        self.streams.queued.fetch_sub(1, Ordering::Relaxed);
    }

    /// Since when no stream is open; none while one is, or while the client has yet to take what is left of one.
    pub(super) fn without_streams_since(&self) -> Option<Instant> {
        let streams = &self.streams;
        if streams.open.load(Ordering::Acquire) > 0
            || streams.queued.load(Ordering::Relaxed) > 0
            || self.write_stalled.load(Ordering::Relaxed)
        {
            return None;
        }
        let since = self.head_awaited.load(Ordering::Relaxed).saturating_sub(1);
        self.began.checked_add(Duration::from_nanos(since))
    }

    /// Tells a client that speaks HTTP/2 to take its next requests elsewhere, and lets those that run end.
    pub(super) fn leave(&self) {
        self.order(LEAVE);
    }

    fn order(&self, order: u8) {
        if self.streams.order.fetch_max(order, Ordering::Relaxed) < order {
            self.streams.ordered.notify_one();
        }
    }

    /// Waits for what the task that serves this connection is to do next.
    pub(super) async fn ordered(&self) -> Verdict {
        self.streams.ordered.notified().await;
        if self.streams.order.load(Ordering::Relaxed) == CUT { Verdict::Cut } else { Verdict::Leave }
    }

    /// What is to be done about a client that has been owing a request head for longer than it may.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let (stalled, open) = (&self.write_stalled, &self.streams.open);
        if stalled.load(Ordering::Relaxed) || open.load(Ordering::Acquire) > 0 {
            return Verdict::Stay;
        }
        let since = match self.head_awaited.load(Ordering::Relaxed) {
            0 => return Verdict::Stay,
            since => since,
        };
        let waited = self.nanos(now).saturating_sub(since);
        let time = self.edge.header_time.as_nanos() as u64;
        if waited <= time {
            Verdict::Stay
        } else if self.streams.any.load(Ordering::Relaxed) && waited <= time.saturating_mul(2) {
            // Whoever has had a stream knows how to go; who does not go in the same time again is cut off.
            Verdict::Leave
        } else if self.heads.waker.get().is_some() && waited <= time.saturating_add(TELLING_NANOS) {
            Verdict::Tell
        } else {
            Verdict::Cut
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
