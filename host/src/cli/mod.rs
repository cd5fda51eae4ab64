//! The command line: what can be said, and which function does it. Exit codes: 0 done, 1 failed (the reason is on stderr),
//! 2 the command line was not understood.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wasgi_host::deploy::{compile, unpack};

mod apps;
mod build;
mod capsule;
mod check;
mod manage;
mod new;
mod python;
mod replay;
mod selftest;
mod serve;

/// Serves web apps compiled to WebAssembly: drop a .wasm file into a directory, and it is live.
#[derive(Parser)]
#[command(name = "wasgi", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Check(check::Check),
    Apps(apps::Apps),
    Manage(manage::Manage),
    Capsule(capsule::Show),
    Replay(replay::Replay),
    New(new::New),
    Build(build::Build),
    Selftest(selftest::Selftest),
}

const EXAMPLES: &str = "\
Examples:
  wasgi new hello --lang rust         make an app in ./hello
  cd hello && wasgi build -o ../apps  build it into ../apps/hello.wasm
  wasgi serve                         serve ./apps on http://127.0.0.1:8000
  curl http://127.0.0.1:8000/hello    call it
  wasgi apps                          list what is live, and what is not and why";

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // The host starts itself, in a process of its own, for work on what strangers upload: nothing else comes before that.
    if let [first, rest @ ..] = arguments.as_slice() {
        let rest = rest.iter().map(OsString::as_os_str);
        match first.to_str() {
            Some(compile::SUBCOMMAND) => return compile::compile_child_main(rest),
            Some(unpack::SUBCOMMAND) => return unpack::unpack_child_main(rest),
            _ => {}
        }
    }
    let outcome = match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Apps(apps) => apps.run(),
        Command::Manage(manage) => manage.run(),
        Command::Capsule(show) => show.run(),
        Command::Replay(replay) => replay.run(),
        Command::New(new) => new.run(),
        Command::Build(build) => build.run(),
        Command::Selftest(selftest) => selftest.run(),
    };
    outcome.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// Prints to stdout. That nobody reads on (`wasgi apps | head -1`) is no failure.
fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Prints a reason to stderr.
fn complain(reason: &str) {
    let _ = writeln!(io::stderr(), "wasgi: {reason}");
}
