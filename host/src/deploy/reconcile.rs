//! Disk against table: decides which files are to be loaded, what becomes of the outcomes, and what the next table holds.
//! It waits for nothing and reads no file; `deploy` drives it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::AbortHandle;

use super::claims::{self, Claim, Ruling};
use super::load::{Origin, Outcome, Ready};
use super::refit::Refit;
use super::scan::{Candidate, Scan, Stamp};
use super::sleeper::Counted;
use crate::apps::{App, Entry, Problem, Table};
use crate::config::{Config, tenant_name};
use crate::route::Router;

/// When a failure that may pass is tried again.
const RETRY_TIME: Duration = Duration::from_secs(10);

/// All that is known of the apps directory.
#[derive(Default)]
pub struct Records {
    records: BTreeMap<String, Record>,
    /// Counts apps as they go live: who was first.
    arrivals: u64,
    /// What goes live with the last table that was asked for, and has not been announced.
    news: Vec<News>,
    /// Counts jobs, so that the outcome of a cancelled one is recognised.
    tickets: u64,
    /// How many are being done.
    busy: Arc<AtomicUsize>,
}

/// One app, or one file that should be one.
#[derive(Default)]
struct Record {
    /// What the disk showed at the last look, and since when it has shown that; none if it can't be an app.
    seen: Option<(Candidate, Instant)>,
    /// What was last judged, or is being loaded.
    judged: Option<Candidate>,
    job: Option<Job>,
    live: Option<Live>,
    /// Loaded, but not live: it goes live with the next table, unless its place is taken.
    ready: Option<Box<Ready>>,
    problem: Option<Problem>,
    /// What younger apps want of this one's routes.
    rivals: Vec<String>,
    retry_at: Option<Instant>,
}

/// An app that wants what another one has.
struct Loser {
    name: String,
    holder: String,
    route: String,
}

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To make the newest file live.
    Load,
    /// To bring what is live within what the operator says now. No change of its files ends that.
    Refit,
}

/// What came of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The table has to change.
    Load,
    /// The table has to change, and its file is to be judged.
    Refit,
    /// It was cancelled.
    Nothing,
}

/// What becomes of what is live by a new configuration.
#[derive(Default)]
pub struct Standing {
    /// Something is live no more.
    pub is_less: bool,
    pub refits: Vec<Refit>,
}

struct Job {
    ticket: u64,
    purpose: Purpose,
    abort: AbortHandle,
    _counted: Counted,
}

struct Live {
    app: Arc<App>,
    arrival: u64,
}

/// A release that goes live.
struct News {
    app: Arc<App>,
    /// The hash of the release before it.
    replaces: Option<String>,
    origin: Origin,
    took: Duration,
}

/// A file that is to be loaded now.
pub struct Task {
    pub name: String,
    pub ticket: u64,
    pub candidate: Candidate,
    pub live: Option<Arc<App>>,
}

/// What a look at the disk came to.
#[derive(Default)]
pub struct Findings {
    pub tasks: Vec<Task>,
    /// When to look again, since something has not come to rest or is to be tried again.
    pub again_in: Option<Duration>,
    /// Some file has not come to rest.
    pub unsettled: bool,
    /// The table no longer says what is known.
    pub changed: bool,
}

impl Findings {
    fn look_again_in(&mut self, time: Duration) {
        self.again_in = Some(self.again_in.map_or(time, |sooner| sooner.min(time)));
    }
}

