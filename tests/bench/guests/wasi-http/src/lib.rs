//! The benchmark's work as a wasi:http 0.2 component, for `wasmtime serve`: hello world, a 100 KB page, and an upload that is
//! read and counted. It goes straight to WASI's bindings, so that no framework slows the other side down.

use wasi::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasi::io::streams::StreamError;

const HELLO: &[u8] = b"This is a sample WSGI Application.";

/// Read at once, as the WSGI guest does.
const BLOCK_BYTES: u64 = 64 << 10;

struct App;

wasi::http::proxy::export!(App);

impl wasi::exports::http::incoming_handler::Guest for App {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        if matches!(request.method(), Method::Post) {
            let bytes = count(&request);
            respond(response_out, bytes.to_string().as_bytes());
        } else if request.path_with_query().as_deref() == Some("/page") {
            // Made anew for each request, as an app makes its pages.
            respond(response_out, &vec![b'x'; 100_000]);
        } else {
            respond(response_out, HELLO);
        }
    }
}

fn count(request: &IncomingRequest) -> usize {
    let body = request.consume().expect("a body is consumed once");
    let stream = body.stream().expect("a body is streamed once");
    let mut bytes = 0;
    loop {
        match stream.blocking_read(BLOCK_BYTES) {
            Ok(block) => bytes += block.len(),
            // The end; or the client is gone, as all of them are when a measurement ends.
            Err(StreamError::Closed | StreamError::LastOperationFailed(_)) => break,
        }
    }
    drop(stream);
    drop(IncomingBody::finish(body));
    bytes
}

fn respond(response_out: ResponseOutparam, body: &[u8]) {
    let length = body.len().to_string();
    let headers = Fields::from_list(&[
        ("content-type".to_owned(), b"text/plain".to_vec()),
        ("content-length".to_owned(), length.into_bytes()),
    ])
    .expect("these are headers");
    let response = OutgoingResponse::new(headers);
    let outgoing = response.body().expect("a body is taken once");
    ResponseOutparam::set(response_out, Ok(response));
    let stream = outgoing.write().expect("a body is written once");
    // At most 4,096 bytes a call: that is wasi:io's rule for the blocking form.
    let written = if body.len() <= 4096 { stream.blocking_write_and_flush(body) } else { write_all(&stream, body) };
    drop(stream);
    // Where it was not written, the client is gone.
    if written.is_ok() {
        let _ = OutgoingBody::finish(outgoing, None);
    }
}

fn write_all(stream: &wasi::io::streams::OutputStream, mut body: &[u8]) -> Result<(), StreamError> {
    let ready = stream.subscribe();
    while !body.is_empty() {
        ready.block();
        let room = stream.check_write()? as usize;
        let (now, later) = body.split_at(room.min(body.len()));
        stream.write(now)?;
        body = later;
    }
    stream.flush()?;
    ready.block();
    Ok(())
}
