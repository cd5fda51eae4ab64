//! What a tenant has in use, of all its apps together, and whether it may have more. `admission` asks before a call,
//! `sandbox` while guests run, `telemetry` before a line is logged.

mod hoard;
mod load;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use crate::admission::Slots;
use crate::config::Config;
use crate::limits::Budget;
use crate::sandbox::Crew;
use hoard::Hoard;
use load::{Company, Load};

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
    hoard: Arc<Hoard>,
    /// Requests that wait.
    waiting: AtomicU32,
    /// When the next call would be in time, had all come at the rate that is allowed, in nanoseconds since the account
    /// was made.
    next_call: AtomicU64,
    /// Of live sandboxes, in bytes.
    memory: AtomicU64,
    /// Up to when what went to elsewhere and came from there is within its rate, in nanoseconds since the account was made.
    outbound_until: AtomicU64,
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
    /// Connections to elsewhere that it may open.
    pub(crate) outbound: Arc<Semaphore>,
}

/// What its apps keep.
#[derive(Default)]
struct Disk {
    /// In directories for data, in bytes.
    bytes: AtomicU64,
    /// Files, folders and links in them.
    names: AtomicU64,
    /// In key-value stores of this machine, in bytes.
    stores: AtomicU64,
}

/// Processor time that was used and not yet forgotten: it is, at the rate at which the tenant may use some.
#[derive(Default)]
struct Cpu {
    used: AtomicU64,
    /// Up to when it was forgotten, in nanoseconds since the account was made.
    forgotten: AtomicU64,
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
}

/// Memory is given back without a word: who waits for some looks again after this time.
const MEMORY_RETRY: Duration = Duration::from_millis(20);
/// Processor time is forgotten in steps, so that asking for it is mostly reading.
const FORGET_STEP: Duration = Duration::from_millis(1);

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
            hoard: Arc::clone(&host.hoard),
            waiting: AtomicU32::new(0),
            next_call: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            outbound_until: AtomicU64::new(0),
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
        let memory_max = budget.memory_bytes.min(self.hoard.of_one());
        (self.memory_bytes() >= memory_max).then_some((Spent::Memory, MEMORY_RETRY))
    }

    /// Charges processor time.
    pub(crate) fn charge_cpu(&self, time: Duration) {
        self.cpu.used.fetch_add(nanos(time), Relaxed);
        self.load.charge(time);
    }

    /// Whether its calls take much of the workers' time in long pieces, while others ask as well.
    pub(crate) fn is_heavy(&self) -> bool {
        self.load.is_heavy()
    }

    /// How long until it may use processor time again, if it has used too much.
    pub(crate) fn cpu_debt(&self, now: Instant) -> Option<Duration> {
        self.debt(&self.terms().budget, now)
    }

    fn debt(&self, budget: &Budget, now: Instant) -> Option<Duration> {
        let (cap, window) = (nanos(budget.cpu_time), nanos(budget.cpu_window).max(1));
        let (moment, now) = (now, self.now(now));
        let forgotten = self.cpu.forgotten.load(Relaxed);
        let step = now.saturating_sub(forgotten);
        let is_mine =
            step >= nanos(FORGET_STEP) && self.cpu.forgotten.compare_exchange(forgotten, now, Relaxed, Relaxed).is_ok();
        if is_mine {
            let credit = u64::try_from(u128::from(step) * u128::from(cap) / u128::from(window)).unwrap_or(u64::MAX);
            let less = |used: u64| Some(used.saturating_sub(credit));
            let _ = self.cpu.used.fetch_update(Relaxed, Relaxed, less);
            // Once a millisecond somebody comes by here: on the way they look at this, too.
            self.load.look(step, self.company.is_alone(self.number, moment));
        }
        let debt = self.cpu.used.load(Relaxed).checked_sub(cap).filter(|debt| *debt > 0)?;
        let time = u128::from(debt) * u128::from(window) / u128::from(cap.max(1));
        Some(Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX)).max(FORGET_STEP))
    }

    /// Waits until it may use processor time: guests that run wait here, at a tick.
    pub(crate) async fn solvent(self: Arc<Self>) {
        while let Some(time) = self.cpu_debt(Instant::now()) {
            tokio::time::sleep(time).await;
        }
    }

    /// Takes memory. False, and nothing taken, if that would be too much.
    pub(crate) fn take_memory(&self, bytes: u64) -> bool {
        let max = self.terms().budget.memory_bytes.min(self.hoard.take(bytes));
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= max);
        let is_taken = self.memory.fetch_update(Relaxed, Relaxed, more).is_ok();
        if !is_taken {
            self.hoard.give(bytes);
        }
        is_taken
    }

    pub(crate) fn give_memory(&self, bytes: u64) {
        self.memory.fetch_sub(bytes, Relaxed);
        self.hoard.give(bytes);
    }

    /// Counts bytes that have gone to elsewhere, or come from there.
    pub(crate) fn count_outbound(&self, bytes: usize, now: Instant) {
        let rate = self.terms().budget.outbound_bytes_per_second.max(1);
        let time = u128::from(SECOND) * bytes as u128 / u128::from(rate);
        let (time, now) = (u64::try_from(time).unwrap_or(u64::MAX), self.now(now));
        let later = |until: u64| Some(until.max(now).saturating_add(time));
        let _ = self.outbound_until.fetch_update(Relaxed, Relaxed, later);
    }

    /// How long until more may go, or come: what is worth a second may be together.
    pub(crate) fn outbound_pause(&self, now: Instant) -> Option<Duration> {
        let ahead = self.outbound_until.load(Relaxed).saturating_sub(self.now(now));
        ahead.checked_sub(SECOND).filter(|pause| *pause > 0).map(Duration::from_nanos)
    }

    /// What its apps keep, in bytes, as far as they are live.
    pub fn disk_bytes(&self) -> u64 {
        self.disk.bytes.load(Relaxed).saturating_add(self.disk.stores.load(Relaxed))
    }

    /// Files, folders and links that its apps keep.
    pub fn disk_names(&self) -> u64 {
        self.disk.names.load(Relaxed)
    }

    /// Takes room on the disk. False, and nothing taken, if that would be too much.
    pub(crate) fn take_disk(&self, bytes: u64, names: u64) -> bool {
        let terms = self.terms();
        let bytes_max = terms.budget.disk_bytes.saturating_sub(self.disk.stores.load(Relaxed));
        let take = |of: &AtomicU64, more: u64, max: u64| {
            let taken = |used: u64| used.checked_add(more).filter(|used| more == 0 || *used <= max);
            of.fetch_update(Relaxed, Relaxed, taken).is_ok()
        };
        if !take(&self.disk.bytes, bytes, bytes_max) {
            return false;
        }
        let fits = take(&self.disk.names, names, terms.budget.disk_names);
        if !fits {
            self.disk.bytes.fetch_sub(bytes, Relaxed);
        }
        fits
    }

    /// Something takes another room (bytes and names) than it did: so it is, whether it may or not.
    pub(crate) fn change_disk(&self, before: (u64, u64), after: (u64, u64)) {
        let change = |of: &AtomicU64, before: u64, after: u64| {
            let changed = |used: u64| Some(used.saturating_sub(before).saturating_add(after));
            let _ = of.fetch_update(Relaxed, Relaxed, changed);
        };
        change(&self.disk.bytes, before.0, after.0);
        change(&self.disk.names, before.1, after.1);
    }

    /// Whether its key-value stores may hold so many bytes together.
    pub(crate) fn may_store(&self, bytes: u64) -> bool {
        self.disk.bytes.load(Relaxed).saturating_add(bytes) <= self.terms().budget.disk_bytes
    }

    /// Its key-value stores hold so many bytes together.
    pub(crate) fn set_stored(&self, bytes: u64) {
        self.disk.stores.store(bytes, Relaxed);
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
        let outbound = Arc::new(Semaphore::new(budget.outbound_connections as usize));
        Self { budget, calls: Arc::new(Semaphore::new(calls as usize)), outbound }
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
    hoard: Arc<Hoard>,
}

