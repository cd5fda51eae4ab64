//! An app with files and data, and a command that its operator runs: `wasgi manage`. The query says what to do with files.

use std::cell::Cell;
use std::io::BufRead;

use wasgi::fetch::Request;
use wasgi::{Body, Environ, Error, StartResponse, keyvalue};

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
    let done = match query.split_once('=') {
        Some(("disk", words)) => disk::run(words),
        Some(("elsewhere", words)) => elsewhere::run(words),
        Some(("senses", words)) => senses::run(words),
        Some(("shelf", words)) => shelf::run(words),
        Some(("kept", words)) => kept(words),
        Some(("fetch", words)) => fetched(words),
        Some(("grow", bytes)) => {
            std::mem::forget(vec![1_u8; bytes.parse()?]);
            format!("call {calls}")
        }
        _ => format!("call {calls} of {}", environ.path_info()),
    };
    match &*environ.path_info() {
        // What it has done, and then fails.
        "/raise" => Err(Error::new("SiteError", done)),
        _ => Ok(Body::from(done)),
    }
}

/// What the SDK's own way of sending requests comes to: `GET,URL` or `POST,URL,BODY`.
fn fetched(words: &str) -> String {
    let fields: Vec<&str> = words.split(',').collect();
    let request = match fields[..] {
        [method, url] => Request::new(method, url),
        [method, url, body] => Request::new(method, url).header("X-Given", "by the guest").body(body),
        _ => return "no URL".to_owned(),
    };
    let answer = request.send().and_then(|response| {
        let (status, kind) = (response.status(), response.header("Content-Type").unwrap_or("nothing").to_owned());
        Ok(format!("{status} {kind} {}", response.text()?))
    });
    answer.unwrap_or_else(|error| format!("{:?}: {error}", error.kind()))
}

/// What the SDK's own way to a store comes to: `STORE,KEY,VALUE`.
fn kept(words: &str) -> String {
    let fields: Vec<&str> = words.split(',').collect();
    let [name, key, value] = fields[..] else { return "no store".to_owned() };
    let tried = || -> Result<String, keyvalue::Error> {
        let store = keyvalue::open(name)?;
        store.set_many(&[(key, value.as_bytes()), ("number", b"41")])?;
        store.update(key, |old| [old.unwrap_or_default(), b"!".to_vec()].concat())?;
        let text = store.get(key)?.map(|value| String::from_utf8_lossy(&value).into_owned()).unwrap_or_default();
        let number = store.increment("number", 1)?;
        let keys = store.keys().collect::<Result<Vec<_>, _>>()?.join(" ");
        let found = store.get_many(&[key, "none"])?.iter().flatten().count();
        store.delete_many(&[key, "number"])?;
        store.set("last", "x")?;
        store.delete("last")?;
        Ok(format!("{text} {number} [{keys}] {found} {}", store.exists(key)?))
    };
    tried().unwrap_or_else(|error| format!("{:?}: {error}", error.kind()))
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
