//! The `wasgi` command: arguments → one function of `cli`, and its outcome as an exit code. The work is the library's.

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
