//! Deploying: how long until a dropped file answers, and what a directory of many apps costs.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::{Client, free_port};
use crate::lineup::Work;
use crate::machine::{Machine, Programs};
use crate::server::{Memory, Server};
use crate::table::{Table, median};

/// How long one app may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a thousand of them may take to be compiled.
pub(crate) const CROWD_PATIENCE: Duration = Duration::from_secs(1800);

/// Memory is looked at when nothing has happened for this long.
pub(crate) const REST: Duration = Duration::from_secs(3);

/// A wasgi with an apps directory and a state directory of its own.
pub(crate) struct Host {
    pub(crate) server: Server,
    pub(crate) client: Client,
    apps: PathBuf,
    pub(crate) started: Instant,
}

impl Host {
    pub(crate) fn start(programs: &Programs, apps: &str, state: &str, cpus: &str) -> Result<Self> {
        let apps = programs.scratch.join(apps);
        fs::create_dir_all(&apps)?;
        let port = free_port()?;
        let command = programs.wasgi_serve(&apps, state, port);
        let log = programs.scratch.join("server.log");
        let started = Instant::now();
        Ok(Self { server: Server::start(&command, cpus, log)?, client: Client::new(port), apps, started })
    }

    pub(crate) fn wait_for(&mut self, path: &str, status: u16, since: Instant, patience: Duration) -> Result<Duration> {
        self.client.wait_for(&mut self.server, path, status, since, patience)
    }

    /// Renames an app into place, and asks until it answers.
    fn drop_in(&mut self, wasm: &[u8]) -> Result<Duration> {
        put(&self.apps, "dropped", wasm)?;
        let dropped = Instant::now();
        let time = self.wait_for("/dropped", 200, dropped, PATIENCE)?;
        self.client.check("/dropped", None, &Work::Hello.answer())?;
        Ok(time)
    }

    fn take_out(&mut self) -> Result<()> {
        fs::remove_file(self.apps.join("dropped.wasm"))?;
        self.wait_for("/dropped", 404, Instant::now(), PATIENCE)?;
        Ok(())
    }
}

/// Dropped file → first 200, compiled and from the cache.
pub(crate) fn drops(machine: &Machine, programs: &Programs, count: usize) -> Result<String> {
    eprintln!("bench: dropping {count} files");
    let hello = fs::read(programs.app("hello"))?;
    let cpu = machine.server_cpu.to_string();
    let mut host = Host::start(programs, "drop-apps", "drop-state", &cpu)?;
    host.wait_for("/", 404, host.started, PATIENCE)?;
    let (mut compiled, mut cached) = (Vec::new(), Vec::new());
    for number in 0..count {
        let wasm = distinct(&hello, number);
        for times in [&mut compiled, &mut cached] {
            times.push(host.drop_in(&wasm)?);
            host.take_out()?;
        }
    }
    let mut section = String::from("\n## Deploying\n\n");
    let _ = writeln!(
        section,
        "A file (the hello of {} bytes) renamed into the apps directory → the first 200, asked every millisecond; {count} files,\n\
         host and compiler on one core.\n",
        hello.len()
    );
    let mut table = Table::new(&["ms", "median", "least", "most"]);
    for (name, times) in [("never seen: compiled", compiled), ("seen before: from the compiled cache", cached)] {
        let millis = || times.iter().map(|time| time.as_secs_f64() * 1e3);
        table.row(vec![
            name.to_owned(),
            format!("{:.0}", median(millis())),
            format!("{:.0}", millis().fold(f64::INFINITY, f64::min)),
            format!("{:.0}", millis().fold(0.0, f64::max)),
        ]);
    }
    let _ = write!(section, "{table}");
    Ok(section)
}