impl Records {
    /// Takes in what the directory holds now. `renamed` are files that appeared by a rename since the last look.
    pub fn look(&mut self, scan: &Scan, renamed: &HashSet<PathBuf>, settle_time: Duration) -> Findings {
        let mut findings = Findings::default();
        self.forget_removed(scan, &mut findings);
        for (name, reason) in &scan.refused {
            let record = self.records.entry(name.clone()).or_default();
            if !record.is_being_refitted() {
                record.cancel();
            }
            (record.seen, record.judged, record.ready) = (None, None, None);
            findings.changed |= record.complain(name, reason.clone());
        }
        let now = Instant::now();
        for (name, &candidate) in &scan.candidates {
            let record = self.records.entry(name.clone()).or_default();
            if record.seen.is_none_or(|(seen, _)| seen != candidate) {
                record.seen = Some((candidate, now));
            }
            if record.retry_at.is_some_and(|at| at <= now) {
                (record.retry_at, record.judged) = (None, None);
            }
            if let Some(at) = record.retry_at {
                findings.look_again_in(at - now);
            }
            if record.judged == Some(candidate) || record.is_being_refitted() {
                continue;
            }
            record.cancel();
            let since = record.seen.map_or(now, |(_, since)| since);
            let wait = unrest(name, candidate, renamed, settle_time, now.saturating_duration_since(since));
            if !wait.is_zero() {
                findings.unsettled = true;
                findings.look_again_in(wait);
                continue;
            }
            self.tickets += 1;
            record.judged = Some(candidate);
            findings.tasks.push(Task {
                name: name.clone(),
                ticket: self.tickets,
                candidate,
                live: record.live.as_ref().map(|live| Arc::clone(&live.app)),
            });
            findings.changed = true;
        }
        findings
    }

    /// Notes that a task of the last look is being done.
    pub fn started(&mut self, name: &str, ticket: u64, (purpose, abort): (Purpose, AbortHandle)) {
        if let Some(record) = self.records.get_mut(name) {
            record.job = Some(Job { ticket, purpose, abort, _counted: Counted::new(&self.busy) });
        }
    }

    /// Takes in what became of a task.
    pub fn finished(&mut self, name: &str, ticket: u64, outcome: Outcome) -> Finished {
        let Some(record) = self.records.get_mut(name) else {
            return Finished::Nothing;
        };
        let Some(job) = record.job.take_if(|job| job.ticket == ticket) else {
            return Finished::Nothing;
        };
        if job.purpose == Purpose::Refit {
            self.refitted(name, outcome);
            return Finished::Refit;
        }
        // Whatever was waiting for its place is not the newest any more.
        record.ready = None;
        match outcome {
            Outcome::Ready(ready) => record.ready = Some(ready),
            Outcome::Unchanged => record.problem = None,
            Outcome::Moved => record.judged = None,
            Outcome::Refused(reason) => _ = record.complain(name, reason),
            Outcome::Passing(reason) => {
                record.retry_at = Some(Instant::now() + RETRY_TIME);
                record.complain(name, reason);
            }
            Outcome::Closed(reason) => record.close(name, reason),
        }
        Finished::Load
    }

    /// What is live goes on with less, or not at all. Why its newest file is not live is as true as before.
    fn refitted(&mut self, name: &str, outcome: Outcome) {
        let Some(record) = self.records.get_mut(name) else { return };
        match outcome {
            Outcome::Ready(ready) => {
                let problem = record.problem.take();
                record.ready = Some(ready);
                self.go_live(name);
                if let Some(record) = self.records.get_mut(name) {
                    record.problem = problem;
                }
            }
            Outcome::Unchanged => {}
            Outcome::Closed(reason) | Outcome::Refused(reason) | Outcome::Passing(reason) => record.close(name, reason),
            // No file is read for it: whatever this was about, it may not go on as it was.
            Outcome::Moved => record.close(name, "its file has changed meanwhile".to_owned()),
        }
    }

    /// Somebody knows why what an app should be is not what is live.
    pub fn complain(&mut self, name: &str, reason: String) {
        if let Some(record) = self.records.get_mut(name) {
            record.complain(name, reason);
        }
    }

    /// Everything is to be judged again, since the configuration is another. What is live by what the operator has
    /// taken away since is live no more, or is to go on with less.
    pub fn judge_again(&mut self, config: &Config) -> Standing {
        let mut standing = Standing::default();
        for (name, record) in &mut self.records {
            record.cancel();
            record.judged = None;
            // Whatever waits was judged by what was said before.
            record.ready = None;
            let Some(live) = &record.live else { continue };
            let Some(spec) = config.fitted(&live.app.spec) else {
                let release = short(&live.app.release.hash);
                tracing::warn!(app = %name, release, "no longer served: the operator has taken away what it was given");
                record.live = None;
                standing.is_less = true;
                continue;
            };
            // Secrets are read again.
            if spec != *live.app.spec || !spec.secrets.is_empty() {
                self.tickets += 1;
                let live = Arc::clone(&live.app);
                standing.refits.push(Refit { name: name.clone(), ticket: self.tickets, live, spec });
            }
        }
        standing
    }

