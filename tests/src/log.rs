//! What a host says: every line of its log and access log as an [`Event`], kept, searched and waited for.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;

/// One line: an object where it is JSON, else a text.
#[derive(Clone, Debug)]
pub struct Event(Value);

impl Event {
    pub(crate) fn new(value: Value) -> Self {
        Self(value)
    }

    fn parse(line: &str) -> Self {
        Self(serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_owned())))
    }

    /// A field as text; "" where it is not there. `message` is what the line says.
    pub fn text(&self, field: &str) -> String {
        match &self.0[field] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// A field as a number; 0 where it is not there.
    pub fn number(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or(0)
    }

    pub fn message(&self) -> String {
        match &self.0 {
            Value::String(line) => line.clone(),
            _ => self.text("message"),
        }
    }
}

impl std::fmt::Display for Event {
    /// All of the line.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Value::String(line) => formatter.write_str(line),
            object => object.fmt(formatter),
        }
    }
}

/// All lines so far.
#[derive(Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    events: Mutex<Vec<Event>>,
    grown: Condvar,
}

impl Log {
    /// Follows a pipe until its end, in a thread of its own.
    pub(crate) fn follow(&self, pipe: impl Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let event = Event::parse(&String::from_utf8_lossy(&line));
                log.lock().push(event);
                log.0.grown.notify_all();
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that fit, now.
    pub fn all(&self, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        self.lock().iter().filter(|event| fits(event)).cloned().collect()
    }

    /// Waits for the first that fits.
    ///
    /// # Panics
    /// If none comes; shows the whole log.
    #[track_caller]
    pub fn wait(&self, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
        self.wait_for(what, 1, fits).remove(0)
    }

    /// Waits for `count` of them.
    ///
    /// # Panics
    /// If fewer come; shows the whole log.
    #[track_caller]
    pub fn wait_for(&self, what: &str, count: usize, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        self.wait_within(PATIENCE, what, count, fits)
    }

    #[track_caller]
    pub(crate) fn wait_within(
        &self,
        patience: Duration,
        what: &str,
        count: usize,
        fits: impl Fn(&Event) -> bool,
    ) -> Vec<Event> {
        let deadline = Instant::now() + patience;
        let mut events = self.lock();
        loop {
            let found: Vec<Event> = events.iter().filter(|event| fits(event)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let lines: Vec<String> = events.iter().map(|event| event.0.to_string()).collect();
                panic!("the log does not show {count} of: {what}\n{}", lines.join("\n"));
            }
            events = self.0.grown.wait_timeout(events, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
