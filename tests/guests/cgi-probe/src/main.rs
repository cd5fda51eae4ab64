//! A CGI program that shows what it is given, and says and does what it is told. PATH_INFO says what, the query how.

use std::env;
use std::io::{self, BufRead, Read, Write};
use std::process::exit;
use std::thread::sleep;
use std::time::Duration;

const DOCUMENT: &str = "Content-Type: text/plain; charset=utf-8\n\n";

fn main() -> io::Result<()> {
    let path = env::var("PATH_INFO").unwrap_or_default();
    let query = env::var("QUERY_STRING").unwrap_or_default();
    match path.as_str() {
        // What it is given.
        "/environ" => lines(env::vars().map(|(name, value)| format!("{name}={value}"))),
        "/arguments" => lines(env::args()),
        "/read" => read_to_the_end(),
        "/files" => files(),
        "/disk" => lines([disk::run(&query)].into_iter()),
        "/senses" => lines([senses::run(&query)].into_iter()),
        // What it says: the query, decoded, is all that goes to stdout.
        "/say" => say(&decoded(&query)),
        "/say-bytes" => decoded(&query).iter().try_for_each(|byte| say(&[*byte])),
        "/say-and-fail" => {
            say(&decoded(&query))?;
            eprintln!("it failed");
            exit(3)
        }
        "/say-and-exit" => {
            say(&decoded(&query))?;
            exit(0)
        }
        "/say-and-panic" => {
            say(&decoded(&query))?;
            panic!("it panics")
        }
        // It speaks and listens.
        "/echo" => echo(),
        "/dialogue" => dialogue(),
        "/blocks" => blocks(number(&query)),
        "/blocks-and-panic" => {
            blocks(number(&query))?;
            panic!("it panics")
        }
        "/blocks-and-spin" => {
            blocks(number(&query))?;
            loop {
                std::hint::black_box(0);
            }
        }
        "/redirect-after-work" => {
            io::copy(&mut io::stdin(), &mut io::sink())?;
            say(b"Location: /component/environ?from=redirect\n\n")?;
            say(b"this is nobody's")?;
            eprintln!("the work is done");
            Ok(())
        }
        // It misbehaves.
        "/sleep" => {
            sleep(Duration::from_millis(number(&query)));
            say(DOCUMENT.as_bytes())
        }
        "/head-then-sleep" => {
            say(DOCUMENT.as_bytes())?;
            sleep(Duration::from_millis(number(&query)));
            eprintln!("it has slept");
            Ok(())
        }
        "/spin" => loop {
            std::hint::black_box(0);
        },
        "/memory" => {
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1_u8; 1 << 20]);
            }
        }
        "/garbage-for-ever" => loop {
            say(&[b'x'; 4096])?;
        },
        "/log-for-ever" => loop {
            eprintln!("{}", "x".repeat(1000));
        },
        other => say(format!("Status: 404 Not Found\n\nno {other} here").as_bytes()),
    }
}

/// Past Rust's line buffer: each call is a write of its own.
fn say(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(bytes)?;
    stdout.flush()
}

fn lines(lines: impl Iterator<Item = String>) -> io::Result<()> {
    print!("{DOCUMENT}");
    lines.for_each(|line| println!("{line}"));
    Ok(())
}

/// How many bytes there are on stdin, and that the end is an end.
fn read_to_the_end() -> io::Result<()> {
    let mut body = Vec::new();
    io::stdin().read_to_end(&mut body)?;
    let again = io::stdin().read(&mut [0; 16])?;
    let sum = body.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    lines([format!("{} bytes, {sum:08x}, then {again}", body.len())].into_iter())
}

fn files() -> io::Result<()> {
    let tried = ["/", ".", "/etc/passwd", "/tmp/x"].map(|path| match std::fs::metadata(path) {
        Ok(_) => format!("{path}: there"),
        Err(_) => format!("{path}: not there"),
    });
    lines(tried.into_iter())
}

fn echo() -> io::Result<()> {
    print!("{DOCUMENT}");
    io::copy(&mut io::stdin(), &mut io::stdout())?;
    Ok(())
}

/// Answers each line before it reads the next.
fn dialogue() -> io::Result<()> {
    say(DOCUMENT.as_bytes())?;
    for line in io::stdin().lock().lines() {
        say(format!("you said {}\n", line?).as_bytes())?;
    }
    Ok(())
}

fn blocks(count: u64) -> io::Result<()> {
    say(DOCUMENT.as_bytes())?;
    let block = [b'b'; 4096];
    (0..count).try_for_each(|_| say(&block))
}

fn number(query: &str) -> u64 {
    query.parse().unwrap_or(0)
}

/// `%41` → `A`; everything else stays.
fn decoded(query: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = query.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match after.get(..2).filter(|_| *first == b'%').and_then(hex) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
