//! What an app has done: a few relaxed counters, and their text for Prometheus.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What an app has done since the host started. It outlives the app's releases.
#[derive(Default)]
pub struct Stats {
    /// By the first digit of the status, 1 to 5; 0 for a call that ended without one (the client went away).
    by_class: [AtomicU64; 6],
    /// By cause. Causes are a few literals of `error`, and a failure may take a lock: it is no fast path.
    failures: Mutex<Vec<(&'static str, u64)>>,
    cpu_nanos: AtomicU64,
    response_bytes: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By the first digit of the status, 1 to 5; 0 for a call that ended without one.
    pub by_class: [u64; 6],
    /// Failed calls by cause.
    pub failures: Vec<(&'static str, u64)>,
    /// Guest code running.
    pub cpu: Duration,
    /// Bytes of response bodies.
    pub response_bytes: u64,
}

impl Stats {
    /// Counts one call that is over. A `status` of 0 means that there was none.
    pub fn record(&self, status: u16, cause: Option<&'static str>, cpu: Duration, bytes: u64) {
        let class = match status / 100 {
            class @ 1..=5 => usize::from(class),
            _ => 0,
        };
        self.by_class[class].fetch_add(1, Relaxed);
        self.cpu_nanos.fetch_add(cpu.as_nanos() as u64, Relaxed);
        self.response_bytes.fetch_add(bytes, Relaxed);
        if let Some(cause) = cause {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            match failures.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, count)) => *count += 1,
                None => failures.push((cause, 1)),
            }
        }
    }

    /// Calls so far, of all outcomes.
    pub fn requests(&self) -> u64 {
        self.by_class.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failures.sort_unstable();
        Snapshot {
            by_class: std::array::from_fn(|class| self.by_class[class].load(Relaxed)),
            failures,
            cpu: Duration::from_nanos(self.cpu_nanos.load(Relaxed)),
            response_bytes: self.response_bytes.load(Relaxed),
        }
    }
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The counters of all apps in Prometheus' text format 0.0.4.
pub fn prometheus<'a>(apps: impl Iterator<Item = (&'a str, Snapshot)>) -> String {
    let apps: Vec<_> = apps.map(|(name, snapshot)| (label(name), snapshot)).collect();
    let mut text = String::new();
    let mut family = |name: &str, help: &str, samples: &mut dyn Iterator<Item = (String, String)>| {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter").expect("writing to a string does not fail");
        for (labels, value) in samples {
            writeln!(text, "{name}{{{labels}}} {value}").expect("writing to a string does not fail");
        }
    };
    family(
        "wasgi_requests_total",
        "Calls that are over, by class of status (none: ended without one).",
        &mut apps.iter().flat_map(|(app, snapshot)| {
            CLASSES
                .iter()
                .zip(snapshot.by_class)
                .map(move |(class, count)| (format!("app=\"{app}\",status=\"{class}\""), count.to_string()))
        }),
    );
    family(
        "wasgi_failures_total",
        "Calls that failed, by cause.",
        &mut apps.iter().flat_map(|(app, snapshot)| {
            let sample =
                move |(cause, count): &(&str, u64)| (format!("app=\"{app}\",cause=\"{cause}\""), count.to_string());
            snapshot.failures.iter().map(sample)
        }),
    );
    family(
        "wasgi_cpu_seconds_total",
        "Time that guest code ran.",
        &mut apps.iter().map(|(app, snapshot)| (format!("app=\"{app}\""), snapshot.cpu.as_secs_f64().to_string())),
    );
    family(
        "wasgi_response_bytes_total",
        "Bytes of response bodies.",
        &mut apps.iter().map(|(app, snapshot)| (format!("app=\"{app}\""), snapshot.response_bytes.to_string())),
    );
    text
}

/// A label's value, escaped as the format wants it.
fn label(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_class_and_cause() {
        let stats = Stats::default();
        stats.record(200, None, Duration::from_millis(2), 10);
        stats.record(204, None, Duration::ZERO, 0);
        stats.record(504, Some("cpu"), Duration::from_secs(5), 30);
        stats.record(0, Some("disconnected"), Duration::ZERO, 0);
        stats.record(504, Some("cpu"), Duration::ZERO, 0);
        let snapshot = stats.snapshot();
        assert_eq!(snapshot.by_class, [1, 0, 2, 0, 0, 2]);
        assert_eq!(snapshot.failures, [("cpu", 2), ("disconnected", 1)]);
        assert_eq!((snapshot.cpu, snapshot.response_bytes), (Duration::from_millis(5002), 40));
        assert_eq!(stats.requests(), 5);
    }

    #[test]
    fn prometheus_text_has_one_family_for_all_apps_and_escaped_labels() {
        let stats = Stats::default();
        stats.record(504, Some("cpu"), Duration::from_millis(1500), 7);
        let text = prometheus([("a\"b", stats.snapshot()), ("c", Snapshot::default())].into_iter());
        for line in [
            "# TYPE wasgi_requests_total counter",
            r#"wasgi_requests_total{app="a\"b",status="5xx"} 1"#,
            r#"wasgi_requests_total{app="c",status="2xx"} 0"#,
            r#"wasgi_failures_total{app="a\"b",cause="cpu"} 1"#,
            r#"wasgi_cpu_seconds_total{app="a\"b"} 1.5"#,
            r#"wasgi_response_bytes_total{app="a\"b"} 7"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert_eq!(text.matches("# HELP wasgi_requests_total").count(), 1);
    }
}