    /// Whether anything is being loaded.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Relaxed) > 0
    }

    pub fn live(&self) -> impl Iterator<Item = &Arc<App>> {
        self.records.values().filter_map(|record| Some(&record.live.as_ref()?.app))
    }

    /// The hashes of all code that is live or waits.
    pub fn code_hashes(&self) -> HashSet<&str> {
        let waiting =
            self.records.values().filter_map(|record| Some(record.ready.as_ref()?.app.release.code_hash.as_str()));
        self.live().map(|app| app.release.code_hash.as_str()).chain(waiting).collect()
    }

    /// Lets what is ready go live where its place is free, and makes the table of it.
    pub fn table(&mut self, config: &Config) -> Table {
        let (losers, winners) = self.contest();
        self.records.values_mut().for_each(|record| record.rivals.clear());
        for loser in losers {
            self.tell(loser);
        }
        for name in winners {
            self.go_live(&name);
        }
        let routes = self.live().flat_map(|app| {
            let tenant = app.spec.tenant.as_str();
            app.spec.routes.iter().map(move |route| (route, tenant, Arc::clone(app)))
        });
        let router = Router::new(routes, config.given_places());
        let entries = self.records.iter().filter(|(_, record)| record.is_listed()).map(|(name, record)| {
            let entry = Entry {
                live: record.live.as_ref().map(|live| Arc::clone(&live.app)),
                problem: record.problem.clone(),
                loading: record.job.is_some(),
                rivals: record.rivals.clone(),
            };
            (name.clone(), entry)
        });
        Table { router, entries: entries.collect() }
    }

    /// Says to both sides that a route is wanted twice. What one tenant may read names nothing of another's.
    fn tell(&mut self, Loser { name, holder, route }: Loser) {
        let is_shared = tenant_name(&name) == tenant_name(&holder);
        let reason = match is_shared {
            true => {
                format!("{holder} has the route {route} already: give one of them another route, or remove {holder}")
            }
            false => format!("the route {route} is taken: give it another route"),
        };
        let told = self.records.get_mut(&name).is_some_and(|record| record.complain(&name, reason));
        if told {
            tracing::warn!(app = %holder, "{name} claims the route {route} too, and is refused");
        }
        if let Some(record) = self.records.get_mut(&holder) {
            let rival = if is_shared { name.as_str() } else { "an app of another tenant" };
            record.rivals.push(format!("{rival} claims the route {route} too, and is refused"));
        }
    }

    fn forget_removed(&mut self, scan: &Scan, findings: &mut Findings) {
        self.records.retain(|name, record| {
            let stays = scan.candidates.contains_key(name) || scan.refused.contains_key(name) || scan.is_unread(name);
            if !stays {
                record.cancel();
                findings.changed = true;
                if let Some(live) = &record.live {
                    tracing::info!(app = %name, release = short(&live.app.release.hash), "removed");
                }
            }
            stays
        });
    }

    /// Who of those that are ready cannot go live, and who can.
    fn contest(&self) -> (Vec<Loser>, BTreeSet<String>) {
        let mut seniority: Vec<_> =
            self.records.iter().filter(|(_, record)| record.live.is_some() || record.ready.is_some()).collect();
        seniority.sort_by_key(|(name, record)| {
            let arrival = record.live.as_ref().map_or(u64::MAX, |live| live.arrival);
            let modified = record.seen.map(|(candidate, _)| candidate.wasm.modified);
            (arrival, modified, *name)
        });
        let claims: Vec<Claim<'_>> = seniority
            .iter()
            .map(|(name, record)| Claim {
                name,
                held: record.live.as_ref().map_or(&[], |live| &live.app.spec.routes),
                wanted: record.ready.as_ref().map(|ready| ready.app.spec.routes.as_slice()),
            })
            .collect();
        let mut losers = Vec::new();
        let mut winners = BTreeSet::new();
        for (claim, ruling) in claims.iter().zip(claims::settle(&claims)) {
            match ruling {
                Ruling::Nothing => {}
                Ruling::Granted => _ = winners.insert(claim.name.to_owned()),
                Ruling::Lost { route, holder } => {
                    let (name, holder) = (claim.name.to_owned(), holder.to_owned());
                    losers.push(Loser { name, holder, route: route.to_string() });
                }
            }
        }
        (losers, winners)
    }

    fn go_live(&mut self, name: &str) {
        let Some(record) = self.records.get_mut(name) else {
            return;
        };
        let Some(ready) = record.ready.take() else { return };
        let Ready { mut app, origin, took } = *ready;
        let before = record.live.take();
        let replaces = before.as_ref().map(|live| short(&live.app.release.hash).to_owned());
        if before.as_ref().is_none_or(|live| live.app.release.hash != app.release.hash) {
            app.release.live_since = SystemTime::now();
        }
        record.problem = None;
        let app = Arc::new(app);
        self.news.push(News { app: Arc::clone(&app), replaces, origin, took });
        let arrival = before.map_or_else(
            || {
                self.arrivals += 1;
                self.arrivals
            },
            |live| live.arrival,
        );
        record.live = Some(Live { app, arrival });
    }

    /// Logs what is live since the table was put in force: who reads the line may ask for it.
    pub fn announce(&mut self) {
        for News { app, replaces, origin, took } in self.news.drain(..) {
            let routes: Vec<String> = app.spec.routes.iter().map(ToString::to_string).collect();
            tracing::info!(
                app = %app.spec.name,
                release = short(&app.release.hash),
                replaces,
                kind = %app.release.kind,
                routes = routes.join(" "),
                code = match origin {
                    Origin::Compiled => "compiled",
                    Origin::Cached => "cached",
                    Origin::Shared => "shared",
                },
                ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "live"
            );
        }
    }
}

