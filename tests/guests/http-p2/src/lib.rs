//! A `wasi:http` 0.2 component, built as one for `wasmtime serve` is. The last segment of the path names a behaviour, the query
//! is its number.

mod fault;

use std::sync::atomic::{AtomicU32, Ordering};

use wasi::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasi::io::streams::{OutputStream, StreamError};

struct App;

wasi::http::proxy::export!(App);

static CALLS: AtomicU32 = AtomicU32::new(0);

impl wasi::exports::http::incoming_handler::Guest for App {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let number = query.parse().unwrap_or(0);
        match path.rsplit('/').next().unwrap_or_default() {
            "hello" => respond(out, 200, &[], b"hello from wasi:http"),
            "calls" => respond(out, 200, &[], format!("call {calls}").as_bytes()),
            "request" => respond(out, 200, &[], describe(&request).as_bytes()),
            "status" => respond(out, number, &[("x-given", "yes")], b"a body"),
            "length" => respond(out, 200, &[("content-length", "6")], b"a body"),
            "cookies" => respond(out, 200, &[("set-cookie", "a=1"), ("set-cookie", "b=2")], b""),
            "disk" => respond(out, 200, &[], disk::run(query).as_bytes()),
            "senses" => respond(out, 200, &[], senses::run(query).as_bytes()),
            "echo" => echo(&request, out),
            "ignore" => {
                // Kept, so that only the host can take the body back.
                std::mem::forget(request);
                respond(out, 200, &[], b"ignored");
            }
            "trailers" => trailers(&request, out),
            "blocks" => blocks(&request, out, number),
            "log" => {
                println!("to standard output");
                eprintln!("to standard error");
                respond(out, 200, &[], b"logged");
            }
            "elsewhere" => respond(out, 200, &[], elsewhere::run(query).as_bytes()),
            "shelf" => respond(out, 200, &[], shelf::run(query).as_bytes()),
            "outgoing" => respond(out, 200, &[], fault::outgoing().as_bytes()),
            kind => fault::run(kind, number, out),
        }
    }
}

fn response(status: u16, headers: &[(&str, &str)]) -> OutgoingResponse {
    let fields: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let response = OutgoingResponse::new(Fields::from_list(&fields).expect("these are headers"));
    response.set_status_code(status).expect("it is a status");
    response
}

pub(crate) fn begin(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> OutgoingBody {
    let response = response(status, headers);
    let body = response.body().expect("a body is taken once");
    ResponseOutparam::set(out, Ok(response));
    body
}

pub(crate) fn respond(out: ResponseOutparam, status: u16, headers: &[(&str, &str)], bytes: &[u8]) {
    let body = begin(out, status, headers);
    let stream = body.write().expect("a body is written once");
    let written = write(&stream, bytes);
    drop(stream);
    if written.is_ok() {
        OutgoingBody::finish(body, None).expect("the length fits");
    }
}

pub(crate) fn write(stream: &OutputStream, bytes: &[u8]) -> Result<(), StreamError> {
    // At most 4,096 bytes a call: that is wasi:io's rule for the blocking form.
    bytes.chunks(4096).try_for_each(|piece| stream.blocking_write_and_flush(piece))
}

/// What the guest sees of a request, a line each.
fn describe(request: &IncomingRequest) -> String {
    let method = match request.method() {
        Method::Other(name) => name,
        known => format!("{known:?}"),
    };
    let scheme = match request.scheme() {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) => "https",
        _ => "none",
    };
    let mut text = format!(
        "method {method}\ntarget {}\nscheme {scheme}\nauthority {}\n",
        request.path_with_query().unwrap_or_default(),
        request.authority().unwrap_or_default()
    );
    for (name, value) in request.headers().entries() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(&value)));
    }
    text
}

/// Calls `take` with each piece of the body as it comes; then waits for the trailers.
fn read(request: &IncomingRequest, mut take: impl FnMut(&[u8])) -> Result<Option<Fields>, StreamError> {
    let body = request.consume().expect("a body is consumed once");
    let stream = body.stream().expect("a body is streamed once");
    loop {
        match stream.blocking_read(65536) {
            Ok(piece) => take(&piece),
            Err(StreamError::Closed) => break,
            Err(failed) => return Err(failed),
        }
    }
    drop(stream);
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    Ok(trailers.get().expect("it is there").expect("it was not taken").ok().flatten())
}

/// Each piece of the body goes back as it comes.
fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let body = begin(out, 200, &[("content-type", "application/octet-stream")]);
    let stream = body.write().expect("a body is written once");
    let read = read(request, |piece| write(&stream, piece).expect("the client is there"));
    drop(stream);
    if read.is_ok() {
        OutgoingBody::finish(body, None).expect("no length was promised");
    }
}

/// A body with trailers: the request's own, and one more.
fn trailers(request: &IncomingRequest, out: ResponseOutparam) {
    let mut bytes = 0;
    let given = read(request, |piece| bytes += piece.len()).expect("the client is there");
    let body = begin(out, 200, &[("trailer", "x-bytes, x-given")]);
    let stream = body.write().expect("a body is written once");
    write(&stream, b"a body").expect("the client is there");
    drop(stream);
    let fields = Fields::new();
    fields.append("x-bytes", bytes.to_string().as_bytes()).expect("it is a header");
    if let Some(given) = given {
        for value in given.get("x-given") {
            fields.append("x-given", &value).expect("it is a header");
        }
    }
    OutgoingBody::finish(body, Some(fields)).expect("no length was promised");
}

/// A block for each byte of the request body; then `number` blocks of 64 KiB.
fn blocks(request: &IncomingRequest, out: ResponseOutparam, number: u16) {
    let body = begin(out, 200, &[]);
    let stream = body.write().expect("a body is written once");
    let _ = read(request, |piece| {
        for byte in piece {
            write(&stream, &[*byte]).expect("the client is there");
        }
    });
    for _ in 0..number {
        let ready = stream.subscribe();
        let mut rest = vec![b'x'; 65536];
        while !rest.is_empty() {
            ready.block();
            let Ok(room) = stream.check_write() else { return };
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            if stream.write(&rest[..room]).is_err() {
                return;
            }
            rest.drain(..room);
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
