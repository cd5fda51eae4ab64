//! Everything that a guest can do wrong, by name.

use std::hint::black_box;
use std::io::Read;

use wasgi::{Environ, Error};

use crate::{KEPT, Query, raised, spin_for};

pub(crate) fn run(kind: &str, query: &Query) -> wasgi::Result<()> {
    match kind {
        "raise" => Err(raised("secret reason")),
        "panic" => panic!("secret panic"),
        "spin" => loop {
            black_box(());
        },
        "spin-for" => {
            spin_for(query.time("ms"));
            Ok(())
        }
        "sleep" => {
            std::thread::sleep(query.time("ms"));
            Ok(())
        }
        "memory" => {
            take_memory(query.number("bytes", usize::MAX));
            Ok(())
        }
        "recurse" => {
            black_box(recurse_without_end(0));
            Ok(())
        }
        kind => panic!("no fault {kind}"),
    }
}

/// An exception that says what it was given.
pub(crate) fn with_request(environ: &Environ) -> wasgi::Result<Error> {
    let mut body = Vec::new();
    environ.input().read_to_end(&mut body)?;
    let digest = body.iter().fold(0_u64, |sum, byte| sum * 31 % 1_000_003 + u64::from(*byte));
    let of = |name: &str| environ.header(name).map_or(0, |value| value.len());
    Ok(raised(&format!(
        "{} at {:?} {:?}?{} with {} bytes ({digest}), agent {:?}, authorization {}, over {}",
        environ.method(),
        environ.script_name(),
        environ.path_info(),
        environ.query_string(),
        body.len(),
        environ.header("User-Agent"),
        of("Authorization"),
        environ.url_scheme().as_str(),
    )))
}

/// In pieces of a megabyte, each touched.
fn take_memory(bytes: usize) {
    for _ in 0..bytes.div_ceil(1 << 20) {
        KEPT.with_borrow_mut(|kept| kept.push(vec![1; 1 << 20]));
    }
}

#[inline(never)]
fn recurse_without_end(depth: u64) -> u64 {
    let here = black_box([depth; 16]);
    if black_box(depth) == u64::MAX {
        return 0;
    }
    black_box(recurse_without_end(depth + 1)) + here[black_box(3)]
}

/// What there is beyond the sandbox: each thing that could be reached, by name.
pub(crate) fn reach(address: &str) -> String {
    let attempts = [
        ("file", std::fs::read("/etc/passwd").is_ok()),
        ("folder", std::fs::read_dir("/").is_ok() || std::fs::read_dir(".").is_ok()),
        ("new file", std::fs::write("reached", "x").is_ok()),
        ("connection", std::net::TcpStream::connect(address).is_ok()),
        ("listener", std::net::TcpListener::bind("127.0.0.1:0").is_ok()),
        ("datagrams", std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
        ("name", std::net::ToSocketAddrs::to_socket_addrs("localhost:80").is_ok()),
        ("environment", std::env::vars().next().is_some()),
        ("input", std::io::Read::read(&mut std::io::stdin(), &mut [0]).is_ok_and(|bytes| bytes > 0)),
    ];
    let reached: Vec<&str> = attempts.iter().filter(|(_, reached)| *reached).map(|(name, _)| *name).collect();
    format!("reached: {}", reached.join(", "))
}
