//! The compiler's process: what it makes, and what stops it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;
use wasgi_host::config::Passes;
use wasgi_host::confine::kernel::Wall;
use wasgi_host::deploy::compile::{Compiler, Failure};
use wasgi_host::limits::Limits;
use wasgi_host::sandbox::{self, Variant};

const STACK_BYTES: u64 = 1 << 20;

async fn compile(wasm: &[u8], limits: &Limits) -> Result<Vec<u8>, Failure> {
    let compiler = Compiler::new(STACK_BYTES, Passes::All).with_program(PathBuf::from(env!("CARGO_BIN_EXE_wasgi")));
    let output = NamedTempFile::new().expect("a temporary file can be made");
    let turn = compiler.turn("").await;
    compiler.compile(&turn, wasm, Variant::Sync, limits, &output).await?;
    Ok(std::fs::read(output.path()).expect("it can be read"))
}

/// A component of `functions` functions with `operations` operations each.
fn component(functions: usize, operations: usize) -> Vec<u8> {
    let body = "local.get 0 i32.const 3 i32.mul i32.popcnt local.set 0 ".repeat(operations);
    let functions = format!("(func (param i32) {body})").repeat(functions);
    wat::parse_str(format!("(component (core module {functions}))")).expect("the text is valid")
}

#[track_caller]
fn refused(result: Result<Vec<u8>, Failure>) -> String {
    match result {
        Err(Failure::Refused(reason)) => reason,
        other => panic!("it should be refused: {:?}", other.map(|code| code.len())),
    }
}

#[tokio::test]
async fn it_makes_code_for_the_engine() {
    let code = compile(&component(1, 1), &Limits::default()).await.expect("it compiles");
    let engine = sandbox::compiler(STACK_BYTES, Variant::Sync).expect("this machine is supported");
    // Behind it there may be what memories begin with.
    assert!(engine.precompile_component(&component(1, 1)).is_ok_and(|here| code.starts_with(&here)));
}

#[tokio::test]
async fn what_is_invalid_is_refused_in_words() {
    let reason = refused(compile(b"\0asm\x0d\0\x01\0garbage", &Limits::default()).await);
    assert!(reason.starts_with("it does not compile: "), "{reason}");
}

/// What the kernel says of a process of this one's that is confined.
fn confined_child() -> Option<String> {
    let own = format!("PPid:\t{}\n", std::process::id());
    let is_filtered = |status: &String| {
        let filtered = "Seccomp:\t2\n";
        status.contains(&own)
            && (status.contains(filtered) || !Wall::Calls.is_there() && status.contains("NoNewPrivs:\t1\n"))
    };
    let entries = std::fs::read_dir("/proc").expect("it is there").flatten();
    entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok()).find(is_filtered)
}

#[tokio::test]
async fn its_process_is_confined_while_it_reads_a_strangers_bytes() {
    let (component, limits) = (component(40, 20_000), Limits::default());
    let mut compiling = std::pin::pin!(compile(&component, &limits));
    let status = loop {
        tokio::select! {
            done = &mut compiling => panic!("its process was never seen confined: {:?}", done.map(|code| code.len())),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        if let Some(status) = confined_child() {
            break status;
        }
    };
    assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    assert_eq!(status.contains("Seccomp:\t2\n"), Wall::Calls.is_there(), "{status}");
    let pid = status.lines().find_map(|line| line.strip_prefix("Pid:\t")).expect("it has a number");
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it is at work");
    assert_eq!(score.trim(), "1000", "where memory runs out it goes before its host");
}

#[tokio::test]
async fn a_slow_one_is_stopped() {
    let limits = Limits { compile_time: Duration::from_millis(200), ..Limits::default() };
    let started = Instant::now();
    let reason = refused(compile(&component(40, 20_000), &limits).await);
    assert_eq!(reason, "compiling it takes longer than compile_time = 200ms");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_hungry_one_is_stopped() {
    let limits = Limits { compile_memory_bytes: 150 << 20, ..Limits::default() };
    let reason = refused(compile(&component(1, 200_000), &limits).await);
    assert!(reason.contains("needs more than compile_memory = 150"), "{reason}");
}

#[tokio::test]
async fn a_missing_program_is_a_passing_failure() {
    let compiler = Compiler::new(STACK_BYTES, Passes::All).with_program(PathBuf::from("/nonexistent"));
    let output = NamedTempFile::new().expect("a temporary file can be made");
    let turn = compiler.turn("").await;
    let result = compiler.compile(&turn, &component(1, 1), Variant::Sync, &Limits::default(), &output).await;
    assert!(matches!(result, Err(Failure::Passing(_))), "{result:?}");
}
