//! What an app prints becomes lines of the host's log: with its name, cut when long, dropped and counted when too many.
//! Nothing that a guest writes can look like a line of the host.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::account::Account;
use crate::limits::Limits;
use crate::telemetry::RequestId;
use crate::telemetry::tail::Tail;

/// Where an app's own lines go.
pub struct AppLog {
    app: String,
    line_bytes_max: usize,
    budget: Mutex<Budget>,
    /// Its tenant's, which bounds the lines of all its apps together.
    account: Arc<Account>,
    /// For capsules, and the pages of development mode.
    tail: Tail,
}

/// Of all calls of an app together. In development mode there are few apps, and somebody looks at each.
const TAIL_BYTES: usize = 4 << 10;
const LONG_TAIL_BYTES: usize = 64 << 10;

/// What an app wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
    /// `wsgi.errors`
    Errors,
}

impl LogStream {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Errors => "errors",
        }
    }
}

/// A bucket that fills with `log_bytes_per_second` and holds what comes in one second.
struct Budget {
    bytes_per_second: f64,
    bytes: f64,
    filled: Instant,
    dropped_lines: u64,
}

/// A line costs this much besides its text, so that empty lines are not free.
const LINE_COST_BYTES: usize = 64;

impl AppLog {
    pub fn new(app: &str, limits: &Limits, account: &Arc<Account>) -> Self {
        let bytes_per_second = limits.log_bytes_per_second as f64;
        Self {
            app: app.to_owned(),
            line_bytes_max: limits.log_line_bytes as usize,
            budget: Mutex::new(Budget {
                bytes_per_second,
                bytes: bytes_per_second,
                filled: Instant::now(),
                dropped_lines: 0,
            }),
            account: Arc::clone(account),
            tail: Tail::new(TAIL_BYTES),
        }
    }

    /// Whether a line of so many bytes may be logged now; and if it may, how many were dropped since the last one.
    fn spend(&self, bytes: usize) -> (bool, u64) {
        let (cost, now) = (bytes + LINE_COST_BYTES, Instant::now());
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let (allowed, dropped) = budget.spend(cost, now);
        if allowed && !self.account.log(cost, now) {
            budget.dropped_lines += dropped + 1;
            return (false, 0);
        }
        (allowed, dropped)
    }

    /// Keeps more of its lines, for the pages of development mode.
    #[must_use]
    pub fn keeping_more(mut self) -> Self {
        self.tail = Tail::new(LONG_TAIL_BYTES);
        self
    }

    /// The last lines of a call.
    pub fn lines_of(&self, request: RequestId) -> Vec<(LogStream, String)> {
        let own = self.last_lines().into_iter().filter(|(of, ..)| *of == Some(request));
        own.map(|(_, stream, line)| (stream, line)).collect()
    }

    /// The last lines of all its calls, the newest last.
    pub(crate) fn last_lines(&self) -> Vec<(Option<RequestId>, LogStream, String)> {
        let text = |line: &[u8]| Escaped { line, cut: false }.to_string();
        self.tail.lines().into_iter().map(|kept| (kept.request, kept.stream, text(&kept.line))).collect()
    }

    /// Logs one line, given without its `\n`. Bytes that are not UTF-8 are replaced, control characters escaped; beyond
    /// the app's limits it is cut, or dropped and counted. Says whether it was logged.
    pub fn line(&self, stream: LogStream, request: Option<RequestId>, line: &[u8]) -> bool {
        let cut = line.len() > self.line_bytes_max;
        let line = &line[..line.len().min(self.line_bytes_max)];
        let (allowed, dropped) = self.spend(line.len());
        self.report_dropped(dropped);
        if !allowed {
            return false;
        }
        let app = self.app.as_str();
        let text = Escaped { line, cut };
        self.tail.push(request, stream, line);
        let stream = stream.as_str();
        match request {
            Some(request) => tracing::info!(target: "wasgi::app", app, stream, %request, "{text}"),
            None => tracing::info!(target: "wasgi::app", app, stream, "{text}"),
        }
        true
    }

    /// A text of the guest's that is to be part of a line of the host's: what an exception or a trap says. It counts like a
    /// line of the app; beyond the app's limit, what is returned says so instead.
    pub fn charged(&self, text: String) -> String {
        let (allowed, dropped) = self.spend(text.len());
        self.report_dropped(dropped);
        if allowed { text } else { "(what it says is dropped: more than limits.log_rate)".to_owned() }
    }

