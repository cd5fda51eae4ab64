//! A component, or a core module that becomes one → compiled code, in a process of its own: what strangers upload may make a compiler take hours and gigabytes,
//! and a process can be limited and killed. The process is this same binary, as `wasgi compile`.
//!
//! The component goes in through stdin, the code comes out in a file of the cache, words about a failure through stderr.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::passes::{adapt, rewind};
use crate::limits::Limits;
use crate::sandbox::{self, Variant};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "compile";
/// What a compiler may say.
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// Compiled code is a few times the size of the component; this is far more.
const CODE_BYTES_PER_BYTE_MAX: u64 = 64;
const CODE_BYTES_MIN: u64 = 64 << 20;
/// Added to the niceness: serving goes first.
const NICENESS: i32 = 10;
/// Exit statuses of the compiler's process.
const REFUSED: u8 = 1;
const NOT_LIMITED: u8 = 2;
const NOT_REWOUND: u8 = 3;

/// Why there is no compiled code.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// It is the component's fault: trying again would fail again.
    #[error("{0}")]
    Refused(String),
    /// It is the machine's fault, which may pass.
    #[error("{0}; it is tried again")]
    Passing(String),
    /// Compiled for rewinding it would not be safe.
    #[error("its instances cannot be rewound: {0}")]
    NotRewound(String),
}

/// Starts compilers, a few at a time.
pub struct Compiler {
    program: PathBuf,
    /// Compile in this process: a unit test's binary has no such subcommand.
    #[cfg(test)]
    is_here: bool,
    /// The wasm stack's size is compiled into the code's checks.
    stack_bytes: u64,
    slots: Semaphore,
    threads: usize,
}

/// The right to run one compiler. Dropping it lets the next one go.
pub struct Slot<'a> {
    /// The semaphore is never closed, so it is never none.
    _permit: Option<SemaphorePermit<'a>>,
}

impl Compiler {
    /// A compiler for engines with this stack size. It uses half of the cores.
    pub fn new(stack_bytes: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let half = (cores / 2).max(1);
        // The file that this process was started from, also when another one has taken its name since.
        let program = PathBuf::from("/proc/self/exe");
        // As many processes as threads would be half the cores squared; a large component alone gets two.
        Self {
            program,
            #[cfg(test)]
            is_here: false,
            stack_bytes,
            slots: Semaphore::new(half),
            threads: half.min(2),
        }
    }

    /// Compiles with another binary, which must understand [`SUBCOMMAND`].
    #[must_use]
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    #[cfg(test)]
    pub(super) fn here(self) -> Self {
        Self { is_here: true, ..self }
    }

    /// Waits for a turn.
    pub async fn slot(&self) -> Slot<'_> {
        Slot { _permit: self.slots.acquire().await.ok() }
    }

    /// Compiles `wasm` into `output`. Dropping the future kills the compiler.
    ///
    /// # Errors
    /// If the component is invalid, needs more than the limits allow, or no process can be started.
    pub async fn compile(
        &self,
        _slot: &Slot<'_>,
        wasm: &[u8],
        variant: Variant,
        limits: &Limits,
        output: &NamedTempFile,
    ) -> Result<(), Failure> {
        #[cfg(test)]
        if self.is_here {
            let code = compile(wasm, self.stack_bytes, variant)?;
            return std::fs::write(output.path(), code).map_err(|error| passing("write", error));
        }
        let mut child = self.spawn(wasm.len() as u64, variant, limits, output)?;
        match tokio::time::timeout(limits.compile_time, converse(&mut child, wasm)).await {
            Ok(Ok((status, words))) => verdict(status, &words, limits),
            Ok(Err(error)) => Err(passing("cannot talk to the compiler's process", error)),
            Err(_) => {
                // It is dead or will be killed when `child` is dropped.
                let _ = child.kill().await;
                Err(Failure::Refused(too_slow(limits)))
            }
        }
    }

    fn spawn(
        &self,
        wasm_bytes: u64,
        variant: Variant,
        limits: &Limits,
        output: &NamedTempFile,
    ) -> Result<Child, Failure> {
        let code = output.reopen().map_err(|error| passing("cannot open a file for compiled code", error))?;
        let code_bytes_max = (wasm_bytes.saturating_mul(CODE_BYTES_PER_BYTE_MAX)).max(CODE_BYTES_MIN);
        Command::new(&self.program)
            .arg0("wasgi")
            .arg(SUBCOMMAND)
            .args(
                [
                    self.stack_bytes,
                    limits.compile_memory_bytes,
                    cpu_seconds(limits),
                    code_bytes_max,
                    variant_number(variant),
                ]
                .map(|n| n.to_string()),
            )
            .env_clear()
            // Read by the allocator, in KiB: it would reserve more address space at once than the limit allows.
            .env("MIMALLOC_ARENA_RESERVE", "16384")
            // Read by wasmtime's thread pool.
            .env("RAYON_NUM_THREADS", self.threads.to_string())
            .stdin(Stdio::piped())
            .stdout(code)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C in a terminal is for the host, which decides what becomes of a compiler.
            .process_group(0)
            .spawn()
            .map_err(|error| passing("cannot start the compiler's process", error))
    }
}