/// Start-up with many apps, all cached, and what each costs while it is idle.
pub(crate) fn crowd(machine: &Machine, programs: &Programs, count: usize) -> Result<String> {
    let cpu = machine.server_cpu.to_string();
    let mut empty = Host::start(programs, "crowd-none", "crowd-state-none", &cpu)?;
    empty.wait_for("/", 404, empty.started, PATIENCE)?;
    std::thread::sleep(REST);
    let memory_empty = empty.server.memory();
    drop(empty);

    eprintln!("bench: compiling {count} apps");
    let hello = fs::read(programs.app("hello"))?;
    let apps = programs.scratch.join("crowd");
    fs::create_dir_all(&apps)?;
    for number in 0..count {
        put(&apps, &app(number), &distinct(&hello, number))?;
    }
    // The first start compiles; that may take all cores.
    let mut first = Host::start(programs, "crowd", "crowd-state", &machine.all_cpus)?;
    let compiled = all_answer(&mut first, count)?.last;
    drop(first);

    let mut cached = Host::start(programs, "crowd", "crowd-state", &cpu)?;
    let started = all_answer(&mut cached, count)?;
    std::thread::sleep(REST);
    let memory_answered = cached.server.memory();
    drop(cached);

    // Once more, for the memory of apps that nobody has asked for anything.
    let mut silent = Host::start(programs, "crowd", "crowd-state", &cpu)?;
    silent.wait_for(&format!("/{}", app(count - 1)), 200, silent.started, CROWD_PATIENCE)?;
    std::thread::sleep(REST.max(started.last));
    let memory_silent = silent.server.memory();
    drop(silent);

    let mut section = String::from("\n## A directory of many apps\n\n");
    let _ = writeln!(
        section,
        "{count} different components (hello, each with a section of its own) in one directory; from the start of the host to the\n\
         last answer. Memory for each app: what the host has more than one without apps. Apps that have answered share the\n\
         pool's warm slots, so with few apps their figure is too high.\n"
    );
    let mut table = Table::new(&["", ""]);
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let megabytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let each = |memory, part: fn(Memory) -> u64| each(count, memory, memory_empty, part);
    for (name, figure) in [
        ("first start, nothing cached, all cores", seconds(compiled)),
        ("start, all cached, one core: first answer", seconds(started.first)),
        ("start, all cached, one core: last answer", seconds(started.last)),
        ("resident, no apps", megabytes(memory_empty.resident)),
        ("resident, all apps, never asked", megabytes(memory_silent.resident)),
        ("resident, all apps have answered once", megabytes(memory_answered.resident)),
        ("for each app, never asked", each(memory_silent, |memory| memory.resident)),
        ("of that in no file", each(memory_silent, |memory| memory.anonymous)),
        ("for each app that has answered", each(memory_answered, |memory| memory.resident)),
        ("of that in no file", each(memory_answered, |memory| memory.anonymous)),
    ] {
        table.row(vec![name.to_owned(), figure]);
    }
    let _ = write!(section, "{table}");
    Ok(section)
}

fn each(count: usize, memory: Memory, empty: Memory, part: fn(Memory) -> u64) -> String {
    let more = part(memory).saturating_sub(part(empty)) as f64;
    format!("{:.1} KiB", more / count as f64 / 1024.0)
}

/// When the first and the last app of a crowd answered, counted from the start of the host.
struct Answers {
    first: Duration,
    last: Duration,
}

fn all_answer(host: &mut Host, count: usize) -> Result<Answers> {
    let started = host.started;
    let mut ask = |number: usize| host.wait_for(&format!("/{}", app(number)), 200, started, CROWD_PATIENCE);
    let first = ask(0)?;
    let mut last = first;
    for number in 1..count {
        last = ask(number)?;
    }
    Ok(Answers { first, last })
}

fn app(number: usize) -> String {
    format!("app-{number:04}")
}

/// Writes an app beside its place and renames it, so that it is whole when it appears.
fn put(apps: &Path, name: &str, wasm: &[u8]) -> Result<()> {
    let unfinished = apps.join(format!(".{name}.new"));
    fs::write(&unfinished, wasm).with_context(|| format!("cannot write {}", unfinished.display()))?;
    fs::rename(&unfinished, apps.join(format!("{name}.wasm")))?;
    Ok(())
}

/// The same component with other bytes: a custom section that holds a number.
pub(crate) fn distinct(component: &[u8], number: usize) -> Vec<u8> {
    const NAME: &[u8] = b"bench";
    let content = [&[NAME.len() as u8], NAME, format!("{number:08}").as_bytes()].concat();
    // A section is its id (0: custom), its size, its content; sizes below 128 take one byte.
    let section = [&[0, content.len() as u8], content.as_slice()].concat();
    [component, &section].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_components_differ_in_a_custom_section_alone() {
        let component = *b"\0asm\x0d\0\x01\0";
        let (one, other) = (distinct(&component, 1), distinct(&component, 2));
        assert_ne!(one, other);
        assert_eq!(&one[..8], &component);
        // id 0, 14 bytes, a name of 5, eight digits
        assert_eq!(&one[8..], b"\0\x0e\x05bench00000001");
    }
}
