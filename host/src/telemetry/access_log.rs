//! One line for each request, at the price of formatting it: a thread of its own does the writing, so that a slow disk
//! costs lines (which are counted), never requests.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::{AccessLogFormat, AccessLogTarget};
use crate::telemetry::RequestId;

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
/// What is kept of one text that a client sent. Request heads may be larger.
const TEXT_BYTES_MAX: usize = 4 << 10;
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

/// What a thread keeps from line to line.
#[derive(Default)]
struct Scratch {
    line: Vec<u8>,
    /// The second that the two texts are for.
    second: u64,
    /// `22/Nov/2026:09:55:49 +0000`
    clf_time: String,
    /// `2026-11-22T09:55:49`
    iso_time: String,
    /// The last client's address, and its text: clients come back.
    remote: Option<IpAddr>,
    remote_text: String,
}

impl Scratch {
    /// Fills `line`.
    fn format(&mut self, mode: u8, record: &AccessRecord<'_>, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second != since.as_secs() || self.iso_time.is_empty() {
            self.set_second(since.as_secs());
        }
        self.line.clear();
        // A `Vec` takes every write.
        let _ = if mode == JSON { self.json(record, since.subsec_millis()) } else { self.combined(record) };
    }

    fn set_second(&mut self, second: u64) {
        let time = time::OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second);
        let text =
            |format: &[time::format_description::BorrowedFormatItem<'_>]| time.format(format).unwrap_or_default();
        self.second = second;
        self.clf_time =
            text(time::macros::format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000"));
        self.iso_time = text(time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]"));
    }

    /// Apache's combined log format.
    fn combined(&mut self, record: &AccessRecord<'_>) -> io::Result<()> {
        if self.remote != record.remote {
            self.remote = record.remote;
            self.remote_text = record.remote.map_or_else(String::new, |remote| remote.to_string());
        }
        let line = &mut self.line;
        let mut number = itoa::Buffer::new();
        line.extend_from_slice(if self.remote.is_some() { self.remote_text.as_bytes() } else { b"-" });
        line.extend_from_slice(b" - - [");
        line.extend_from_slice(self.clf_time.as_bytes());
        line.extend_from_slice(b"] \"");
        escape_clf(line, record.method.as_bytes());
        line.push(b' ');
        escape_clf(line, record.target.as_bytes());
        line.push(b' ');
        line.extend_from_slice(version_text(record.version).as_bytes());
        line.extend_from_slice(b"\" ");
        line.extend_from_slice(number.format(record.status).as_bytes());
        line.push(b' ');
        line.extend_from_slice(number.format(record.bytes).as_bytes());
        line.extend_from_slice(b" \"");
        escape_clf(line, record.referer.unwrap_or(b"-"));
        line.extend_from_slice(b"\" \"");
        escape_clf(line, record.user_agent.unwrap_or(b"-"));
        line.extend_from_slice(b"\"\n");
        Ok(())
    }

    /// One object; what is not known is left out.
    fn json(&mut self, record: &AccessRecord<'_>, millis: u32) -> io::Result<()> {
        let line = &mut self.line;
        write!(line, "{{\"time\":\"{}.{millis:03}Z\"", self.iso_time)?;
        if let Some(remote) = record.remote {
            write!(line, ",\"remote\":\"{remote}\"")?;
        }
        write!(
            line,
            ",\"request\":\"{}\",\"version\":\"{:?}\",\"status\":{},\
             \"bytes\":{},\"duration_us\":{},\"cpu_us\":{}",
            record.request_id,
            record.version,
            record.status,
            record.bytes,
            record.duration.as_micros(),
            record.cpu.as_micros(),
        )?;
        let texts = [
            ("method", Some(record.method.as_bytes())),
            ("target", Some(record.target.as_bytes())),
            ("app", record.app.map(str::as_bytes)),
            ("cause", record.cause.map(str::as_bytes)),
            ("host", record.host),
            ("referer", record.referer),
            ("user_agent", record.user_agent),
        ];
        for (key, text) in texts {
            let Some(text) = text else { continue };
            write!(line, ",\"{key}\":\"")?;
            escape_json(line, text);
            line.push(b'"');
        }
        line.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// Both forms of a line, for the claims about all of them.
#[cfg(test)]
pub(crate) fn access_lines(record: &AccessRecord<'_>) -> (String, String) {
    let line = |mode| {
        let mut scratch = Scratch::default();
        scratch.format(mode, record, SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_341_349_007));
        String::from_utf8(scratch.line).expect("lines are text")
    };
    (line(COMBINED), line(JSON))
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn version_text(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        http::Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// As Apache does it: what is not printable ASCII becomes `\xHH`, so that nobody can write a line of their own.
fn escape_clf(line: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(TEXT_BYTES_MAX)];
    // Nearly all texts are plain, and this is done for each request.
    if text.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'"' && *byte != b'\\') {
        line.extend_from_slice(text);
        return;
    }
    for byte in text {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', *byte]),
            b' '..=b'~' => line.push(*byte),
            _ => line.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

/// Bytes that are not UTF-8 become U+FFFD. Control characters are escaped, also those above ASCII, which JSON would allow: a
/// terminal obeys them.
fn escape_json(line: &mut Vec<u8>, text: &[u8]) {
    for chunk in text[..text.len().min(TEXT_BYTES_MAX)].utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\\' => line.extend_from_slice(&[b'\\', char as u8]),
                _ if char.is_control() => {
                    let byte = char as u8;
                    line.extend_from_slice(b"\\u00");
                    line.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
                _ => line.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            line.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn record<'a>() -> AccessRecord<'a> {
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

    fn line(mode: u8, record: &AccessRecord<'_>) -> String {
        let mut scratch = Scratch::default();
        scratch.format(mode, record, SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_341_349_007));
        String::from_utf8(scratch.line).expect("lines are text")
    }

    #[test]
    fn combined_is_apaches_format() {
        assert_eq!(
            line(COMBINED, &record()),
            "127.0.0.1 - - [22/Nov/2026:09:55:49 +0000] \"GET /hello?x=1 HTTP/1.1\" 200 33 \"-\" \"curl/8.5.0\"\n"
        );
    }

    #[test]
    fn combined_escapes_what_could_forge_a_line() {
        let record =
            AccessRecord { target: "/a\"b\\c", user_agent: Some(b"x\" 200\n127.0.0.1 \x1b[31m\xe9\x7f"), ..record() };
        let line = line(COMBINED, &record);
        assert!(line.contains(r#""GET /a\"b\\c HTTP/1.1""#), "{line}");
        assert!(line.ends_with("\"x\\\" 200\\x0a127.0.0.1 \\x1b[31m\\xe9\\x7f\"\n"), "{line}");
    }

    #[test]
    fn json_is_json_whatever_clients_send() {
        let record = AccessRecord {
            cause: Some("cpu"),
            referer: Some(b"\"},{\"\x00\n\\\xff\xc3\xa9\x7f"),
            target: "/\u{2028}",
            ..record()
        };
        let line = line(JSON, &record);
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).expect("the line is JSON");
        assert_eq!(value["time"], "2026-11-22T09:55:49.007Z");
        assert_eq!(value["referer"], "\"},{\"\0\n\\\u{fffd}é\u{7f}");
        assert_eq!(value["target"], "/\u{2028}");
        assert_eq!(
            (&value["status"], &value["duration_us"], &value["cpu_us"]),
            (&200.into(), &1234.into(), &56.into())
        );
        assert_eq!(value["request"], record.request_id.to_string());
        assert_eq!((&value["app"], &value["cause"]), (&"hello".into(), &"cpu".into()));
    }

    #[test]
    fn a_long_text_is_cut() {
        let agent = vec![b'\x01'; 1 << 20];
        let record = AccessRecord { user_agent: Some(&agent), ..record() };
        assert!(line(COMBINED, &record).len() < 5 * TEXT_BYTES_MAX);
        assert!(line(JSON, &record).len() < 7 * TEXT_BYTES_MAX);
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