/// Hands the component over and waits for the end. What the process says is read while the component is written, so that
/// neither waits for the other.
async fn converse(child: &mut Child, wasm: &[u8]) -> std::io::Result<(ExitStatus, String)> {
    let stdin = child.stdin.take();
    let stderr = child.stderr.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A compiler that gives up early breaks the pipe; its exit status says why.
            let _ = stdin.write_all(wasm).await;
        }
    };
    let read = async {
        let mut words = Vec::new();
        if let Some(stderr) = stderr {
            let mut stderr = stderr.take(STDERR_BYTES_MAX);
            let _ = stderr.read_to_end(&mut words).await;
            // The rest is thrown away, so that a talkative compiler doesn't wait for a reader.
            let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
        }
        words
    };
    let ((), words) = tokio::join!(write, read);
    Ok((child.wait().await?, String::from_utf8_lossy(&words).trim().to_owned()))
}

fn verdict(status: ExitStatus, words: &str, limits: &Limits) -> Result<(), Failure> {
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    const SIGXFSZ: i32 = 25;
    if status.success() {
        return Ok(());
    }
    // What Rust says when an allocation fails, and what wasmtime says when mapping does.
    let out_of_memory = words.contains("memory allocation of") || words.contains("Cannot allocate memory");
    if out_of_memory {
        let limit = bytesize::ByteSize::b(limits.compile_memory_bytes);
        return Err(Failure::Refused(format!("compiling it needs more than compile_memory = {limit}")));
    }
    if words.contains("ThreadPoolBuildError") {
        return Err(passing(
            "the compiler cannot start",
            "compile_memory may be too small, or the machine out of threads",
        ));
    }
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(REFUSED) => Err(Failure::Refused(format!("it does not compile: {words}"))),
        (Some(code), _) if code == i32::from(NOT_REWOUND) => Err(Failure::NotRewound(words.to_owned())),
        (Some(code), _) if code == i32::from(NOT_LIMITED) => Err(passing("cannot limit the compiler's process", words)),
        (_, Some(SIGXCPU)) => Err(Failure::Refused(too_slow(limits))),
        (_, Some(SIGXFSZ)) => Err(Failure::Refused("its compiled code is unreasonably large".to_owned())),
        // By the kernel when the machine is short of memory, or by an operator.
        (_, Some(SIGKILL)) => Err(passing("the compiler was killed", "the machine may be short of memory")),
        _ => Err(Failure::Refused(format!("the compiler crashed on it ({status}): {}", last_words(words)))),
    }
}

fn too_slow(limits: &Limits) -> String {
    format!("compiling it takes longer than compile_time = {}", humantime::format_duration(limits.compile_time))
}

fn passing(what: &str, why: impl std::fmt::Display) -> Failure {
    Failure::Passing(format!("{what}: {why}"))
}

/// What a panic says stands in the line after its place.
fn last_words(words: &str) -> &str {
    let mut lines = words.lines();
    lines.find(|line| line.contains("panicked at")).and_then(|_| lines.next()).unwrap_or(words)
}

