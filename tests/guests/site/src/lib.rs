//! An app with files and data, and a command that its operator runs: `wasgi manage`. The query says what to do with files.

use std::cell::Cell;
use std::io::BufRead;

use wasgi::{Body, Environ, StartResponse};

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

#[wasgi::application]
fn app(environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
    // All of what the client sends, however slowly.
    std::io::copy(&mut environ.input(), &mut std::io::sink())?;
    let query = environ.query_string().into_owned();
    let calls = CALLS.get() + 1;
    CALLS.set(calls);
    start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
    Ok(match query.split_once('=') {
        Some(("disk", words)) => Body::from(disk::run(words)),
        Some(("grow", bytes)) => {
            std::mem::forget(vec![1_u8; bytes.parse()?]);
            Body::from(format!("call {calls}"))
        }
        _ => Body::from(format!("call {calls} of {}", environ.path_info())),
    })
}

struct Command;

wasi::cli::command::export!(Command);

impl wasi::exports::cli::run::Guest for Command {
    /// Each argument is a thing to do with files; `echo` prints a line of standard input, `env:NAME` a variable.
    fn run() -> Result<(), ()> {
        for argument in std::env::args().skip(1) {
            match argument.split_once(':') {
                None if argument == "echo" => {
                    let line = std::io::stdin().lock().lines().next().and_then(Result::ok);
                    println!("{}", line.unwrap_or_default());
                }
                None if argument == "fail" => return Err(()),
                Some(("exit", code)) => std::process::exit(code.parse().expect("a number")),
                Some(("env", name)) => println!("{}", std::env::var(name).unwrap_or_default()),
                _ => println!("{}", disk::run(&argument)),
            }
        }
        eprintln!("done");
        Ok(())
    }
}