impl Record {
    /// Notes why the newest file is not served, and logs it unless that was said before. Says whether it is news.
    fn complain(&mut self, name: &str, reason: String) -> bool {
        if self.problem.as_ref().is_some_and(|problem| problem.reason == reason) {
            return false;
        }
        match &self.live {
            Some(live) => {
                tracing::warn!(app = %name, serving = short(&live.app.release.hash), "refused: {reason}; the old release stays");
            }
            None => tracing::warn!(app = %name, "refused: {reason}"),
        }
        self.problem = Some(Problem { reason, since: SystemTime::now() });
        true
    }

    /// Files that have not come to rest are not worth a line yet.
    fn is_listed(&self) -> bool {
        self.live.is_some() || self.problem.is_some() || self.job.is_some() || self.ready.is_some()
    }

    /// Nothing of it may go on for now.
    fn close(&mut self, name: &str, reason: String) {
        if let Some(live) = self.live.take() {
            tracing::warn!(app = %name, release = short(&live.app.release.hash), "no longer served: {reason}");
        }
        self.retry_at = Some(Instant::now() + RETRY_TIME);
        self.complain(name, reason);
    }

    fn is_being_refitted(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.purpose == Purpose::Refit)
    }

    fn cancel(&mut self) {
        if let Some(job) = self.job.take() {
            job.abort.abort();
        }
    }
}

/// How long until the files of an app have been at rest long enough. Zero if they are whole.
fn unrest(
    name: &str,
    candidate: Candidate,
    renamed: &HashSet<PathBuf>,
    settle_time: Duration,
    unchanged_for: Duration,
) -> Duration {
    let file = |extension: &str, stamp: Stamp| {
        if renamed.contains(Path::new(&format!("{name}.{extension}"))) {
            return Duration::ZERO;
        }
        // A clock that was set back, or another machine's, shows a change in the future: then only what was observed counts.
        let age = stamp.changed.elapsed().unwrap_or_default().max(unchanged_for);
        settle_time.saturating_sub(age)
    };
    let wasm = file("wasm", candidate.wasm);
    candidate.sidecar.map_or(wasm, |sidecar| wasm.max(file("toml", sidecar)))
}

/// A hash as people compare it.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