/// `RLIMIT_CPU` counts whole seconds.
fn cpu_seconds(limits: &Limits) -> u64 {
    limits.compile_time.saturating_add(Duration::from_millis(999)).as_secs().max(1)
}

/// The compiler's process: `wasgi compile STACK_BYTES MEMORY_BYTES CPU_SECONDS CODE_BYTES VARIANT`, the component on stdin, the
/// code to stdout. For `main`, before it does anything else.
pub fn compile_child_main<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> ExitCode {
    let numbers: Option<Vec<u64>> = arguments.into_iter().map(|argument| argument.to_str()?.parse().ok()).collect();
    let Some(Ok([stack_bytes, memory_bytes, cpu_seconds, code_bytes, variant])) = numbers.map(<[u64; 5]>::try_from)
    else {
        return fail(NOT_LIMITED, "the host starts this subcommand by itself; it is not for you");
    };
    // Before the first byte is read: what comes next may be hostile.
    if let Err(error) = limit_self(memory_bytes, cpu_seconds, code_bytes) {
        return fail(NOT_LIMITED, &format!("{error:#}"));
    }
    let Some(variant) = VARIANTS.into_iter().find(|known| variant_number(*known) == variant) else {
        return fail(NOT_LIMITED, "this variant is unknown");
    };
    match compile_stdin(stack_bytes, variant) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::NotRewound(reason)) => fail(NOT_REWOUND, &reason),
        Err(Failure::Refused(reason) | Failure::Passing(reason)) => fail(REFUSED, &reason),
    }
}

const VARIANTS: [Variant; 3] = [Variant::Sync, Variant::Async, Variant::Rewind];

/// As it is handed to the compiler's process.
fn variant_number(variant: Variant) -> u64 {
    match variant {
        Variant::Sync => 0,
        Variant::Async => 1,
        Variant::Rewind => 2,
    }
}

fn fail(code: u8, words: &str) -> ExitCode {
    // Nobody may be listening any more.
    let _ = writeln!(std::io::stderr(), "{words}");
    ExitCode::from(code)
}

fn limit_self(memory_bytes: u64, cpu_seconds: u64, code_bytes: u64) -> anyhow::Result<()> {
    let limit = |resource, value: u64| {
        // The kernel kills at the hard limit; below it, it says what the limit was (SIGXCPU).
        let maximum = if matches!(resource, Resource::Cpu) { value.saturating_add(1) } else { value };
        rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(maximum) })
            .context("setrlimit")
    };
    limit(Resource::As, memory_bytes)?;
    limit(Resource::Cpu, cpu_seconds)?;
    limit(Resource::Fsize, code_bytes)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, 64)?;
    rustix::process::nice(NICENESS).context("nice")?;
    #[cfg(target_os = "linux")]
    rustix::thread::set_no_new_privs(true).context("no_new_privs")?;
    Ok(())
}

fn compile_stdin(stack_bytes: u64, variant: Variant) -> Result<(), Failure> {
    let mut wasm = Vec::new();
    std::io::stdin().lock().read_to_end(&mut wasm).map_err(|error| passing("cannot read the component", error))?;
    let code = compile(&wasm, stack_bytes, variant)?;
    std::io::stdout().lock().write_all(&code).map_err(|error| passing("cannot write the code", error))
}

/// The passes, then the compiler.
fn compile(wasm: &[u8], stack_bytes: u64, variant: Variant) -> Result<Vec<u8>, Failure> {
    let refused = |error: &dyn std::fmt::Display| Failure::Refused(format!("{error:#}"));
    let mut component = adapt::component(wasm).map_err(|error| refused(&error))?;
    if variant == Variant::Rewind {
        let prepared = rewind::component(&component).map_err(|refusal| Failure::NotRewound(refusal.to_string()))?;
        component = prepared.into();
    }
    let engine = sandbox::compiler(stack_bytes, variant).map_err(|error| refused(&error))?;
    engine.precompile_component(&component).map_err(|error| refused(&error))
}
