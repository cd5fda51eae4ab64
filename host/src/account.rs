//! What a tenant has in use, of all its apps together, and whether it may have more. `admission` asks before a call,
//! `sandbox` while guests run, `telemetry` before a line is logged.

mod descriptors;
mod disk;
mod hoard;
mod load;
mod log;
mod memory;
mod outbound;
mod processor;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::admission::{Places, Seats, Slots};
use crate::config::Config;
use crate::descriptors::Shares;
use crate::limits::Budget;
use crate::sandbox::Crew;
use descriptors::Descriptors;
pub(crate) use descriptors::Held;
use disk::Disk;
pub use disk::Room;
use hoard::Hoard;
use load::{Company, Load};
use log::Log;
pub(crate) use memory::Memory;
use outbound::Rate;
pub(crate) use outbound::{Tallied, Tally};
use processor::Cpu;

/// One tenant's.
pub struct Account {
    /// The folder; "" for apps that lie in none.
    tenant: String,
    /// Among the accounts of this host.
    pub(crate) number: u64,
    made: Instant,
    terms: ArcSwap<Terms>,
    /// What it has of the host's places for calls.
    pub(crate) places: Arc<Places>,
    /// Places for its calls.
    pub(crate) calls: Arc<Seats>,
    /// Places for what is sent to clients without a call, as many again.
    pub(crate) sends: Arc<Seats>,
    /// Who runs guests that compute for long.
    pub(crate) crew: Arc<Crew>,
    company: Arc<Company>,
    shared_memory: Arc<Hoard>,
    shared_descriptors: Arc<Hoard>,
    /// Requests that wait.
    waiting: AtomicU32,
    /// When the next call would be in time, had all come at the rate that is allowed, in nanoseconds since the account
    /// was made.
    next_call: AtomicU64,
    /// Of live sandboxes, and what waits for clients, in bytes.
    memory: AtomicU64,
    /// Of what waits for clients, what does not count in what all tenants have.
    small_memory: AtomicU64,
    descriptors: Descriptors,
    outbound: Rate,
    connections: Arc<Tally>,
    /// By app: those that count their own.
    connections_by_app: Mutex<HashMap<String, Weak<Tally>>>,
    disk: Disk,
    cpu: Cpu,
    load: Load,
    log: Log,
}

/// What it may have, by the configuration in force.
pub(crate) struct Terms {
    pub(crate) budget: Budget,
}

/// A budget that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spent {
    #[error("budget.call_rate")]
    Calls,
    #[error("budget.cpu_time")]
    Cpu,
    #[error("budget.memory")]
    Memory,
    #[error("budget.descriptors")]
    Descriptors,
}

/// Memory and descriptors are given back without a word: who waits for some looks again after this time.
const GIVEN_BACK_RETRY: Duration = Duration::from_millis(20);

impl Account {
    fn new(tenant: &str, number: u64, budget: Budget, host: &Host) -> Self {
        let log = Log::new(budget.log_bytes_per_second);
        let calls_max = calls_max(&budget, &host.slots);
        Self {
            tenant: tenant.to_owned(),
            number,
            made: Instant::now(),
            terms: ArcSwap::from_pointee(Terms { budget }),
            places: Places::new(&host.slots, number),
            calls: Seats::new(calls_max),
            sends: Seats::new(calls_max),
            crew: Arc::clone(&host.crew),
            company: Arc::clone(&host.company),
            shared_memory: Arc::clone(&host.memory),
            shared_descriptors: Arc::clone(&host.descriptors),
            waiting: AtomicU32::new(0),
            next_call: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            small_memory: AtomicU64::new(0),
            descriptors: Descriptors::default(),
            outbound: Rate::default(),
            connections: Arc::default(),
            connections_by_app: Mutex::default(),
            disk: Disk::default(),
            cpu: Cpu::default(),
            load: Load::default(),
            log,
        }
    }

    /// One for what is not served by a host: it has the default budget for itself.
    pub fn of_nobody() -> Arc<Self> {
        Arc::new(Self::new("", 0, Budget::default(), &Host::new(1, Crew::new(1, || ()))))
    }

