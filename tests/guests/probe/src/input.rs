//! What can be done with `wsgi.input`.

use std::io::Read;

use wasgi::{Body, Environ, StartResponse};

use crate::{Answer, Query, TEXT, text};

pub(crate) fn echo(environ: &Environ, start_response: &StartResponse) -> Answer {
    let mut body = Vec::new();
    environ.input().read_to_end(&mut body)?;
    start_response.call("200 OK", TEXT)?;
    Ok(Body::from(body))
}

/// How many bytes there were, and their sum.
pub(crate) fn count(environ: &Environ, start_response: &StartResponse) -> Answer {
    let mut input = environ.input();
    let (mut bytes, mut sum) = (0_u64, 0_u64);
    loop {
        let block = input.read_block(1 << 20)?;
        if block.is_empty() {
            break;
        }
        bytes += block.len() as u64;
        sum = block.iter().fold(sum, |sum, byte| sum + u64::from(*byte));
    }
    text(start_response, format!("{bytes} bytes, sum {sum}"))
}

/// `op=read:5`, `op=readline:100`, `op=readlines:0`, `op=lines:2` in order: a line for each, with what it gave. `read` insists on its size.
pub(crate) fn read(environ: &Environ, query: &Query, start_response: &StartResponse) -> Answer {
    let mut input = environ.input();
    let mut lines = String::new();
    for op in query.all("op") {
        let (op, size) = op.split_once(':').expect("an operation has a size");
        let size: usize = size.parse()?;
        let mut got = Vec::new();
        match op {
            "read" => drop((&mut input).take(size as u64).read_to_end(&mut got)?),
            "once" => got = input.read_block(size)?,
            "readline" => got = input.readline(size)?,
            "readlines" => {
                let read = input.readlines(size)?;
                lines.push_str(&format!("{:?}\n", read.iter().map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>()));
                continue;
            }
            // Iteration: so many lines.
            "lines" => {
                let read = input.lines().take(size).collect::<Result<Vec<_>, _>>()?;
                lines.push_str(&format!("{:?}\n", read.iter().map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>()));
                continue;
            }
            op => panic!("no operation {op}"),
        }
        lines.push_str(&format!("{:?}\n", String::from_utf8_lossy(&got)));
    }
    text(start_response, lines)
}
