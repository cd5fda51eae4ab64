//! A component, or a core module that becomes one → compiled code, in a process of its own ([`child`]): `wasgi compile`. The
//! component goes in through stdin, the code comes out in a file of the cache.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use tempfile::NamedTempFile;
use tokio::process::Command;

use super::child::{self, Bounds, Outcome};
use super::images;
use super::passes::{self, rewind};
use super::turns::{Turn, Turns};
use super::unpack::Unpacker;
use crate::config::{Confine, Passes};
use crate::confine::child::Sees;
use crate::limits::Limits;
use crate::sandbox::{self, Variant};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "compile";
/// Compiled code is a few times the size of the component; this is far more.
const CODE_BYTES_PER_BYTE_MAX: u64 = 64;
const CODE_BYTES_MIN: u64 = 64 << 20;
/// The exit status for what compiles and cannot be prepared for rewinding.
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
    passes: Passes,
    confine: Confine,
    compiling: Turns,
    /// Unpacking is short: what is compiled already does not wait behind everybody's compilation to go live.
    unpacking: Turns,
    threads: usize,
}

impl Compiler {
    /// A compiler for engines with this stack size. It uses half of the cores.
    pub fn new(stack_bytes: u64, passes: Passes) -> Self {
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
            passes,
            confine: Confine::On,
            compiling: Turns::new(half, half),
            unpacking: Turns::new(1, 1),
            threads: half.min(2),
        }
    }

    /// Compiles with another binary, which must understand [`SUBCOMMAND`].
    #[must_use]
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Confines its processes so.
    #[must_use]
    pub fn confined(self, confine: Confine) -> Self {
        Self { confine, ..self }
    }

    #[cfg(test)]
    pub(super) fn here(self) -> Self {
        Self { is_here: true, ..self }
    }

    /// As if others were compiled all the time.
    #[cfg(test)]
    pub(super) fn busy(self) -> Self {
        Self { compiling: Turns::new(0, 1), ..self }
    }

    /// As if a tenant had a file that is compiled all the time, until the turn is given back.
    #[cfg(test)]
    pub(super) async fn busy_for(self, tenant: &str) -> (Self, Turn) {
        let compiling = Turns::new(2, 1);
        let turn = compiling.take(tenant).await;
        (Self { compiling, ..self }, turn)
    }

    /// What is done to a component before it is compiled.
    pub(super) fn passes(&self) -> Passes {
        self.passes
    }

    /// What unpacks archives, in the same way.
    pub(super) fn unpacker(&self) -> Unpacker {
        Unpacker {
            program: self.program.clone(),
            confine: self.confine,
            #[cfg(test)]
            is_here: self.is_here,
        }
    }

    /// Waits for a turn of this tenant at compiling.
    pub async fn turn(&self, tenant: &str) -> Turn {
        self.compiling.take(tenant).await
    }

    /// Waits for a turn of this tenant at unpacking.
    pub(super) async fn unpacking_turn(&self, tenant: &str) -> Turn {
        self.unpacking.take(tenant).await
    }

    /// Compiles `wasm` into `output`. Dropping the future kills the compiler.
    ///
    /// # Errors
    /// If the component is invalid, needs more than the limits allow, or no process can be started.
    pub async fn compile(
        &self,
        _turn: &Turn,
        wasm: &[u8],
        variant: Variant,
        limits: &Limits,
        output: &NamedTempFile,
    ) -> Result<(), Failure> {
        #[cfg(test)]
        if self.is_here {
            let code = compile(wasm, self.stack_bytes, variant, self.passes)?;
            return std::fs::write(output.path(), code).map_err(|error| child::passing("write", error));
        }
        let command = self.command(wasm.len() as u64, variant, limits, output)?;
        match child::run(command, "compiler", wasm, limits.compile_time).await? {
            Outcome::Done => Ok(()),
            outcome => Err(failure(outcome, limits)),
        }
    }

    fn command(
        &self,
        wasm_bytes: u64,
        variant: Variant,
        limits: &Limits,
        output: &NamedTempFile,
    ) -> Result<Command, Failure> {
        let code = output.reopen().map_err(|error| child::passing("cannot open a file for compiled code", error))?;
        let code_bytes_max = (wasm_bytes.saturating_mul(CODE_BYTES_PER_BYTE_MAX)).max(CODE_BYTES_MIN);
        let numbers = [
            self.stack_bytes,
            limits.compile_memory_bytes,
            child::cpu_seconds(limits.compile_time),
            code_bytes_max,
            variant_number(variant),
            u64::from(self.passes == Passes::All),
            child::confine_number(self.confine),
        ];
        let mut command = child::command(&self.program);
        command.arg(SUBCOMMAND).args(numbers.map(|number| number.to_string())).stdout(code);
        // Read by wasmtime's thread pool.
        command.env("RAYON_NUM_THREADS", self.threads.to_string());
        Ok(command)
    }
}

