//! One line for each request, at the price of formatting it: a thread of its own does the writing, so that a slow disk
//! costs lines (which are counted), never requests.

mod line;

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::{AccessLogFormat, AccessLogTarget};
use crate::telemetry::RequestId;

use line::Scratch;
#[cfg(test)]
pub(crate) use line::access_lines;

/// What is known about a request when it is over.
#[derive(Clone, Debug)]
pub struct AccessRecord<'a> {
    /// None where the client came by a Unix socket.
    pub remote: Option<IpAddr>,
    pub request_id: RequestId,
    pub method: &'a str,
    /// As the client sent it.
    pub target: &'a str,
    pub version: http::Version,
    pub status: u16,
    /// Of the response's body.
    pub bytes: u64,
    /// From the end of the request's head to the end of the response.
    pub duration: Duration,
    /// Guest code running.
    pub cpu: Duration,
    pub app: Option<&'a str>,
    /// The metric label of what went wrong.
    pub cause: Option<&'static str>,
    pub host: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
}

/// Appends [`AccessRecord`]s to a file or to stdout. Dropping it writes what is left.
pub struct AccessLog {
    shared: Arc<Shared>,
}

struct Shared {
    /// [`OFF`], [`COMBINED`] or [`JSON`].
    mode: AtomicU8,
    state: Mutex<State>,
    wake: Condvar,
    /// Signalled when the writer has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    dropped_lines: u64,
    /// What to write to from now on.
    next: Option<Sink>,
    closing: bool,
    ended: bool,
}

enum Sink {
    Off,
    Stdout,
    File(File),
}

const OFF: u8 = 0;
const COMBINED: u8 = 1;
const JSON: u8 = 2;

/// How long a line waits at most.
const FLUSH_TIME: Duration = Duration::from_millis(200);
/// This much is written at once, before the time is over.
const FLUSH_BYTES: usize = 64 << 10;
/// Where the disk does not keep up, lines beyond this are dropped.
const BUFFER_BYTES_MAX: usize = 4 << 20;
/// How long the end of the process waits for a stalled pipe or disk.
const CLOSE_TIME: Duration = Duration::from_secs(2);

impl AccessLog {
    /// Opens the log and starts its thread. Without target it is off, until a reload switches it on.
    ///
    /// # Errors
    /// Where the file cannot be opened for appending; names it.
    pub fn open(target: Option<&AccessLogTarget>, format: AccessLogFormat) -> io::Result<Self> {
        let sink = Sink::open(target)?;
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(mode(target, format)),
            state: Mutex::default(),
            wake: Condvar::new(),
            ended: Condvar::new(),
        });
        let writer = shared.clone();
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(sink))?;
        Ok(Self { shared })
    }

    /// Opens the log anew: after a rotation the file of the same name, after a change of the configuration the other one.
    ///
    /// # Errors
    /// Where the file cannot be opened: the log goes on as it was.
    pub fn reload(&self, target: Option<&AccessLogTarget>, format: AccessLogFormat) -> io::Result<()> {
        let sink = Sink::open(target)?;
        self.shared.lock().next = Some(sink);
        self.shared.mode.store(mode(target, format), Ordering::Relaxed);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Whether records are written at all.
    pub fn is_on(&self) -> bool {
        self.shared.mode.load(Ordering::Relaxed) != OFF
    }

    /// Writes one line, soon.
    pub fn record(&self, record: &AccessRecord<'_>) {
        let mode = self.shared.mode.load(Ordering::Relaxed);
        if mode == OFF {
            return;
        }
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.format(mode, record, SystemTime::now());
            self.shared.append(&scratch.line);
        });
    }

    /// Writes what is left and ends the thread: for the end of the process, when requests may still hold the log. Waits for
    /// a stalled disk or pipe, but not for ever. Later records are lost.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.wake.notify_one();
        let deadline = Instant::now() + CLOSE_TIME;
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.shared.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn mode(target: Option<&AccessLogTarget>, format: AccessLogFormat) -> u8 {
    match (target, format) {
        (None, _) => OFF,
        (Some(_), AccessLogFormat::Combined) => COMBINED,
        (Some(_), AccessLogFormat::Json) => JSON,
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let mut state = self.lock();
        let before = state.buffer.len();
        if before + line.len() > BUFFER_BYTES_MAX {
            state.dropped_lines += 1;
            return;
        }
        state.buffer.extend_from_slice(line);
        let after = before + line.len();
        drop(state);
        // The writer is woken for the first line of a batch and when the batch is large: a system call for a few hundred lines.
        if before == 0 || (before < FLUSH_BYTES && after >= FLUSH_BYTES) {
            self.wake.notify_one();
        }
    }

    /// The thread: waits, writes a batch, and so on.
    fn run(&self, mut sink: Sink) {
        let mut batch = Vec::new();
        let mut failing = false;
        loop {
            let (dropped_lines, next, closing) = self.wait(&mut batch);
            match sink.write(&batch) {
                Ok(()) => failing = false,
                // Once, not for each batch: a full disk should not fill the log too.
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!("the access log cannot be written, its lines are lost until it can: {error}");
                }
                Err(_) => {}
            }
            batch.clear();
            if dropped_lines > 0 {
                tracing::warn!("{dropped_lines} lines of the access log were dropped: it is written too slowly");
            }
            if let Some(next) = next {
                sink = next;
                failing = false;
            }
            if closing {
                break;
            }
        }
        self.lock().ended = true;
        self.ended.notify_all();
    }

    /// Waits for a batch and swaps it with the empty one.
    fn wait(&self, batch: &mut Vec<u8>) -> (u64, Option<Sink>, bool) {
        let mut state = self.lock();
        while state.buffer.is_empty() && state.next.is_none() && !state.closing {
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let small = |state: &mut State| state.buffer.len() < FLUSH_BYTES && state.next.is_none() && !state.closing;
        let (mut state, _) =
            self.wake.wait_timeout_while(state, FLUSH_TIME, small).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.buffer, batch);
        (std::mem::take(&mut state.dropped_lines), state.next.take(), state.closing)
    }
}

