//! How much of the workers' time a tenant takes in long pieces, lately. While it takes much, and others ask as well, its calls begin
//! with the crew (`sandbox::crew`): many calls that each end just before they would be lent, or that cannot be interrupted in the
//! middle of a large fill, are no quicker a neighbour than one that never ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A piece is long from here on: twenty times a small call.
const LONG: Duration = Duration::from_micros(250);

/// What counts as lately, in nanoseconds.
const LATELY: f64 = 50e6;

/// A tenant is heavy from this part of a processor on, and until it takes less than the second part.
const HEAVY: f64 = 0.25;
const LIGHT: f64 = 0.125;

#[derive(Default)]
pub(super) struct Load {
    /// Nanoseconds in long pieces since the last look.
    long: AtomicU64,
    /// The part of a processor, as bits of an `f64`.
    part: AtomicU64,
    is_heavy: AtomicBool,
}

impl Load {
    pub(super) fn charge(&self, time: Duration) {
        if time > LONG {
            self.long.fetch_add(super::nanos(time), Relaxed);
        }
    }

    /// Takes stock after `step` nanoseconds. Nobody is heavy who is alone.
    pub(super) fn look(&self, step: u64, is_alone: bool) {
        let step = step.max(1) as f64;
        let now = self.long.swap(0, Relaxed) as f64 / step;
        let before = f64::from_bits(self.part.load(Relaxed));
        let part = before + (now - before) * (step / (step + LATELY));
        self.part.store(part.to_bits(), Relaxed);
        let bound = if self.is_heavy.load(Relaxed) { LIGHT } else { HEAVY };
        let is_heavy = part >= bound && !is_alone;
        if is_heavy != self.is_heavy.load(Relaxed) {
            self.is_heavy.store(is_heavy, Relaxed);
        }
    }

    pub(super) fn is_heavy(&self) -> bool {
        self.is_heavy.load(Relaxed)
    }
}

/// Whether several tenants ask at the same time.
pub(super) struct Company {
    made: Instant,
    /// The tenant that was last looked at.
    last: AtomicU64,
    /// When that was another than before, in nanoseconds since this was made; plus one, so that zero is never.
    changed: AtomicU64,
}

/// So long after another tenant has asked the host is still shared.
const SHARED: Duration = Duration::from_secs(1);

impl Default for Company {
    fn default() -> Self {
        Self { made: Instant::now(), last: AtomicU64::default(), changed: AtomicU64::default() }
    }
}

impl Company {
    /// Notes that a tenant is active at `now`, and says whether it is alone.
    pub(super) fn is_alone(&self, tenant: u64, now: Instant) -> bool {
        let now = super::nanos(now.saturating_duration_since(self.made));
        if self.last.load(Relaxed) != tenant {
            // The first that ever comes finds nobody.
            if self.last.swap(tenant, Relaxed) != 0 {
                self.changed.store(now + 1, Relaxed);
            }
        }
        let changed = self.changed.load(Relaxed);
        changed == 0 || now.saturating_sub(changed) > super::nanos(SHARED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    /// Looks every millisecond, `times` times; in each a piece of `piece` microseconds was taken `pieces` times.
    fn go(load: &Load, times: u64, pieces: u64, piece: u64, is_alone: bool) {
        for _ in 0..times {
            (0..pieces).for_each(|_| load.charge(Duration::from_micros(piece)));
            load.look(MILLISECOND, is_alone);
        }
    }

    #[test]
    fn who_takes_much_in_long_pieces_is_heavy_until_it_takes_less() {
        let load = Load::default();
        go(&load, 100, 1, 1000, false);
        assert!(load.is_heavy());
        go(&load, 200, 0, 0, false);
        assert!(!load.is_heavy());
        // A whole processor in small calls.
        go(&load, 1000, 50, 20, false);
        assert!(!load.is_heavy());
        // A long one now and then.
        for _ in 0..100 {
            go(&load, 1, 1, 2000, false);
            go(&load, 20, 0, 0, false);
            assert!(!load.is_heavy());
        }
    }

    #[test]
    fn nobody_is_heavy_who_is_alone() {
        let load = Load::default();
        go(&load, 100, 2, 1000, true);
        assert!(!load.is_heavy());
        go(&load, 1, 2, 1000, false);
        assert!(load.is_heavy());
    }

    #[test]
    fn tenants_are_in_company_while_several_ask() {
        let company = Company::default();
        let after = |ms: u64| company.made + Duration::from_millis(ms);
        assert!(company.is_alone(1, after(0)) && company.is_alone(1, after(5)));
        assert!(!company.is_alone(2, after(10)) && !company.is_alone(1, after(20)));
        assert!(!company.is_alone(1, after(1019)));
        assert!(company.is_alone(1, after(1021)));
    }
}