    fn report_dropped(&self, lines: u64) {
        if lines > 0 {
            let app = self.app.as_str();
            tracing::warn!(target: "wasgi::app", app, "{lines} lines of the app were dropped: more than limits.log_rate, or its tenant's budget.log_rate");
        }
    }

    /// Counts lines as dropped that nobody has looked at.
    fn drop_lines(&self, lines: usize) {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).dropped_lines += lines as u64;
    }
}

impl Budget {
    /// Whether a line of `cost` bytes may be logged now; and if it may, how many were dropped since the last one.
    fn spend(&mut self, cost: usize, now: Instant) -> (bool, u64) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.bytes = (self.bytes + elapsed * self.bytes_per_second).min(self.bytes_per_second);
        // The bucket may go below zero by one line: a line longer than a second's budget would never come otherwise.
        if self.bytes <= 0.0 {
            self.dropped_lines += 1;
            return (false, 0);
        }
        self.bytes -= cost as f64;
        (true, std::mem::take(&mut self.dropped_lines))
    }
}

/// A guest's bytes as text that cannot break out of its line, move a terminal's cursor or turn its letters round.
struct Escaped<'a> {
    line: &'a [u8],
    cut: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.line.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\t' => f.write_char('\t')?,
                    _ if is_unprintable(character) => write!(f, "{}", character.escape_default())?,
                    _ => f.write_char(character)?,
                }
            }
            // The last character may be one that the cut went through: no fault of the guest's.
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        if self.cut { f.write_str("… (cut: longer than limits.log_line_size)") } else { Ok(()) }
    }
}

/// A guest's text of several lines for one event of the host's log: escaped, the lines after the first indented, cut after
/// `bytes_max`.
pub fn printable(text: &str, bytes_max: usize) -> String {
    let kept = &text[..text.floor_char_boundary(bytes_max)];
    let lines: Vec<_> = kept
        .lines()
        .take(PRINTABLE_LINES_MAX)
        .map(|line| Escaped { line: line.as_bytes(), cut: false }.to_string())
        .collect();
    lines.join("\n  ")
}

/// A traceback has as many; sixteen thousand empty lines have no use.
const PRINTABLE_LINES_MAX: usize = 200;

/// What moves a terminal's cursor or worse, line and paragraph separators, and what changes the direction of the text around it.
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Makes lines of what is written piece by piece. It holds at most one line of the app's limit.
pub struct LineBuffer {
    stream: LogStream,
    line: Vec<u8>,
}

impl LineBuffer {
    pub fn new(stream: LogStream) -> Self {
        Self { stream, line: Vec::new() }
    }