    /// That of a tenant, for tests.
    #[cfg(test)]
    pub(crate) fn of(tenant: &str) -> Arc<Self> {
        Arc::new(Self::new(tenant, 0, Budget::default(), &Host::new(1, Crew::new(1, || ()))))
    }

    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(crate) fn terms(&self) -> arc_swap::Guard<Arc<Terms>> {
        self.terms.load()
    }

    /// Calls that run, or have been given a place.
    pub fn running(&self) -> u32 {
        self.calls.taken()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Memory of live sandboxes, and of what waits for clients, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.load(Relaxed) + self.small_memory.load(Relaxed)
    }

    fn now(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.made))
    }

    /// Takes a place among those that wait. None if there are as many as may be.
    pub(crate) fn wait(&self) -> Option<Waiting<'_>> {
        let max = self.terms().budget.queued_calls;
        let more = |waiting| (waiting < max).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Waiting(self))
    }

    /// Counts a call, and says when it may begin: at once, or so that no more begin in a second than may, beyond a
    /// second's worth that may come together. One that could begin later than in `patience` is not counted.
    ///
    /// # Errors
    /// When to ask again.
    pub(crate) fn count_call(&self, now: Instant, patience: Duration) -> Result<Option<Instant>, Duration> {
        const BURST: u64 = SECOND;
        let interval = SECOND / u64::from(self.terms().budget.calls_per_second.max(1));
        let (at, patience) = (self.now(now), nanos(patience));
        let counted = self.next_call.fetch_update(Relaxed, Relaxed, |next| {
            let begins = next.max(at);
            (begins.saturating_sub(BURST) <= at.saturating_add(patience)).then_some(begins + interval)
        });
        match counted.map(|next| next.max(at).saturating_sub(BURST)) {
            Ok(begins) if begins <= at => Ok(None),
            Ok(begins) => Ok(Some(now + Duration::from_nanos(begins - at))),
            Err(next) => Err(Duration::from_nanos(next.saturating_sub(BURST).saturating_sub(at + patience).max(1))),
        }
    }

    /// What it has used up, and after what time it is worth asking again.
    pub(crate) fn spent(&self, now: Instant) -> Option<(Spent, Duration)> {
        let budget = &self.terms().budget;
        if let Some(time) = self.debt(budget, now) {
            return Some((Spent::Cpu, time));
        }
        if let Some(time) = self.memory_is_spent() {
            return Some((Spent::Memory, time));
        }
        let descriptors_max = budget.descriptors.min(self.shared_descriptors.of_one());
        (self.descriptors() >= descriptors_max).then_some((Spent::Descriptors, GIVEN_BACK_RETRY))
    }

    /// Whether there is no memory for anybody else, and after what time it is worth asking again.
    pub(crate) fn memory_is_spent(&self) -> Option<Duration> {
        let max = self.terms().budget.memory_bytes.min(self.shared_memory.of_one());
        (self.memory_bytes() >= max).then_some(GIVEN_BACK_RETRY)
    }

    /// Takes memory. False, and nothing taken, if that would be too much.
    pub(crate) fn take_memory(&self, bytes: u64) -> bool {
        self.shared_memory.take(bytes, &self.memory, self.terms().budget.memory_bytes)
    }

    pub(crate) fn give_memory(&self, bytes: u64) {
        self.memory.fetch_sub(bytes, Relaxed);
        self.shared_memory.give(bytes);
    }

    /// Whether something that was used is not forgotten yet.
    fn owes(&self, now: Instant) -> bool {
        let calls_are_ahead = self.next_call.load(Relaxed) > self.now(now);
        calls_are_ahead || self.has_used_cpu(now) || self.has_logged(now) || self.has_moved_bytes(now)
    }
}

const SECOND: u64 = 1_000_000_000;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn calls_max(budget: &Budget, slots: &Slots) -> u32 {
    budget.concurrent_calls.min(slots.of_one())
}

/// Somebody who waits.
pub(crate) struct Waiting<'a>(&'a Account);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// The accounts of a host.
pub struct Accounts {
    host: Host,
    book: Mutex<Book>,
}

