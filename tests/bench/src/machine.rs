//! The machine: which core serves and which makes the load, what to write above the figures, and where the programs are.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::Arguments;

/// The two cores of the benchmark. This process, and wrk with it, has moved to the load's.
pub(crate) struct Machine {
    pub(crate) server_cpu: usize,
    pub(crate) load_cpu: usize,
    /// All that may be used, as taskset reads it.
    pub(crate) all_cpus: String,
}

impl Machine {
    /// Takes the first two cores that this process may use, and moves to the second of them.
    ///
    /// # Errors
    /// Where there is only one: server and load would measure each other.
    pub(crate) fn take() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").context("/proc is not mounted")?;
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .context("the kernel does not say which cores may be used")?
            .trim();
        let cpus = cpu_list(allowed).with_context(|| format!("cores {allowed}"))?;
        let [server_cpu, load_cpu, ..] = cpus[..] else {
            bail!("two cores are needed, one for the server and one for the load");
        };
        let moved = Command::new("taskset")
            .args(["--cpu-list", "--pid", &load_cpu.to_string(), &std::process::id().to_string()])
            .output()
            .context("cannot run taskset: install util-linux")?;
        ensure!(moved.status.success(), "taskset cannot move this process to core {load_cpu}");
        Ok(Self { server_cpu, load_cpu, all_cpus: allowed.to_owned() })
    }

    /// The report's head.
    pub(crate) fn describe(&self, programs: &Programs) -> Result<String> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown processor", |(_, name)| name);
        let kernel = read("/proc/sys/kernel/osrelease");
        let busy = read("/proc/loadavg");
        let busy = busy.split(' ').next().unwrap_or("?");
        let today = OffsetDateTime::now_utc().format(format_description!("[year]-[month]-[day]"))?;
        let mut head = String::from("# Measured\n\n");
        let _ = writeln!(
            head,
            "{today}, {model}, Linux {}; core {} serves, core {} makes the load; load average at the start {busy}\n\
             (the figures want a quiet machine: below 0.5). {}; {}.",
            kernel.trim(),
            self.server_cpu,
            self.load_cpu,
            version(&programs.wasgi)?,
            match &programs.wasmtime {
                Some(wasmtime) => version(wasmtime)?,
                None => "no wasmtime".to_owned(),
            },
        );
        if cfg!(debug_assertions) {
            head.push_str("\n**Not a release build: these figures say nothing about speed.**\n");
        }
        Ok(head)
    }
}

/// "0-2,8" → 0, 1, 2, 8
fn cpu_list(text: &str) -> Result<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cpus)
}

fn version(program: &Path) -> Result<String> {
    let output =
        Command::new(program).arg("--version").output().with_context(|| format!("cannot run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What the names of access logs end with.
const ACCESS_LOG: &str = "-access.log";

/// Where everything is, with the apps in place.
pub(crate) struct Programs {
    pub(crate) wasgi: PathBuf,
    pub(crate) yardstick: PathBuf,
    pub(crate) micro: PathBuf,
    pub(crate) wasmtime: Option<PathBuf>,
    /// wasi_http.wasm and wasi_http_p3.wasm, for `wasmtime serve` too.
    pub(crate) wasi_http: PathBuf,
    pub(crate) wasi_http_p3: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) python: Python,
}

/// What apps in Python are built with, and served by natively.
pub(crate) struct Python {
    pub(crate) sources: PathBuf,
    pub(crate) sdk: PathBuf,
    pub(crate) native: PathBuf,
}

impl Programs {
    /// Checks that all of it is there, and lays out the scratch directory.
    ///
    /// # Errors
    /// Names what is missing.
    pub(crate) fn find(arguments: &Arguments) -> Result<Self> {
        let Arguments { programs, guests, .. } = arguments;
        let there = |path: PathBuf| {
            ensure!(path.is_file(), "{} is missing: run `make bench`", path.display());
            Ok(path.canonicalize()?)
        };
        // What an earlier run left would make this one's first starts warm.
        if arguments.scratch.exists() {
            std::fs::remove_dir_all(&arguments.scratch)
                .with_context(|| format!("cannot empty {}", arguments.scratch.display()))?;
        }
        std::fs::create_dir_all(arguments.scratch.join("apps"))?;
        let found = Self {
            wasgi: there(programs.join("wasgi"))?,
            yardstick: there(programs.join("yardstick"))?,
            micro: there(programs.join("micro"))?,
            wasmtime: arguments.wasmtime.clone().map(there).transpose()?,
            wasi_http: there(guests.join("wasi_http.wasm"))?,
            wasi_http_p3: there(guests.join("wasi_http_p3.wasm"))?,
            scratch: arguments.scratch.canonicalize()?,
            python: Python {
                sources: arguments.python_sources.canonicalize().context("--python-sources")?,
                sdk: arguments.python_sdk.canonicalize().context("--python-sdk: run `make bench`")?,
                native: arguments.native_python.canonicalize().context("--native-python: run `make bench`")?,
            },
        };
        for (name, built) in [
            ("hello", guests.join("hello.wasm")),
            ("hello-lean", guests.join("hello_lean.wasm")),
            ("work", guests.join("work.wasm")),
            ("hog", guests.join("hog.wasm")),
            ("hello-cgi", guests.join("hello-cgi.wasm")),
            ("wasi-http", guests.join("wasi_http.wasm")),
            ("wasi-http-p3", guests.join("wasi_http_p3.wasm")),
        ] {
            std::fs::copy(there(built)?, found.app(name))?;
        }
        Ok(found)
    }

    /// The directory of apps that the throughput is measured with.
    pub(crate) fn apps(&self) -> PathBuf {
        self.scratch.join("apps")
    }

    pub(crate) fn app(&self, name: &str) -> PathBuf {
        self.apps().join(format!("{name}.wasm"))
    }

    /// Access logs of earlier turns: a run writes gigabytes of them.
    pub(crate) fn remove_access_logs(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.scratch)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(ACCESS_LOG) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// `wasgi serve` as operators run it, on one worker: every limit, the access log and the counters are on.
    pub(crate) fn wasgi_serve(&self, apps: &Path, state: &str, port: u16) -> Command {
        self.wasgi_serve_with(apps, state, port, 1)
    }

    /// The same on so many workers.
    pub(crate) fn wasgi_serve_with(&self, apps: &Path, state: &str, port: u16, workers: usize) -> Command {
        let mut command = Command::new(&self.wasgi);
        command
            .arg("serve")
            .arg(apps)
            .args(["--bind", &format!("127.0.0.1:{port}"), "--workers", &workers.to_string()])
            .arg("--access-log-file")
            .arg(self.scratch.join(format!("{state}{ACCESS_LOG}")))
            .arg("--state-dir")
            .arg(self.scratch.join(state));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_have_ranges() {
        assert_eq!(cpu_list("0-2,8").unwrap(), [0, 1, 2, 8]);
        assert_eq!(cpu_list("3").unwrap(), [3]);
        assert!(cpu_list("all").is_err());
    }
}
