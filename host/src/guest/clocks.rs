//! `wasi:clocks` for guests of every kind: `wasmtime-wasi`'s clocks and timers, as coarse as the app's `clock_resolution`, and a wall
//! clock that stands still where the app is not to know what time it is.
//!
//! Timers are clocks, too: who counts how many short ones end during something has measured it. So they end where the clock moves
//! on. Files have times as well: `filesystem` shows them by [`Sight`].

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::clocks::{HostMonotonicClock, HostWallClock, WasiClocksView};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::Host;

use crate::granted::Grip;
use crate::sandbox::{AppContext, State};

/// In the versions that `wasmtime-wasi` offers.
const MONOTONIC_P2: &str = "wasi:clocks/monotonic-clock@0.2.12";
const MONOTONIC_P3: &str = "wasi:clocks/monotonic-clock@0.3.0";

/// What a wall clock says that is withheld: 2000-01-01T00:00:00Z. Cookies of that time have long expired, and little breaks by what
/// lies before it.
pub(crate) const WITHHELD: Duration = Duration::from_secs(946_684_800);
/// How that is written.
pub const WITHHELD_TEXT: &str = "2000-01-01T00:00:00Z";

/// Timers are no finer than this anyway.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// All coarse clocks move on at the same moments, counted from here: none can be made that moves on when its guest would like it to.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How an app sees times.
#[derive(Clone)]
pub(crate) struct Sight {
    grip: Arc<Grip>,
    resolution: Duration,
}

impl Sight {
    pub(crate) fn new(grip: &Arc<Grip>, resolution: Duration) -> Self {
        Self { grip: Arc::clone(grip), resolution }
    }

    /// A moment since 1970, as it is seen: no later than what the wall clock says.
    pub(crate) fn see(&self, moment: Duration) -> Duration {
        let moment = if self.grip.has_wall_clock() { moment } else { moment.min(WITHHELD) };
        floor(moment, self.resolution)
    }
}

fn floor(time: Duration, step: Duration) -> Duration {
    if step.as_nanos() <= 1 {
        return time;
    }
    let nanos = time.as_nanos();
    let below = nanos % step.as_nanos();
    time - Duration::from_nanos(u64::try_from(below).unwrap_or(0))
}

impl HostWallClock for Sight {
    fn resolution(&self) -> Duration {
        self.resolution
    }

    fn now(&self) -> Duration {
        // Withheld, it stands still whatever its resolution.
        match self.grip.has_wall_clock() {
            true => self.see(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
            false => WITHHELD,
        }
    }
}

/// Time since the sandbox's context was made, in whole steps.
struct Steps {
    /// Since the origin.
    began: Duration,
    step: Duration,
}

impl HostMonotonicClock for Steps {
    fn resolution(&self) -> u64 {
        nanos(self.step)
    }

    fn now(&self) -> u64 {
        nanos(floor(ORIGIN.elapsed(), self.step).saturating_sub(self.began))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Gives a sandbox its clocks.
pub(crate) fn wind(builder: &mut WasiCtxBuilder, app: &AppContext) {
    builder.wall_clock(app.sight());
    let step = app.limits.clock_resolution;
    if step.as_nanos() > 1 {
        builder.monotonic_clock(Steps { began: floor(ORIGIN.elapsed(), step), step });
    }
}

/// How long a timer runs that was set for `wait`, by clocks that move in such steps: until one of them has moved on.
fn until_a_step(elapsed: Duration, wait: Duration, step: Duration) -> Duration {
    if step <= TIMER_RESOLUTION || wait.is_zero() {
        return wait;
    }
    let end = elapsed.saturating_add(wait);
    let below = floor(end, step);
    let end = if below == end { end } else { below.saturating_add(step) };
    end.saturating_sub(elapsed)
}

impl State {
    /// A timer for so many nanoseconds, of this app.
    fn timer(&self, wait: u64) -> u64 {
        nanos(until_a_step(ORIGIN.elapsed(), Duration::from_nanos(wait), self.app.limits.clock_resolution))
    }

    /// One until the app's clock says `when`.
    fn timer_until(&mut self, when: u64) -> u64 {
        let step = self.app.limits.clock_resolution;
        let wait = when.saturating_sub(self.clocks().now().unwrap_or(u64::MAX));
        if step <= TIMER_RESOLUTION || wait == 0 {
            return wait;
        }
        // The clock is behind by what is not a whole step yet.
        let elapsed = ORIGIN.elapsed();
        let behind = elapsed.saturating_sub(floor(elapsed, step));
        self.timer(wait.saturating_sub(nanos(behind)).max(1))
    }
}

/// Offers what is different from `wasmtime-wasi`'s.
pub(crate) fn link_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Pollable = Resource<DynPollable>;

    linker.allow_shadowing(true);
    let mut clock = linker.instance(MONOTONIC_P2)?;
    clock.func_wrap("subscribe-duration", |mut store: StoreContextMut<'_, State>, (wait,): (u64,)| {
        let state = store.data_mut();
        let wait = state.timer(wait);
        Ok::<(Pollable,), _>((state.clocks().subscribe_duration(wait)?,))
    })?;
    clock.func_wrap("subscribe-instant", |mut store: StoreContextMut<'_, State>, (when,): (u64,)| {
        let state = store.data_mut();
        let wait = state.timer_until(when);
        Ok::<(Pollable,), _>((state.clocks().subscribe_duration(wait)?,))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

pub(crate) fn link_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    /// Until a timer has run out.
    async fn run(wait: u64) -> wasmtime::Result<()> {
        if wait > 0 {
            tokio::time::sleep(Duration::from_nanos(wait)).await;
        }
        Ok(())
    }

    linker.allow_shadowing(true);
    let mut clock = linker.instance(MONOTONIC_P3)?;
    clock.func_wrap_concurrent("wait-for", |accessor: &Accessor<State>, (wait,): (u64,)| {
        let wait = accessor.with(|mut access| access.get().timer(wait));
        Box::pin(run(wait))
    })?;
    clock.func_wrap_concurrent("wait-until", |accessor: &Accessor<State>, (when,): (u64,)| {
        let wait = accessor.with(|mut access| access.get().timer_until(when));
        Box::pin(run(wait))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_coarse_clock_moves_in_whole_steps() {
        for (ms, step, expected) in [(1234, 100, 1200), (1200, 100, 1200), (99, 100, 0), (1234, 1, 1234), (7, 3, 6)] {
            assert_eq!(floor(MS * ms, MS * step), MS * expected, "{ms} {step}");
        }
        assert_eq!(floor(Duration::from_nanos(123), Duration::from_nanos(1)), Duration::from_nanos(123));
    }

    #[test]
    fn a_timer_ends_where_the_clock_moves_on_and_never_before_its_time() {
        for (elapsed, wait, step, expected) in [
            (1234, 1, 100, 66),
            (1234, 66, 100, 66),
            (1234, 67, 100, 166),
            (1234, 5, 1, 5),
            (1234, 0, 100, 0),
            (1200, 100, 100, 100),
        ] {
            assert_eq!(until_a_step(MS * elapsed, MS * wait, MS * step), MS * expected, "{elapsed} {wait} {step}");
        }
        assert_eq!(until_a_step(MS, Duration::MAX, MS * 100), Duration::MAX - MS);
    }
}
