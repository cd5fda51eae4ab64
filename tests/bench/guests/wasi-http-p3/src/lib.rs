//! The classic sample as a wasi:http 0.3 component, the same for both servers. It goes straight to WASI's bindings.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{spawn_local, wit_future, wit_stream};

const HELLO: &[u8] = b"This is a sample WSGI Application.";

struct App;

wasip3::http::service::export!(App);

impl wasip3::exports::http::handler::Guest for App {
    async fn handle(_: Request) -> Result<Response, ErrorCode> {
        let headers = Fields::from_list(&[
            ("content-type".to_owned(), b"text/plain".to_vec()),
            ("content-length".to_owned(), HELLO.len().to_string().into_bytes()),
        ])
        .expect("these are headers");
        let (mut stream, contents) = wit_stream::new();
        let (end, ended) = wit_future::new(|| Ok(None));
        let (response, _) = Response::new(headers, Some(contents), ended);
        drop(end);
        spawn_local(async move {
            stream.write_all(HELLO.to_vec()).await;
        });
        Ok(response)
    }
}
