//! The benchmark's larger pieces of work as a WSGI app: a 100 KB page, and an upload that is read and counted. Hello world is
//! `examples/hello`.

use wasgi::{Body, Environ, StartResponse};

/// Read at once; what the host is asked for in one call.
const BLOCK_BYTES: usize = 64 << 10;

#[wasgi::application]
fn app(environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
    start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
    if environ.get("REQUEST_METHOD").as_deref() == Some("POST") {
        let mut input = environ.input();
        let mut bytes = 0;
        loop {
            let block = input.read_block(BLOCK_BYTES)?;
            if block.is_empty() {
                return Ok(Body::from(bytes.to_string()));
            }
            bytes += block.len();
        }
    }
    Ok(Body::from(page()))
}

/// Made anew for each request, as an app makes its pages.
fn page() -> Vec<u8> {
    vec![b'x'; 100_000]
}
