//! An app on the SDK with a path for each behaviour that the tests look at. What a path needs to know is in the query:
//! `/stream?blocks=3&bytes=10`.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, Instant};

use wasgi::{Body, Environ, Error, StartResponse};

mod fault;
mod file;
mod input;
mod response;
mod script;
mod state;
mod stream;

type Answer = wasgi::Result<Body>;

const TEXT: &[(&str, &str)] = &[("Content-Type", "text/plain")];

#[wasgi::application]
fn app(environ: Environ, start_response: StartResponse) -> Answer {
    let query = Query::new(&environ);
    // Wherever the app is mounted, and whatever the path is.
    if query.number("dump", 0) > 0 {
        return dump(&environ, &start_response);
    }
    match &*environ.path_info() {
        "" | "/" | "/hello" => text(&start_response, "hello"),
        "/environ" => dump(&environ, &start_response),
        "/change-environ" => {
            let mut changed = environ;
            changed.set("PATH_INFO", "/changed");
            changed.set("X_NEW", "new");
            changed.remove("QUERY_STRING");
            dump(&changed, &start_response)
        }
        "/gateway" => text(
            &start_response,
            format!(
                "url_scheme={} multiprocess={} run_once={} input_terminated={}",
                environ.url_scheme().as_str(),
                environ.multiprocess(),
                environ.run_once(),
                environ.input_terminated()
            ),
        ),
        "/log" => {
            for line in 0..query.number("lines", 1) {
                println!("{line} {}", "x".repeat(query.number("bytes", 10)));
            }
            eprintln!("on stderr");
            write!(environ.errors(), "on wsgi.errors\nwithout an end")?;
            text(&start_response, "logged")
        }

        "/script" => script::run(environ, query, start_response),
        "/file" => file::wrap(environ, &query, &start_response),
        "/errors" => {
            let mut errors = environ.errors();
            write!(errors, "written \u{e9}\u{20ac}\u{1f600}\n")?;
            errors.writelines(["first of two\n", "second of two\n"]);
            write!(errors, "flushed without an end")?;
            errors.flush();
            write!(errors, "left without an end")?;
            drop(errors);
            text(&start_response, "written")
        }

        "/length" => response::length(&query, &start_response),
        "/many-headers" => response::many_headers(&query, &start_response),
        "/write" => response::write(&query, &start_response),

        "/stream" => stream::blocks(&query, &start_response),
        "/events" => stream::events(&environ, &query, &start_response),
        "/echo-blocks" => stream::echo_blocks(&environ, &start_response),
        "/raise-after" => stream::raise_after(&start_response),
        "/then" => stream::then(&query, start_response),

        "/echo" => input::echo(&environ, &start_response),
        "/count" => input::count(&environ, &start_response),
        "/read" => input::read(&environ, &query, &start_response),

        "/fault" => {
            fault::run(&query.text("kind", "raise"), &query)?;
            text(&start_response, "survived")
        }
        "/raise-with-request" => Err(fault::with_request(&environ)?),
        "/state" => state::count(&query, &start_response),
        "/hunt" => state::hunt(&start_response),
        "/reach" => text(&start_response, fault::reach(&query.text("address", "127.0.0.1:80"))),

        path => {
            start_response.call("404 Not Found", TEXT)?;
            Ok(Body::from(format!("probe has no {path}")))
        }
    }
}

fn text(start_response: &StartResponse, text: impl Into<String>) -> Answer {
    start_response.call("200 OK", TEXT)?;
    Ok(Body::from(text.into()))
}

/// Every variable as `NAME=value`, a line each, in bytes as they came.
fn dump(environ: &Environ, start_response: &StartResponse) -> Answer {
    let mut lines = Vec::new();
    for (name, value) in environ.variables() {
        lines.extend_from_slice(name);
        lines.push(b'=');
        lines.extend_from_slice(value);
        lines.push(b'\n');
    }
    start_response.call("200 OK", TEXT)?;
    Ok(Body::from(lines))
}

/// The query string's pairs, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn new(environ: &Environ) -> Self {
        let query = environ.query_string();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (name.to_owned(), decode(value))).collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.all(name).next().unwrap_or(default).to_owned()
    }

    fn number(&self, name: &str, default: usize) -> usize {
        self.all(name).next().map_or(default, |text| text.parse().expect("a number is wanted"))
    }

    fn time(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name, 0) as u64)
    }
}

/// Percent-decoding; a byte becomes the code point of the same number, as PEP 3333 has it.
fn decode(text: &str) -> String {
    let mut bytes = text.as_bytes().iter().copied();
    let mut decoded = String::new();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            // A character that is no byte.
            b'%' if bytes.clone().next().as_ref() == Some(&b'u') => {
                let digits: String = bytes.by_ref().take(5).skip(1).map(char::from).collect();
                let code = u32::from_str_radix(&digits, 16).expect("four hex digits");
                decoded.push(char::from_u32(code).expect("a character"));
                continue;
            }
            b'%' => {
                let digits = [bytes.next().expect("two digits"), bytes.next().expect("two digits")];
                let digits = std::str::from_utf8(&digits).expect("hex digits are ASCII");
                u8::from_str_radix(digits, 16).expect("two hex digits")
            }
            byte => byte,
        };
        decoded.push(char::from(byte));
    }
    decoded
}

/// Says in the log that it was dropped: PEP 3333's `close()`.
struct Closed(&'static str);

impl Drop for Closed {
    fn drop(&mut self) {
        println!("closed {}", self.0);
    }
}

fn spin_for(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::black_box(&begin);
    }
}

thread_local! {
    /// What a test leaves behind on purpose.
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn raised(message: &str) -> Error {
    Error::new("ProbeError", message)
}
