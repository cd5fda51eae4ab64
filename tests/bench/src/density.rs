//! Density: what a host with up to ten thousand apps needs to start, to hold them, and to find one of them.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::deploy::{CROWD_PATIENCE, Host, REST, distinct};
use crate::load::Load;
use crate::machine::{Machine, Programs};
use crate::server::Memory;
use crate::table::Table;

/// How many apps a tenant has. Its apps are one component under many names, as those of an agency are: so ten thousand need a hundred
/// compilations.
const APPS_OF_ONE: usize = 100;

/// What a host is asked with at each size.
const CONNECTIONS: usize = 32;

struct Figures {
    apps: usize,
    compiled: Duration,
    started: Duration,
    silent: Memory,
    answered: Memory,
    cpu_micros: f64,
    p50: Duration,
}

pub(crate) fn measure(machine: &Machine, programs: &Programs, sizes: &[usize], time: Duration) -> Result<String> {
    let cpu = machine.server_cpu.to_string();
    let mut empty = Host::start(programs, "density-none", "density-state-none", &cpu)?;
    empty.wait_for("/", 404, empty.started, CROWD_PATIENCE)?;
    std::thread::sleep(REST);
    let memory_empty = empty.server.memory();
    drop(empty);
    let mut rows = Vec::new();
    for size in sizes {
        eprintln!("bench: density, {size} apps");
        rows.push(at(machine, programs, *size, time)?);
    }
    let mut section = String::from("\n## Density\n\n");
    let _ = writeln!(
        section,
        "Apps of the size of hello, {APPS_OF_ONE} of each tenant, which share one component; one worker on one core. From the start of the host until\n\
         the last app answers, when nothing was compiled (all cores) and when all was. Memory for each app: what the host has more than one without\n\
         apps ({:.1} MiB), before anything but the last was asked, and after each was asked once. Then one app of them is asked by {CONNECTIONS}\n\
         connections.\n",
        memory_empty.resident as f64 / f64::from(1 << 20)
    );
    let mut table = Table::new(&[
        "apps",
        "first start s",
        "start s",
        "resident MiB",
        "KiB an app",
        "in no file",
        "after asking",
        "in no file",
        "CPU µs/request",
        "p50 ms",
    ]);
    for row in rows {
        let each = |memory: Memory, part: fn(Memory) -> u64| {
            let more = part(memory).saturating_sub(part(memory_empty)) as f64;
            format!("{:.1}", more / row.apps as f64 / 1024.0)
        };
        table.row(vec![
            row.apps.to_string(),
            format!("{:.2}", row.compiled.as_secs_f64()),
            format!("{:.2}", row.started.as_secs_f64()),
            format!("{:.1}", row.silent.resident as f64 / f64::from(1 << 20)),
            each(row.silent, |memory| memory.resident),
            each(row.silent, |memory| memory.anonymous),
            each(row.answered, |memory| memory.resident),
            each(row.answered, |memory| memory.anonymous),
            format!("{:.1}", row.cpu_micros),
            format!("{:.2}", row.p50.as_secs_f64() * 1e3),
        ]);
    }
    let _ = write!(section, "{table}");
    Ok(section)
}

fn at(machine: &Machine, programs: &Programs, size: usize, time: Duration) -> Result<Figures> {
    let cpu = machine.server_cpu.to_string();
    let (apps, state) = (format!("density-{size}"), format!("density-state-{size}"));
    fill(&programs.scratch.join(&apps), &fs::read(programs.app("hello"))?, size)?;
    let last = format!("/{}", name(size - 1));
    let mut first = Host::start(programs, &apps, &state, &machine.all_cpus)?;
    let compiled = all_live(&mut first, size)?;
    drop(first);
    let mut host = Host::start(programs, &apps, &state, &cpu)?;
    let started = host.wait_for(&last, 200, host.started, CROWD_PATIENCE)?;
    let started = started.max(all_live(&mut host, 1)?);
    std::thread::sleep(REST);
    let silent = host.server.memory();
    for number in 0..size {
        host.wait_for(&format!("/{}", name(number)), 200, Instant::now(), CROWD_PATIENCE)?;
    }
    std::thread::sleep(REST);
    let answered = host.server.memory();
    let load = Load::new(&programs.scratch, CONNECTIONS)?;
    let url = host.client.url(&last);
    load.run(&url, None, Duration::from_secs(1))?;
    let before = host.server.cpu();
    let measured = load.run(&url, None, time)?;
    let cpu_micros = (host.server.cpu() - before).as_secs_f64() * 1e6 / measured.requests;
    Ok(Figures { apps: size, compiled, started, silent, answered, cpu_micros, p50: measured.latency_p50 })
}

/// When the last of the first `count` apps answers, each asked once in a while.
fn all_live(host: &mut Host, count: usize) -> Result<Duration> {
    let mut last = Duration::ZERO;
    for number in (0..count).rev() {
        last = last.max(host.wait_for(&format!("/{}", name(number)), 200, host.started, CROWD_PATIENCE)?);
    }
    Ok(last)
}

fn name(number: usize) -> String {
    format!("tenant-{:03}/app-{number:05}", number / APPS_OF_ONE)
}

/// Names for the same bytes are links to the same file: ten thousand copies would be half a gigabyte.
fn fill(apps: &Path, hello: &[u8], size: usize) -> Result<()> {
    let path = |number: usize| -> PathBuf { apps.join(format!("{}.wasm", name(number))) };
    for number in 0..size {
        let file = path(number);
        if number % APPS_OF_ONE == 0 {
            fs::create_dir_all(file.parent().context("it lies in a folder")?)?;
            fs::write(&file, distinct(hello, number))?;
        } else {
            fs::hard_link(path(number - number % APPS_OF_ONE), &file)?;
        }
        fs::write(file.with_extension("toml"), format!("[env]\nNUMBER = \"{number}\"\n"))?;
    }
    Ok(())
}
