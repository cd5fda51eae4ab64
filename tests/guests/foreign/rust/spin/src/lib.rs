//! A `wasi:http` 0.3 component as one for Spin is written. The last segment of the path names a behaviour.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use spin_sdk::http::{BoxBody, Request, Response, Result, box_body, get};
use spin_sdk::http_service;

#[http_service]
async fn handle(request: Request) -> Result<Response<BoxBody>> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Ok(match path.rsplit('/').next().unwrap_or_default() {
        "hello" => respond(200, "hello from Spin"),
        "request" => {
            let given = request.headers().get("x-given").and_then(|value| value.to_str().ok()).unwrap_or_default();
            respond(200, &format!("{} {target} {given}", request.method()))
        }
        "status" => respond(query.parse().unwrap_or(200), "a body"),
        // Each piece as it comes, and what follows the last.
        "echo" => Response::builder().header("trailer", "x-given").body(box_body(request.into_body()))?,
        "outgoing" => match get("http://elsewhere.example/secret").await {
            Ok(_) => respond(200, "answered"),
            Err(code) => respond(200, &format!("refused: {code}")),
        },
        _ => panic!("secret reason"),
    })
}

fn respond(status: u16, text: &str) -> Response<BoxBody> {
    let body = box_body(Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}));
    Response::builder().status(status).header("x-given", "yes").body(body).expect("it is a response")
}
