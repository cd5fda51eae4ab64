//! One misbehaviour for each path, to show what the host does about it. Deploy it to watch, not to serve.
//!
//! | path | what it does |
//! | --- | --- |
//! | `/loop` | never returns, and never waits |
//! | `/memory` | takes memory until there is no more |
//! | `/recurse` | calls itself without end |
//! | `/sleep?s=60` | waits, and does nothing |
//! | `/silent?s=60` | sends the headers and one block, then waits |
//! | `/panic`, `/error` | panics; returns an error |
//! | `/late-error` | returns an error after the first block |
//! | `/nothing` | returns without ever calling `start_response` |
//! | `/log`, `/stdout` | writes to the log, or to its standard output, without end |
//! | `/headers`, `/header` | a hundred thousand headers; one of a hundred megabytes |
//! | `/bigblock` | one block of a hundred megabytes |
//! | `/bigbody` | blocks without end |
//! | `/empty-blocks` | empty blocks without end |
//! | `/lie` | announces more bytes than it sends |
//! | `/exit` | ends its process, as it thinks |

use std::hint::black_box;
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use wasgi::{Body, Environ, Error, StartResponse};

const TEXT: (&str, &str) = ("Content-Type", "text/plain");
const MANY_BYTES: usize = 100_000_000;

#[wasgi::application]
fn app(environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
    let seconds = environ.query().get("s").map_or(Ok(60), str::parse)?;
    let time = Duration::from_secs(seconds);
    let ok = |body: Body| -> wasgi::Result<Body> {
        start_response.call("200 OK", &[TEXT])?;
        Ok(body)
    };
    match &*environ.path_info() {
        "/loop" => spin(),
        "/memory" => hoard(),
        "/recurse" => ok(Body::from(descend(1).to_string())),
        "/sleep" => {
            sleep(time);
            ok(Body::from("Good morning.\n"))
        }
        "/silent" => ok(Body::stream((0..2).map(move |step| {
            sleep(time * step);
            "One block.\n"
        }))),
        "/panic" => panic!("this is not fine"),
        "/error" => Err(Error::new("Misbehaviour", "this is not fine")),
        "/late-error" => ok(Body::stream([
            Ok("One block.\n"),
            Err(Error::new("Misbehaviour", "too late")),
        ])),
        "/nothing" => Ok(Body::from("Without a status.\n")),
        "/log" => babble(environ.errors()),
        "/stdout" => babble(std::io::stdout()),
        "/headers" => {
            start_response.call("200 OK", &vec![("X-Many", "value"); 100_000])?;
            Ok(Body::empty())
        }
        "/header" => {
            start_response.call("200 OK", &[("X-Long", &"x".repeat(MANY_BYTES))])?;
            Ok(Body::empty())
        }
        "/bigblock" => ok(Body::from(vec![b'x'; MANY_BYTES])),
        "/bigbody" => ok(Body::stream(std::iter::repeat_with(|| vec![b'x'; 64 * 1024]))),
        "/empty-blocks" => ok(Body::stream(std::iter::repeat(""))),
        "/lie" => {
            start_response.call("200 OK", &[TEXT, ("Content-Length", "1000")])?;
            Ok(Body::from("Not a thousand bytes.\n"))
        }
        "/exit" => std::process::exit(3),
        _ => ok(Body::from(
            "Behaving. The first comment of examples/hostile/src/lib.rs lists the other ways.\n",
        )),
    }
}

fn spin() -> ! {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

fn hoard() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1024 * 1024]));
    }
}

#[allow(unconditional_recursion, reason = "that is the point")]
fn descend(depth: u64) -> u64 {
    // Work after the call keeps it from becoming a loop.
    black_box(depth) + descend(depth + 1) * black_box(depth)
}

fn babble(mut to: impl Write) -> ! {
    loop {
        // A log that refuses more is no reason to stop.
        let _ = writeln!(to, "{}", "blah ".repeat(200));
    }
}
