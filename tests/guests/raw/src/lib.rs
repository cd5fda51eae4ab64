//! A guest on the bare contract, which breaks the rules that the SDK keeps. `PATH_INFO` says which one.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

wit_bindgen::generate!({ path: "../../../wit", world: "app" });

use exports::wasgi::gateway::application::Guest;
use wasgi::gateway::gateway::{Errors, Input, StartResponse, Write};
use wasgi::gateway::types::{ExcInfo, Head, Part};

struct Raw;
export!(Raw);

/// Handles that are kept from one call to the next.
struct Kept {
    start_response: StartResponse,
    write: Option<Write>,
    input: Input,
    errors: Errors,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
    static BOMB: RefCell<Vec<Input>> = const { RefCell::new(Vec::new()) };
    /// The iterator under way: its kind, and the steps that it has taken.
    static STEPS: Cell<(&'static str, u32)> = const { Cell::new(("", 0)) };
    /// What the iterator of `/say` has still to say.
    static BLOCKS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn variable(variables: &[u8], name: &str) -> String {
    let mut parts = variables.split(|byte| *byte == 0);
    while let (Some(found), Some(value)) = (parts.next(), parts.next()) {
        if found == name.as_bytes() {
            return String::from_utf8_lossy(value).into_owned();
        }
    }
    String::new()
}

fn head(status: &str, headers: &[(&str, &str)]) -> Head {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    (status.into(), headers)
}

fn ok() -> Option<Head> {
    Some(head("200 OK", &[("Content-Type", "text/plain")]))
}

fn whole(head: Option<Head>, text: &str) -> Result<Part, ExcInfo> {
    Ok((head, vec![text.as_bytes().to_vec()], false))
}

fn start(status: &str, headers: &[(&str, &str)]) -> Result<Write, wasgi::gateway::types::ProtocolError> {
    let (status, headers) = head(status, headers);
    StartResponse::current().call(&status, &headers, None)
}

fn exc_info() -> ExcInfo {
    ExcInfo { name: "RawError".into(), message: "secret reason".into(), traceback: "line 1\nline 2".into() }
}

impl Guest for Raw {
    fn call(variables: Vec<u8>, _https: bool, _multiprocess: bool, _run_once: bool) -> Result<Part, ExcInfo> {
        let query = variable(&variables, "QUERY_STRING");
        let number = || query.parse::<usize>().expect("the query is a number");
        if query.ends_with("dump=1") {
            return Ok((ok(), vec![dump(&variables)], false));
        }
        match variable(&variables, "PATH_INFO").as_str() {
            // Both ways of calling start_response: "never both".
            "/call-and-return" => {
                start("200 OK", &[]).expect("the first call is right");
                whole(ok(), "both")
            }
            // What the host says to a second call; the first one's head stands.
            "/call-twice" => {
                let first = start("200 OK", &[("X-First", "yes")]);
                let second = start("201 Created", &[("X-Second", "yes")]);
                whole(None, &format!("{} {}", first.is_ok(), debug(second.err())))
            }
            "/never" => whole(None, "no head"),
            "/never-iterator" => steps(None, "blocks"),
            "/late-block" => steps(None, "late"),
            // A head with every step.
            "/head-each-step" => steps(ok(), "heads"),
            "/head-returned" => whole(Some(bad_head(&query)), "bad head"),
            "/head-called" => {
                let (status, headers) = bad_head(&query);
                let refused = StartResponse::current().call(&status, &headers, None);
                // It may be called again to say that something went wrong.
                let again = StartResponse::current().call("200 OK", &[], Some(&exc_info()));
                whole(None, &format!("{} {}", debug(refused.err()), again.is_ok()))
            }
            // After a first call that was refused: without exc_info, in both ways.
            "/refused-then-called" => {
                let refused = start("OK", &[]).is_err();
                let second = start("200 OK", &[]).err();
                StartResponse::current().call("200 OK", &[], Some(&exc_info())).expect("with exc_info it may");
                whole(None, &format!("{refused} {}", debug(second)))
            }
            "/refused-then-returned" => {
                start("OK", &[]).err().expect("it is refused");
                whole(ok(), "never seen")
            }
            "/exc-info-after" => {
                let write = start("200 OK", &[]).expect("the first call is right");
                write.call(b"some").expect("the client is there");
                let again = StartResponse::current().call("500 Oops", &[], Some(&exc_info()));
                write.call(debug(again.err()).as_bytes()).expect("the client is there");
                Err(exc_info())
            }
            // After an earlier call's handles were kept: what they still reach.
            "/keep" => {
                let kept = Kept {
                    start_response: StartResponse::current(),
                    write: start("200 OK", &[]).ok(),
                    input: Input::current(),
                    errors: Errors::current(),
                };
                KEPT.set(Some(kept));
                whole(None, "kept")
            }
            "/use-kept" => KEPT.with_borrow(|kept| {
                let Some(kept) = kept else { return whole(ok(), "nothing was kept") };
                kept.errors.write("written through a kept handle\n");
                let started = kept.start_response.call("299 Stolen", &[], None).err();
                let written = kept.write.as_ref().map(|write| write.call(b"stolen").err());
                let read = kept.input.read(100).err();
                whole(ok(), &format!("{} {} {}", debug(started), debug(written.flatten()), debug(read)))
            }),
            // Two handles, given back in the order in which they came: the numbers of later ones show it.
            "/handle-order" => {
                let (input, errors) = (Input::current(), Errors::current());
                let numbers = format!("{} {}", input.handle(), errors.handle());
                drop(input);
                drop(errors);
                whole(ok(), &numbers)
            }
            // The same in the other order, which leaves no trace.
            "/handle-numbers" => {
                let (input, errors) = (Input::current(), Errors::current());
                let numbers = format!("{} {}", input.handle(), errors.handle());
                drop(errors);
                drop(input);
                whole(ok(), &numbers)
            }
            // What its maps are seeded with.
            "/random" => whole(ok(), &RandomState::new().hash_one(0).to_string()),
            "/print" => {
                println!("printed");
                whole(ok(), "printed")
            }
            "/environment" => whole(ok(), &debug(std::env::vars().collect::<Vec<_>>())),
            "/handle-bomb" => {
                for _ in 0..number() {
                    BOMB.with_borrow_mut(|bomb| bomb.push(Input::current()));
                }
                whole(ok(), "as many handles as I like")
            }
            "/payload-block" => whole(ok(), &"x".repeat(number())),
            "/payload-write" => {
                let write = start("200 OK", &[]).expect("the first call is right");
                write.call(&vec![b'x'; number()]).expect("the client is there");
                whole(None, "")
            }
            "/payload-errors" => {
                Errors::current().write(&"x".repeat(number()));
                whole(ok(), "written")
            }
            "/payload-headers" => {
                let headers = vec![("X-Many".to_owned(), String::new()); number()];
                let refused = StartResponse::current().call("200 OK", &headers, None);
                StartResponse::current().call("200 OK", &[], Some(&exc_info())).expect("with exc_info it may");
                whole(None, &debug(refused.err()))
            }
            "/payload-exception" => Err(ExcInfo { message: "x".repeat(number()), ..exc_info() }),
            "/forged-log" => {
                Errors::current().write("a\u{1b}[2J\rb\n");
                Err(ExcInfo { message: "one\n\u{1b}[31mforged line".into(), ..exc_info() })
            }
            "/empty-blocks" => Ok((ok(), vec![vec![], b"a".to_vec(), vec![], b"b".to_vec()], false)),
            "/empty-blocks-for-ever" => steps(ok(), "empty"),
            "/empty-then-replace" => steps(ok(), "replace"),
            "/write-then-iterator" => {
                let write = start("200 OK", &[]).expect("the first call is right");
                write.call(b"written ").expect("the client is there");
                steps(None, "blocks")
            }
            "/environ" => Ok((ok(), vec![dump(&variables)], false)),
            "/read" => whole(ok(), &query.split(',').map(read).collect::<Vec<_>>().join("|")),
            "/say" => say(&query),
            "/close-raises" => steps(ok(), "close-raises"),
            "/close-traps" => steps(ok(), "close-traps"),
            path => panic!("raw has no {path}"),
        }
    }

    fn next() -> Result<Part, ExcInfo> {
        let (kind, taken) = STEPS.get();
        STEPS.set((kind, taken + 1));
        let more = |head: Option<Head>, text: &str| Ok((head, vec![text.as_bytes().to_vec()], true));
        match (kind, taken) {
            ("say", _) => {
                let next = BLOCKS.with_borrow_mut(Vec::pop);
                next.map_or(Ok((None, Vec::new(), false)), |block| Ok((None, vec![said(&block)?], true)))
            }
            ("late", 0) => more(None, ""),
            ("late", 1) => more(Some(head("203 Late", &[])), "late"),
            ("heads", 0..3) => more(ok(), "block"),
            ("empty", _) | ("replace", 0) => more(None, ""),
            ("replace", 1) => {
                let replaced = StartResponse::current().call("500 Replaced", &[], Some(&exc_info()));
                more(None, if replaced.is_ok() { "replaced" } else { "refused" })
            }
            ("blocks" | "close-raises" | "close-traps", 0..2) => more(None, "block "),
            _ => Ok((None, Vec::new(), false)),
        }
    }

    fn close() -> Result<(), ExcInfo> {
        let (kind, taken) = STEPS.get();
        println!("closed {kind} after {taken} steps");
        match kind {
            "close-raises" => Err(exc_info()),
            "close-traps" => panic!("in close"),
            _ => Ok(()),
        }
    }
}

/// A line for each variable.
fn dump(variables: &[u8]) -> Vec<u8> {
    let mut lines = variables.to_vec();
    for (index, end) in lines.iter_mut().filter(|byte| **byte == 0).enumerate() {
        *end = if index % 2 == 0 { b'=' } else { b'\n' };
    }
    lines
}

/// `r5` reads up to five bytes, `l5` up to five of a line.
fn read(step: &str) -> String {
    let size = step[1..].parse().expect("a size follows");
    let read = if step.starts_with('l') { Input::current().readline(size) } else { Input::current().read(size) };
    read.map_or_else(|error| debug(error), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// `WAY:STATUS:LENGTH:BLOCK,BLOCK…`: a response with these blocks, returned at once (`whole`), one by one (`steps`), or written (`write`).
/// LENGTH may be empty. A block `!` is an exception instead, `%3C` the next line of the input.
fn say(query: &str) -> Result<Part, ExcInfo> {
    let mut fields = query.splitn(4, ':');
    let mut field = || fields.next().unwrap_or_default();
    let (way, status, length, blocks) = (field(), format!("{} As It Is", field()), field(), field());
    let headers: &[(&str, &str)] = if length.is_empty() { &[] } else { &[("Content-Length", length)] };
    let mut blocks: Vec<String> = blocks.split(',').map(str::to_owned).collect();
    match way {
        "whole" => {
            let blocks = blocks.iter().map(|block| said(block)).collect::<Result<_, _>>()?;
            Ok((Some(head(&status, headers)), blocks, false))
        }
        "steps" => {
            blocks.reverse();
            BLOCKS.set(blocks);
            steps(Some(head(&status, headers)), "say")
        }
        _ => {
            let write = start(&status, headers).expect("it is a head");
            for block in &blocks {
                write.call(&said(block)?).expect("the client is there");
            }
            Ok((None, Vec::new(), false))
        }
    }
}

fn said(block: &str) -> Result<Vec<u8>, ExcInfo> {
    println!("asked for {block}");
    match block {
        "!" => Err(exc_info()),
        "%3C" => Ok(Input::current().readline(100).expect("the client is there")),
        block => Ok(block.as_bytes().to_vec()),
    }
}

fn debug<T: std::fmt::Debug>(value: T) -> String {
    format!("{value:?}")
}

fn bad_head(which: &str) -> Head {
    match which {
        "status" => head("OK", &[]),
        "status-long" => head(&format!("200 {}", "x".repeat(1 << 20)), &[]),
        "status-digits" => head("20 OK", &[]),
        "status-space" => head("200OK", &[]),
        "status-reason" => head("200 ", &[]),
        "status-latin1" => head("200 \u{20ac}", &[]),
        "name-empty" => head("200 OK", &[("", "b")]),
        "name-colon" => head("200 OK", &[("a:", "b")]),
        "name-newline" => head("200 OK", &[("a\r\nb", "c")]),
        "name-letter" => head("200 OK", &[("\u{e4}", "c")]),
        "nul" => head("200 OK", &[("X", "a\0")]),
        "newline" => head("200 OK", &[("X", "a\nSet-Cookie: stolen=1")]),
        "delete" => head("200 OK", &[("X", "a\u{7f}")]),
        "status-control" => head("200 O\r\nK", &[]),
        "informational" => head("101 Switching Protocols", &[]),
        "name" => head("200 OK", &[("a b", "c")]),
        "splitting" => head("200 OK", &[("X", "a\r\nSet-Cookie: stolen=1")]),
        "latin1" => head("200 OK", &[("X", "\u{20ac}")]),
        "status-header" => head("200 OK", &[("Status", "200 OK")]),
        "length" => head("200 OK", &[("Content-Length", "-1")]),
        "two-lengths" => head("200 OK", &[("Content-Length", "1"), ("Content-Length", "2")]),
        // A header field of that name.
        name => head("200 OK", &[(name, "x")]),
    }
}

fn steps(head: Option<Head>, kind: &'static str) -> Result<Part, ExcInfo> {
    STEPS.set((kind, 0));
    Ok((head, Vec::new(), true))
}
