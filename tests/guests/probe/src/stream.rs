//! Generators: bodies that come block by block.

use std::time::Duration;

use wasgi::{Body, Environ, StartResponse};

use crate::{Answer, Closed, Query, TEXT, fault, raised};

/// `blocks` blocks of `bytes` each, `pause` milliseconds before each.
pub(crate) fn blocks(query: &Query, start_response: &StartResponse) -> Answer {
    start_response.call("200 OK", TEXT)?;
    let (bytes, pause) = (query.number("bytes", 10), query.time("pause"));
    let closed = Closed("stream");
    Ok(Body::stream((0..query.number("blocks", 1)).map(move |index| {
        let _ = &closed;
        if pause > Duration::ZERO {
            std::thread::sleep(pause);
        }
        vec![b'a' + (index % 26) as u8; bytes]
    })))
}

/// Server-sent events: each is released by a line of the request body.
pub(crate) fn events(environ: &Environ, query: &Query, start_response: &StartResponse) -> Answer {
    start_response.call("200 OK", &[("Content-Type", "text/event-stream")])?;
    let mut input = environ.input();
    let count = query.number("count", 3);
    Ok(Body::stream((0..count).map(move |index| {
        let line = input.readline(100)?;
        let line = String::from_utf8_lossy(&line);
        Ok::<_, wasgi::Error>(format!("id: {index}\ndata: {}\n\n", line.trim_end()))
    })))
}

/// Each piece of the request body comes back as soon as it was read.
pub(crate) fn echo_blocks(environ: &Environ, start_response: &StartResponse) -> Answer {
    start_response.call("200 OK", &[("Content-Type", "application/octet-stream")])?;
    let mut input = environ.input();
    let closed = Closed("echo-blocks");
    Ok(Body::stream(std::iter::from_fn(move || {
        let _ = &closed;
        match input.read_block(65536) {
            Ok(block) if block.is_empty() => None,
            Ok(block) => Some(Ok(block)),
            Err(error) => Some(Err(error)),
        }
    })))
}

pub(crate) fn raise_after(start_response: &StartResponse) -> Answer {
    start_response.call("200 OK", TEXT)?;
    let closed = Closed("raise-after");
    let steps = [Ok("a block"), Err(raised("secret reason"))];
    Ok(Body::stream(steps.into_iter().inspect(move |_| {
        let _ = &closed;
    })))
}

/// A block, and then the fault `kind`.
pub(crate) fn then(query: &Query, start_response: StartResponse) -> Answer {
    start_response.call("200 OK", TEXT)?;
    let (kind, ms) = (query.text("kind", "raise"), query.number("ms", 0));
    let mut step = 0;
    let closed = Closed("then");
    Ok(Body::stream(std::iter::from_fn(move || {
        let _ = &closed;
        step += 1;
        match step {
            1 => Some(Ok("a block".to_owned())),
            2 => {
                Some(fault::run(&kind, &Query(vec![("ms".to_owned(), ms.to_string())])).map(|()| "survived".to_owned()))
            }
            _ => None,
        }
    })))
}
