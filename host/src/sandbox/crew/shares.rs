//! Pure: which of the calls that compute for long is next. Among tenants the one that has had the least time for its weight, so
//! that many calls of one take no more than its share; among a tenant's calls the one that has had little goes first, and every now
//! and then the one that has waited longest, so that a long one comes to its end.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// A call that has had less than this is on the level of the same number; the others are on the last.
const LEVELS: [Duration; 3] = [Duration::from_millis(16), Duration::from_millis(128), Duration::from_secs(1)];

/// One of so many turns of a tenant is its call's that has waited longest.
const AGEING: u32 = 8;

/// The time of a tenant of weight 1 goes as fast as the clock's, times this.
const SCALE: u64 = 1 << 10;

/// Calls that wait, by tenant.
pub(super) struct Shares<T> {
    tenants: HashMap<u64, Tenant<T>>,
    /// The least time of those that take part: who comes later begins there, and claims nothing for the time before.
    now: u64,
    arrivals: u64,
}

struct Tenant<T> {
    levels: [VecDeque<(u64, T)>; LEVELS.len() + 1],
    weight: u32,
    /// What it has had, by its weight.
    time: u64,
    turns: u32,
    /// Its calls that are having a turn.
    running: u32,
}

impl<T> Default for Shares<T> {
    fn default() -> Self {
        Self { tenants: HashMap::new(), now: 0, arrivals: 0 }
    }
}

impl<T> Shares<T> {
    /// A call waits that has `had` so much time.
    pub(super) fn push(&mut self, tenant: u64, weight: u32, had: Duration, item: T) {
        let now = self.now;
        let tenant = self.tenants.entry(tenant).or_insert_with(|| Tenant::new(now));
        if !tenant.takes_part() {
            tenant.time = tenant.time.max(now);
        }
        tenant.weight = weight.max(1);
        let level = LEVELS.iter().position(|bound| had < *bound).unwrap_or(LEVELS.len());
        self.arrivals += 1;
        tenant.levels[level].push_back((self.arrivals, item));
    }

    /// The call that is next, and whose it is. Tenants of which `may_run` is false, asked with one of their calls, are left out.
    pub(super) fn pop(&mut self, mut may_run: impl FnMut(&T) -> bool) -> Option<(u64, T)> {
        let mut waiting: Vec<_> = self
            .tenants
            .iter()
            .filter(|(_, tenant)| tenant.first().is_some())
            .map(|(id, tenant)| (tenant.time, *id))
            .collect();
        waiting.sort_unstable();
        let next = waiting.into_iter().find(|(_, id)| self.tenants[id].first().is_some_and(&mut may_run));
        let (_, id) = next?;
        let tenant = self.tenants.get_mut(&id)?;
        let item = tenant.pop()?;
        tenant.running += 1;
        Some((id, item))
    }

    /// A turn is over, and has taken `time`.
    pub(super) fn charge(&mut self, tenant: u64, time: Duration) {
        if let Some(tenant) = self.tenants.get_mut(&tenant) {
            let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            tenant.time = tenant.time.saturating_add(time.saturating_mul(SCALE) / u64::from(tenant.weight));
        }
        let least = self.tenants.values().filter(|tenant| tenant.takes_part()).map(|tenant| tenant.time).min();
        self.now = self.now.max(least.unwrap_or(self.now));
        if let Some(tenant) = self.tenants.get_mut(&tenant) {
            tenant.running = tenant.running.saturating_sub(1);
        }
        // Who has had more than the others stays known, and does not come back as somebody new.
        let now = self.now;
        self.tenants.retain(|_, tenant| tenant.takes_part() || tenant.time > now);
    }

    /// One call of each tenant that has some waiting.
    pub(super) fn firsts(&self) -> impl Iterator<Item = &T> {
        self.tenants.values().filter_map(Tenant::first)
    }
}

impl<T> Tenant<T> {
    fn new(now: u64) -> Self {
        Self { levels: Default::default(), weight: 1, time: now, turns: 0, running: 0 }
    }

