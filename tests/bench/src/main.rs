//! `make bench`: one table from one run, of servers that take turns on one core while the load comes from another.
//!
//! | module | sole responsibility |
//! | --- | --- |
//! | [`lineup`] | which rows there are: the file to extend |
//! | [`machine`] | which cores, what the machine is, where the programs are |
//! | [`server`] | a server process: pinned, watched, its processor time and memory |
//! | [`client`] | single requests that look at the answer |
//! | [`load`] | many requests, by wrk |
//! | [`throughput`] | interleaved rounds, and the ratios between rows |
//! | [`deploy`] | dropped file → first 200; a directory of many apps |
//! | [`density`] | ten to ten thousand apps in one host |
//! | [`fairness`] | an app whose neighbours do their worst |
//! | [`python`] | apps in Python: from source to file, from file to first 200 |
//! | [`table`] | how all of it is printed |
//!
//! It builds nothing (the Makefile does) and judges nothing: what is to be reached stands beside what was.

mod client;
mod density;
mod deploy;
mod fairness;
mod lineup;
mod load;
mod machine;
mod python;
mod server;
mod table;
mod throughput;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::machine::{Machine, Programs};
use crate::throughput::Rounds;

/// What a run consists of. The Makefile fills in the paths.
#[derive(Parser)]
#[command(name = "bench", about = "Measure wasgi beside a yardstick and its neighbours")]
struct Arguments {
    /// Where cargo put the release builds of wasgi, yardstick and micro.
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,

    /// The wasmtime command; without it its rows are left out.
    #[arg(long, value_name = "FILE")]
    wasmtime: Option<PathBuf>,

    /// Built guests: hello.wasm, hello_lean.wasm, work.wasm, wasi_http.wasm.
    #[arg(long, value_name = "DIR")]
    guests: PathBuf,

    /// Where pip has put gunicorn, uWSGI and the frameworks.
    #[arg(long, value_name = "DIR")]
    native_python: PathBuf,

    /// Where pip has put the SDK for Python.
    #[arg(long, value_name = "DIR")]
    python_sdk: PathBuf,

    /// The apps in Python: tests/bench/python.
    #[arg(long, value_name = "DIR")]
    python_sources: PathBuf,

    /// For apps, state and logs of the measured servers; emptied first.
    #[arg(long, value_name = "DIR")]
    scratch: PathBuf,

    /// Where the report goes, besides stdout.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,

    /// Short rounds and few apps: to see whether it works, not what comes out.
    #[arg(long)]
    quick: bool,

    /// How often each row has its turn [default: 7, quick: 2].
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// How long a turn is [default: 3, quick: 1].
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,

    /// Connections that the load keeps busy.
    #[arg(long, value_name = "N", default_value_t = 32)]
    connections: usize,

    /// The parts to run.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    parts: Vec<Part>,

    /// Only rows whose name contains TEXT, and the ones they are compared with.
    #[arg(long, value_name = "TEXT", default_value = "")]
    rows: String,

    /// Apps in the crowded directory [default: 1000, quick: 50].
    #[arg(long, value_name = "N")]
    apps: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Requests per second, processor time, latency, memory.
    Throughput,
    /// A call taken apart into its steps.
    Micro,
    /// A dropped file's way to its first 200; a directory of many apps.
    Deploy,
    /// Ten to ten thousand apps in one host.
    Density,
    /// An app whose neighbours do their worst.
    Fairness,
    /// Apps in Python: builds, starts, requests beside gunicorn and uWSGI.
    Python,
}

impl Part {
    const ALL: [Self; 6] = [Self::Throughput, Self::Micro, Self::Deploy, Self::Density, Self::Fairness, Self::Python];
}