    /// Takes what was written; logs the lines that it completes.
    pub fn write(&mut self, log: &AppLog, request: Option<RequestId>, bytes: &[u8]) {
        let mut left = bytes;
        while let Some(end) = left.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&left[..end], &left[end + 1..]);
            left = rest;
            // The usual case, a whole line in one write, is not copied.
            let logged = if self.line.is_empty() {
                log.line(self.stream, request, without_return(line))
            } else {
                self.append(log, line);
                self.flush(log, request)
            };
            // One write may hold millions of lines, and nothing else runs on this thread meanwhile: those behind one that
            // was dropped are only counted.
            if !logged {
                let last = left.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                log.drop_lines(left[..last].iter().filter(|byte| **byte == b'\n').count());
                left = &left[last..];
            }
        }
        self.append(log, left);
    }

    /// Ends a line that has no `\n` yet. Nothing written, no line. Says whether it was logged.
    pub fn flush(&mut self, log: &AppLog, request: Option<RequestId>) -> bool {
        if self.line.is_empty() {
            return true;
        }
        let logged = log.line(self.stream, request, without_return(&self.line));
        self.line.clear();
        logged
    }

    fn append(&mut self, log: &AppLog, bytes: &[u8]) {
        // One byte more than is kept lets `line` see that something was cut.
        let room = (log.line_bytes_max + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    /// What a subscriber prints while `run` runs.
    fn logged(run: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("no test panics with it").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, run);
        let bytes = sink.0.lock().expect("no test panics with it").clone();
        String::from_utf8(bytes).expect("lines are text")
    }

    fn log(log_line_bytes: u64, log_bytes_per_second: u64) -> AppLog {
        AppLog::new(
            "hello",
            &Limits { log_line_bytes, log_bytes_per_second, ..Limits::default() },
            &Account::of_nobody(),
        )
    }

    #[track_caller]
    fn check(written: &[&[u8]], expected: &[&str]) {
        let log = log(16, 1 << 20);
        let text = logged(|| {
            let mut buffer = LineBuffer::new(LogStream::Stdout);
            written.iter().for_each(|bytes| buffer.write(&log, None, bytes));
            buffer.flush(&log, None);
        });
        let expected: Vec<_> =
            expected.iter().map(|line| format!(" INFO wasgi::app: {line} app=\"hello\" stream=\"stdout\"")).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn writes_become_lines() {
        check(&[b"one\ntwo\r\n", b"th", b"ree", b"\nrest"], &["one", "two", "three", "rest"]);
    }

    #[test]
    fn an_empty_line_is_a_line_and_no_write_is_none() {
        check(&[b"\n"], &[""]);
        check(&[b""], &[]);
    }

    #[test]
    fn a_guest_cannot_forge_a_line() {
        check(&[b"a\x1b[2J\rb\x00\n"], &[r"a\u{1b}[2J\rb\u{0}"]);
        check(&["a\u{202e}b\u{2028}c\n".as_bytes()], &[r"a\u{202e}b\u{2028}c"]);
        check(&[b"caf\xe9\n"], &["caf\u{fffd}"]);
    }

    #[test]
    fn a_long_line_is_cut_whether_it_comes_whole_or_in_pieces() {
        let cut = "0123456789abcdef… (cut: longer than limits.log_line_size)";
        check(&[b"0123456789abcdefgh\n"], &[cut]);
        check(&[b"0123456789", b"abcdefgh", b"ijkl\nx"], &[cut, "x"]);
        check(&[b"0123456789abcdef\n"], &["0123456789abcdef"]);
    }

    #[test]
    fn a_buffer_holds_no_more_than_a_line() {
        let log = log(64, 1024);
        let mut buffer = LineBuffer::new(LogStream::Stderr);
        (0..1000).for_each(|_| buffer.write(&log, None, &[b'x'; 1000]));
        assert!(buffer.line.capacity() <= 256, "{}", buffer.line.capacity());
    }

    #[test]
    fn a_flood_of_lines_in_one_write_is_counted_not_handled_one_by_one() {
        let log = log(64, 1024);
        let text = logged(|| {
            let mut buffer = LineBuffer::new(LogStream::Errors);
            buffer.write(&log, None, &[b'\n'; 1 << 24]);
            buffer.write(&log, None, b"rest");
            assert_eq!(buffer.line, b"rest");
        });
        let shown = text.lines().count() as u64;
        assert!(shown < 100, "{shown} lines");
        let dropped = log.budget.lock().expect("no test panics with it").dropped_lines;
        assert_eq!(dropped + shown, 1 << 24);
    }

    #[test]
    fn a_text_of_many_lines_is_cut() {
        assert_eq!(printable(&"\n".repeat(1 << 14), 1 << 14).lines().count(), PRINTABLE_LINES_MAX);
    }

    #[test]
    fn the_request_is_named() {
        let request = RequestId::next();
        let text = logged(|| _ = log(64, 1024).line(LogStream::Errors, Some(request), b"x"));
        assert!(text.contains(&format!("stream=\"errors\" request={request}")), "{text}");
    }

    #[test]
    fn beyond_the_rate_lines_are_dropped_and_counted() {
        let mut budget = Budget { bytes_per_second: 1000.0, bytes: 1000.0, filled: Instant::now(), dropped_lines: 0 };
        let start = budget.filled;
        let passed = (0..50).filter(|_| budget.spend(100, start).0).count();
        assert_eq!(passed, 10);
        assert_eq!(budget.spend(100, start), (false, 0));
        assert_eq!(budget.spend(100, start + Duration::from_millis(200)), (true, 41));
        assert_eq!(budget.spend(100, start + Duration::from_millis(200)), (true, 0));
        assert!(!budget.spend(100, start + Duration::from_millis(200)).0);
    }

    #[test]
    fn dropped_lines_are_reported_once() {
        let log = log(64, 1000);
        let text = logged(|| {
            (0..100).for_each(|_| _ = log.line(LogStream::Stdout, None, &[b'x'; 36]));
            log.budget.lock().expect("no test panics with it").bytes = 1000.0;
            log.line(LogStream::Stdout, None, b"again");
        });
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[lines.len() - 2].contains("lines of the app were dropped"), "{text}");
        assert!(lines[lines.len() - 1].contains("again"), "{text}");
        assert_eq!(lines.iter().filter(|line| line.contains("dropped")).count(), 1);
    }
}