    fn takes_part(&self) -> bool {
        self.running > 0 || self.first().is_some()
    }

    fn first(&self) -> Option<&T> {
        self.levels.iter().find_map(|level| level.front().map(|(_, item)| item))
    }

    fn pop(&mut self) -> Option<T> {
        self.turns = self.turns.wrapping_add(1);
        let waiting = self.levels.iter_mut().filter(|level| !level.is_empty());
        let level = match self.turns.is_multiple_of(AGEING) {
            true => waiting.min_by_key(|level| level.front().map(|(arrival, _)| *arrival)),
            false => { waiting }.next(),
        };
        level?.pop_front().map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(1);

    /// A call and its tenant, with what it has had.
    type Call = (u64, u32, char, Duration);

    /// Gives `turns` turns of a tick each, to calls that never end; who had them.
    fn turns(shares: &mut Shares<Call>, turns: usize) -> String {
        (0..turns)
            .map_while(|_| {
                let (id, (tenant, weight, name, had)) = shares.pop(|_| true)?;
                assert_eq!(id, tenant);
                shares.charge(tenant, TICK);
                shares.push(tenant, weight, had + TICK, (tenant, weight, name, had + TICK));
                Some(name)
            })
            .collect()
    }

    fn push(shares: &mut Shares<Call>, tenant: u64, weight: u32, name: char) {
        shares.push(tenant, weight, Duration::ZERO, (tenant, weight, name, Duration::ZERO));
    }

    #[test]
    fn tenants_have_time_by_weight_however_many_calls_they_have() {
        let mut shares = Shares::default();
        for _ in 0..50 {
            push(&mut shares, 1, 1, 'a');
        }
        push(&mut shares, 2, 1, 'b');
        push(&mut shares, 3, 2, 'c');
        let had = turns(&mut shares, 400);
        let count = |name| had.matches(name).count();
        assert_eq!((count('a'), count('b'), count('c')), (100, 100, 200));
    }

    #[test]
    fn who_comes_later_is_next_but_has_no_claim_for_the_time_before() {
        let mut shares = Shares::default();
        push(&mut shares, 1, 1, 'a');
        turns(&mut shares, 1000);
        push(&mut shares, 2, 1, 'b');
        let had = turns(&mut shares, 20);
        assert!(had[..2].contains('b'), "{had}");
        assert_eq!(had.matches('b').count(), 10);
    }

    #[test]
    fn who_has_had_more_cannot_come_back_as_somebody_new() {
        let mut shares = Shares::default();
        push(&mut shares, 1, 1, 'a');
        push(&mut shares, 2, 1, 'b');
        let Some((id, _)) = shares.pop(|_| true) else { panic!("two wait") };
        shares.charge(id, 10 * TICK);
        push(&mut shares, id, 1, 'x');
        assert!(!turns(&mut shares, 10).contains('x'));
        assert!(turns(&mut shares, 2).contains('x'));
    }

    #[test]
    fn a_short_call_goes_before_a_long_one_which_has_its_turns_all_the_same() {
        let mut shares = Shares::default();
        push(&mut shares, 1, 1, 'l');
        turns(&mut shares, 2000);
        push(&mut shares, 1, 1, 's');
        let had = turns(&mut shares, 16);
        assert!((1..=3).contains(&had.matches('l').count()), "{had}");
        assert!(had.starts_with('s') || had.starts_with("ls"), "{had}");
    }

    #[test]
    fn who_may_not_run_is_left_out() {
        let mut shares = Shares::default();
        push(&mut shares, 1, 1, 'a');
        push(&mut shares, 2, 1, 'b');
        let (id, (.., name, _)) = shares.pop(|(tenant, ..)| *tenant != 1).expect("one may");
        assert_eq!((id, name), (2, 'b'));
        assert!(shares.pop(|(tenant, ..)| *tenant != 1).is_none());
        assert_eq!(shares.firsts().count(), 1);
    }
}