impl Sink {
    fn open(target: Option<&AccessLogTarget>) -> io::Result<Self> {
        Ok(match target {
            None => Self::Off,
            Some(AccessLogTarget::Stdout) => Self::Stdout,
            Some(AccessLogTarget::File(path)) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                Self::File(file.map_err(|error| {
                    io::Error::new(error.kind(), format!("the access log {} cannot be opened: {error}", path.display()))
                })?)
            }
        })
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Off => Ok(()),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(batch)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    pub(super) fn record<'a>() -> AccessRecord<'a> {
        AccessRecord {
            remote: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            request_id: RequestId::next(),
            method: "GET",
            target: "/hello?x=1",
            version: http::Version::HTTP_11,
            status: 200,
            bytes: 33,
            duration: Duration::from_micros(1234),
            cpu: Duration::from_micros(56),
            app: Some("hello"),
            cause: None,
            host: Some(b"localhost:8000"),
            referer: None,
            user_agent: Some(b"curl/8.5.0"),
        }
    }

    #[test]
    fn every_line_is_in_the_file_when_the_log_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let log =
            AccessLog::open(Some(&AccessLogTarget::File(path.clone())), AccessLogFormat::Combined).expect("opens");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2500).for_each(|_| log.record(&record())));
            }
        });
        drop(log);
        let text = std::fs::read_to_string(&path).expect("the file is there");
        assert_eq!(text.lines().filter(|line| line.ends_with("\"curl/8.5.0\"")).count(), 10_000);
    }

    #[test]
    fn after_a_rotation_lines_go_to_the_new_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let rotated = folder.path().join("access.log.1");
        let target = AccessLogTarget::File(path.clone());
        let log = AccessLog::open(Some(&target), AccessLogFormat::Combined).expect("opens");
        log.record(&record());
        std::fs::rename(&path, &rotated).expect("renames");
        log.reload(Some(&target), AccessLogFormat::Json).expect("opens again");
        // The writer takes what came before the switch and the switch in one step.
        while log.shared.lock().next.is_some() {
            std::thread::yield_now();
        }
        log.record(&record());
        drop(log);
        assert!(std::fs::read_to_string(&rotated).expect("the old file").starts_with("127.0.0.1"));
        assert!(std::fs::read_to_string(&path).expect("the new file").starts_with("{\"time\""));
    }

    #[test]
    fn a_log_that_cannot_be_opened_says_its_path_and_a_reload_keeps_the_old_one() {
        let bad = AccessLogTarget::File("/nonexistent/access.log".into());
        let error = AccessLog::open(Some(&bad), AccessLogFormat::Json).err().expect("it fails");
        assert!(error.to_string().contains("/nonexistent/access.log"), "{error}");
        let log = AccessLog::open(None, AccessLogFormat::Json).expect("off");
        assert!(log.reload(Some(&bad), AccessLogFormat::Json).is_err());
        assert_eq!(log.shared.mode.load(Ordering::Relaxed), OFF);
    }

    #[test]
    fn a_writer_that_stalls_costs_lines_and_no_memory() {
        let shared = Shared {
            mode: AtomicU8::new(COMBINED),
            state: Mutex::default(),
            wake: Condvar::new(),
            ended: Condvar::new(),
        };
        let line = [b'x'; 1000];
        (0..10_000).for_each(|_| shared.append(&line));
        let state = shared.lock();
        assert!(state.buffer.len() <= BUFFER_BYTES_MAX);
        assert_eq!(state.dropped_lines as usize, 10_000 - BUFFER_BYTES_MAX / 1000);
    }
}
