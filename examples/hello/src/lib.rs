//! The classic sample.

use wasgi::{Body, Environ, StartResponse};

#[wasgi::application]
fn app(_environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
    start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
    Ok(Body::from("This is a sample WSGI Application."))
}
