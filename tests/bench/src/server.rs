//! A server process under measurement: pinned to its core, with its processor time, its memory and its end.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to end when it is asked to, before it is killed.
const STOP_TIME: Duration = Duration::from_secs(5);

/// It is ended when it is dropped.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

/// Physical memory of a server, its threads and its children, in bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    /// All of it, with the pages of files that are mapped.
    pub(crate) resident: u64,
    /// What is in no file: the heap, dirty pages of guests.
    pub(crate) anonymous: u64,
}

impl Server {
    /// Starts a command on `cpus` (as taskset reads them). What it says goes to the file `log`.
    ///
    /// # Errors
    /// Where taskset or the log's place is missing.
    pub(crate) fn start(command: &Command, cpus: &str, log: PathBuf) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // taskset becomes the command: the process that is watched is the server itself.
        let mut pinned = Command::new("taskset");
        pinned
            .args(["--cpu-list", cpus])
            .arg(command.get_program())
            .args(command.get_args())
            // With 1, a host that makes an error per request takes a backtrace each time.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => pinned.env(name, value),
                None => pinned.env_remove(name),
            };
        }
        let child = pinned.spawn().context("cannot run taskset: install util-linux")?;
        Ok(Self { child, log })
    }

    /// Fails where the process has ended, with what it said.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("the server ended ({status}): {}", said.trim());
        }
        Ok(())
    }

    /// Processor time that the process, its threads and its children have had so far.
    pub(crate) fn cpu(&self) -> Duration {
        let mut nanos = 0;
        for pid in self.processes() {
            for task in tasks(pid) {
                // The first figure of schedstat is the time on a core in nanoseconds.
                let stat = fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat")).unwrap_or_default();
                let on_cpu = stat.split(' ').next().and_then(|figure| figure.parse().ok());
                nanos += on_cpu.unwrap_or(0_u64);
            }
        }
        Duration::from_nanos(nanos)
    }

    pub(crate) fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for pid in self.processes() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let bytes = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
                kib.unwrap_or(0) << 10
            };
            memory.resident += bytes("VmRSS:");
            memory.anonymous += bytes("RssAnon:");
        }
        memory
    }

    /// The process and all that it has started.
    fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let mut looked_at = 0;
        while let Some(pid) = found.get(looked_at).copied() {
            looked_at += 1;
            for task in tasks(pid) {
                let children = fs::read_to_string(format!("/proc/{pid}/task/{task}/children")).unwrap_or_default();
                found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        found
    }
}

fn tasks(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to ask and nothing to wait for.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < STOP_TIME {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