fn failure(outcome: Outcome, limits: &Limits) -> Failure {
    if let Outcome::Refused(words) | Outcome::Crashed(words) = &outcome
        && words.contains("ThreadPoolBuildError")
    {
        let why = "compile_memory may be too small, or the machine out of threads";
        return child::passing("the compiler cannot start", why);
    }
    Failure::Refused(match outcome {
        Outcome::Own(NOT_REWOUND, words) => return Failure::NotRewound(words),
        Outcome::Refused(words) | Outcome::Own(_, words) => format!("it does not compile: {words}"),
        Outcome::TooSlow => {
            let time = humantime::format_duration(limits.compile_time);
            format!("compiling it takes longer than compile_time = {time}")
        }
        Outcome::OutOfMemory => {
            let limit = bytesize::ByteSize::b(limits.compile_memory_bytes);
            format!("compiling it needs more than compile_memory = {limit}")
        }
        Outcome::FileTooLarge => "its compiled code is unreasonably large".to_owned(),
        Outcome::Crashed(words) => format!("the compiler crashed on it {words}"),
        Outcome::Done => unreachable!("asked of failures alone"),
    })
}

/// The compiler's process: `wasgi compile STACK_BYTES MEMORY_BYTES CPU_SECONDS CODE_BYTES VARIANT PASSES CONFINE`, the component on
/// stdin, the code to stdout. For `main`, before it does anything else.
pub fn compile_child_main<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> ExitCode {
    let numbers: Option<Vec<u64>> = arguments.into_iter().map(|argument| argument.to_str()?.parse().ok()).collect();
    let Some(Ok([stack_bytes, memory_bytes, cpu_seconds, file_bytes, variant, passes, confine])) =
        numbers.map(<[u64; 7]>::try_from)
    else {
        return child::not_for_people();
    };
    // Before the first byte is read: what comes next may be hostile.
    let bounds = Bounds { memory_bytes, cpu_seconds, file_bytes, confine };
    if let Err(error) = child::limit_self(&bounds, Sees::Nothing) {
        return child::fail(child::NOT_LIMITED, &format!("{error:#}"));
    }
    let Some(variant) = VARIANTS.into_iter().find(|known| variant_number(*known) == variant) else {
        return child::fail(child::NOT_LIMITED, "this variant is unknown");
    };
    let passes = if passes == 0 { Passes::Needed } else { Passes::All };
    match compile_stdin(stack_bytes, variant, passes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::NotRewound(reason)) => child::fail(NOT_REWOUND, &reason),
        Err(Failure::Refused(reason) | Failure::Passing(reason)) => child::fail(child::REFUSED, &reason),
    }
}

const VARIANTS: [Variant; 4] = [Variant::Sync, Variant::Async, Variant::Rewind, Variant::Own];

/// As it is handed to the compiler's process.
fn variant_number(variant: Variant) -> u64 {
    match variant {
        Variant::Sync => 0,
        Variant::Async => 1,
        Variant::Rewind => 2,
        Variant::Own => 3,
    }
}

fn compile_stdin(stack_bytes: u64, variant: Variant, passes: Passes) -> Result<(), Failure> {
    let mut wasm = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut wasm)
        .map_err(|error| child::passing("cannot read the component", error))?;
    let code = compile(&wasm, stack_bytes, variant, passes)?;
    std::io::stdout().lock().write_all(&code).map_err(|error| child::passing("cannot write the code", error))
}

/// The passes, then the compiler; at the end what memories begin with.
fn compile(wasm: &[u8], stack_bytes: u64, variant: Variant, passes: Passes) -> Result<Vec<u8>, Failure> {
    let refused = |error: &dyn std::fmt::Display| Failure::Refused(format!("{error:#}"));
    let passes::Prepared { mut component, contents, .. } =
        passes::prepare(wasm, variant, passes).map_err(|error| refused(&error))?;
    if variant == Variant::Rewind {
        let prepared = rewind::component(&component).map_err(|refusal| Failure::NotRewound(refusal.to_string()))?;
        component = prepared.into();
    }
    let engine = sandbox::compiler(stack_bytes, variant).map_err(|error| refused(&error))?;
    let mut code = engine.precompile_component(&component).map_err(|error| refused(&error))?;
    images::append(&mut code, &contents);
    Ok(code)
}
