//! A CGI program in Rust: what `main` prints is the response. `cgi-c` and `cgi-zig` do the same in other languages.

use std::{env, io};

fn main() -> io::Result<()> {
    println!("Content-Type: text/plain; charset=utf-8\n");
    println!("Hello from Rust.");
    for name in ["REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH"] {
        println!("{name}={}", env::var(name).unwrap_or_default());
    }
    // The request body, of any size: it goes back as it comes.
    io::copy(&mut io::stdin(), &mut io::stdout())?;
    Ok(())
}
