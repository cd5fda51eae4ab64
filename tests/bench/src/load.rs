//! Many requests: wrk, which makes more of them on one core than any server here answers.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The script that makes wrk send bodies and report figures instead of prose.
const SCRIPT: &str = include_str!("wrk.lua");

pub(crate) struct Load {
    pub(crate) script: PathBuf,
    pub(crate) connections: usize,
}

/// What came of it.
pub(crate) struct Answered {
    pub(crate) requests: f64,
    pub(crate) time: Duration,
    /// From sending a request to the end of its answer, with all connections busy.
    pub(crate) latency_p50: Duration,
    pub(crate) latency_p99: Duration,
}

impl Load {
    pub(crate) fn new(scratch: &std::path::Path, connections: usize) -> Result<Self> {
        let script = scratch.join("wrk.lua");
        std::fs::write(&script, SCRIPT)?;
        Ok(Self { script, connections })
    }

    /// Keeps all connections busy with this request for about `time` (whole seconds: wrk knows no others).
    ///
    /// # Errors
    /// Where a single request failed: figures of a server that fails mean nothing.
    pub(crate) fn run(&self, url: &str, upload: Option<usize>, time: Duration) -> Result<Answered> {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{}s", time.as_secs().max(1))])
            .args(["--timeout", "10s", "--script"])
            .arg(&self.script)
            .arg(url);
        if let Some(bytes) = upload {
            wrk.args(["--", &bytes.to_string()]);
        }
        let output = wrk.output().context("cannot run wrk: install it")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("measured "));
        let line = line.with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("wrk reported nothing: {text}{said}")
        })?;
        let figures: Vec<u64> = line.split(' ').filter_map(|figure| figure.parse().ok()).collect();
        let [requests, time, latency_p50, latency_p99, errors] = figures[..] else {
            anyhow::bail!("wrk reported {line}");
        };
        ensure!(errors == 0, "{errors} of {requests} requests failed");
        ensure!(requests > 0, "not one request was answered");
        Ok(Answered {
            requests: requests as f64,
            time: Duration::from_micros(time),
            latency_p50: Duration::from_micros(latency_p50),
            latency_p99: Duration::from_micros(latency_p99),
        })
    }
}
