//! Processes of this same binary for work on strangers' bytes: such work may take hours and gigabytes, and a process can be
//! limited and killed. What each does is [`super::compile`]'s and [`super::unpack`]'s part.
//!
//! The bytes go in through stdin, words about a failure come out through stderr.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::compile::Failure;
use crate::config::Confine;
use crate::confine;
use crate::confine::child::Sees;
use crate::sandbox::go_as_usual;

/// What a process may say.
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// Added to the niceness: serving goes first.
const NICENESS: i32 = 10;
/// Exit statuses.
pub(super) const REFUSED: u8 = 1;
pub(super) const NOT_LIMITED: u8 = 2;
/// What else the work may end with.
const OWN: std::ops::Range<u8> = 3..10;

/// What became of the work, where that says something about the bytes.
pub(super) enum Outcome {
    Done,
    /// In its own words.
    Refused(String),
    /// It ended with a status that means something to who started it: one of [`OWN`].
    Own(u8, String),
    TooSlow,
    FileTooLarge,
    OutOfMemory,
    Crashed(String),
}

/// A process of this binary, with nothing of the host's environment.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg0("wasgi")
        .env_clear()
        // Read by the allocator, in KiB: it would reserve more address space at once than the limit allows.
        .env("MIMALLOC_ARENA_RESERVE", "16384")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // Ctrl-C in a terminal is for the host, which decides what becomes of a process.
        .process_group(0);
    command
}

/// Hands `input` to a process and waits for its end. Dropping the future kills it. `name` is what its work is called.
///
/// # Errors
/// Where it is the machine's fault, which may pass.
pub(super) async fn run(mut command: Command, name: &str, input: &[u8], time: Duration) -> Result<Outcome, Failure> {
    let spawned = command.spawn();
    let mut child = spawned.map_err(|error| passing(&format!("cannot start the {name}'s process"), error))?;
    match tokio::time::timeout(time, converse(&mut child, input)).await {
        Ok(Ok((status, words))) => verdict(name, status, words),
        Ok(Err(error)) => Err(passing(&format!("cannot talk to the {name}'s process"), error)),
        Err(_) => {
            // It is dead or will be killed when `child` is dropped.
            let _ = child.kill().await;
            Ok(Outcome::TooSlow)
        }
    }
}

/// What the process says is read while its input is written, so that neither waits for the other.
async fn converse(child: &mut Child, input: &[u8]) -> std::io::Result<(ExitStatus, String)> {
    let stdin = child.stdin.take();
    let stderr = child.stderr.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A process that gives up early breaks the pipe; its exit status says why.
            let _ = stdin.write_all(input).await;
        }
    };
    let read = async {
        let mut words = Vec::new();
        if let Some(stderr) = stderr {
            let mut stderr = stderr.take(STDERR_BYTES_MAX);
            let _ = stderr.read_to_end(&mut words).await;
            // The rest is thrown away, so that a talkative process doesn't wait for a reader.
            let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
        }
        words
    };
    let ((), words) = tokio::join!(write, read);
    Ok((child.wait().await?, String::from_utf8_lossy(&words).trim().to_owned()))
}

fn verdict(name: &str, status: ExitStatus, words: String) -> Result<Outcome, Failure> {
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    const SIGXFSZ: i32 = 25;
    if status.success() {
        return Ok(Outcome::Done);
    }
    // What Rust says when an allocation fails, and what wasmtime says when mapping does.
    if words.contains("memory allocation of") || words.contains("Cannot allocate memory") {
        return Ok(Outcome::OutOfMemory);
    }
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(REFUSED) => Ok(Outcome::Refused(words)),
        (Some(code), _) if code == i32::from(NOT_LIMITED) => {
            Err(passing(&format!("cannot limit the {name}'s process"), words))
        }
        (Some(code), _) if u8::try_from(code).is_ok_and(|code| OWN.contains(&code)) => {
            Ok(Outcome::Own(code as u8, words))
        }
        (_, Some(SIGXCPU)) => Ok(Outcome::TooSlow),
        (_, Some(SIGXFSZ)) => Ok(Outcome::FileTooLarge),
        // By the kernel when the machine is short of memory, or by an operator.
        (_, Some(SIGKILL)) => Err(passing(&format!("the {name} was killed"), "the machine may be short of memory")),
        _ => Ok(Outcome::Crashed(format!("({status}): {}", last_words(&words)))),
    }
}

pub(super) fn passing(what: &str, why: impl std::fmt::Display) -> Failure {
    Failure::Passing(format!("{what}: {why}"))
}

/// What a panic says stands in the line after its place.
fn last_words(words: &str) -> &str {
    let mut lines = words.lines();
    lines.find(|line| line.contains("panicked at")).and_then(|_| lines.next()).unwrap_or(words)
}

/// `RLIMIT_CPU` counts whole seconds.
pub(super) fn cpu_seconds(time: Duration) -> u64 {
    time.saturating_add(Duration::from_millis(999)).as_secs().max(1)
}

/// The end of a process that has not done its work.
pub(super) fn fail(code: u8, words: &str) -> ExitCode {
    // Nobody may be listening any more.
    let _ = writeln!(std::io::stderr(), "{words}");
    ExitCode::from(code)
}

/// The end of one that was started by somebody else than the host.
pub(super) fn not_for_people() -> ExitCode {
    fail(NOT_LIMITED, "the host starts this subcommand by itself; it is not for you")
}

/// As it is handed to such a process.
pub(super) fn confine_number(confine: Confine) -> u64 {
    match confine {
        Confine::Off => 0,
        Confine::On => 1,
        Confine::Strict => 2,
    }
}

fn confine_of(number: u64) -> anyhow::Result<Confine> {
    let all = [Confine::Off, Confine::On, Confine::Strict];
    all.into_iter().find(|known| confine_number(*known) == number).context("this kind of confinement is unknown")
}

/// What such a process is told of its limits.
pub(super) struct Bounds {
    pub(super) memory_bytes: u64,
    pub(super) cpu_seconds: u64,
    pub(super) file_bytes: u64,
    pub(super) confine: u64,
}

/// Says that the kernel is to end this process before others. A confined host that has started it may write there, and not truncate.
fn go_first() -> std::io::Result<()> {
    File::options().write(true).open("/proc/self/oom_score_adj")?.write_all(b"1000")
}

/// Limits this process. Before the first byte is read: what comes next may be hostile.
pub(super) fn limit_self(bounds: &Bounds, sees: Sees<'_>) -> anyhow::Result<()> {
    let Bounds { memory_bytes, cpu_seconds, file_bytes, confine } = *bounds;
    let limit = |resource, value: u64| {
        // The kernel kills at the hard limit; below it, it says what the limit was (SIGXCPU).
        let maximum = if matches!(resource, Resource::Cpu) { value.saturating_add(1) } else { value };
        rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(maximum) })
            .context("setrlimit")
    };
    // Where memory runs out it is this process that goes, and not the host. Not everywhere may it say so.
    let _ = go_first();
    limit(Resource::As, memory_bytes)?;
    limit(Resource::Cpu, cpu_seconds)?;
    limit(Resource::Fsize, file_bytes)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, 64)?;
    rustix::process::nice(NICENESS).context("nice")?;
    // A thread that serves has started it, and has short slices.
    let _ = go_as_usual();
    rustix::thread::set_no_new_privs(true).context("no_new_privs")?;
    confine::child::confine(confine_of(confine)?, sees)
}
