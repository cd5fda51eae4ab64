//! The thread that makes files of drafts, and keeps the bytes of releases that have crashed, so that they can be run again when the
//! app has long been replaced.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::Context;
use sha2::{Digest, Sha256};

use super::ring::{Bounds, Ring};
use super::{Capsules, Draft, Job, Settings, Totals, read};
use crate::deploy::scan;

/// Between two words about capsules that were lost.
const COMPLAINT_TIME: Duration = Duration::from_secs(10);
/// One that is lost is seldom alone.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// Starts it. It ends with the last handle of `capsules`.
pub(super) fn start(capsules: &Arc<Capsules>, jobs: Receiver<Job>, folder: PathBuf) -> anyhow::Result<()> {
    let capsules = Arc::downgrade(capsules);
    let writer = Writer {
        capsules,
        folder,
        rings: None,
        copies: Copies::default(),
        told: Totals::default(),
        told_at: None,
        complaint_due: None,
    };
    let thread = std::thread::Builder::new().name("capsules".to_owned());
    thread.spawn(move || writer.run(&jobs)).context("the thread that writes capsules cannot be started")?;
    Ok(())
}

struct Writer {
    capsules: Weak<Capsules>,
    folder: PathBuf,
    /// Opened with the first capsule: what is there is read once, and not at every start.
    rings: Option<Rings>,
    copies: Copies,
    /// What the log has been told.
    told: Totals,
    told_at: Option<Instant>,
    /// When it will be told what was lost since.
    complaint_due: Option<Instant>,
}

struct Rings {
    capsules: Ring,
    modules: Ring,
}

/// What was copied of releases lately, by tenant: one with more of them than there is room for would have the same ones copied again and
/// again, while the capsules of others wait.
#[derive(Default)]
struct Copies(HashMap<String, (Instant, u64)>);

/// In this time no more is copied of a tenant's than all copies together may take.
const COPY_TIME: Duration = Duration::from_secs(3600);

impl Copies {
    fn may_copy(&mut self, tenant: &str, bytes: u64, bytes_max: u64, now: Instant) -> bool {
        self.0.retain(|_, (since, _)| now.saturating_duration_since(*since) < COPY_TIME);
        let (_, copied) = self.0.entry(tenant.to_owned()).or_insert((now, 0));
        let more = copied.saturating_add(bytes);
        let is_allowed = more <= bytes_max;
        if is_allowed {
            *copied = more;
        }
        is_allowed
    }
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let job = match self.complaint_due {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => jobs.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let Some(capsules) = self.capsules.upgrade() else { return };
            match job {
                Ok(Job::Write(draft)) => {
                    self.take(&draft, &capsules);
                    capsules.rates().leave(&draft.recorder().tenant);
                }
                Ok(Job::Flush(done)) => {
                    self.complaint_due = self.complaint_due.map(|_| Instant::now());
                    self.complain(capsules.totals());
                    // Nobody may be waiting any more.
                    let _ = done.send(());
                }
                Ok(Job::Lost) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.complain(capsules.totals());
        }
    }

    fn take(&mut self, draft: &Draft, capsules: &Capsules) {
        let settings = **capsules.settings.load();
        match self.write(draft, settings) {
            Ok(()) => _ = capsules.counts.written.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                // The first of several says why.
                if capsules.counts.failed.fetch_add(1, Ordering::Relaxed) == self.told.failed {
                    tracing::warn!("a capsule cannot be written to {}: {error:#}", self.folder.display());
                }
            }
        }
    }

    fn write(&mut self, draft: &Draft, settings: Settings) -> anyhow::Result<()> {
        let Rings { capsules, modules } = match &mut self.rings {
            Some(rings) => rings,
            None => self.rings.insert(Rings {
                capsules: Ring::open(&self.folder, read::KIND)?,
                modules: Ring::open(&self.folder.join(read::MODULES), read::MODULE_KIND)?,
            }),
        };
        let capsule = draft.seal();
        let bounds = Bounds { count: settings.count_max, bytes: settings.bytes_max };
        capsules.put(&capsule.id, &capsule.app, bounds, |file| {
            serde_json::to_writer_pretty(&mut *file, &capsule)?;
            file.write_all(b"\n")
        })?;
        // The capsule is of use without it.
        if !modules.has(&capsule.release.hash)
            && let Err(error) = keep_module(modules, &mut self.copies, draft, settings.module_bytes_max)
        {
            tracing::debug!(app = capsule.app, "its release cannot be kept for a replay: {error}");
        }
        Ok(())
    }

    /// Says what was lost, but not each time.
    fn complain(&mut self, totals: Totals) {
        if (totals.dropped, totals.failed) == (self.told.dropped, self.told.failed) {
            self.complaint_due = None;
            return;
        }
        let now = Instant::now();
        let earliest = self.told_at.map_or(now, |told_at| told_at + COMPLAINT_TIME);
        let due = *self.complaint_due.get_or_insert_with(|| earliest.max(now + GATHER_TIME));
        if now < due {
            return;
        }
        let (dropped, failed) = (totals.dropped - self.told.dropped, totals.failed - self.told.failed);
        tracing::warn!(
            "of {dropped} faults there is no capsule, since there were too many at once; {failed} capsules could not be written"
        );
        (self.told, self.told_at, self.complaint_due) = (totals, Some(now), None);
    }
}

/// Copies the file that the release was made of, if it still is that.
fn keep_module(modules: &mut Ring, copies: &mut Copies, draft: &Draft, bytes_max: u64) -> io::Result<()> {
    let recorder = draft.recorder();
    let (mut source, stamp) = scan::open(&recorder.apps_dir, &format!("{}.wasm", recorder.app))?;
    let bounds = Bounds { count: u64::MAX, bytes: bytes_max };
    if stamp.bytes > bytes_max {
        return Err(io::Error::other("it is larger than capsules_module_size"));
    }
    if !copies.may_copy(&recorder.tenant, stamp.bytes, bytes_max, Instant::now()) {
        return Err(io::Error::other(
            "as much was copied of its tenant's within an hour as capsules_module_size allows",
        ));
    }
    modules.put(&recorder.hash, &recorder.app, bounds, |file| {
        let mut sha256 = Sha256::new();
        let mut block = vec![0; 1 << 18];
        loop {
            // One that grows meanwhile has another hash.
            let read = source.read(&mut block)?;
            if read == 0 {
                break;
            }
            sha256.update(&block[..read]);
            file.write_all(&block[..read])?;
        }
        let hash: String = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        match hash == recorder.hash {
            true => Ok(()),
            false => Err(io::Error::other("the app has been replaced meanwhile")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_that_push_each_other_out_are_not_copied_again_and_again() {
        let (mut copies, start) = (Copies::default(), Instant::now());
        let mut copied = |tenant: &str, seconds| copies.may_copy(tenant, 64, 256, start + Duration::from_secs(seconds));
        assert_eq!((0..3000).filter(|second| copied("a", *second)).count(), 4);
        assert!(copied("b", 3000));
        assert!(copied("a", 3600));
        assert_eq!(copies.0.len(), 2);
    }
}
