//! Pure: who may have another capsule written now. Tenants do not meet here: each has its rate, and its part of the places in front of
//! the writer; within a tenant an app that crashes all the time leaves some to the others.

use std::collections::HashMap;
use std::time::Instant;

/// Capsules that wait to be written. Each has a head, some lines, and perhaps a body.
pub(super) const PLACES: usize = 64;
/// An app's first capsules are kept at once, further ones as slowly as this: a thousand of the same say no more, and would keep the
/// disk busy.
const OF_APP: Terms = Terms { burst: 10.0, per_second: 1.0 };
/// Of all apps of a tenant together.
const OF_TENANT: Terms = Terms { burst: 30.0, per_second: 3.0 };
/// Apps of a tenant that have crashed lately; beyond this, the list is gone through.
const APPS_MAX: usize = 256;
/// The same of tenants, whose folders are the operator's.
const TENANTS_MAX: usize = 16_384;

#[derive(Default)]
pub(super) struct Rates {
    tenants: HashMap<String, Tenant>,
    /// Places that are taken.
    placed: usize,
}

struct Tenant {
    rate: Rate,
    apps: HashMap<String, Rate>,
    placed: usize,
}

struct Terms {
    burst: f64,
    per_second: f64,
}

struct Rate {
    tokens: f64,
    filled: Instant,
}

impl Rates {
    /// Takes a place, until [`Rates::leave`], if the app may have another capsule now.
    pub(super) fn enter(&mut self, tenant: &str, app: &str, now: Instant) -> bool {
        let left = PLACES - self.placed.min(PLACES);
        let is_known = self.tenants.contains_key(tenant);
        if !is_known && self.tenants.len() >= TENANTS_MAX {
            self.tenants.retain(|_, tenant| tenant.placed > 0 || !tenant.rate.is_full(&OF_TENANT, now));
            if self.tenants.len() >= TENANTS_MAX {
                return false;
            }
        }
        if !is_known {
            let new = Tenant { rate: Rate::full(&OF_TENANT, now), apps: HashMap::new(), placed: 0 };
            self.tenants.insert(tenant.to_owned(), new);
        }
        let Some(tenant) = self.tenants.get_mut(tenant) else { return false };
        // As many as it leaves: there is a place for whoever comes next.
        if tenant.placed >= left || !tenant.take(app, now) {
            return false;
        }
        tenant.placed += 1;
        self.placed += 1;
        true
    }

    /// A capsule has been written, or will not be.
    pub(super) fn leave(&mut self, tenant: &str) {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.placed = tenant.placed.saturating_sub(1);
            self.placed = self.placed.saturating_sub(1);
        }
    }
}

impl Tenant {
    fn take(&mut self, app: &str, now: Instant) -> bool {
        if self.apps.len() >= APPS_MAX && !self.apps.contains_key(app) {
            self.apps.retain(|_, rate| !rate.is_full(&OF_APP, now));
            // So many of its apps crash at once that one more is no news.
            if self.apps.len() >= APPS_MAX {
                return false;
            }
        }
        if self.rate.tokens(&OF_TENANT, now) < 1.0 {
            return false;
        }
        let is_taken = match self.apps.get_mut(app) {
            Some(rate) => rate.take(&OF_APP, now),
            None => self.apps.entry(app.to_owned()).or_insert(Rate::full(&OF_APP, now)).take(&OF_APP, now),
        };
        is_taken && self.rate.take(&OF_TENANT, now)
    }
}

impl Rate {
    fn full(terms: &Terms, now: Instant) -> Self {
        Self { tokens: terms.burst, filled: now }
    }

    fn tokens(&self, terms: &Terms, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.tokens + elapsed * terms.per_second).min(terms.burst)
    }

    fn is_full(&self, terms: &Terms, now: Instant) -> bool {
        self.tokens(terms, now) >= terms.burst
    }

    fn take(&mut self, terms: &Terms, now: Instant) -> bool {
        self.tokens = self.tokens(terms, now);
        self.filled = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Takes a place and leaves it at once.
    fn through(rates: &mut Rates, tenant: &str, app: &str, now: Instant) -> bool {
        let entered = rates.enter(tenant, app, now);
        if entered {
            rates.leave(tenant);
        }
        entered
    }

    #[test]
    fn an_app_that_crashes_all_the_time_is_recorded_now_and_then_and_another_at_once() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        assert_eq!((0..10_000).filter(|_| through(&mut rates, "a", "loud", now)).count(), 10);
        assert!(through(&mut rates, "a", "quiet", now));
        let later = now + Duration::from_secs(1);
        assert!(through(&mut rates, "a", "loud", later) && !through(&mut rates, "a", "loud", later));
    }

    #[test]
    fn a_tenant_whose_thousand_apps_crash_takes_nothing_from_another() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        for second in 0..60 {
            let now = now + Duration::from_secs(second);
            let loud = (0..1000).filter(|app| through(&mut rates, "a", &app.to_string(), now)).count();
            assert!(loud <= 30, "{loud} in one second");
            assert!(through(&mut rates, "b", "quiet", now));
        }
        assert!(rates.tenants["a"].apps.len() <= APPS_MAX);
    }

    #[test]
    fn while_the_writer_stands_still_there_is_a_place_for_whoever_comes_next() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let place = |rates: &mut Rates, tenant: &str| {
            let later = |second: u64| now + Duration::from_secs(20 * second);
            (0..100).filter(|turn| rates.enter(tenant, &turn.to_string(), later(*turn))).count()
        };
        assert_eq!([place(&mut rates, "a"), place(&mut rates, "b"), place(&mut rates, "c")], [32, 16, 8]);
        (0..32).for_each(|_| rates.leave("a"));
        assert_eq!(place(&mut rates, "d"), 20);
    }
}