/// What all tenants of a host share.
struct Host {
    slots: Arc<Slots>,
    crew: Arc<Crew>,
    company: Arc<Company>,
    memory: Arc<Hoard>,
    descriptors: Arc<Hoard>,
}

impl Host {
    fn new(calls: u32, crew: Arc<Crew>) -> Self {
        // As much as is asked for, until a configuration says what there is.
        let unbounded = || Arc::new(Hoard::new(u64::MAX));
        let (memory, descriptors) = (unbounded(), unbounded());
        Self { slots: Slots::new(calls), crew, company: Arc::default(), memory, descriptors }
    }
}

/// Accounts that are kept for what they owe alone. Folders of the apps directory, which make tenants, are the operator's.
const UNUSED_MAX: usize = 4096;

#[derive(Default)]
struct Book {
    by_tenant: HashMap<String, Arc<Account>>,
    opened: u64,
}

impl Accounts {
    /// `calls` may run at once, of all tenants together.
    pub fn new(calls: u32, crew: Arc<Crew>) -> Self {
        Self { host: Host::new(calls, crew), book: Mutex::default() }
    }

    /// That of the tenant which has the app, opened if it is the first.
    pub fn of(&self, config: &Config, app: &str) -> Arc<Account> {
        let tenant = config.tenant_of(app);
        let mut book = self.book();
        if let Some(account) = book.by_tenant.get(&tenant.name) {
            return Arc::clone(account);
        }
        book.opened += 1;
        let account = Arc::new(Account::new(&tenant.name, book.opened, tenant.budget.clone(), &self.host));
        book.by_tenant.insert(tenant.name.clone(), Arc::clone(&account));
        account
    }

    /// Budgets are from now on as the configuration says. What is in use stays counted.
    pub fn reconfigure(&self, config: &Config) {
        self.host.memory.resize(config.sandbox_memory_bytes);
        self.host.descriptors.resize(Shares::of_process(config.edge.connections).guests);
        for account in self.book().by_tenant.values() {
            let tenant = config.tenant_of(&format!("{}/", account.tenant));
            let budget = &tenant.budget;
            if account.terms().budget == *budget {
                continue;
            }
            let calls_max = calls_max(budget, &self.host.slots);
            account.calls.resize(calls_max);
            account.sends.resize(calls_max);
            account.terms.store(Arc::new(Terms { budget: budget.clone() }));
        }
    }

    /// Closes accounts that no app has any more, of whose tenants nothing is left, and that owe nothing at `now`: a tenant that takes its apps away and puts them back
    /// finds what it has used. Called every second; what was left out of the log since is said.
    pub fn tidy(&self, now: Instant) {
        let mut unused = 0;
        self.book().by_tenant.retain(|_, account| {
            account.say_left_out();
            if Arc::strong_count(account) > 1 || account.keeps_something() {
                return true;
            }
            let is_kept = unused < UNUSED_MAX && account.owes(now);
            unused += usize::from(is_kept);
            is_kept
        });
    }

