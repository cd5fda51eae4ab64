//! A small language for the conformance tests: the query's pairs are steps, taken in order. Guests of all SDKs know it, so that
//! one case runs against each of them.
//!
//! | step | what happens |
//! | --- | --- |
//! | `header=NAME:VALUE` | goes with the next `start`, `try-start` or `restart` |
//! | `start=STATUS` | `start_response`; what it raises is let through |
//! | `try-start=STATUS` | the same; what it raises is written to `wsgi.errors` as "raised: …" |
//! | `restart=STATUS` | `start_response` with `exc_info` |
//! | `write=DATA` | the `write` that the last one returned |
//! | `log=TEXT` | a line for `wsgi.errors` |
//! | `raise=TEXT` | an exception |
//! | `sleep=MS`, `spin=` | waits; runs until it is stopped |
//! | `closes=NAME` | `close()` writes "closed NAME" to `wsgi.errors` |
//! | `iterate=` | what follows happens in the returned iterable; without it a list is returned |
//! | `block=DATA`, `fill=BYTES` | a block of the list, or of the iterable |
//! | `line=` | a block: the next line of the request body |
//!
//! Data is percent-encoded, and a character is a byte. `%uXXXX` is a character that is none.

use std::fmt::Write as _;

use wasgi::{Body, Environ, StartResponse, Write};

use crate::{Answer, Query, raised};

struct Script {
    environ: Environ,
    start_response: StartResponse,
    steps: std::vec::IntoIter<(String, String)>,
    headers: Vec<(String, String)>,
    write: Option<Write>,
    closes: Option<Closes>,
}

struct Closes(Environ, String);

impl Drop for Closes {
    fn drop(&mut self) {
        let _ = writeln!(self.0.errors(), "closed {}", self.1);
    }
}

/// What a step leads to.
enum Outcome {
    GoOn,
    Block(Vec<u8>),
    Iterate,
}

pub(crate) fn run(environ: Environ, query: Query, start_response: StartResponse) -> Answer {
    let steps = query.0.into_iter();
    let mut script = Script { environ, start_response, steps, headers: Vec::new(), write: None, closes: None };
    let mut blocks = Vec::new();
    while let Some((step, argument)) = script.steps.next() {
        match script.step(&step, argument)? {
            Outcome::GoOn => {}
            Outcome::Block(block) => blocks.push(block),
            Outcome::Iterate => return Ok(Body::stream(std::iter::from_fn(move || script.next_block()))),
        }
    }
    Ok(Body::from(blocks))
}

impl Script {
    fn next_block(&mut self) -> Option<wasgi::Result<Vec<u8>>> {
        while let Some((step, argument)) = self.steps.next() {
            match self.step(&step, argument) {
                Ok(Outcome::Block(block)) => return Some(Ok(block)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    fn step(&mut self, step: &str, argument: String) -> wasgi::Result<Outcome> {
        let mut errors = self.environ.errors();
        match step {
            "header" => {
                let (name, value) = argument.split_once(':').expect("a header has a colon");
                self.headers.push((name.to_owned(), value.to_owned()));
            }
            "start" => self.write = Some(self.start(&argument)?),
            "try-start" => match self.start(&argument) {
                Ok(write) => self.write = Some(write),
                Err(error) => writeln!(errors, "raised: {error}")?,
            },
            "restart" => {
                let headers = std::mem::take(&mut self.headers);
                let exc_info = raised("secret reason");
                self.write = Some(self.start_response.call_with_exc_info(&argument, &pairs(&headers), exc_info)?);
            }
            "write" => self.write.as_ref().expect("start_response was called").write(&bytes(&argument))?,
            "log" => writeln!(errors, "{argument}")?,
            "raise" => return Err(raised(&argument)),
            "sleep" => std::thread::sleep(std::time::Duration::from_millis(argument.parse()?)),
            "spin" => loop {
                std::hint::black_box(());
            },
            "closes" => self.closes = Some(Closes(self.environ.clone(), argument)),
            "iterate" => return Ok(Outcome::Iterate),
            "block" => return Ok(Outcome::Block(bytes(&argument))),
            "fill" => return Ok(Outcome::Block(vec![b'x'; argument.parse()?])),
            "line" => return Ok(Outcome::Block(self.environ.input().readline(1000)?)),
            step => panic!("no step {step}"),
        }
        Ok(Outcome::GoOn)
    }

    fn start(&mut self, status: &str) -> Result<Write, wasgi::ProtocolError> {
        let headers = std::mem::take(&mut self.headers);
        self.start_response.call(status, &pairs(&headers))
    }
}

fn pairs(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// PEP 3333's "bytes as latin-1", back.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(u32::from(char)).expect("data is bytes")).collect()
}