impl Arguments {
    /// The value for a full or for a quick run, where the command line says nothing.
    fn or<T>(&self, given: Option<T>, full: T, quick: T) -> T {
        given.unwrap_or(if self.quick { quick } else { full })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let machine = Machine::take()?;
    let programs = Programs::find(&arguments)?;
    let mut report = machine.describe(&programs)?;
    // Whoever watches sees each part when it is there.
    print!("{report}");
    for part in &arguments.parts {
        let section = match part {
            Part::Throughput => throughput(&arguments, &machine, &programs)?,
            Part::Micro => micro(&arguments, &machine, &programs)?,
            Part::Deploy => deploy(&arguments, &machine, &programs)?,
            Part::Density => density(&arguments, &machine, &programs)?,
            Part::Fairness => fairness(&arguments, &machine, &programs)?,
            Part::Python => python(&arguments, &machine, &programs)?,
        };
        print!("{section}");
        report.push_str(&section);
    }
    std::fs::write(&arguments.report, &report)
        .with_context(|| format!("cannot write the report to {}", arguments.report.display()))?;
    println!("\nreport: {}", arguments.report.display());
    Ok(())
}

impl Arguments {
    fn rounds_of_throughput(&self) -> Rounds {
        Rounds {
            count: self.or(self.rounds, 7, 2),
            time: Duration::from_secs(self.or(self.seconds, 3, 1)),
            connections: self.connections,
        }
    }
}

fn throughput(arguments: &Arguments, machine: &Machine, programs: &Programs) -> Result<String> {
    let rows = lineup::rows(programs, &arguments.rows);
    ensure!(!rows.is_empty(), "no row's name contains \"{}\"", arguments.rows);
    let rounds = arguments.rounds_of_throughput();
    Ok(format!("\n## Requests\n\n{}", throughput::measure(machine, programs, &rows, lineup::COMPARED, &rounds)?))
}

fn density(arguments: &Arguments, machine: &Machine, programs: &Programs) -> Result<String> {
    let sizes: &[usize] = if arguments.quick { &[10, 100] } else { &[10, 100, 1000, 10_000] };
    density::measure(machine, programs, sizes, Duration::from_secs(arguments.or(arguments.seconds, 3, 1)))
}

fn fairness(arguments: &Arguments, machine: &Machine, programs: &Programs) -> Result<String> {
    let rounds = arguments.or(arguments.rounds, 3, 1);
    let time = Duration::from_secs(arguments.or(arguments.seconds, 8, 2));
    fairness::measure(machine, programs, &arguments.rows, rounds, time)
}

fn python(arguments: &Arguments, machine: &Machine, programs: &Programs) -> Result<String> {
    let rows = lineup::python_rows(programs, &arguments.rows, arguments.connections);
    ensure!(!rows.is_empty(), "no row's name in Python contains \"{}\"", arguments.rows);
    let apps: Vec<_> = python::APPS.iter().filter(|app| rows.iter().any(|row| row.work == app.work)).collect();
    let mut section = format!("\n## Python\n\n{}", python::builds(programs, &apps)?);
    section.push_str(&python::starts(machine, programs, &apps)?);
    let rounds = arguments.rounds_of_throughput();
    let requests = throughput::measure(machine, programs, &rows, lineup::COMPARED_IN_PYTHON, &rounds)?;
    let _ = write!(section, "\n### Requests to apps in Python\n\n{}{requests}", python::versions(programs)?);
    Ok(section)
}

fn micro(arguments: &Arguments, machine: &Machine, programs: &Programs) -> Result<String> {
    let calls = arguments.or(None, 5000, 500);
    let output = Command::new("taskset")
        .args(["--cpu-list", &machine.server_cpu.to_string()])
        .arg(&programs.micro)
        .arg(calls.to_string())
        .args([programs.app("hello-lean"), programs.app("hello")])
        .env("RUST_BACKTRACE", "0")
        .output()
        .context("cannot run taskset: install util-linux")?;
    ensure!(output.status.success(), "micro failed: {}", String::from_utf8_lossy(&output.stderr));
    let mut section = String::from("\n## A call, step by step\n\n");
    section
        .push_str("In a loop, without a server: caches are warmer than between requests. Microseconds; the best of ");
    let _ = writeln!(section, "21 rounds of {calls} calls (the median's total).\n");
    section.push_str(std::str::from_utf8(&output.stdout)?);
    Ok(section)
}

fn deploy(arguments: &Arguments, machine: &Machine, programs: &Programs) -> Result<String> {
    let drops = arguments.or(None, 20, 3);
    let apps = arguments.or(arguments.apps, 1000, 50);
    let mut section = deploy::drops(machine, programs, drops)?;
    section.push_str(&deploy::crowd(machine, programs, apps)?);
    Ok(section)
}