impl Host {
    fn new(calls: u32, crew: Arc<Crew>) -> Self {
        // As much as is asked for, until a configuration says what there is.
        Self { slots: Slots::new(calls), crew, company: Arc::default(), hoard: Arc::new(Hoard::new(u64::MAX)) }
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
        self.host.hoard.resize(config.sandbox_memory_bytes);
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
            if before.budget.outbound_connections == budget.outbound_connections {
                terms.outbound = Arc::clone(&before.outbound);
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

    fn account(change: impl FnOnce(&mut Budget)) -> Account {
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
    fn processor_time_is_forgotten_at_the_rate_that_is_allowed() {
        let account = account(|budget| {
            budget.cpu_time = Duration::from_secs(2);
            budget.cpu_window = Duration::from_secs(10);
        });
        let after = |ms: u64| account.made + Duration::from_millis(ms);
        account.charge_cpu(Duration::from_secs(2));
        assert_eq!(account.cpu_debt(after(0)), None);
        account.charge_cpu(Duration::from_secs(1));
        // A second of debt, at a fifth of a second for each second.
        assert_eq!(account.cpu_debt(after(0)), Some(Duration::from_secs(5)));
        assert_eq!(account.cpu_debt(after(2500)), Some(Duration::from_millis(2500)));
        assert_eq!(account.cpu_debt(after(5000)), None);
        assert_eq!(account.spent(after(5000)), None);
    }

    #[test]
    fn what_goes_out_and_comes_back_has_its_rate_beyond_a_seconds_worth() {
        let account = account(|budget| budget.outbound_bytes_per_second = 1000);
        let after = |ms: u64| account.made + Duration::from_millis(ms);
        account.count_outbound(1000, after(0));
        assert_eq!(account.outbound_pause(after(0)), None);
        account.count_outbound(500, after(0));
        assert_eq!(account.outbound_pause(after(0)), Some(Duration::from_millis(500)));
        assert_eq!(account.outbound_pause(after(400)), Some(Duration::from_millis(100)));
        assert_eq!(account.outbound_pause(after(500)), None);
    }

    #[test]
    fn memory_is_taken_while_there_is_some() {
        let account = account(|budget| budget.memory_bytes = 100);
        assert!(account.take_memory(60) && !account.take_memory(60) && account.take_memory(40));
        assert_eq!(account.spent(account.made), Some((Spent::Memory, MEMORY_RETRY)));
        account.give_memory(1);
        assert_eq!(account.spent(account.made), None);
    }

    #[test]
    fn room_on_the_disk_is_one_for_data_and_stores() {
        let account = account(|budget| {
            budget.disk_bytes = 100;
            budget.disk_names = 2;
        });
        assert!(account.take_disk(60, 1) && !account.take_disk(60, 1) && account.take_disk(0, 1));
        assert!(!account.take_disk(1, 1), "no name is left");
        assert!(account.may_store(40) && !account.may_store(41));
        account.set_stored(40);
        assert_eq!((account.disk_bytes(), account.disk_names()), (100, 2));
        assert!(!account.take_disk(1, 0));
        account.change_disk((60, 2), (50, 1));
        assert!(account.take_disk(10, 1) && account.take_disk(0, 0));
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
