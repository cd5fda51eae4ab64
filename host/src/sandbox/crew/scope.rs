//! What is known on the thread that polls a guest: whether it may be lent, and by which clock it is charged.

use std::cell::Cell;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// So often in a row a worker's guest is interrupted until it is lent: it has had more than one tick then, and at most two.
const TICKS_HERE: u32 = 2;

thread_local! {
    pub(super) static SCOPE: Cell<Scope> = const { Cell::new(Scope::Plain) };
}

/// Who polls guests on this thread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Somebody who does not lend.
    Plain,
    /// A [`Lendable`] on a worker; how often its guest was interrupted in a row.
    Worker(u32),
    /// The same, and the guest is to be lent.
    ToLend,
    /// The crew.
    Crew,
    /// The crew, and the guest has not come to an end.
    CrewGoesOn,
}

/// How an interrupted guest yields.
pub(in crate::sandbox) enum Yields {
    /// To the tasks that are ready: it is polled again after them.
    ToTasks,
    /// Whoever polls it knows that it computes, and sees to it.
    Silently,
}

/// A guest was interrupted at a tick. `in_debt`: its tenant has used up its processor time.
pub(in crate::sandbox) fn interrupted(in_debt: bool) -> Yields {
    let (scope, yields) = match SCOPE.get() {
        Scope::Plain => (Scope::Plain, Yields::ToTasks),
        Scope::Worker(ticks) if ticks + 1 < TICKS_HERE && !in_debt => (Scope::Worker(ticks + 1), Yields::ToTasks),
        Scope::Worker(_) | Scope::ToLend => (Scope::ToLend, Yields::Silently),
        Scope::Crew | Scope::CrewGoesOn => (Scope::CrewGoesOn, Yields::Silently),
    };
    SCOPE.set(scope);
    yields
}

/// Pending once, and wakes nobody.
pub(in crate::sandbox) async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Whether this thread is one of the crew, having a turn.
fn is_crew() -> bool {
    matches!(SCOPE.get(), Scope::Crew | Scope::CrewGoesOn)
}

/// The processor time of this thread.
pub(super) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A moment, on the clock by which guests are charged on this thread: on a worker that of the wall, since a worker that polls has a
/// processor; the crew shares them.
#[derive(Clone, Copy)]
pub(in crate::sandbox) enum Moment {
    Wall(Instant),
    Thread(Duration),
}

impl Moment {
    pub(in crate::sandbox) fn now() -> Self {
        if is_crew() { Self::Thread(thread_time()) } else { Self::Wall(Instant::now()) }
    }

    /// Zero where it was taken on another clock.
    pub(in crate::sandbox) fn since(self, earlier: Self) -> Duration {
        match (self, earlier) {
            (Self::Wall(now), Self::Wall(earlier)) => now.saturating_duration_since(earlier),
            (Self::Thread(now), Self::Thread(earlier)) => now.saturating_sub(earlier),
            _ => Duration::ZERO,
        }
    }
}