    /// Those of which it is to be counted again what their apps have left behind.
    pub(crate) fn to_recount(&self) -> Vec<Arc<Account>> {
        self.book().by_tenant.values().filter(|account| account.wants_recount()).map(Arc::clone).collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One with another budget than the default.
    pub(super) fn account(change: impl FnOnce(&mut Budget)) -> Account {
        let mut budget = Budget::default();
        change(&mut budget);
        Account::new("acme", 1, budget, &Host::new(10, Crew::new(1, || ())))
    }

    #[test]
    fn calls_come_at_their_rate_beyond_a_seconds_worth() {
        let account = account(|budget| budget.calls_per_second = 10);
        let begin = account.made;
        let patience = Duration::from_secs(1);
        let count = |after_ms: u64| account.count_call(begin + Duration::from_millis(after_ms), patience);
        // What may come together, and then one each tenth of a second.
        assert!((0..11).all(|_| count(0) == Ok(None)));
        for tenth in 1..=10 {
            assert_eq!(count(0), Ok(Some(begin + Duration::from_millis(100 * tenth))));
        }
        assert_eq!(count(0), Err(Duration::from_millis(100)));
        assert_eq!(count(100), Ok(Some(begin + Duration::from_millis(1100))));
        // Who is refused has used nothing.
        assert_eq!(count(100), Err(Duration::from_millis(100)));
        assert_eq!(count(10_000), Ok(None));
    }

    #[test]
    fn memory_is_taken_while_there_is_some() {
        let account = account(|budget| budget.memory_bytes = 100);
        assert!(account.take_memory(60) && !account.take_memory(60) && account.take_memory(40));
        assert_eq!(account.spent(account.made), Some((Spent::Memory, GIVEN_BACK_RETRY)));
        account.give_memory(1);
        assert_eq!(account.spent(account.made), None);
    }

    #[test]
    fn a_tenant_has_one_account_for_all_its_apps_and_a_new_budget_keeps_it() {
        let accounts = Accounts::new(100, Crew::new(1, || ()));
        let mut config = Config::default();
        let of = |config: &Config, app| accounts.of(config, app);
        assert!(Arc::ptr_eq(&of(&config, "a/x"), &of(&config, "a/y")));
        assert!(!Arc::ptr_eq(&of(&config, "a/x"), &of(&config, "b/x")));
        assert!(Arc::ptr_eq(&of(&config, "x"), &of(&config, "y")));
        let account = of(&config, "a/x");
        assert!(account.take_memory(7));
        let calls: Vec<_> = (0..5).map(|_| account.calls.try_take().expect("there are many")).collect();
        config.budget.concurrent_calls = 3;
        accounts.reconfigure(&config);
        assert_eq!((account.terms().budget.concurrent_calls, account.memory_bytes()), (3, 7));
        assert_eq!((account.running(), account.calls.try_take().is_none()), (5, true), "what is under way counts");
        drop(calls);
        let calls: Vec<_> = std::iter::from_fn(|| account.calls.try_take()).collect();
        assert_eq!(calls.len(), 3);
        accounts.tidy(Instant::now());
        assert_eq!(accounts.book().by_tenant.len(), 1);
        // What is left of its apps stays charged without them.
        account.set_stored(1);
        drop(account);
        accounts.tidy(Instant::now());
        assert_eq!(of(&config, "a/x").disk_bytes(), 1);
        of(&config, "a/x").set_stored(0);
        accounts.tidy(Instant::now());
        assert_eq!(accounts.book().by_tenant.len(), 0);
    }

    #[test]
    fn who_takes_its_apps_away_and_puts_them_back_finds_what_it_has_used() {
        let second = Duration::from_secs(1);
        let uses: [fn(&Account); 4] = [
            |account| account.charge_cpu(Duration::from_millis(700)),
            |account| _ = account.count_call(account.made, Duration::ZERO),
            |account| account.count_outbound(1000, account.made),
            |account| _ = account.log(1000, account.made),
        ];
        for use_up in uses {
            let accounts = Accounts::new(100, Crew::new(1, || ()));
            let mut config = Config::default();
            config.budget.cpu_time = second;
            config.budget.cpu_window = second;
            config.budget.calls_per_second = 1;
            config.budget.log_bytes_per_second = 1000;
            config.budget.outbound_bytes_per_second = 1000;
            let account = accounts.of(&config, "a/x");
            use_up(&account);
            let (number, made) = (account.number, account.made);
            drop(account);
            accounts.tidy(made + second / 2);
            assert_eq!(accounts.of(&config, "a/x").number, number);
            accounts.tidy(made + 3 * second);
            assert_ne!(accounts.of(&config, "a/x").number, number, "what it owed is forgotten");
        }
    }

    #[test]
    fn no_more_accounts_are_kept_for_what_they_owe_than_may_be() {
        let accounts = Accounts::new(100, Crew::new(1, || ()));
        let mut config = Config::default();
        config.budget.cpu_time = Duration::from_nanos(1);
        (0..UNUSED_MAX + 10).for_each(|number| {
            accounts.of(&config, &format!("t{number}/x")).charge_cpu(Duration::from_secs(1));
        });
        accounts.tidy(Instant::now());
        assert_eq!(accounts.book().by_tenant.len(), UNUSED_MAX);
    }
}
