//! What a tenant has in use, of all its apps together, and whether it may have more. `admission` asks before a call,
//! `sandbox` while guests run, `telemetry` before a line is logged.

mod descriptors;
mod disk;
mod hoard;
mod load;
mod outbound;
mod processor;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use crate::admission::Slots;
use crate::config::Config;
use crate::descriptors::Shares;
use crate::limits::Budget;
use crate::sandbox::Crew;
use descriptors::Descriptors;
pub(crate) use descriptors::Held;
use disk::Disk;
use hoard::Hoard;
use load::{Company, Load};
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
    pub(crate) slots: Arc<Slots>,
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
    /// Of live sandboxes, in bytes.
    memory: AtomicU64,
    descriptors: Descriptors,
    outbound: Rate,
    connections: Arc<Tally>,
    /// By app: those that count their own.
    connections_by_app: Mutex<HashMap<String, Weak<Tally>>>,
    disk: Disk,
    cpu: Cpu,
    load: Load,
    log: Mutex<LogBudget>,
}

/// What it may have, by the configuration in force.
pub(crate) struct Terms {
    pub(crate) budget: Budget,
    /// Places for its calls.
    pub(crate) calls: Arc<Semaphore>,
}

/// A bucket that fills with `log_bytes_per_second` and holds what comes in one second.
struct LogBudget {
    bytes: f64,
    filled: Instant,
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
        let bytes = budget.log_bytes_per_second as f64;
        Self {
            tenant: tenant.to_owned(),
            number,
            made: Instant::now(),
            terms: ArcSwap::from_pointee(Terms::new(budget, &host.slots)),
            slots: Arc::clone(&host.slots),
            crew: Arc::clone(&host.crew),
            company: Arc::clone(&host.company),
            shared_memory: Arc::clone(&host.memory),
            shared_descriptors: Arc::clone(&host.descriptors),
            waiting: AtomicU32::new(0),
            next_call: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            descriptors: Descriptors::default(),
            outbound: Rate::default(),
            connections: Arc::default(),
            connections_by_app: Mutex::default(),
            disk: Disk::default(),
            cpu: Cpu::default(),
            load: Load::default(),
            log: Mutex::new(LogBudget { bytes, filled: Instant::now() }),
        }
    }

    /// One for what is not served by a host: it has the default budget for itself.
    pub fn of_nobody() -> Arc<Self> {
        Arc::new(Self::new("", 0, Budget::default(), &Host::new(1, Crew::new(1, || ()))))
    }

    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(crate) fn terms(&self) -> arc_swap::Guard<Arc<Terms>> {
        self.terms.load()
    }

    /// Calls that run, or have been given a place.
    pub fn running(&self) -> u32 {
        let terms = self.terms();
        let free = u32::try_from(terms.calls.available_permits()).unwrap_or(u32::MAX);
        terms.budget.concurrent_calls.min(self.slots.of_one()).saturating_sub(free)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Memory of live sandboxes, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.load(Relaxed)
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
        let memory_max = budget.memory_bytes.min(self.shared_memory.of_one());
        if self.memory_bytes() >= memory_max {
            return Some((Spent::Memory, GIVEN_BACK_RETRY));
        }
        let descriptors_max = budget.descriptors.min(self.shared_descriptors.of_one());
        (self.descriptors() >= descriptors_max).then_some((Spent::Descriptors, GIVEN_BACK_RETRY))
    }

    /// Takes memory. False, and nothing taken, if that would be too much.
    pub(crate) fn take_memory(&self, bytes: u64) -> bool {
        self.shared_memory.take(bytes, &self.memory, self.terms().budget.memory_bytes)
    }

    pub(crate) fn give_memory(&self, bytes: u64) {
        self.memory.fetch_sub(bytes, Relaxed);
        self.shared_memory.give(bytes);
    }

    /// Whether a line that costs so much may be logged now.
    pub(crate) fn log(&self, cost: usize, now: Instant) -> bool {
        let rate = self.terms().budget.log_bytes_per_second as f64;
        let mut budget = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(budget.filled).as_secs_f64();
        budget.filled = now;
        budget.bytes = (budget.bytes + elapsed * rate).min(rate);
        // It may go below zero by one line, as an app's own.
        let allowed = budget.bytes > 0.0;
        if allowed {
            budget.bytes -= cost as f64;
        }
        allowed
    }
}

const SECOND: u64 = 1_000_000_000;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Terms {
    fn new(budget: Budget, slots: &Slots) -> Self {
        let calls = budget.concurrent_calls.min(slots.of_one());
        Self { budget, calls: Arc::new(Semaphore::new(calls as usize)) }
    }
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

    /// Budgets are from now on as the configuration says. What is in use stays counted; places for calls are counted
    /// anew where their number has changed.
    pub fn reconfigure(&self, config: &Config) {
        self.host.memory.resize(config.sandbox_memory_bytes);
        self.host.descriptors.resize(Shares::of_process(config.edge.connections).guests);
        for account in self.book().by_tenant.values() {
            let tenant = config.tenant_of(&format!("{}/", account.tenant));
            let budget = &tenant.budget;
            let before = account.terms.load_full();
            if before.budget == *budget {
                continue;
            }
            let mut terms = Terms::new(budget.clone(), &self.host.slots);
            if before.budget.concurrent_calls == budget.concurrent_calls {
                terms.calls = Arc::clone(&before.calls);
            }
            account.terms.store(Arc::new(terms));
        }
    }

    /// Closes accounts that no app has any more.
    pub fn tidy(&self) {
        self.book().by_tenant.retain(|_, account| Arc::strong_count(account) > 1);
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
        config.budget.concurrent_calls = 3;
        accounts.reconfigure(&config);
        assert_eq!((account.terms().budget.concurrent_calls, account.memory_bytes()), (3, 7));
        assert_eq!(account.terms().calls.available_permits(), 3);
        accounts.tidy();
        assert_eq!(accounts.book().by_tenant.len(), 1);
    }
}
